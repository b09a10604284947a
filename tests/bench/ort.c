/* The wheel of ONNX Runtime carries the library and no header. What is used of its C API is declared here: a table of
 * functions whose places never change (ONNX Runtime only adds at the end). That the places are right shows in the
 * scores, which the benchmark compares before it measures. */
#include "ort.h"

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>

#include "bench.h"

typedef struct OrtStatus OrtStatus; /* NULL: well */
typedef struct OrtObject OrtObject;
typedef void function(void);

enum {
    GET_ERROR_MESSAGE = 2,
    CREATE_ENV = 3,
    CREATE_SESSION = 7,
    RUN = 9,
    CREATE_SESSION_OPTIONS = 10,
    SET_GRAPH_OPTIMIZATION = 23,
    SET_INTRA_THREADS = 24,
    SET_INTER_THREADS = 25,
    INPUT_TYPE_INFO = 33,
    OUTPUT_TYPE_INFO = 34,
    INPUT_NAME = 36,
    OUTPUT_NAME = 37,
    TENSOR_WITH_DATA = 49,
    CAST_TYPE_INFO = 55,
    DIMENSIONS_COUNT = 61,
    DIMENSIONS = 62,
    CPU_MEMORY_INFO = 69,
    DEFAULT_ALLOCATOR = 78
};

struct base {
    const void *(*get_api)(uint32_t version);
    const char *(*get_version)(void);
};

enum { API_VERSION = 11, MOST_NUMBERS = 1 << 16, MOST_DIMENSIONS = 8, FLOAT = 1, ALL_OPTIMIZATIONS = 99 };

static function *const *table;
static const struct base *base;
static OrtObject *session, *input, *output;
static char *input_name, *output_name;
static float input_numbers[MOST_NUMBERS], output_numbers[MOST_NUMBERS];
static size_t input_count;

/* The function at a place of the table, as a function of these arguments; ends the program if it reports an error. */
#define CALL(place, types, ...) check(((OrtStatus *(*)types)table[place])(__VA_ARGS__), #place)

static void check(OrtStatus *status, const char *what) {
    if (status)
        die("ONNX Runtime: %s: %s", what, ((const char *(*)(OrtStatus *))table[GET_ERROR_MESSAGE])(status));
}

/* Binds an input or output of any shape (unknown dimensions: 1) to memory of ours. */
static OrtObject *bind(int type_info, float *numbers, size_t *count, OrtObject *memory) {
    OrtObject *type, *value;
    const OrtObject *tensor;
    size_t dimensions;
    int64_t shape[MOST_DIMENSIONS];
    CALL(type_info, (OrtObject *, size_t, OrtObject **), session, 0, &type);
    CALL(CAST_TYPE_INFO, (OrtObject *, const OrtObject **), type, &tensor);
    CALL(DIMENSIONS_COUNT, (const OrtObject *, size_t *), tensor, &dimensions);
    if (dimensions > MOST_DIMENSIONS)
        die("ONNX Runtime: %zu dimensions", dimensions);
    CALL(DIMENSIONS, (const OrtObject *, int64_t *, size_t), tensor, shape, dimensions);
    *count = 1;
    for (size_t at = 0; at < dimensions; at++) {
        shape[at] = shape[at] < 1 ? 1 : shape[at];
        *count *= (size_t)shape[at];
    }
    if (*count > MOST_NUMBERS)
        die("ONNX Runtime: an input of %zu numbers", *count);
    CALL(TENSOR_WITH_DATA, (OrtObject *, void *, size_t, const int64_t *, size_t, int, OrtObject **), memory, numbers, *count * sizeof *numbers, shape, dimensions, FLOAT,
         &value);
    return value;
}

void ort_open(const char *library, const char *model) {
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    const struct base *(*get_base)(void) = NULL;
    if (handle)
        *(void **)&get_base = dlsym(handle, "OrtGetApiBase");
    if (!get_base)
        die("%s: %s", library, dlerror());
    base = get_base();
    table = (function *const *)base->get_api(API_VERSION);
    if (!table)
        die("%s: does not have version %d of the API", library, API_VERSION);
    OrtObject *environment, *options, *memory, *allocator;
    size_t output_count;
    CALL(CREATE_ENV, (int, const char *, OrtObject **), 3, "bench", &environment);
    CALL(CREATE_SESSION_OPTIONS, (OrtObject **), &options);
    CALL(SET_INTRA_THREADS, (OrtObject *, int), options, 1);
    CALL(SET_INTER_THREADS, (OrtObject *, int), options, 1);
    CALL(SET_GRAPH_OPTIMIZATION, (OrtObject *, int), options, ALL_OPTIMIZATIONS);
    CALL(CREATE_SESSION, (OrtObject *, const char *, OrtObject *, OrtObject **), environment, model, options, &session);
    CALL(DEFAULT_ALLOCATOR, (OrtObject **), &allocator);
    CALL(INPUT_NAME, (OrtObject *, size_t, OrtObject *, char **), session, 0, allocator, &input_name);
    CALL(OUTPUT_NAME, (OrtObject *, size_t, OrtObject *, char **), session, 0, allocator, &output_name);
    CALL(CPU_MEMORY_INFO, (int, int, OrtObject **), 0, 0, &memory);
    input = bind(INPUT_TYPE_INFO, input_numbers, &input_count, memory);
    output = bind(OUTPUT_TYPE_INFO, output_numbers, &output_count, memory);
}

float *ort_input(size_t *count) {
    *count = input_count;
    return input_numbers;
}

float ort_run(void) {
    const char *const input_names[] = {input_name}, *const output_names[] = {output_name};
    const OrtObject *const inputs[] = {input};
    CALL(RUN, (OrtObject *, void *, const char *const *, const OrtObject *const *, size_t, const char *const *, size_t, OrtObject **), session, NULL, input_names, inputs, 1,
         output_names, 1, &output);
    return output_numbers[0];
}

const char *ort_version(void) { return base->get_version(); }

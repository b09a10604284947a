/* The wheel of ONNX Runtime carries the library and no header. What is used of its C API is declared here: a table of
 * functions whose places never change (ONNX Runtime only adds at the end). That the places are right shows in the
 * scores, which the benchmark compares before it measures. */
#include "ort.h"

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

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
    INPUT_COUNT = 30,
    OUTPUT_COUNT = 31,
    INPUT_TYPE_INFO = 33,
    OUTPUT_TYPE_INFO = 34,
    INPUT_NAME = 36,
    OUTPUT_NAME = 37,
    TENSOR_WITH_DATA = 49,
    CAST_TYPE_INFO = 55,
    ELEMENT_TYPE = 60,
    DIMENSIONS_COUNT = 61,
    DIMENSIONS = 62,
    CPU_MEMORY_INFO = 69,
    DEFAULT_ALLOCATOR = 78
};

struct base {
    const void *(*get_api)(uint32_t version);
    const char *(*get_version)(void);
};

enum { API_VERSION = 11, MOST_INPUTS = 8, MOST_DIMENSIONS = 8, MOST_BYTES = 1 << 16, FLOAT = 1, INT64 = 7, ALL_OPTIMIZATIONS = 99 };

static function *const *table;
static const struct base *base;
static OrtObject *session, *inputs[MOST_INPUTS], *output;
static char *input_names[MOST_INPUTS], *output_name;
static union {
    int64_t aligned;
    char bytes[MOST_BYTES];
} input_memory, output_memory;
static size_t input_count, input_bytes;

/* The function at a place of the table, as a function of these arguments; ends the program if it reports an error. */
#define CALL(place, types, ...) check(((OrtStatus *(*)types)table[place])(__VA_ARGS__), #place)

static void check(OrtStatus *status, const char *what) {
    if (status)
        die("ONNX Runtime: %s: %s", what, ((const char *(*)(OrtStatus *))table[GET_ERROR_MESSAGE])(status));
}

/* Binds an input or output of any shape (unknown dimensions: 1) to memory of ours, from `used` bytes on, and adds its bytes
 * to them. */
static OrtObject *bind(int type_info, size_t number, char *bytes, size_t *used, OrtObject *memory) {
    OrtObject *type, *value;
    const OrtObject *tensor;
    size_t dimensions;
    int element;
    int64_t shape[MOST_DIMENSIONS];
    CALL(type_info, (OrtObject *, size_t, OrtObject **), session, number, &type);
    CALL(CAST_TYPE_INFO, (OrtObject *, const OrtObject **), type, &tensor);
    CALL(ELEMENT_TYPE, (const OrtObject *, int *), tensor, &element);
    if (element != FLOAT && element != INT64)
        die("ONNX Runtime: an input or output of type %d", element);
    CALL(DIMENSIONS_COUNT, (const OrtObject *, size_t *), tensor, &dimensions);
    if (dimensions > MOST_DIMENSIONS)
        die("ONNX Runtime: %zu dimensions", dimensions);
    CALL(DIMENSIONS, (const OrtObject *, int64_t *, size_t), tensor, shape, dimensions);
    size_t width = element == FLOAT ? sizeof(float) : sizeof(int64_t), size = width;
    for (size_t at = 0; at < dimensions; at++) {
        shape[at] = shape[at] < 1 ? 1 : shape[at];
        size *= (size_t)shape[at];
    }
    if (*used % width != 0 || size > MOST_BYTES - *used)
        die("ONNX Runtime: an input or output of %zu bytes, from byte %zu on", size, *used);
    CALL(TENSOR_WITH_DATA, (OrtObject *, void *, size_t, const int64_t *, size_t, int, OrtObject **), memory, bytes + *used, size, shape, dimensions, element, &value);
    *used += size;
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
    size_t output_count, output_number, output_bytes = 0;
    CALL(CREATE_ENV, (int, const char *, OrtObject **), 3, "bench", &environment);
    CALL(CREATE_SESSION_OPTIONS, (OrtObject **), &options);
    CALL(SET_INTRA_THREADS, (OrtObject *, int), options, 1);
    CALL(SET_INTER_THREADS, (OrtObject *, int), options, 1);
    CALL(SET_GRAPH_OPTIMIZATION, (OrtObject *, int), options, ALL_OPTIMIZATIONS);
    CALL(CREATE_SESSION, (OrtObject *, const char *, OrtObject *, OrtObject **), environment, model, options, &session);
    CALL(DEFAULT_ALLOCATOR, (OrtObject **), &allocator);
    CALL(CPU_MEMORY_INFO, (int, int, OrtObject **), 0, 0, &memory);
    CALL(INPUT_COUNT, (OrtObject *, size_t *), session, &input_count);
    if (input_count > MOST_INPUTS)
        die("%s: %zu inputs", model, input_count);
    for (size_t at = 0; at < input_count; at++) {
        CALL(INPUT_NAME, (OrtObject *, size_t, OrtObject *, char **), session, at, allocator, &input_names[at]);
        inputs[at] = bind(INPUT_TYPE_INFO, at, input_memory.bytes, &input_bytes, memory);
    }
    CALL(OUTPUT_COUNT, (OrtObject *, size_t *), session, &output_count);
    for (output_number = 0; output_number < output_count; output_number++) {
        CALL(OUTPUT_NAME, (OrtObject *, size_t, OrtObject *, char **), session, output_number, allocator, &output_name);
        if (output_count == 1 || strcmp(output_name, "score") == 0)
            break;
    }
    if (output_number == output_count)
        die("%s: no output named score", model);
    output = bind(OUTPUT_TYPE_INFO, output_number, output_memory.bytes, &output_bytes, memory);
}

void *ort_inputs(size_t *bytes) {
    *bytes = input_bytes;
    return input_memory.bytes;
}

float ort_run(void) {
    CALL(RUN, (OrtObject *, void *, char *const *, OrtObject *const *, size_t, char *const *, size_t, OrtObject **), session, NULL, input_names, inputs, input_count,
         &output_name, 1, &output);
    float score;
    memcpy(&score, output_memory.bytes, sizeof score);
    return score;
}

const char *ort_version(void) { return base->get_version(); }

/* What it costs to have it: from nothing to the first verdict, and the memory that is resident afterwards. One process a
 * measurement, because a second init finds everything warm.
 *   start mlbridge LIBRARY MODEL_DIR|-     start ort LIBRARY MODEL_DIR
 * Prints: milliseconds to load the library, to init, processor time of that init, milliseconds to the first verdict after
 * it, KiB of resident memory added. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "ort.h"

static long resident_kib(void) {
    long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%ld %ld", &size, &resident) != 2)
        die("/proc/self/statm");
    fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static void *library;

static void *symbol(const char *name) {
    void *address = dlsym(library, name);
    if (!address)
        die("%s", dlerror());
    return address;
}

/* Names of all kinds, so that what is read lazily is resident too. */
static const char *const names[] = {"www.example.com", "xkqjzzq7.example.net", "a-rather-long-label-0123456789.sub.domain.example.co.uk", "b\xc3\xbc" "cher.example"};

static void start_mlbridge(const char *path, const char *model, int64_t *times, int64_t *cpu) {
    times[0] = wall_ns();
    library = dlopen(path, RTLD_NOW);
    if (!library)
        die("%s", dlerror());
    mlb_status (*config_new)(mlb_config **), (*config_set)(mlb_config *, const char *, const char *, char *, size_t);
    mlb_status (*init)(const mlb_config *, mlb_engine **, char *, size_t);
    mlb_status (*ask)(const mlb_engine *, const char *, size_t, const uint8_t *, size_t, uint16_t, mlb_verdict *);
    *(void **)&config_new = symbol("mlb_config_new");
    *(void **)&config_set = symbol("mlb_config_set");
    *(void **)&init = symbol("mlb_init");
    *(void **)&ask = symbol("mlb_classify");
    mlb_config *config;
    mlb_engine *engine;
    char err[512] = "";
    cpu[0] = process_cpu_ns();
    times[1] = wall_ns();
    if (config_new(&config) != MLB_OK || (strcmp(model, "-") && config_set(config, "model.path", model, err, sizeof err) != MLB_OK) || init(config, &engine, err, sizeof err) != MLB_OK)
        die("%s", err);
    times[2] = wall_ns();
    cpu[1] = process_cpu_ns();
    for (size_t at = 0; at < sizeof names / sizeof names[0]; at++) {
        mlb_verdict verdict;
        if (ask(engine, names[at], strlen(names[at]), NULL, 0, 1, &verdict) != MLB_OK)
            die("%s", names[at]);
        if (at == 0)
            times[3] = wall_ns();
    }
}

int main(int count, char **arguments) {
    if (count != 4)
        die("use: start mlbridge|ort LIBRARY MODEL_DIR");
    int64_t times[4], cpu[2];
    long before = resident_kib();
    if (strcmp(arguments[1], "ort") == 0) {
        char model[600];
        snprintf(model, sizeof model, "%s/model.onnx", arguments[3]);
        times[0] = wall_ns();
        if (!dlopen(arguments[2], RTLD_NOW))
            die("%s", dlerror());
        cpu[0] = process_cpu_ns();
        times[1] = wall_ns();
        ort_open(arguments[2], model);
        times[2] = wall_ns();
        cpu[1] = process_cpu_ns();
        ort_run();
        times[3] = wall_ns();
    } else {
        start_mlbridge(arguments[2], arguments[3], times, cpu);
    }
    printf("%.3f %.3f %.3f %.3f %ld\n", (double)(times[1] - times[0]) / 1e6, (double)(times[2] - times[1]) / 1e6, (double)(cpu[1] - cpu[0]) / 1e6,
           (double)(times[3] - times[2]) / 1e6, resident_kib() - before);
    return 0;
}

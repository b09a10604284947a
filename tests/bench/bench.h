/* What the benchmarks share: clocks, medians, names.
 *
 * Other work shares the machine. So times of one thread are its CPU time, blocks of the things compared follow each other
 * in every round, and the median over the rounds is what counts; the ratios between things of one run say more than the
 * times. Percentiles of single calls are wall-clock time and hold whatever interrupted them. */
#ifndef MLBRIDGE_BENCH_H
#define MLBRIDGE_BENCH_H

#include <stddef.h>
#include <stdint.h>

#include "mlbridge.h"

enum { MAX_NAME = 300 };

struct name {
    uint16_t length;
    char text[MAX_NAME];
};

/* Ends the program with a message. */
void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

int64_t thread_cpu_ns(void);
int64_t process_cpu_ns(void);
int64_t wall_ns(void);

/* The value at a share (0.5: median) of the values, which are put in order. */
double quantile(double *values, size_t count, double share);

/* Real names, of a file with a name at the start of each line. */
void read_names(const char *path);
size_t name_count(void);
const struct name *real_name(size_t number);
/* A name that nobody asked before, by its number (below 26^4): four letters before a real name. */
struct name fresh_name(size_t number);

/* Settings as keys and values in turn, NULL at the end. */
mlb_engine *open_engine(const char *const *settings);
/* Asks for a name; ends the program if it gets no verdict. */
mlb_verdict classify(const mlb_engine *engine, const struct name *name);
mlb_stats counters(const mlb_engine *engine);

#endif

#include "bench.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static int64_t now_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int64_t thread_cpu_ns(void) { return now_ns(CLOCK_THREAD_CPUTIME_ID); }
int64_t process_cpu_ns(void) { return now_ns(CLOCK_PROCESS_CPUTIME_ID); }
int64_t wall_ns(void) { return now_ns(CLOCK_MONOTONIC); }

static int by_value(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

double quantile(double *values, size_t length, double share) {
    qsort(values, length, sizeof *values, by_value);
    size_t at = (size_t)(share * (double)length);
    return values[at < length ? at : length - 1];
}

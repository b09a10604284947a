/* ONNX Runtime through its C API, loaded at run time: one session of one thread, batch 1, inputs and output bound once. */
#ifndef MLBRIDGE_BENCH_ORT_H
#define MLBRIDGE_BENCH_ORT_H

#include <stddef.h>

/* Loads the library and the model; ends the program if that fails. The model has one float input and one float output. */
void ort_open(const char *library, const char *model);
/* The input's numbers, to be filled before each run, and how many there are. */
float *ort_input(size_t *count);
/* Runs the model; gives the first number of its output. */
float ort_run(void);
const char *ort_version(void);

#endif

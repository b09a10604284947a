/* ONNX Runtime through its C API, loaded at run time: one session of one thread, batch 1, inputs and output bound once.
 * Inputs are of float or int64. */
#ifndef MLBRIDGE_BENCH_ORT_H
#define MLBRIDGE_BENCH_ORT_H

#include <stddef.h>

/* Loads the library and the model; ends the program if that fails. */
void ort_open(const char *library, const char *model);
/* The memory of all inputs, one behind the other in the model's order, to be filled before each run; and its size. */
void *ort_inputs(size_t *bytes);
/* Runs the model; gives the first number of its float output, of `score` if there are several. */
float ort_run(void);
const char *ort_version(void);

#endif

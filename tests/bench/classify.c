/* What a call costs: from the cache, through the model, beside another thread, while the worker is stuck; and what ONNX
 * Runtime needs for the same model in the same run.
 *   classify MODEL_DIR NAMES STATE_DIR INPUTS|- [ORT_LIBRARY]
 * INPUTS: the default model's inputs for each of the names, one name behind the other, as tests/bench/encode.rs writes
 * them; with - the inputs are the name's code points. Prints a markdown table. */
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "ort.h"

enum { ROUNDS = 15, WARM = 1024, CACHED_CALLS = 200000, MODEL_CALLS = 6000, NOTHING_CALLS = 1000000 };

/* One thing that is measured: CPU time of a call in each round, and wall-clock time of single calls. */
struct series {
    const char *name;
    double cpu[ROUNDS];
    double wall[ROUNDS * MODEL_CALLS];
    size_t rounds, calls;
};

enum subject {
    NOTHING,
    CACHED,
    CACHED_EVENT,
    CACHED_STUCK,
    FRESH,
    FRESH_EVENT,
    FRESH_STUCK,
    TRACT,
    ORT,
    CACHED_ALONE,
    CACHED_BESIDE,
    FRESH_ALONE,
    FRESH_BESIDE,
    TRACT_ALONE,
    TRACT_BESIDE,
    SUBJECTS
};

static struct series series[SUBJECTS] = {
    {.name = "a call that does nothing (`mlb_abi_version`)"},
    {.name = "cached"},
    {.name = "cached, each an event (coalesced by the worker)"},
    {.name = "the same while the worker is stuck (database locked, queue full)"},
    {.name = "new name"},
    {.name = "new name, each an event"},
    {.name = "the same while the worker is stuck"},
    {.name = "no cache, `model.engine = tract`"},
    {.name = "ONNX Runtime, C API, same file (names encoded before)"},
    {.name = "cached, one thread"},
    {.name = "cached, two threads at once"},
    {.name = "new name, one thread"},
    {.name = "new name, two threads at once"},
    {.name = "tract, one thread"},
    {.name = "tract, two threads at once"},
};

static mlb_engine *plain, *events, *tract;
static size_t next_fresh;

static void add(enum subject subject, int64_t cpu, size_t calls) {
    struct series *of = &series[subject];
    of->cpu[of->rounds++] = (double)cpu / (double)calls;
}

/* Real names that the cache holds. Of the warm ones a few share a place in it with another and are never found: they are
 * left out, as each would cost a call of the model. */
static double cached_block(const mlb_engine *engine, size_t calls) {
    const struct name *held[WARM];
    size_t count = 0;
    for (size_t at = 0; at < WARM; at++)
        classify(engine, real_name(at));
    for (size_t at = 0; at < WARM; at++)
        if (classify(engine, real_name(at)).flags & MLB_FLAG_CACHED)
            held[count++] = real_name(at);
    if (count < WARM * 9 / 10)
        die("the cache holds only %zu of %d names", count, WARM);
    for (size_t at = 0; at < count; at++) /* those that another has just put out */
        classify(engine, held[at]);
    int64_t start = thread_cpu_ns();
    for (size_t call = 0, at = 0; call < calls; call++, at = at + 1 < count ? at + 1 : 0)
        classify(engine, held[at]);
    return (double)(thread_cpu_ns() - start) / (double)calls;
}

/* Names never asked before, prepared outside the measured time; each call is timed alone as well. */
static void fresh_block(const mlb_engine *engine, enum subject subject) {
    static struct name names[MODEL_CALLS];
    for (size_t at = 0; at < MODEL_CALLS; at++)
        names[at] = fresh_name(next_fresh++);
    struct series *of = &series[subject];
    int64_t cpu = thread_cpu_ns(), before = wall_ns();
    for (size_t at = 0; at < MODEL_CALLS; at++) {
        if (classify(engine, &names[at]).flags & MLB_FLAG_CACHED)
            die("%s was not new", names[at].text);
        int64_t now = wall_ns();
        of->wall[of->calls++] = (double)(now - before);
        before = now;
    }
    add(subject, thread_cpu_ns() - cpu, MODEL_CALLS);
}

/* ONNX Runtime's inputs for the real names, one name behind the other. */
static char *encoded;
static size_t encoded_bytes;

static void encode_codepoints(void) {
    encoded = calloc(name_count(), encoded_bytes);
    for (size_t at = 0; at < name_count(); at++) {
        const struct name *name = real_name(at);
        float *input = (float *)(encoded + at * encoded_bytes);
        for (size_t byte = 0; byte < name->length; byte++)
            input[byte] = (float)(unsigned char)name->text[byte];
    }
}

static void read_encoded(const char *path) {
    size_t size = name_count() * encoded_bytes;
    FILE *file = fopen(path, "rb");
    encoded = malloc(size);
    if (!file || fread(encoded, 1, size, file) != size || fgetc(file) != EOF)
        die("%s: does not hold %zu bytes for each of %zu names", path, encoded_bytes, name_count());
    fclose(file);
}

static float ort_score(size_t number) {
    memcpy(ort_inputs(&encoded_bytes), encoded + number % name_count() * encoded_bytes, encoded_bytes);
    return ort_run();
}

static void ort_block(void) {
    struct series *of = &series[ORT];
    int64_t cpu = thread_cpu_ns(), before = wall_ns();
    for (size_t at = 0; at < MODEL_CALLS; at++) {
        ort_score(at);
        int64_t now = wall_ns();
        of->wall[of->calls++] = (double)(now - before);
        before = now;
    }
    add(ORT, thread_cpu_ns() - cpu, MODEL_CALLS);
}

static void tract_block(void) {
    struct series *of = &series[TRACT];
    int64_t cpu = thread_cpu_ns(), before = wall_ns();
    for (size_t at = 0; at < MODEL_CALLS; at++) {
        classify(tract, real_name(at));
        int64_t now = wall_ns();
        of->wall[of->calls++] = (double)(now - before);
        before = now;
    }
    add(TRACT, thread_cpu_ns() - cpu, MODEL_CALLS);
}

/* The same scores on all sides, or the comparison says nothing. */
static void compare_scores(void) {
    for (size_t at = 0; at < name_count(); at++) {
        const char *text = real_name(at)->text;
        size_t length = real_name(at)->length;
        float theirs = ort_score(at), ours[2];
        if (mlb_score_batch(plain, &text, &length, 1, &ours[0]) != MLB_OK || mlb_score_batch(tract, &text, &length, 1, &ours[1]) != MLB_OK)
            die("%s: no score", text);
        if (!(fabsf(theirs - ours[0]) <= 1e-5F && fabsf(theirs - ours[1]) <= 1e-5F))
            die("%s: %.9g by ONNX Runtime, %.9g by mlbridge, %.9g through tract", text, theirs, ours[0], ours[1]);
    }
}

/* A thread that runs a block at the same time as others; twice, as the first time makes the processor's caches warm. */
struct side {
    pthread_barrier_t *start;
    enum subject alone; /* CACHED_ALONE, FRESH_ALONE or TRACT_ALONE */
    size_t first_fresh;
    double cpu; /* of a call, the second time */
};

static void *run_side(void *argument) {
    struct side *side = argument;
    const mlb_engine *engine = side->alone == TRACT_ALONE ? tract : plain;
    struct name *names = malloc(MODEL_CALLS * sizeof *names);
    for (size_t time = 0; time < 2; time++) {
        for (size_t at = 0; at < MODEL_CALLS; at++)
            names[at] = side->alone == FRESH_ALONE ? fresh_name(side->first_fresh + time * MODEL_CALLS + at) : *real_name(at);
        pthread_barrier_wait(side->start);
        if (side->alone == CACHED_ALONE) {
            side->cpu = cached_block(engine, CACHED_CALLS);
            continue;
        }
        int64_t start = thread_cpu_ns();
        for (size_t at = 0; at < MODEL_CALLS; at++)
            classify(engine, &names[at]);
        side->cpu = (double)(thread_cpu_ns() - start) / MODEL_CALLS;
    }
    free(names);
    return NULL;
}

/* CPU time of a call, the mean of the threads. */
static void together(size_t count, enum subject alone, enum subject subject) {
    pthread_barrier_t start;
    pthread_t threads[2];
    struct side sides[2];
    double sum = 0;
    pthread_barrier_init(&start, NULL, (unsigned)count);
    for (size_t at = 0; at < count; at++) {
        sides[at] = (struct side){&start, alone, next_fresh, 0};
        next_fresh += alone == FRESH_ALONE ? 2 * MODEL_CALLS : 0;
        pthread_create(&threads[at], NULL, run_side, &sides[at]);
    }
    for (size_t at = 0; at < count; at++) {
        pthread_join(threads[at], NULL);
        sum += sides[at].cpu;
    }
    pthread_barrier_destroy(&start);
    series[subject].cpu[series[subject].rounds++] = sum / (double)count;
}

/* Another process that has locked the database: an sqlite3 that waits for our word. */
static pid_t lock_database(const char *state, FILE **to) {
    int in[2], out[2];
    char path[600], answer[16];
    if (pipe(in) != 0 || pipe(out) != 0)
        die("pipe");
    snprintf(path, sizeof path, "%s/mlbridge.db", state);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        close(in[1]);
        close(out[0]);
        execlp("sqlite3", "sqlite3", "-batch", "-cmd", ".timeout 10000", path, (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    *to = fdopen(in[1], "w");
    fprintf(*to, "BEGIN EXCLUSIVE;\n.print held\n");
    fflush(*to);
    if (read(out[0], answer, sizeof answer) < 4)
        die("sqlite3 did not lock %s", path);
    close(out[0]);
    return pid;
}

static void stuck_round(const char *state) {
    FILE *to;
    if (mlb_flush(events, 60000) != MLB_OK)
        die("flush");
    add(CACHED_EVENT, (int64_t)(cached_block(events, CACHED_CALLS) * CACHED_CALLS), CACHED_CALLS);
    fresh_block(events, FRESH_EVENT);
    if (mlb_flush(events, 60000) != MLB_OK)
        die("flush");
    pid_t holder = lock_database(state, &to);
    cached_block(events, CACHED_CALLS / 4); /* until the queue is full */
    uint64_t lost = counters(events).dropped_queue;
    add(CACHED_STUCK, (int64_t)(cached_block(events, CACHED_CALLS) * CACHED_CALLS), CACHED_CALLS);
    fresh_block(events, FRESH_STUCK);
    if (counters(events).dropped_queue < lost + CACHED_CALLS)
        die("the worker was not stuck");
    fclose(to);
    waitpid(holder, NULL, 0);
}

static double median(enum subject subject) {
    return quantile(series[subject].cpu, series[subject].rounds, 0.5);
}

static void row(enum subject subject, const char *aim) {
    struct series *of = &series[subject];
    double cpu = median(subject);
    const char *form = cpu < 1000 ? "%.1f ns" : "%.2f us";
    char time[32], ratio[32] = "", p50[32] = "", p99[32] = "";
    snprintf(time, sizeof time, form, cpu < 1000 ? cpu : cpu / 1000);
    if (of->calls) {
        snprintf(p50, sizeof p50, "%.2f us", quantile(of->wall, of->calls, 0.5) / 1000);
        snprintf(p99, sizeof p99, "%.2f us", quantile(of->wall, of->calls, 0.99) / 1000);
    }
    if (series[ORT].rounds)
        snprintf(ratio, sizeof ratio, cpu / median(ORT) < 0.1 ? "%.4f" : "%.2f", cpu / median(ORT));
    printf("| %s | %s | %s | %s | %s | %s |\n", of->name, time, p50, p99, ratio, aim);
}

int main(int count, char **arguments) {
    if (count < 5)
        die("use: classify MODEL_DIR NAMES STATE_DIR INPUTS|- [ORT_LIBRARY]");
    bool with_ort = count > 5, is_default = strcmp(arguments[4], "-") != 0;
    char onnx[600];
    snprintf(onnx, sizeof onnx, "%s/model.onnx", arguments[1]);
    read_names(arguments[2]);
    plain = open_engine((const char *const[]){"model.path", arguments[1], NULL});
    events = open_engine((const char *const[]){"model.path", arguments[1], "state_dir", arguments[3], "record.allow", "all", NULL});
    tract = open_engine((const char *const[]){"model.path", arguments[1], "model.engine", "tract", "cache.entries", "0", NULL});
    if (with_ort) {
        ort_open(arguments[5], onnx);
        ort_inputs(&encoded_bytes);
        if (is_default)
            read_encoded(arguments[4]);
        else
            encode_codepoints();
        compare_scores();
    }
    for (int round = 0; round < ROUNDS; round++) {
        int64_t start = thread_cpu_ns();
        for (int call = 0; call < NOTHING_CALLS; call++)
            mlb_abi_version();
        add(NOTHING, thread_cpu_ns() - start, NOTHING_CALLS);
        add(CACHED, (int64_t)(cached_block(plain, CACHED_CALLS) * CACHED_CALLS), CACHED_CALLS);
        fresh_block(plain, FRESH);
        tract_block();
        if (with_ort)
            ort_block();
        for (enum subject alone = CACHED_ALONE; alone <= TRACT_ALONE; alone += 2) {
            together(1, alone, alone);
            together(2, alone, alone + 1);
        }
        stuck_round(arguments[3]);
    }
    printf("| call | CPU time | wall p50 | wall p99 | against ONNX Runtime | aim |\n|---|---:|---:|---:|---:|---|\n");
    row(NOTHING, "");
    row(CACHED, "<= 60 ns");
    row(CACHED_EVENT, "");
    row(CACHED_STUCK, "as the row above");
    row(FRESH, is_default ? "p50 <= 1.5 us; <= 0.20 of ONNX Runtime" : "");
    row(FRESH_EVENT, "");
    row(FRESH_STUCK, "as the row above");
    row(TRACT, is_default ? "" : "<= 25 us");
    if (with_ort)
        row(ORT, "");
    for (enum subject alone = CACHED_ALONE; alone <= TRACT_ALONE; alone += 2) {
        row(alone, "");
        row(alone + 1, "1.95 times the work of one");
    }
    printf("\nTwo threads do the work of one %.2f times (cached), %.2f times (new name) and %.2f times (tract) in the same CPU time of each; aim 1.95. ",
           2 * median(CACHED_ALONE) / median(CACHED_BESIDE), 2 * median(FRESH_ALONE) / median(FRESH_BESIDE), 2 * median(TRACT_ALONE) / median(TRACT_BESIDE));
    printf("While the worker is stuck a cached call costs %.2f and a new name %.2f of what it costs otherwise.\n", median(CACHED_STUCK) / median(CACHED_EVENT),
           median(FRESH_STUCK) / median(FRESH_EVENT));
    if (with_ort)
        printf("ONNX Runtime %s, one thread, all optimisations, inputs and output bound once, takes %.1f times as long as a new name (p50 of both)%s.\n", ort_version(),
               quantile(series[ORT].wall, series[ORT].calls, 0.5) / quantile(series[FRESH].wall, series[FRESH].calls, 0.5), is_default ? "; aim 5" : "");
    mlb_free(plain);
    mlb_free(events);
    mlb_free(tract);
    return 0;
}

/* What a call costs: from the cache, through the model, beside another thread, while the worker is stuck; and what ONNX
 * Runtime needs for the same model in the same run.
 *   classify MODEL_DIR NAMES STATE_DIR [ORT_LIBRARY]
 * Prints a markdown table. */
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

enum { ROUNDS = 15, WARM = 1024, CACHED_CALLS = 200000, MODEL_CALLS = 1500, NOTHING_CALLS = 1000000 };

/* One thing that is measured: CPU time of a call in each round, and wall-clock time of single calls. */
struct series {
    const char *name;
    double cpu[ROUNDS];
    double wall[ROUNDS * MODEL_CALLS];
    size_t rounds, calls;
};

enum subject { NOTHING, CACHED, CACHED_EVENT, CACHED_STUCK, FRESH, FRESH_EVENT, FRESH_STUCK, EMBEDDED, EMBEDDED_TRACT, TRACT, ORT, CACHED_ALONE, CACHED_BESIDE, TRACT_ALONE, TRACT_BESIDE, SUBJECTS };

static struct series series[SUBJECTS] = {
    {.name = "a call that does nothing (`mlb_abi_version`)"},
    {.name = "cached"},
    {.name = "cached, each an event (coalesced by the worker)"},
    {.name = "the same while the worker is stuck (database locked, queue full)"},
    {.name = "new name, `model.engine = auto`"},
    {.name = "new name, each an event"},
    {.name = "the same while the worker is stuck"},
    {.name = "new name, embedded model"},
    {.name = "new name, embedded model, `model.engine = tract`"},
    {.name = "no cache, `model.engine = tract`"},
    {.name = "ONNX Runtime, C API, same file (run alone, input filled)"},
    {.name = "cached, one thread"},
    {.name = "cached, two threads at once"},
    {.name = "tract, one thread"},
    {.name = "tract, two threads at once"},
};

static mlb_engine *plain, *events, *tract, *embedded, *embedded_tract;
static size_t next_fresh;

static void add(enum subject subject, int64_t cpu, size_t calls) {
    struct series *of = &series[subject];
    of->cpu[of->rounds++] = (double)cpu / (double)calls;
}

/* The warm names: real ones, all of them in the cache after the first round. */
static double cached_block(const mlb_engine *engine, size_t calls) {
    int64_t start = thread_cpu_ns();
    for (size_t call = 0; call < calls; call++)
        classify(engine, real_name(call % WARM));
    return (double)(thread_cpu_ns() - start) / (double)calls;
}

static double tract_block(size_t calls) {
    int64_t start = thread_cpu_ns();
    for (size_t call = 0; call < calls; call++)
        classify(tract, real_name(call));
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

static void ort_block(void) {
    size_t size;
    float *input = ort_input(&size);
    struct series *of = &series[ORT];
    int64_t cpu = thread_cpu_ns(), before = wall_ns();
    for (size_t at = 0; at < MODEL_CALLS; at++) {
        const struct name *name = real_name(at);
        memset(input, 0, size * sizeof *input);
        for (size_t byte = 0; byte < name->length; byte++)
            input[byte] = (float)(unsigned char)name->text[byte];
        ort_run();
        int64_t now = wall_ns();
        of->wall[of->calls++] = (double)(now - before);
        before = now;
    }
    add(ORT, thread_cpu_ns() - cpu, MODEL_CALLS);
}

static void tract_timed_block(void) {
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

/* The same scores on both sides, or the comparison says nothing. */
static void compare_scores(void) {
    size_t size;
    float *input = ort_input(&size);
    for (size_t at = 0; at < 500; at++) {
        const struct name *name = real_name(at);
        memset(input, 0, size * sizeof *input);
        for (size_t byte = 0; byte < name->length; byte++)
            input[byte] = (float)(unsigned char)name->text[byte];
        float theirs = ort_run(), ours = 0;
        const char *text = name->text;
        size_t length = name->length;
        if (mlb_score_batch(tract, &text, &length, 1, &ours) != MLB_OK || !(fabsf(theirs - ours) <= 1e-5F))
            die("%s: %.9g by ONNX Runtime, %.9g by mlbridge", text, theirs, ours);
    }
}

/* Two threads run a block at the same time; both sides' CPU time a call, the mean of the two. */
struct beside {
    pthread_barrier_t *start;
    bool through_tract;
    double cpu;
};

static void *run_beside(void *argument) {
    struct beside *beside = argument;
    pthread_barrier_wait(beside->start);
    beside->cpu = beside->through_tract ? tract_block(MODEL_CALLS) : cached_block(plain, CACHED_CALLS);
    return NULL;
}

static void two_threads(bool through_tract, enum subject subject) {
    pthread_barrier_t start;
    pthread_t threads[2];
    struct beside sides[2];
    pthread_barrier_init(&start, NULL, 2);
    for (int at = 0; at < 2; at++) {
        sides[at] = (struct beside){&start, through_tract, 0};
        pthread_create(&threads[at], NULL, run_beside, &sides[at]);
    }
    for (int at = 0; at < 2; at++)
        pthread_join(threads[at], NULL);
    pthread_barrier_destroy(&start);
    series[subject].cpu[series[subject].rounds++] = (sides[0].cpu + sides[1].cpu) / 2;
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
    if (count < 4)
        die("use: classify MODEL_DIR NAMES STATE_DIR [ORT_LIBRARY]");
    char onnx[600];
    snprintf(onnx, sizeof onnx, "%s/model.onnx", arguments[1]);
    read_names(arguments[2]);
    bool with_ort = count > 4;
    const char *const *no_settings = (const char *const[]){"model.path", arguments[1], NULL};
    plain = open_engine(no_settings);
    events = open_engine((const char *const[]){"model.path", arguments[1], "state_dir", arguments[3], "record.allow", "all", NULL});
    tract = open_engine((const char *const[]){"model.path", arguments[1], "model.engine", "tract", "cache.entries", "0", NULL});
    embedded = open_engine((const char *const[]){NULL});
    embedded_tract = open_engine((const char *const[]){"model.engine", "tract", NULL});
    if (with_ort) {
        ort_open(arguments[4], onnx);
        compare_scores();
    }
    cached_block(plain, WARM * 2);
    cached_block(events, WARM * 2);
    for (int round = 0; round < ROUNDS; round++) {
        int64_t start = thread_cpu_ns();
        for (int call = 0; call < NOTHING_CALLS; call++)
            mlb_abi_version();
        add(NOTHING, thread_cpu_ns() - start, NOTHING_CALLS);
        add(CACHED, (int64_t)(cached_block(plain, CACHED_CALLS) * CACHED_CALLS), CACHED_CALLS);
        fresh_block(plain, FRESH);
        fresh_block(embedded, EMBEDDED);
        fresh_block(embedded_tract, EMBEDDED_TRACT);
        tract_timed_block();
        if (with_ort)
            ort_block();
        add(CACHED_ALONE, (int64_t)(cached_block(plain, CACHED_CALLS) * CACHED_CALLS), CACHED_CALLS);
        two_threads(false, CACHED_BESIDE);
        add(TRACT_ALONE, (int64_t)(tract_block(MODEL_CALLS) * MODEL_CALLS), MODEL_CALLS);
        two_threads(true, TRACT_BESIDE);
        stuck_round(arguments[3]);
    }
    printf("| call | CPU time | wall p50 | wall p99 | against ONNX Runtime | aim |\n|---|---:|---:|---:|---:|---|\n");
    row(NOTHING, "");
    row(CACHED, "<= 60 ns");
    row(CACHED_EVENT, "");
    row(CACHED_STUCK, "as the row above");
    row(FRESH, "");
    row(FRESH_EVENT, "");
    row(FRESH_STUCK, "as the row above");
    row(EMBEDDED, "<= 1.5 us (p50)");
    row(EMBEDDED_TRACT, "");
    row(TRACT, "<= 25 us");
    if (with_ort)
        row(ORT, "");
    row(CACHED_ALONE, "");
    row(CACHED_BESIDE, "");
    row(TRACT_ALONE, "");
    row(TRACT_BESIDE, "");
    printf("\nTwo threads do the work of one %.2f times (cached) and %.2f times (tract) in the same CPU time of each; aim 1.95. ", 2 * median(CACHED_ALONE) / median(CACHED_BESIDE),
           2 * median(TRACT_ALONE) / median(TRACT_BESIDE));
    printf("While the worker is stuck a cached call costs %.2f and a new name %.2f of what it costs otherwise.\n", median(CACHED_STUCK) / median(CACHED_EVENT),
           median(FRESH_STUCK) / median(FRESH_EVENT));
    if (with_ort)
        printf("ONNX Runtime %s, one thread, all optimisations, input and output bound once.\n", ort_version());
    mlb_free(plain);
    mlb_free(events);
    mlb_free(tract);
    mlb_free(embedded);
    mlb_free(embedded_tract);
    return 0;
}

/* Hosts give their threads small stacks: 80 KiB are enough for every call on an engine, through tract as well, and for
 * the making of an engine 256 KiB. */
#include "common.h"

#include <sys/mman.h>

struct job {
    void (*body)(void);
    size_t size, used;
};

static mlb_engine *engine;
static int number;

static void classify(void) {
    char name[300] = "", text[8192];
    size_t need;
    mlb_verdict verdict;
    ask_many(engine, "small-stack", number++, 1);
    for (size_t at = 0; at < 253; at++)
        name[at] = at % 50 == 49 ? '.' : (char)('a' + (at + (size_t)number) % 26);
    EXPECT(mlb_classify(engine, name, 253, NULL, 0, 1, &verdict) == MLB_OK, "a long name");
    EXPECT(mlb_classify(engine, "b\xc3\xbc" "cher.example", 14, NULL, 0, 1, &verdict) == MLB_OK, "an international name");
    const char *const names[] = {"example.com"};
    const size_t lengths[] = {11};
    float score;
    EXPECT(mlb_score_batch(engine, names, lengths, 1, &score) == MLB_OK, "mlb_score_batch");
    mlb_stats stats;
    EXPECT(mlb_stats_get(engine, &stats, sizeof stats) == MLB_OK, "mlb_stats_get");
    EXPECT(mlb_sink_error(engine, text, sizeof text) == MLB_OK, "mlb_sink_error");
    EXPECT(mlb_message(engine, text, sizeof text, NULL) != MLB_E_PANIC, "mlb_message");
    (void)need;
}

static void texts(void) {
    static char text[1 << 16];
    size_t need;
    EXPECT(mlb_explain(engine, "www.example.com", 15, text, sizeof text, &need) == MLB_OK, "mlb_explain");
    EXPECT(mlb_metrics(engine, text, sizeof text, &need) == MLB_OK, "mlb_metrics");
    EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "mlb_flush");
}

static void whole_life(void) {
    mlb_engine *own = NULL;
    EXPECT(mlb_init(NULL, &own, NULL, 0) == MLB_OK, "mlb_init");
    if (own)
        ask(own, "www.example.com");
    mlb_free(own);
}

static void *run(void *argument) {
    ((struct job *)argument)->body();
    return NULL;
}

/* Runs the body on a stack of its own with a guard page below, and finds how deep it went. */
static void on_stack(struct job *job, const char *what) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *memory = mmap(NULL, job->size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED && mprotect(memory, page, PROT_NONE) == 0, "mmap");
    memset(memory + page, 0xa5, job->size);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    int error = pthread_attr_setstack(&attributes, memory + page, job->size);
    pthread_t thread;
    if (!error)
        error = pthread_create(&thread, &attributes, run, job);
    REQUIRE(!error, "%s: a thread of %zu bytes: %s", what, job->size, strerror(error));
    join_thread(thread);
    size_t unused = 0;
    while (!getenv("MLB_QUICK") /* to valgrind the stack of a thread that has ended is nobody's memory */ && unused < job->size && memory[page + unused] == 0xa5)
        unused++;
    job->used = job->size - unused;
    pthread_attr_destroy(&attributes);
    munmap(memory, job->size + page);
}

int main(void) {
    struct job calls = {classify, 80 << 10, 0}, writing = {texts, 80 << 10, 0}, making = {whole_life, 256 << 10, 0};
    const char *state = format_path("%s/state", scratch());
    static const char *const engines[] = {"tract", "auto"};
    for (int at = 0; at < 2; at++) {
        engine = init(SETTINGS("model.engine", engines[at], "cache.entries", "0", "state_dir", state, "record.allow", "all"));
        for (int round = 0; round < 5; round++)
            on_stack(&calls, engines[at]);
        on_stack(&writing, "texts");
        if (!getenv("MLB_QUICK"))
            printf("(stack through %s: %zu bytes, texts %zu) ", engines[at], calls.used, writing.used);
        end(engine);
    }
    on_stack(&making, "init");
    if (!getenv("MLB_QUICK"))
        printf("(init: %zu bytes) ", making.used);
    return finish();
}

/* A panic inside gives MLB_E_PANIC and a zeroed verdict, the host goes on; a panic of the worker thread too loses at
 * most what it held, is counted, and the worker works on. Nothing is printed. */
#include "common.h"

static void in_a_call(void) {
    mlb_engine *engine = init(SETTINGS("test.panic", "score"));
    for (int round = 0; round < 50; round++) {
        mlb_verdict verdict;
        memset(&verdict, 0xa5, sizeof verdict);
        mlb_status status = mlb_classify(engine, "www.example.com", 15, NULL, 0, 1, &verdict);
        EXPECT(status == MLB_E_PANIC, "mlb_classify: %s", mlb_strerror((int)status));
        EXPECT(all_zero(&verdict, sizeof verdict), "the verdict is not zeroed");
    }
    const char *const names[] = {"www.example.com"};
    const size_t lengths[] = {15};
    float score = -1;
    EXPECT(mlb_score_batch(engine, names, lengths, 1, &score) == MLB_E_PANIC, "mlb_score_batch");
    EXPECT(stats_of(engine).panics == 51, "%llu panics of 51 are counted", (unsigned long long)stats_of(engine).panics);
    /* What does not score still answers, and so does the engine once the fault is gone. */
    EXPECT(ask(engine, "localhost").source == MLB_SOURCE_SKIPPED, "skipped names");
    char err[256] = "";
    EXPECT(try_reload(engine, NO_SETTINGS, err, sizeof err) == MLB_OK, "reload: %s", err);
    EXPECT(ask(engine, "www.example.com").score > 0, "no score after the fault is gone");
    end(engine);
}

static void *one_call(void *engine) {
    mlb_verdict verdict;
    EXPECT(mlb_classify(engine, "www.example.com", 15, NULL, 0, 1, &verdict) == MLB_E_PANIC, "in a thread");
    return NULL;
}

/* A thread that saw a panic ends like any other. */
static void in_threads(void) {
    mlb_engine *engine = init(SETTINGS("test.panic", "score"));
    for (int round = 0; round < rounds(50); round++)
        join_thread(run_thread(one_call, engine));
    end(engine);
}

static void in_the_worker(void) {
    const char *state = format_path("%s/state", scratch());
    mlb_engine *engine =
        init(SETTINGS("state_dir", state, "record.allow", "all", "store.flush_ms", "50", "test.panic", "worker"));
    ask_many(engine, "before", 0, 100);
    EXPECT(wait_for_counter(engine, offsetof(mlb_stats, panics), 2), "the worker does not go on after its panic, or does not count it");
    ask_many(engine, "during", 0, 100);
    expect_ledger(engine);
    char err[256] = "";
    EXPECT(try_reload(engine, SETTINGS("state_dir", state, "record.allow", "all", "store.flush_ms", "50"), err, sizeof err) == MLB_OK,
           "reload: %s", err);
    ask_many(engine, "after", 0, 100);
    mlb_status status = flush_patiently(engine);
    EXPECT(status == MLB_OK, "flush after the fault is gone: %s", mlb_strerror((int)status));
    EXPECT(sql(state, "select count(*) from event where name like 'after-%'") == 100, "events after the panic are missing");
    end(engine);
}

int main(void) {
    /* What the library prints would go here. */
    const char *path = format_path("%s/printed", scratch());
    int printed = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600), out = dup(1), err = dup(2);
    dup2(printed, 1);
    setenv("RUST_BACKTRACE", "full", 1);
    fflush(stderr);
    dup2(printed, 2);
    in_a_call();
    in_threads();
    in_the_worker();
    dup2(out, 1);
    dup2(err, 2);
    struct stat info;
    fstat(printed, &info);
    if (info.st_size > 0) {
        char text[2000];
        ssize_t length = pread(printed, text, sizeof text - 1, 0);
        text[length > 0 ? length : 0] = 0;
        /* Failed checks print there as well. */
        EXPECT(failed(), "the library printed: %s", text);
        fputs(text, stderr);
    }
    return finish();
}

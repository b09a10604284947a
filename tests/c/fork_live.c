/* A process forks while the worker thread lives: the child classifies, its events are counted as lost, it frees and
 * exits without a hang, whatever locks the other threads held; the parent goes on as if nothing had been. An engine that
 * the child makes itself is a whole one. */
#include "common.h"

static volatile bool over;

static void *load(void *engine) {
    for (int number = 0; !over; number++)
        ask_many(engine, "load", number % 5000, 1);
    return NULL;
}

/* A host that reloads while it forks: the locks of init and free are taken all the time. */
static void *lives(void *other) {
    for (int number = 0; !over; number++) {
        mlb_engine *engine = init(SETTINGS("state_dir", other, "record.allow", "all", "block.ttl", number % 2 ? "5" : "6", "instance", "lives"));
        ask_many(engine, "life", number, 1);
        mlb_free(engine);
    }
    return NULL;
}

static void child(mlb_engine *engine, bool free_it) {
    begin_child(20);
    uint64_t before = stats_of(engine).dropped_forked;
    for (int number = 0; number < 50; number++) {
        char name[64];
        snprintf(name, sizeof name, "child-%d-%d.example.net", getpid(), number);
        mlb_verdict verdict = ask(engine, name);
        EXPECT(verdict.flags & MLB_FLAG_DROPPED, "%s: the verdict does not tell that its event is lost", name);
        EXPECT(verdict.score > 0, "%s: not scored", name);
    }
    EXPECT(stats_of(engine).dropped_forked == before + 50, "%llu events are counted as lost", (unsigned long long)(stats_of(engine).dropped_forked - before));
    EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_E_FORKED, "flush in the child");
    char text[8192];
    size_t need;
    EXPECT(mlb_metrics(engine, text, sizeof text, &need) != MLB_E_PANIC, "metrics in the child");
    sink_error(engine);
    EXPECT(count_threads() == 1, "%d threads in the child", count_threads());
    expect_ledger(engine);
    if (free_it)
        mlb_free(engine);
}

/* No other thread of the host runs. */
static void quiet(const char *state) {
    mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "all"));
    ask_many(engine, "parent", 0, 100);
    EXPECT(flush_patiently(engine) == MLB_OK, "flush");
    for (int round = 0; round < 4; round++) {
        pid_t pid = fork();
        if (pid == 0) {
            child(engine, round % 2 == 0);
            if (round < 2 || getenv("MLB_QUICK"))
                end_child();
            exit(failed()); /* with what the program and the library registered for exit */
        }
        expect_child(pid, "child of a quiet parent");
    }
    /* The parent lost nothing: neither its store nor its lock went with a child. */
    ask_many(engine, "parent", 100, 100);
    EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "flush of the parent: %s", sink_error(engine));
    EXPECT(sql(state, "select count(*) from event where name like 'parent-%'") == 200, "rows of the parent are missing");
    EXPECT(sql(state, "select count(*) from event where name like 'child-%'") == 0, "a child wrote to the parent's store");
    EXPECT(stats_of(engine).dropped_forked == 0, "the parent counts the child's losses");
    end(engine);
}

/* Four threads classify, and one makes and frees engines, while the process forks. Whatever they hold at that moment is
 * held for ever in the child. */
static void under_load(const char *state, const char *other, const char *own_state) {
    mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "all", "store.flush_ms", "20"));
    pthread_t threads[5];
    for (int at = 0; at < 4; at++)
        threads[at] = run_thread(load, engine);
    threads[4] = run_thread(lives, (void *)other);
    ask_many(engine, "parent", 0, 1);
    for (int round = 0; round < rounds(60) && !failed(); round++) {
        pid_t pid = fork();
        if (pid == 0) {
            child(engine, true);
            /* What the parent's worker thread held of SQLite stops nobody here. */
            mlb_engine *own = init(SETTINGS("state_dir", own_state, "record.allow", "all"));
            ask_many(own, "own", round, 1);
            EXPECT(flush_patiently(own) == MLB_OK, "flush of an engine made under load: %s", sink_error(own));
            end(own);
            end_child();
        }
        expect_child(pid, "child of a busy parent");
    }
    over = true;
    for (int at = 0; at < 5; at++)
        join_thread(threads[at]);
    EXPECT(flush_patiently(engine) == MLB_OK, "flush: %s", sink_error(engine));
    end(engine);
}

/* The child gives up what it inherited and makes an engine of its own. */
static void fresh_engine(const char *state, const char *other) {
    mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "all"));
    ask_many(engine, "parent", 1000, 10);
    EXPECT(flush_patiently(engine) == MLB_OK, "flush");
    int go[2];
    REQUIRE(pipe(go) == 0, "pipe");
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        begin_child(120);
        mlb_free(engine);
        mlb_engine *own = init(SETTINGS("state_dir", other, "record.allow", "all"));
        ask_many(own, "fresh", 0, 10);
        EXPECT(mlb_flush(own, PATIENCE_MS) == MLB_OK, "flush of an engine made in the child: %s", sink_error(own));
        end(own);
        EXPECT(sql(other, "select count(*) from event where name like 'fresh-%'") == 10, "its rows are missing");

        /* The parent's directory is held by another process, which is the parent. */
        mlb_engine *waiting = init(SETTINGS("state_dir", state, "record.allow", "all"));
        ask_many(waiting, "waiting", 0, 10);
        mlb_status status = mlb_flush(waiting, 5000);
        EXPECT(status == MLB_E_BUSY, "flush while the parent holds the store: %s", mlb_strerror((int)status));
        char number[32];
        snprintf(number, sizeof number, "%d", parent);
        EXPECT(strstr(sink_error(waiting), number), "\"%s\" does not name process %s", sink_error(waiting), number);
        EXPECT(write(go[1], "x", 1) == 1, "pipe");
        EXPECT(flush_patiently(waiting) == MLB_OK, "flush after the parent let go: %s", sink_error(waiting));
        end(waiting);
        end_child();
    }
    char byte;
    close(go[1]);
    if (read(go[0], &byte, 1) != 1)
        EXPECT(failed(), "the child ended early");
    end(engine);
    expect_child(pid, "child with an engine of its own");
    EXPECT(sql(state, "select count(*) from event where name like 'waiting-%'") == 10, "the child's rows are missing");
    close(go[0]);
}

int main(void) {
    const char *state = format_path("%s/state", scratch()), *other = format_path("%s/other", scratch());
    quiet(state);
    under_load(state, format_path("%s/lives", scratch()), format_path("%s/own", scratch()));
    fresh_engine(state, other);
    return finish();
}

/* A host ends in every way while the worker runs and threads classify: it ends with its own status, at once. Events that
 * were only in memory may be lost, the store stays whole. */
#include "common.h"

static mlb_engine *engine;

static void *ask_on(void *argument) {
    (void)argument;
    for (int number = 0;; number++)
        ask_many(engine, "ending", number % 3000, 1);
    return NULL;
}

static void *ask_some(void *argument) {
    ask_many(engine, "last", 0, 1000);
    EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "flush: %s", sink_error(engine));
    mlb_free(engine);
    exit(argument ? failed() : 1);
}

static void *exit_now(void *argument) {
    (void)argument;
    exit(failed());
}

static void ask_at_exit(void) { ask_many(engine, "atexit", 0, 10); }

static void free_at_exit(void) {
    ask_many(engine, "atexit", 10, 10);
    mlb_free(engine);
}

enum way { RETURN, EXIT_BUSY, EXIT_OTHER_THREAD, PTHREAD_EXIT, QUICK_EXIT, AT_EXIT_CALLS, AT_EXIT_FREES, EXEC, TERMINATE, WAYS };

static void leave(enum way way, const char *state) {
    begin_child(60);
    engine = init(SETTINGS("state_dir", state, "record.allow", "all", "store.flush_ms", "20"));
    ask_many(engine, "begin", 0, 200);
    if (way == EXIT_BUSY || way == EXIT_OTHER_THREAD || way == QUICK_EXIT || way == EXEC || way == TERMINATE) {
        for (int at = 0; at < 3; at++)
            run_thread(ask_on, NULL);
        wait_for_counter(engine, offsetof(mlb_stats, stored), 1);
    }
    switch (way) {
    case EXIT_OTHER_THREAD:
        run_thread(exit_now, NULL);
        for (;;)
            pause();
    case PTHREAD_EXIT:
        run_thread(ask_some, &engine);
        pthread_exit(NULL);
    case QUICK_EXIT:
        quick_exit(failed());
    case AT_EXIT_CALLS:
        atexit(ask_at_exit);
        return;
    case AT_EXIT_FREES:
        atexit(free_at_exit);
        return;
    case EXEC:
        execl("/bin/true", "true", (char *)NULL);
        return;
    case TERMINATE:
        signal(SIGTERM, SIG_DFL);
        kill(getpid(), SIGTERM);
        return;
    default:
        return;
    }
}

int main(void) {
    static const char *const names[WAYS] = {"return", "exit beside threads", "exit in a thread", "pthread_exit of main", "quick_exit", "calls at exit", "free at exit", "exec", "SIGTERM"};
    for (int round = 0; round < rounds(10); round++)
        for (int way = 0; way < WAYS; way++) {
            /* Under valgrind what an exit leaves of other threads counts as lost memory: only the clean ends are tried. */
            if (getenv("MLB_QUICK") && way != PTHREAD_EXIT && way != AT_EXIT_FREES && way != EXEC && way != TERMINATE)
                continue;
            const char *state = format_path("%s/state-%d", scratch(), way);
            pid_t pid = fork();
            if (pid == 0) {
                leave((enum way)way, state);
                exit(failed());
            }
            if (way == TERMINATE) {
                int status = 0;
                waitpid(pid, &status, 0);
                EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM, "SIGTERM: status %d", status);
            } else {
                expect_child(pid, names[way]);
            }
            if (access(format_path("%s/mlbridge.db", state), F_OK) == 0) /* some ends come before the worker's beginning */
                EXPECT(sql(state, "select count(*) = 1 from pragma_integrity_check where integrity_check = 'ok'") == 1, "%s: the store is damaged", names[way]);
        }
    return finish();
}

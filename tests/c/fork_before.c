/* Hosts that fork between init and the first query: the child owns the engine and records, as with daemonising hosts
 * (double fork, new session, working directory "/", closed standard streams). Init leaves nothing behind that a
 * configuration check would have to clean up. */
#include "common.h"

static void one_fork(const char *state) {
    mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "all"));
    pid_t pid = fork();
    if (pid == 0) {
        begin_child(60);
        ask_many(engine, "child", 0, 100);
        EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "flush in the child: %s", sink_error(engine));
        EXPECT(stats_of(engine).dropped_forked == 0 && stats_of(engine).stored == 100, "the child does not record");
        end(engine);
        end_child();
    }
    expect_child(pid, "child");
    EXPECT(sql(state, "select count(*) from event where name like 'child-%'") == 100, "rows of the child are missing");
    /* The parent has the engine as well; it has not recorded yet and may begin once the child let go. */
    ask_many(engine, "parent", 0, 100);
    EXPECT(flush_patiently(engine) == MLB_OK, "flush in the parent: %s", sink_error(engine));
    EXPECT(sql(state, "select count(*) from event where name like 'parent-%'") == 100, "rows of the parent are missing");
    end(engine);
}

/* Several children of one engine, as a server that forks its workers: one records, the others wait for the store. */
static void workers(const char *state) {
    mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "all"));
    pid_t pids[3];
    for (int at = 0; at < 3; at++) {
        pids[at] = fork();
        if (pids[at] == 0) {
            begin_child(120);
            ask_many(engine, format_path("worker-%d", at), 0, 50);
            EXPECT(flush_patiently(engine) == MLB_OK, "flush in worker %d: %s", at, sink_error(engine));
            end(engine);
            end_child();
        }
    }
    for (int at = 0; at < 3; at++)
        expect_child(pids[at], "forked worker");
    EXPECT(sql(state, "select count(*) from event where name like 'worker-%'") == 150, "rows of the workers are missing");
    end(engine);
}

static void daemonise(const char *folder) {
    int report[2];
    REQUIRE(pipe(report) == 0 && chdir(folder) == 0, "%s", folder);
    pid_t first = fork();
    if (first == 0) {
        /* A relative path means the folder where the host was started, not where it is when the worker begins. */
        mlb_engine *engine = init(SETTINGS("state_dir", "daemon", "record.allow", "all"));
        if (fork() > 0)
            _exit(0);
        setsid();
        if (fork() > 0)
            _exit(0);
        begin_child(60);
        EXPECT(chdir("/") == 0, "chdir");
        umask(0);
        int null = open("/dev/null", O_RDWR);
        dup2(null, 0);
        dup2(null, 1);
        ask_many(engine, "daemon", 0, 100);
        EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "flush in the daemon: %s", sink_error(engine));
        end(engine);
        char result = failed() ? 'n' : 'y';
        _exit(write(report[1], &result, 1) != 1);
    }
    close(report[1]);
    expect_child(first, "the process that daemonises");
    char result = 0;
    EXPECT(read(report[0], &result, 1) == 1 && result == 'y', "the daemon failed");
    EXPECT(sql(format_path("%s/daemon", folder), "select count(*) from event") == 100, "rows of the daemon are missing");
    EXPECT(access("/daemon", F_OK) != 0, "the store is in the wrong folder");
    EXPECT(chdir("/") == 0, "chdir");
}

/* A configuration check: init and free, nothing else. */
static void check_only(const char *folder) {
    mkdir(folder, 0700);
    const int threads = 1;
    EXPECT(wait_for_threads(threads), "%d threads are left of earlier engines", count_threads() - threads);
    int descriptors = count_descriptors();
    mlb_engine *engine = init(SETTINGS("state_dir", format_path("%s/state", folder), "instance", "check"));
    EXPECT(count_threads() == threads, "init starts a thread");
    EXPECT(count_files(folder) == 0, "init writes");
    mlb_free(engine);
    EXPECT(count_files(folder) == 0, "init and free leave something behind");
    EXPECT(count_descriptors() == descriptors, "init and free leave a descriptor open");
}

int main(void) {
    one_fork(format_path("%s/state", scratch()));
    workers(format_path("%s/workers", scratch()));
    daemonise(scratch());
    check_only(format_path("%s/check", scratch()));
    return finish();
}

/* A store that another process holds does not fail init: events wait in the bounded queue, losses are counted, the
 * holder's process is named, and recording begins when the holder ends. */
#include "common.h"

/* A process that has the store; ends the test if it cannot get it. */
static pid_t start_holder(const char *state) {
    int ready[2];
    char byte = 0;
    REQUIRE(pipe(ready) == 0, "pipe");
    pid_t pid = fork();
    if (pid == 0) {
        begin_child(300);
        mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "all"));
        ask_many(engine, "holder", 0, 10);
        EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "flush of the holder: %s", sink_error(engine));
        if (failed())
            _exit(1);
        EXPECT(write(ready[1], &byte, 1) == 1, "pipe");
        for (;;)
            pause();
    }
    close(ready[1]);
    REQUIRE(read(ready[0], &byte, 1) == 1, "no holder");
    close(ready[0]);
    return pid;
}

static void held(const char *state, int names, const char *queue, bool killed) {
    pid_t holder = start_holder(state);
    mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "all", "queue.events", queue));
    bool lossy = names > 5000, flagged = false; /* beside the queue the worker holds a batch of 4,096 */
    for (int number = 0; number < names; number++) {
        char name[64];
        snprintf(name, sizeof name, "waiting-%d.example.net", number % 1000);
        flagged = (ask(engine, name).flags & MLB_FLAG_DROPPED) || flagged;
    }
    for (int round = 0; round < 3; round++) {
        mlb_status status = mlb_flush(engine, 3000);
        EXPECT(status == MLB_E_BUSY, "flush while another process holds the store: %s", mlb_strerror((int)status));
    }
    char number[32];
    snprintf(number, sizeof number, "%d", (int)holder);
    EXPECT(strstr(sink_error(engine), number) && strstr(sink_error(engine), state), "\"%s\" does not name process %s and %s", sink_error(engine), number, state);
    mlb_stats stats = stats_of(engine);
    EXPECT(stats.stored == 0, "%llu events are stored in a store of another process", (unsigned long long)stats.stored);
    EXPECT((stats.dropped_queue > 0) == lossy, "%llu events are counted as lost", (unsigned long long)stats.dropped_queue);
    EXPECT(flagged == lossy, "verdicts %s the loss of their events", flagged ? "tell" : "do not tell");
    EXPECT(stats.queued + stats.dropped_queue + stats.dropped_store == (uint64_t)names, "%llu queued, %llu dropped of %d", (unsigned long long)stats.queued,
           (unsigned long long)stats.dropped_queue, names);
    expect_ledger(engine);

    kill(holder, killed ? SIGKILL : SIGTERM);
    waitpid(holder, NULL, 0);
    mlb_status status = flush_patiently(engine);
    EXPECT(status == MLB_OK, "flush after the holder's end: %s: %s", mlb_strerror((int)status), sink_error(engine));
    stats = stats_of(engine);
    long long counted = sql(state, "select sum(count) from event where name like 'waiting-%'");
    uint64_t kept = stats.stored + stats.coalesced;
    EXPECT(counted == (long long)kept && kept + stats.dropped_queue + stats.dropped_store == (uint64_t)names, "a count of %lld, %llu stored, %llu lost of %d", counted,
           (unsigned long long)kept, (unsigned long long)stats.dropped_queue, names);
    EXPECT(sql(state, "select count(*) from event where name like 'holder-%'") == 10, "the holder's rows are missing");
    end(engine);
}

/* An engine that is freed while it waits: bounded, and nothing of the holder's is harmed. */
static void freed_while_waiting(const char *state) {
    pid_t holder = start_holder(state);
    mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "all", "close_timeout_ms", "300"));
    ask_many(engine, "lost", 0, 10);
    end(engine);
    EXPECT(kill(holder, 0) == 0, "the holder is gone");
    kill(holder, SIGTERM);
    waitpid(holder, NULL, 0);
}

int main(void) {
    held(format_path("%s/few", scratch()), 100, "8192", false);
    held(format_path("%s/killed", scratch()), 100, "8192", true);
    held(format_path("%s/many", scratch()), 10000, "256", true);
    freed_while_waiting(format_path("%s/freed", scratch()));
    return finish();
}

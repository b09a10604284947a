/* The worker is stuck, because another process has locked the database: calls answer as before, losses are bounded by the
 * queue and counted, flush and free come back, and when the lock is gone everything that waited is stored. (That calls
 * are as fast meanwhile is shown by the benchmark.) */
#include "common.h"

#define QUEUE 1024
/* What the worker may have taken out of the queue while it waits for the database: its largest transaction. */
#define BATCH 4096

static volatile bool over;

static void *ask_on(void *engine) {
    for (int number = 0; !over; number++)
        EXPECT(ask(engine, "www.example.com").score > 0, "call %d", number);
    return NULL;
}

int main(void) {
    const char *state = format_path("%s/state", scratch());
    mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "all", "queue.events", "1024", "store.flush_ms", "50", "close_timeout_ms", "500"));
    ask_many(engine, "before", 0, 100);
    EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "flush: %s", sink_error(engine));

    mlb_stats before = stats_of(engine);
    struct sql_shell other = sql_open(state);
    sql_do(&other, "BEGIN EXCLUSIVE;");
    pthread_t thread = run_thread(ask_on, engine);
    int asked = rounds(40000) < 4 * (BATCH + QUEUE) ? 4 * (BATCH + QUEUE) : rounds(40000);
    ask_many(engine, "stuck", 0, asked);
    mlb_status status = mlb_flush(engine, 500);
    EXPECT(status == MLB_E_TIMEOUT || status == MLB_E_BUSY, "flush while the database is locked: %s", mlb_strerror((int)status));
    /* The worker tries again each second and may just have made room; but only until its batch is full. */
    mlb_verdict verdict = {0};
    for (int number = 0; number <= BATCH + QUEUE && !(verdict.flags & MLB_FLAG_DROPPED); number++)
        verdict = ask(engine, "one-more.example.net");
    EXPECT(verdict.flags & MLB_FLAG_DROPPED && verdict.score > 0, "flags %x: the loss is not told", verdict.flags);
    over = true;
    join_thread(thread);
    mlb_stats stats = stats_of(engine);
    EXPECT(stats.dropped_queue >= (uint64_t)asked - (BATCH + QUEUE), "%llu events are counted as lost", (unsigned long long)stats.dropped_queue);
    expect_ledger(engine);

    sql_do(&other, "ROLLBACK;");
    sql_close(&other);
    EXPECT(flush_patiently(engine) == MLB_OK, "flush after the lock is gone: %s", sink_error(engine));
    ask_many(engine, "after", 0, 100);
    EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "flush: %s", sink_error(engine));
    stats = stats_of(engine);
    EXPECT(stats.queued == 0, "%llu events are still queued", (unsigned long long)stats.queued);
    EXPECT(stats.stored + stats.coalesced >= before.stored + before.coalesced + QUEUE, "what waited in the queue is not stored");
    EXPECT(sql(state, "select count(*) from event where name like 'after-%'") == 100, "events after the lock are missing");
    EXPECT((uint64_t)sql(state, "select sum(count) from event") == stats.stored + stats.coalesced, "the store holds %lld, the ledger says %llu + %llu",
           sql(state, "select sum(count) from event"), (unsigned long long)stats.stored, (unsigned long long)stats.coalesced);
    expect_ledger(engine);

    /* Freed while stuck: the wait is bounded, and the process can go on and end. */
    other = sql_open(state);
    sql_do(&other, "BEGIN EXCLUSIVE;");
    ask_many(engine, "last", 0, 100);
    watchdog(120);
    end(engine);
    sql_do(&other, "ROLLBACK;");
    sql_close(&other);
    return finish();
}

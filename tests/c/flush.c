/* mlb_flush: what was classified before it is durable after it, visible to another process at once; with nothing to do
 * it does nothing; from many threads; with a time-out it keeps. */
#include "common.h"

static void *flush_often(void *engine) {
    for (int round = 0; round < rounds(50); round++) {
        mlb_status status = mlb_flush(engine, PATIENCE_MS);
        EXPECT(status == MLB_OK, "flush: %s", mlb_strerror((int)status));
    }
    return NULL;
}

int main(void) {
    mlb_engine *engine = init(NO_SETTINGS);
    ask_many(engine, "nowhere", 0, 100);
    EXPECT(mlb_flush(engine, 0) == MLB_OK && mlb_flush(engine, 1000) == MLB_OK, "flush of an engine that records nothing");
    EXPECT(count_threads() == 1, "an engine that records nothing has a worker");
    EXPECT(stats_of(engine).queued == 0 && stats_of(engine).not_recorded == 100, "events without a store");
    end(engine);

    /* A flush interval of a minute: only the flush, or the free, can have stored them. */
    const char *state = format_path("%s/state", scratch());
    engine = init(SETTINGS("state_dir", state, "record.allow", "all", "store.flush_ms", "60000"));
    EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "flush before the first event");
    EXPECT(access(state, F_OK) != 0 && count_threads() == 1, "flush before the first event begins something");
    int total = 0;
    for (int round = 0; round < rounds(40) + 6; round++) {
        int count = round < 4 ? round : 1 << (round % 10);
        ask_many(engine, "flushed", total, count);
        total += count;
        mlb_status status = mlb_flush(engine, PATIENCE_MS);
        EXPECT(status == MLB_OK, "flush: %s: %s", mlb_strerror((int)status), sink_error(engine));
        if (total > 0)
            EXPECT(sql(state, "select count(*) from event") == total, "%lld rows after a flush, %d names", sql(state, "select count(*) from event"), total);
        EXPECT(stats_of(engine).queued == 0 && stats_of(engine).stored == (uint64_t)total, "the ledger after a flush: %llu queued, %llu stored of %d",
               (unsigned long long)stats_of(engine).queued, (unsigned long long)stats_of(engine).stored, total);
    }
    /* More than the queue and the biggest transaction hold at once; what is lost on the way is counted. */
    ask_many(engine, "many", 0, rounds(20000));
    EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "flush: %s", sink_error(engine));
    mlb_stats stats = stats_of(engine);
    EXPECT(sql(state, "select count(*) from event where name like 'many-%'") == (long long)rounds(20000) - (long long)stats.dropped_queue, "rows are missing");

    pthread_t threads[4];
    for (int at = 0; at < 4; at++)
        threads[at] = run_thread(flush_often, engine);
    for (int round = 0; round < rounds(200); round++)
        ask_many(engine, "beside", round * 10, 10);
    for (int at = 0; at < 4; at++)
        join_thread(threads[at]);
    ask_many(engine, "freed", 0, 100);
    end(engine);
    EXPECT(sql(state, "select count(*) from event where name like 'freed-%'") == 100, "the free did not flush");
    EXPECT(sql(state, "select count(*) from event where name like 'beside-%'") == rounds(200) * 10, "rows are missing");
    return finish();
}

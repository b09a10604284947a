/* The ledger to the last event: each setting of what is recorded, skipped names, coalescing, several threads; the store's
 * counts are the ledger's; it holds at any moment, also while others classify. */
#include "common.h"

static volatile bool over;

static void *load(void *engine) {
    for (int number = 0; number < rounds(20000); number++) {
        char name[64];
        snprintf(name, sizeof name, "load-%d.example.com", number % 700);
        ask(engine, name);
    }
    return NULL;
}

static void *watch(void *engine) {
    /* A sum over counters that others change is not of one moment: what must hold is that nothing is counted as more than
     * was asked and that the sums come out when the others pause. */
    while (!over) {
        mlb_stats s = stats_of(engine);
        EXPECT(s.allowed + s.vetted + s.blocked == s.classified, "%llu + %llu + %llu decisions, %llu names", (unsigned long long)s.allowed, (unsigned long long)s.vetted,
               (unsigned long long)s.blocked, (unsigned long long)s.classified);
        EXPECT(s.stored + s.coalesced + s.dropped_queue + s.dropped_store <= s.classified + 4, "more events than names and calls under way");
        sleep_ms(1);
    }
    return NULL;
}

static const char *fresh_state(void) {
    static int number;
    return format_path("%s/state-%d", scratch(), number++);
}

static void what_is_recorded(void) {
    const char *state = fresh_state();
    mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "none"));
    ask_many(engine, "none", 0, 500);
    ask(engine, "localhost");
    mlb_stats stats = stats_of(engine);
    EXPECT(stats.not_recorded == 500 && stats.skipped == 1 && stats.classified == 501, "none: %llu not recorded", (unsigned long long)stats.not_recorded);
    end(engine);

    engine = init(SETTINGS("state_dir", fresh_state(), "record.allow", "sample:10"));
    ask_many(engine, "sample", 0, 5000);
    EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "flush");
    stats = stats_of(engine);
    /* Binomial, 5,000 x 0.1: 500 with a deviation of 21; nine of them either way. */
    EXPECT(stats.stored > 310 && stats.stored < 690 && stats.stored + stats.sampled_out == 5000, "one in ten: %llu stored, %llu sampled out", (unsigned long long)stats.stored,
           (unsigned long long)stats.sampled_out);
    end(engine);

    /* What is to be vetted or blocked is always recorded. */
    const char *list = format_path("%s/block", scratch());
    write_file(list, "*.blocked.example\n", 0600);
    state = fresh_state();
    engine = init(SETTINGS("state_dir", state, "record.allow", "none", "lists.block", list));
    for (int number = 0; number < 100; number++) {
        char name[64];
        snprintf(name, sizeof name, "x%d.blocked.example", number);
        ask(engine, name);
    }
    ask_many(engine, "allowed", 0, 100);
    EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "flush");
    stats = stats_of(engine);
    EXPECT(stats.stored == 100 && stats.not_recorded == 100, "%llu blocks stored", (unsigned long long)stats.stored);
    end(engine);
}

static void coalescing(void) {
    static const uint8_t clients[3][4] = {{192, 0, 2, 1}, {192, 0, 2, 200}, {198, 51, 100, 1}};
    const char *state = fresh_state();
    mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "all", "record.coalesce_s", "3600"));
    for (int round = 0; round < 30; round++)
        for (int client = 0; client < 3; client++) {
            mlb_verdict verdict;
            EXPECT(mlb_classify(engine, "often.example.com", 17, clients[client], 4, (uint16_t)(round % 2 ? 1 : 28), &verdict) == MLB_OK, "classify");
            if (round % 10 == 9)
                EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "flush");
        }
    mlb_stats stats = stats_of(engine);
    /* Clients are cut to /24: the first two are one. The type does not matter. */
    EXPECT(stats.stored == 2 && stats.coalesced == 88, "%llu rows, %llu coalesced", (unsigned long long)stats.stored, (unsigned long long)stats.coalesced);
    EXPECT(sql(state, "select sum(count) from event") == 90, "counts of %lld", sql(state, "select sum(count) from event"));
    EXPECT(sql(state, "select max(count) from event") == 60, "greatest count %lld", sql(state, "select max(count) from event"));
    end(engine);

    /* Windows that open and close within one batch: only the flush writes. */
    state = fresh_state();
    engine = init(SETTINGS("state_dir", state, "record.allow", "all", "record.coalesce_s", "1", "store.flush_ms", "60000"));
    for (int window = 0; window < 3; window++) {
        for (int round = 0; round < 100; round++)
            ask(engine, "often.example.com");
        sleep_ms(1200);
    }
    EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "flush");
    stats = stats_of(engine);
    EXPECT(stats.stored + stats.coalesced == 300 && stats.stored >= 3, "%llu rows, %llu coalesced", (unsigned long long)stats.stored, (unsigned long long)stats.coalesced);
    EXPECT(sql(state, "select sum(count) from event") == 300, "counts of %lld, 300 were asked", sql(state, "select sum(count) from event"));
    end(engine);

    state = fresh_state();
    engine = init(SETTINGS("state_dir", state, "record.allow", "all", "record.coalesce_s", "0"));
    for (int round = 0; round < 30; round++)
        ask(engine, "often.example.com");
    EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "flush");
    EXPECT(stats_of(engine).stored == 30 && sql(state, "select count(*) from event") == 30, "without coalescing: %llu rows", (unsigned long long)stats_of(engine).stored);
    end(engine);
}

static void under_load(void) {
    const char *state = fresh_state();
    mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "all", "store.flush_ms", "20", "queue.events", "512"));
    pthread_t loads[4], watcher = run_thread(watch, engine);
    for (int at = 0; at < 4; at++)
        loads[at] = run_thread(load, engine);
    for (int at = 0; at < 4; at++)
        join_thread(loads[at]);
    over = true;
    join_thread(watcher);
    expect_ledger(engine);
    EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "flush");
    mlb_stats stats = stats_of(engine);
    EXPECT(stats.classified == (uint64_t)rounds(20000) * 4, "%llu of %d calls are counted", (unsigned long long)stats.classified, rounds(20000) * 4);
    EXPECT((uint64_t)sql(state, "select sum(count) from event") == stats.stored + stats.coalesced, "the store holds %lld, the ledger says %llu",
           sql(state, "select sum(count) from event"), (unsigned long long)(stats.stored + stats.coalesced));
    EXPECT((uint64_t)sql(state, "select count(*) from event") == stats.stored, "rows");
    EXPECT((uint64_t)sql(state, "select count(*) from outbox") == stats.pending, "%lld rows wait, the ledger says %llu",
           sql(state, "select count(*) from outbox"), (unsigned long long)stats.pending);
    end(engine);
}

/* A second life of the same store: what the first left undelivered is taken up in the second sum. */
static void second_life(void) {
    const char *state = fresh_state();
    mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "all"));
    ask_many(engine, "first", 0, 100);
    end(engine);
    engine = init(SETTINGS("state_dir", state, "record.allow", "all"));
    ask_many(engine, "second", 0, 10);
    EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "flush");
    EXPECT(stats_of(engine).stored == 10, "%llu stored", (unsigned long long)stats_of(engine).stored);
    end(engine);
}

int main(void) {
    what_is_recorded();
    coalescing();
    under_load();
    second_life();
    return finish();
}

/* Engines of one process with the same state directory share one store and one worker, with or without `instance`,
 * until the last of them is freed. */
#include "common.h"

int main(void) {
    const char *state = format_path("%s/state", scratch());
    int threads = count_threads();
    mlb_engine *one = init(SETTINGS("state_dir", state, "record.allow", "all", "mode", "observe"));
    ask_many(one, "one", 0, 50);
    EXPECT(mlb_flush(one, PATIENCE_MS) == MLB_OK, "flush: %s", sink_error(one));
    int with_one = count_threads();
    mlb_engine *two = init(SETTINGS("state_dir", state, "record.allow", "all"));
    mlb_engine *three = init(SETTINGS("state_dir", format_path("%s/../%s/state", scratch(), strrchr(scratch(), '/') + 1), "record.allow", "all", "instance", "x"));
    ask_many(two, "two", 0, 50);
    ask_many(three, "three", 0, 50);
    EXPECT(mlb_flush(two, PATIENCE_MS) == MLB_OK && mlb_flush(three, PATIENCE_MS) == MLB_OK, "flush: %s", sink_error(two));
    EXPECT(count_threads() == with_one, "%d threads for one engine, %d for three", with_one - threads, count_threads() - threads);
    static const char *const prefixes[] = {"one", "two", "three"};
    for (int at = 0; at < 3; at++)
        EXPECT(sql(state, format_path("select count(*) from event where name like '%s-%%'", prefixes[at])) == 50, "rows of engine %s are missing", prefixes[at]);
    expect_ledger(one);
    expect_ledger(two);

    /* Freeing one, also the one that opened the store, leaves the others recording. */
    mlb_free(one);
    ask_many(two, "two", 50, 50);
    EXPECT(mlb_flush(two, PATIENCE_MS) == MLB_OK, "flush after the first was freed: %s", sink_error(two));
    mlb_free(three);
    ask_many(two, "two", 100, 50);
    mlb_free(two);
    EXPECT(sql(state, "select count(*) from event where name like 'two-%'") == 150, "rows are missing");
    EXPECT(wait_for_threads(threads), "a worker is left");
    /* `x` is kept, but at rest: it holds nothing. */
    EXPECT(count_descriptors_below(state) == 0, "files are left open");

    /* Two stores, two workers, no mixing. */
    const char *other = format_path("%s/other", scratch());
    one = init(SETTINGS("state_dir", state, "record.allow", "all"));
    two = init(SETTINGS("state_dir", other, "record.allow", "all"));
    ask_many(one, "left", 0, 10);
    ask_many(two, "right", 0, 10);
    end(one);
    end(two);
    EXPECT(sql(state, "select count(*) from event where name like 'left-%'") == 10, "rows are missing");
    EXPECT(sql(other, "select count(*) from event") == 10, "rows are in the wrong store");
    return finish();
}

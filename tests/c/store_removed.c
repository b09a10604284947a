/* The state directory, or its files, vanish while the engine uses them: it is told, what was written before is accounted
 * for, and a new store begins. A lock file that vanished alone costs nothing. */
#include "common.h"

#include <stddef.h>

static void shell(const char *command) { REQUIRE(system(command) == 0, "%s", command); }

static void removed(const char *name, const char *command, long long rows) {
    const char *state = format_path("%s/%s", scratch(), name);
    mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "all", "store.flush_ms", "20"));
    ask_many(engine, "before", 0, 10);
    EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "%s: flush", name);
    shell(format_path(command, state));
    EXPECT(wait_for_counter(engine, offsetof(mlb_stats, store_errors), 1), "%s: nobody noticed", name);
    ask_many(engine, "after", 0, 10);
    EXPECT(flush_patiently(engine) == MLB_OK, "%s: flush: %s", name, sink_error(engine));
    EXPECT(sql(state, "select count(*) from event where name like 'after-%'") == 10, "%s: rows are missing", name);
    EXPECT(sql(state, "select count(*) from event where name like 'before-%'") == rows, "%s: rows from before", name);
    char text[512] = "";
    int level = 0;
    EXPECT(mlb_message(engine, text, sizeof text, &level) == MLB_OK && level == 3 && strstr(text, state), "%s: message \"%s\"", name, text);
    EXPECT(stats_of(engine).pending == 10 + (uint64_t)rows, "%s: %llu rows pending", name, (unsigned long long)stats_of(engine).pending);
    end(engine);
}

int main(void) {
    removed("directory", "rm -rf %s", 0);
    removed("database", "rm %s/mlbridge.db*", 0);
    removed("lock", "rm %s/lock", 10);
    return finish();
}

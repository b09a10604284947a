/* A store that is corrupt is set aside under another name, reported, and begun anew; one of a newer schema is refused
 * with a clear message and left as it is. Calls answer all the while. */
#include "common.h"

#include <dirent.h>

static const char *const *settings(const char *state) {
    static const char *table[] = {"state_dir", NULL, "record.allow", "all", "store.flush_ms", "50", NULL};
    table[1] = state;
    return table;
}

static void make_store(const char *state, int rows) {
    mlb_engine *engine = init(settings(state));
    ask_many(engine, "old", 0, rows);
    REQUIRE(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "%s", sink_error(engine));
    end(engine);
}

/* How many files of the folder, the database itself excepted, begin with these bytes. */
static int files_beginning_with(const char *folder, const char *bytes, size_t length) {
    DIR *entries = opendir(folder);
    int count = 0;
    for (struct dirent *entry; entries && (entry = readdir(entries));) {
        char start[64] = "";
        int file = open(format_path("%s/%s", folder, entry->d_name), O_RDONLY | O_NONBLOCK);
        if (strcmp(entry->d_name, "mlbridge.db") != 0 && read(file, start, length) == (ssize_t)length)
            count += memcmp(start, bytes, length) == 0;
        close(file);
    }
    if (entries)
        closedir(entries);
    return count;
}

/* Every message that waits, with `wanted` in one of them. */
static bool told(const mlb_engine *engine, const char *wanted) {
    char text[600];
    int level = -1;
    bool found = false;
    for (int read = 0; read < 100; read++) {
        EXPECT(mlb_message(engine, text, sizeof text, &level) == MLB_OK, "mlb_message");
        if (!text[0])
            break;
        EXPECT(level >= 0 && level <= 7, "level %d", level);
        found = found || strstr(text, wanted);
    }
    return found;
}

static void expect_begun_anew(const char *state, const char *what) {
    mlb_engine *engine = init(settings(state));
    ask_many(engine, "new", 0, 100);
    mlb_status status = flush_patiently(engine);
    EXPECT(status == MLB_OK, "%s: flush: %s: %s", what, mlb_strerror((int)status), sink_error(engine));
    EXPECT(sql(state, "select count(*) from event where name like 'new-%'") == 100, "%s: new events are missing", what);
    mlb_stats stats = stats_of(engine);
    EXPECT(stats.store_resets >= 1 || sql(state, "select count(*) from event where name like 'old-%'") > 0, "%s: old rows are gone and nobody counted it", what);
    if (stats.store_resets)
        EXPECT(told(engine, state), "%s: no message tells it", what);
    end(engine);
}

static void garbage(void) {
    const char *state = format_path("%s/garbage", scratch());
    make_store(state, 10);
    write_file(format_path("%s/mlbridge.db", state), "this is no database, but some administrator's file, longer than a header of one hundred bytes has to be", 0600);
    expect_begun_anew(state, "a file that is no database");
    EXPECT(files_beginning_with(state, "this is no database", 19) == 1, "the corrupt file was not set aside");
    state = format_path("%s/empty", scratch());
    make_store(state, 10);
    EXPECT(truncate(format_path("%s/mlbridge.db", state), 0) == 0, "truncate");
    mlb_engine *engine = init(settings(state));
    ask_many(engine, "new", 0, 100);
    EXPECT(flush_patiently(engine) == MLB_OK, "an empty file: %s", sink_error(engine));
    end(engine);
}

/* Damage within: pages overwritten, the end cut off, the first page kept. */
static void damaged_pages(void) {
    static const char *const ways[] = {"middle", "cut", "second-page", "all-but-header", "wal"};
    for (size_t way = 0; way < sizeof ways / sizeof ways[0]; way++) {
        const char *state = format_path("%s/%s", scratch(), ways[way]), *path = format_path("%s/mlbridge.db", state);
        make_store(state, rounds(2000));
        struct stat info;
        REQUIRE(stat(path, &info) == 0 && info.st_size > 3 * 4096, "%s: %lld bytes", path, (long long)info.st_size);
        char noise[4096];
        for (size_t at = 0; at < sizeof noise; at++)
            noise[at] = (char)(at * 131 + 7);
        int file = open(path, O_WRONLY);
        off_t from = way == 0 ? info.st_size / 2 : way == 2 ? 4096 : 100;
        off_t to = way == 2 ? 8192 : info.st_size;
        if (way == 1)
            EXPECT(ftruncate(file, info.st_size / 3 + 100) == 0, "ftruncate");
        else if (way == 4)
            write_file(format_path("%s/mlbridge.db-wal", state), noise, 0600);
        else
            for (off_t at = from; at < to; at += (off_t)sizeof noise)
                EXPECT(pwrite(file, noise, sizeof noise, at) > 0, "pwrite");
        close(file);
        expect_begun_anew(state, ways[way]);
    }
}

static void newer_schema(void) {
    const char *state = format_path("%s/newer", scratch());
    make_store(state, 10);
    REQUIRE(sql(state, "pragma user_version = 9999; update meta set value = '9999' where key like '%schema%'; select 1") == 1, "cannot raise the schema version");
    mlb_engine *engine = NULL;
    char err[400] = "";
    mlb_status status = try_init(settings(state), &engine, err, sizeof err);
    if (status == MLB_OK) {
        ask_many(engine, "new", 0, 100);
        status = mlb_flush(engine, 5000);
        EXPECT(status != MLB_OK, "a store of a newer schema is written to");
        snprintf(err, sizeof err, "%s", sink_error(engine));
        end(engine);
    }
    EXPECT(strstr(err, state) && strstr(err, "9999"), "\"%s\" does not name the store and its version", err);
    EXPECT(strstr(err, "newer") || strstr(err, "version") || strstr(err, "schema"), "\"%s\" is not clear", err);
    EXPECT(sql(state, "select count(*) from event") == 10, "the newer store was changed");
}

int main(void) {
    garbage();
    damaged_pages();
    newer_schema();
    return finish();
}

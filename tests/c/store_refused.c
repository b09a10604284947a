/* A state directory that is read-only, open to others, a link, a file, or holds links, FIFOs and folders where files
 * should be: a clear status or a counted loss, calls answer, and nothing outside the directory is touched. */
#include "common.h"

#include <grp.h>

/* Whatever is wrong with the directory: either init says so, or the engine runs and the flush says so. The words of one
 * of them name the path. */
static void expect_clear(const char *state, const char *what) {
    mlb_engine *engine = NULL;
    char err[512] = "";
    mlb_status status = try_init(SETTINGS("state_dir", state, "record.allow", "all", "store.flush_ms", "50"), &engine, err, sizeof err);
    if (status != MLB_OK) {
        EXPECT(status == MLB_E_IO || status == MLB_E_CONFIG, "%s: %s", what, mlb_strerror((int)status));
        EXPECT(strstr(err, state), "%s: \"%s\" does not name the path", what, err);
        return;
    }
    ask_many(engine, "refused", 0, 200);
    status = mlb_flush(engine, 5000);
    EXPECT(status == MLB_E_IO || status == MLB_E_TIMEOUT, "%s: flush: %s", what, mlb_strerror((int)status));
    EXPECT(strstr(sink_error(engine), state), "%s: \"%s\" does not name the path", what, sink_error(engine));
    ask_many(engine, "later", 0, 200);
    end(engine);
}

static const char *folder(const char *name, mode_t mode) {
    const char *path = format_path("%s/%s", scratch(), name);
    mkdir(path, mode);
    chmod(path, mode);
    return path;
}

static void read_only(void) {
    const char *state = folder("read-only", 0500);
    pid_t pid = fork();
    if (pid == 0) {
        begin_child(60);
        if (geteuid() == 0) { /* root writes everywhere */
            const char *above = scratch();
            EXPECT(chown(state, 65534, 65534) == 0 && chown(above, 65534, 65534) == 0, "chown");
            EXPECT(setgroups(0, NULL) == 0 && setgid(65534) == 0 && setuid(65534) == 0, "setuid: %s", strerror(errno));
        }
        expect_clear(state, "a read-only directory");
        end_child();
    }
    expect_child(pid, "read-only directory");
    EXPECT(geteuid() != 0 || chown(scratch(), 0, 0) == 0, "chown");
    EXPECT(count_files(state) == 0, "something was written");
}

static void open_to_others(void) {
    static const mode_t modes[] = {0770, 0720, 0702, 0777, 01777};
    for (size_t row = 0; row < sizeof modes / sizeof modes[0]; row++) {
        const char *state = folder(format_path("%03o", (unsigned)modes[row]) , modes[row]);
        expect_clear(state, state);
        EXPECT(count_files(state) == 0, "%s: something was written", state);
        struct stat info;
        EXPECT(stat(state, &info) == 0 && (info.st_mode & 07777) == modes[row], "%s: its mode was changed", state);
    }
    mlb_config *config = config_of(NO_SETTINGS);
    char err[300] = "";
    const char *file = format_path("%s/settings.toml", scratch());
    write_file(file, "mode = \"observe\"\n", 0660);
    EXPECT(mlb_config_load(config, file, err, sizeof err) != MLB_OK && strstr(err, file), "settings that the group may write: %s", err);
    chmod(file, 0602);
    EXPECT(mlb_config_load(config, file, err, sizeof err) != MLB_OK && strstr(err, file), "settings that all may write: %s", err);
    chmod(file, 0644);
    EXPECT(mlb_config_load(config, file, err, sizeof err) == MLB_OK, "settings that all may read: %s", err);
    mlb_config_free(config);
}

static void not_a_directory(void) {
    const char *target = folder("target", 0700), *link = format_path("%s/link", scratch());
    REQUIRE(symlink(target, link) == 0, "symlink");
    expect_clear(link, "a link to a directory");
    EXPECT(count_files(target) == 0, "the link was followed");
    const char *dangling = format_path("%s/dangling", scratch());
    REQUIRE(symlink("/nonexistent/x", dangling) == 0, "symlink");
    expect_clear(dangling, "a link to nowhere");
    const char *file = format_path("%s/file", scratch());
    write_file(file, "x", 0600);
    expect_clear(file, "a file");
    expect_clear(format_path("%s/below", file), "a path below a file");
    expect_clear(format_path("%s/no/such/parent", scratch()), "a path whose parent is missing");
    const char *fifo = format_path("%s/fifo", scratch());
    REQUIRE(mkfifo(fifo, 0600) == 0, "mkfifo");
    expect_clear(fifo, "a FIFO");
}

/* Fine at init, gone when the worker comes. That is no other process's doing, and the status must not say so. */
static void vanished(void) {
    const char *parent = folder("vanishing", 0700), *state = format_path("%s/state", parent);
    mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "all", "store.flush_ms", "50"));
    REQUIRE(rmdir(parent) == 0, "rmdir");
    ask_many(engine, "vanished", 0, 200);
    for (int round = 0; round < 3; round++) {
        mlb_status status = mlb_flush(engine, 3000);
        EXPECT(status == MLB_E_IO || status == MLB_E_TIMEOUT, "flush to a directory that cannot be made: %s", mlb_strerror((int)status));
    }
    EXPECT(strstr(sink_error(engine), state), "\"%s\" does not name the path", sink_error(engine));
    folder("vanishing", 0700);
    EXPECT(flush_patiently(engine) == MLB_OK, "flush after it came back: %s", sink_error(engine));
    EXPECT(sql(state, "select count(*) from event") == 200, "rows are missing");
    end(engine);
}

/* In a process of its own, so that a hang is the failure of one case. */
static void try_odd(const char *state, const char *what) {
    pid_t pid = fork();
    if (pid == 0) {
        begin_child(30);
        mlb_engine *engine = NULL;
        char err[300] = "";
        if (try_init(SETTINGS("state_dir", state, "record.allow", "all"), &engine, err, sizeof err) == MLB_OK) {
            ask_many(engine, "odd", 0, 50);
            any_status(mlb_flush(engine, 3000));
            ask_many(engine, "odd", 50, 50);
            end(engine);
        }
        end_child();
    }
    expect_child(pid, what);
}

/* What stands in the place of one of the store's own files. */
static void odd_entries(void) {
    static const char *const names[] = {"mlbridge.db", "lock", "mlbridge.db-wal", "mlbridge.db-shm"};
    const char *victim = format_path("%s/victim", scratch());
    for (size_t row = 0; row < sizeof names / sizeof names[0]; row++) {
        const char *state = folder(format_path("link-%zu", row), 0700);
        char text[16] = "";
        write_file(victim, "precious", 0600);
        REQUIRE(symlink(victim, format_path("%s/%s", state, names[row])) == 0, "symlink");
        try_odd(state, format_path("%s is a link", names[row]));
        int file = open(victim, O_RDONLY);
        EXPECT(read(file, text, sizeof text) == 8 && memcmp(text, "precious", 8) == 0, "%s is a link, and what it leads to was changed", names[row]);
        close(file);

        state = folder(format_path("fifo-%zu", row), 0700);
        REQUIRE(mkfifo(format_path("%s/%s", state, names[row]), 0600) == 0, "mkfifo");
        try_odd(state, format_path("%s is a FIFO", names[row]));

        state = folder(format_path("folder-%zu", row), 0700);
        mkdir(format_path("%s/%s", state, names[row]), 0700);
        try_odd(state, format_path("%s is a folder", names[row]));
    }
}

int main(void) {
    umask(022);
    read_only();
    open_to_others();
    not_a_directory();
    vanished();
    odd_entries();
    return finish();
}

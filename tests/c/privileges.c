/* The host changes its root and its user between init and the first query: names are scored from memory; the store works
 * where its path is reachable and writable from inside, and where it is not that is a told, counted loss. */
#include "common.h"

#include <grp.h>

#define NOBODY 65534

static void make_folders(const char *path) {
    char part[512];
    for (size_t at = 1; path[at]; at++)
        if (path[at] == '/') {
            memcpy(part, path, at);
            part[at] = 0;
            mkdir(part, 0755);
        }
    mkdir(path, 0755);
}

static void drop(const char *jail) {
    REQUIRE(chroot(jail) == 0 && chdir("/") == 0, "chroot: %s", strerror(errno));
    REQUIRE(setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0, "setuid: %s", strerror(errno));
    EXPECT(setuid(0) != 0, "still root");
}

/* The state directory has the same path inside the jail as outside. */
static void reachable(const char *jail, const char *state, const char *list) {
    char inside[600];
    snprintf(inside, sizeof inside, "%s%s", jail, state);
    make_folders(inside);
    EXPECT(chown(inside, NOBODY, NOBODY) == 0 && chmod(inside, 0700) == 0, "chown");
    pid_t pid = fork();
    if (pid == 0) {
        begin_child(60);
        mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "all", "lists.block", list));
        drop(jail);
        ask_many(engine, "jailed", 0, 100);
        EXPECT(ask(engine, "blocked.example").decision == MLB_BLOCK, "the list, which is not in the jail, was forgotten");
        EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "flush in the jail: %s", sink_error(engine));
        end(engine);
        /* A second engine is made inside altogether, from what the library carries. */
        engine = init(SETTINGS("state_dir", state, "record.allow", "all"));
        ask_many(engine, "inside", 0, 100);
        EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "flush in the jail: %s", sink_error(engine));
        end(engine);
        end_child();
    }
    expect_child(pid, "a host in a jail");
    EXPECT(sql(inside, "select count(*) from event where name like 'jailed-%'") == 100, "rows are missing");
    EXPECT(sql(inside, "select count(*) from event where name like 'inside-%'") == 100, "rows are missing");
    struct stat info;
    EXPECT(stat(format_path("%s/mlbridge.db", inside), &info) == 0 && info.st_uid == NOBODY, "the store belongs to user %d", (int)info.st_uid);
}

static void unreachable(const char *jail, const char *state, const char *list) {
    mkdir(jail, 0755);
    pid_t pid = fork();
    if (pid == 0) {
        begin_child(60);
        mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "all", "lists.block", list, "model.engine", "tract"));
        drop(jail);
        ask_many(engine, "jailed", 0, 100);
        EXPECT(ask(engine, "blocked.example").decision == MLB_BLOCK, "the list was forgotten");
        EXPECT(mlb_flush(engine, 3000) != MLB_OK, "flush to a place that is not in the jail");
        EXPECT(strstr(sink_error(engine), state), "\"%s\" does not name the store", sink_error(engine));
        ask_many(engine, "later", 0, 100);
        end(engine);
        char err[300] = "";
        engine = NULL;
        mlb_status status = try_init(SETTINGS("lists.block", list), &engine, err, sizeof err);
        EXPECT(status != MLB_OK && strstr(err, list), "a list that is not in the jail: %s", err);
        mlb_free(engine);
        end_child();
    }
    expect_child(pid, "a host in an empty jail");
}

/* The usual order of Unbound, BIND and others: user changed, no jail. */
static void other_user(const char *state) {
    mkdir(state, 0700);
    EXPECT(chown(state, NOBODY, NOBODY) == 0, "chown");
    pid_t pid = fork();
    if (pid == 0) {
        begin_child(60);
        mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "all"));
        drop("/");
        ask_many(engine, "user", 0, 100);
        EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "flush as another user: %s", sink_error(engine));
        end(engine);
        end_child();
    }
    expect_child(pid, "a host that changed its user");
    EXPECT(sql(state, "select count(*) from event") == 100, "rows are missing");
}

int main(void) {
    if (geteuid() != 0) {
        printf("(chroot and setuid need root) ");
        return SKIPPED;
    }
    const char *list = format_path("%s/block", scratch());
    write_file(list, "blocked.example\n", 0644);
    chmod(scratch(), 0755);
    const char *jail = format_path("%s/jail", scratch());
    mkdir(jail, 0755);
    reachable(jail, format_path("%s/state", scratch()), list);
    unreachable(format_path("%s/empty", scratch()), format_path("%s/away", scratch()), list);
    other_user(format_path("%s/user", scratch()));
    return finish();
}

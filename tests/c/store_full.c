/* The disk is full: calls answer, losses are counted, the error is told, and once there is room again events are kept.
 * Two ways to be full: a small file system (as root), and a limit on the size of files, whose signal must not end the
 * host. */
#include "common.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>

/* Fills the store until it fails, or until `most` names. Gives the number asked. */
static int fill(const mlb_engine *engine, int most) {
    int asked = 0;
    while (asked < most && sink_error(engine)[0] == 0) {
        ask_many(engine, "a-rather-long-name-that-takes-some-room-in-the-store", asked, 500);
        asked += 500;
        any_status(mlb_flush(engine, 5000));
    }
    return asked;
}

static void expect_goes_on_while_full(const mlb_engine *engine, const char *state) {
    EXPECT(strstr(sink_error(engine), state), "\"%s\" does not name the store", sink_error(engine));
    for (int round = 0; round < rounds(4); round++) {
        ask_many(engine, "while-full", round * 1000, 1000);
        mlb_status status = mlb_flush(engine, 2000);
        EXPECT(status == MLB_E_IO || status == MLB_E_TIMEOUT, "flush on a full disk: %s", mlb_strerror((int)status));
        expect_ledger(engine);
    }
}

static void expect_recovers(const mlb_engine *engine, const char *state) {
    EXPECT(flush_patiently(engine) == MLB_OK, "flush with room again: %s", sink_error(engine));
    ask_many(engine, "room-again", 0, 20);
    EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "flush with room again: %s", sink_error(engine));
    EXPECT(sql(state, "select count(*) from event where name like 'room-again-%'") == 20, "events are missing although there is room");
    EXPECT(sql(state, "select count(*) = 1 from pragma_integrity_check where integrity_check = 'ok'") == 1, "the store is damaged");
    mlb_stats stats = stats_of(engine);
    EXPECT((uint64_t)sql(state, "select coalesce(sum(count), 0) from event") == stats.stored + stats.coalesced,
           "the store holds %lld, the ledger says %llu + %llu", sql(state, "select coalesce(sum(count), 0) from event"), (unsigned long long)stats.stored,
           (unsigned long long)stats.coalesced);
}

/* In a process and a mount namespace of its own, so that nothing stays mounted whatever happens. */
static void small_file_system(const char *folder) {
    if (geteuid() != 0) {
        printf("(a small file system needs root) ");
        return;
    }
    mkdir(folder, 0700);
    pid_t pid = fork();
    if (pid > 0) {
        expect_child(pid, "a host on a small file system");
        return;
    }
    begin_child(300);
    REQUIRE(unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "mount namespace: %s", strerror(errno));
    REQUIRE(mount("tmpfs", folder, "tmpfs", 0, "size=1m,mode=0700") == 0, "mount: %s", strerror(errno));
    const char *state = format_path("%s/state", folder);
    mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "all", "queue.events", "1024", "store.flush_ms", "50"));
    int asked = fill(engine, 100000);
    EXPECT(asked < 100000, "a megabyte took %d names", asked);
    expect_goes_on_while_full(engine, state);
    EXPECT(mount("tmpfs", folder, "tmpfs", MS_REMOUNT, "size=64m") == 0, "remount: %s", strerror(errno));
    expect_recovers(engine, state);
    end(engine);

    /* Full from the beginning: not even the store can be made. */
    const char *filler = format_path("%s/filler", folder);
    EXPECT(mount("tmpfs", folder, "tmpfs", MS_REMOUNT, "size=2m") == 0, "remount: %s", strerror(errno));
    int file = open(filler, O_WRONLY | O_CREAT, 0600);
    char block[4096] = {1};
    while (write(file, block, sizeof block) > 0)
        continue;
    close(file);
    state = format_path("%s/other", folder);
    engine = init(SETTINGS("state_dir", state, "record.allow", "all", "queue.events", "1024", "store.flush_ms", "50"));
    ask_many(engine, "full", 0, 3000);
    EXPECT(mlb_flush(engine, 2000) != MLB_OK, "flush on a full disk");
    EXPECT(sink_error(engine)[0], "no error is told");
    expect_ledger(engine);
    unlink(filler);
    EXPECT(mount("tmpfs", folder, "tmpfs", MS_REMOUNT, "size=64m") == 0, "remount: %s", strerror(errno));
    expect_recovers(engine, state);
    end(engine);
    EXPECT(umount(folder) == 0, "umount: %s: something is still open", strerror(errno));
    end_child();
}

static void small_files(const char *state) {
    pid_t pid = fork();
    if (pid == 0) {
        begin_child(300);
        mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "all", "queue.events", "1024", "store.flush_ms", "50"));
        struct rlimit limit = {600 << 10, RLIM_INFINITY};
        REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0, "setrlimit");
        int asked = fill(engine, 100000);
        EXPECT(asked < 100000, "600 KiB took %d names", asked);
        expect_goes_on_while_full(engine, state);
        limit.rlim_cur = RLIM_INFINITY;
        setrlimit(RLIMIT_FSIZE, &limit);
        expect_recovers(engine, state);
        end(engine);
        end_child();
    }
    expect_child(pid, "a host with a limit on the size of files");
}

int main(void) {
    small_files(format_path("%s/limited", scratch()));
    small_file_system(format_path("%s/small", scratch()));
    return finish();
}

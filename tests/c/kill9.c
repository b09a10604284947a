/* `kill -9` of a host under load: what is older than store.flush_ms is in the store after it is opened again, nothing is
 * there twice, the unclean end is counted, and the ledger of the next process adds up. */
#include "common.h"

#include <sys/mman.h>

#define FLUSH_MS 1000 /* the default, not set below */
/* A commit that was due may still be waiting for the machine's disk and processor, the longer under valgrind. */
#define GRACE_MS (getenv("MLB_QUICK") ? 25000 : 4000)
#define PER_SLICE 20
#define SLICES 6000

/* What the child did, seen by the parent after its death. */
struct progress {
    volatile int slices;                 /* done */
    volatile long long done_ms[SLICES];  /* when each was */
    volatile uint64_t stored, dropped;   /* as the ledger said last */
};

static long long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void load(const char *state, struct progress *progress, int first) {
    begin_child(300);
    mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "all"));
    for (int slice = 0; slice < SLICES; slice++) {
        ask_many(engine, format_path("slice-%d", first), slice * PER_SLICE, PER_SLICE);
        progress->done_ms[slice] = now_ms();
        progress->slices = slice + 1;
        mlb_stats stats = stats_of(engine);
        progress->dropped = stats.dropped_queue + stats.dropped_store;
        progress->stored = stats.stored;
        sleep_ms(5);
    }
    for (;;)
        pause();
}

int main(void) {
    const char *state = format_path("%s/state", scratch());
    struct progress *progress = mmap(NULL, sizeof *progress, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(progress != MAP_FAILED, "mmap");
    int kills = rounds(4);
    for (int round = 0; round < kills; round++) {
        memset(progress, 0, sizeof *progress);
        pid_t pid = fork();
        if (pid == 0)
            load(state, progress, round);
        /* At another point of the flush interval each time, and late enough for something to be old. */
        int status = 0;
        pid_t ended = 0;
        while (ended == 0 && (progress->slices < 10 || now_ms() - progress->done_ms[0] < FLUSH_MS + GRACE_MS + 500 + 211 * round)) {
            sleep_ms(1);
            ended = waitpid(pid, &status, WNOHANG);
        }
        long long killed = now_ms();
        if (ended == 0) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
        }
        REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the load ended by itself: %d", status);

        int old = 0;
        for (int slice = 0; slice < progress->slices; slice++)
            if (progress->done_ms[slice] < killed - FLUSH_MS - GRACE_MS)
                old = slice + 1;
        EXPECT(old > 0, "nothing was old enough");
        EXPECT(progress->dropped == 0, "%llu events were lost before the kill", (unsigned long long)progress->dropped);

        mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "all"));
        ask_many(engine, format_path("after-%d", round), 0, 10);
        EXPECT(flush_patiently(engine) == MLB_OK, "flush after a kill: %s", sink_error(engine));
        mlb_stats stats = stats_of(engine);
        EXPECT(stats.unclean_ends == 1, "%llu unclean ends are counted", (unsigned long long)stats.unclean_ends);
        EXPECT(stats.stored == 10, "%llu stored", (unsigned long long)stats.stored);
        long long there = sql(state, format_path("select count(*) from event where name like 'slice-%d-%%'", round));
        EXPECT(there >= (long long)old * PER_SLICE, "%d names were old, %lld are there", old * PER_SLICE, there);
        EXPECT(there >= (long long)progress->stored, "the ledger said %llu, %lld are there", (unsigned long long)progress->stored, there);
        EXPECT(there <= (long long)(progress->slices + 1) * PER_SLICE, "%d names asked, %lld there", progress->slices * PER_SLICE, there);
        for (int slice = 0; slice < old; slice++) {
            int number = slice * PER_SLICE;
            if (slice % 50 == 0)
                EXPECT(sql(state, format_path("select count(*) from event where name = 'slice-%d-%d.example.net'", round, number)) == 1, "name %d of round %d is missing", number, round);
        }
        EXPECT(sql(state, "select count(*) from (select name from event group by name having count(*) > 1)") == 0, "a name is there twice");
        EXPECT(sql(state, "select count(*) = 1 from pragma_integrity_check where integrity_check = 'ok'") == 1, "the store is damaged");
        end(engine);
        /* A clean end is not counted as an unclean one. */
        engine = init(SETTINGS("state_dir", state, "record.allow", "all"));
        ask_many(engine, format_path("clean-%d", round), 0, 1);
        EXPECT(flush_patiently(engine) == MLB_OK, "flush: %s", sink_error(engine));
        EXPECT(stats_of(engine).unclean_ends == 0, "a clean end is counted as unclean");
        end(engine);
    }
    return finish();
}

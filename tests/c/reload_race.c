/* Eight threads classify while another reloads, and while another makes and frees the same instance: each verdict is
 * wholly of the old or wholly of the new settings, what follows a reload is of the new ones, and nothing is lost. */
#include "common.h"

#define THREADS 8

static mlb_engine *engine;
static volatile bool over;

static void *classify(void *argument) {
    int number = 0, *asked = argument;
    while (!over) {
        mlb_verdict blocked = ask(engine, "www.blocked.example");
        bool refused = blocked.action == MLB_REFUSED && blocked.ttl == 10;
        bool sunk = blocked.action == MLB_SINKHOLE && blocked.ttl == 20 && blocked.sinkhole4[3] == 77;
        EXPECT(refused || sunk, "action %d with ttl %u is of no settings", blocked.action, blocked.ttl);
        EXPECT(blocked.decision == MLB_BLOCK && blocked.source == MLB_SOURCE_BLOCKLIST, "decision %d", blocked.decision);
        EXPECT(!refused || all_zero(blocked.sinkhole4, 4), "an address of the other settings");
        char name[64];
        snprintf(name, sizeof name, "fresh-%d.example.com", number++ % 3000);
        mlb_verdict fresh = ask(engine, name);
        EXPECT(fresh.score > 0 && fresh.decision == MLB_ALLOW, "%s: score %f", name, fresh.score);
        *asked += 2;
    }
    return NULL;
}

static const char *list, *state;

static const char *const *settings(int round) {
    static const char *even[] = {"instance", "race", "state_dir", NULL, "lists.block", NULL, "block.action", "refused", "block.ttl", "10", NULL};
    static const char *odd[] = {"instance", "race", "state_dir", NULL, "lists.block", NULL, "block.action", "sinkhole", "block.ttl", "20", "sinkhole.ipv4", "192.0.2.77", NULL};
    const char **chosen = round % 2 ? odd : even;
    chosen[3] = state;
    chosen[5] = list;
    return chosen;
}

static void reloads(void) {
    for (int round = 1; round <= rounds(100); round++) {
        char err[256] = "";
        EXPECT(try_reload(engine, settings(round), err, sizeof err) == MLB_OK, "reload %d: %s", round, err);
        unsigned ttl = ask(engine, "blocked.example").ttl;
        EXPECT(ttl == (round % 2 ? 20U : 10U), "after reload %d the old settings answer (ttl %u)", round, ttl);
        /* A reload that fails changes nothing. */
        mlb_config *broken = config_of(SETTINGS("instance", "race", "state_dir", state, "lists.block", "/no/such/list"));
        EXPECT(mlb_reload(engine, broken, err, sizeof err) != MLB_OK && strstr(err, "/no/such/list"), "a broken reload: %s", err);
        mlb_config_free(broken);
        EXPECT(ask(engine, "blocked.example").ttl == ttl, "a broken reload changed something");
    }
}

static void inits(void) {
    for (int round = 0; round < rounds(100); round++) {
        mlb_engine *again = init(settings(rounds(100)));
        EXPECT(ask(again, "blocked.example").decision == MLB_BLOCK, "an equal init");
        mlb_engine *other = init(settings(round)); /* every second one is a successor */
        EXPECT(ask(other, "blocked.example").ttl == (round % 2 ? 20U : 10U), "an init with other settings");
        mlb_free(again);
        mlb_free(other);
    }
}

int main(void) {
    list = format_path("%s/block", scratch());
    state = format_path("%s/state", scratch());
    write_file(list, "*.blocked.example\nblocked.example\n", 0600);
    void (*const disturbances[])(void) = {reloads, inits};
    for (int which = 0; which < 2; which++) {
        engine = init(settings(rounds(100)));
        over = false;
        pthread_t threads[THREADS];
        int asked[THREADS] = {0};
        for (int at = 0; at < THREADS; at++)
            threads[at] = run_thread(classify, &asked[at]);
        disturbances[which]();
        over = true;
        for (int at = 0; at < THREADS; at++)
            join_thread(threads[at]);
        EXPECT(flush_patiently(engine) == MLB_OK, "flush: %s", sink_error(engine));
        uint64_t total = 0, counted = stats_of(engine).classified;
        for (int at = 0; at < THREADS; at++)
            total += (uint64_t)asked[at];
        EXPECT(counted >= total, "%llu verdicts, %llu counted", (unsigned long long)total, (unsigned long long)counted);
        end(engine);
    }
    return finish();
}

/* Eight threads make, use and free engines of one instance and one store at the same time, so that the last free of one
 * meets the next init of another: nothing recorded is lost, nothing is left. */
#include "common.h"

#define THREADS 8
#define NAMES 5

static const char *state;

static void *lives(void *argument) {
    int thread = (int)(intptr_t)argument;
    for (int round = 0; round < rounds(60); round++) {
        mlb_engine *engine = NULL;
        if (round % 4 == 3)
            any_status(mlb_attach("race", &engine));
        if (!engine)
            engine = init(SETTINGS("instance", "race", "state_dir", state, "record.allow", "all", "block.ttl", round % 5 ? "1" : "2"));
        ask_many(engine, "race", (thread * 1000 + round) * NAMES, NAMES);
        if (round % 7 == 0) {
            mlb_status status = mlb_flush(engine, PATIENCE_MS);
            EXPECT(status == MLB_OK, "flush: %s", mlb_strerror((int)status));
        }
        mlb_free(engine);
    }
    return NULL;
}

int main(void) {
    state = format_path("%s/state", scratch());
    int threads = count_threads(), descriptors = count_descriptors();
    pthread_t running[THREADS];
    for (intptr_t at = 0; at < THREADS; at++)
        running[at] = run_thread(lives, (void *)at);
    for (int at = 0; at < THREADS; at++)
        join_thread(running[at]);
    long long expected = (long long)THREADS * rounds(60) * NAMES;
    EXPECT(sql(state, "select count(*) from event") == expected, "%lld rows of %lld", sql(state, "select count(*) from event"), expected);
    EXPECT(wait_for_threads(threads), "%d threads are left", count_threads() - threads);
    EXPECT(count_descriptors() == descriptors, "%d descriptors are left", count_descriptors() - descriptors);
    return finish();
}

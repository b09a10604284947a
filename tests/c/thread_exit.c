/* Threads of the host come and go: each classifies, some at the very end of their life, and exits. */
#include "common.h"

static mlb_engine *tract, *fused;
static pthread_key_t last_words;

static void classify_both(int number) {
    char name[64];
    snprintf(name, sizeof name, "thread-%d.example.org", number);
    EXPECT(ask(tract, name).score > 0, "%s through tract", name);
    EXPECT(ask(fused, name).score > 0, "%s", name);
}

static void *body(void *argument) {
    int number = (int)(intptr_t)argument;
    if (number % 2 == 0)
        pthread_setspecific(last_words, argument);
    /* A thread that calls for the first time when its thread-local objects are gone leaves 16 bytes of the engine's behind,
     * so valgrind sees it only do so once more. */
    if (number % 4 != 2 || getenv("MLB_QUICK"))
        classify_both(number);
    if (number % 3 == 0)
        pthread_exit(NULL);
    return NULL;
}

/* Runs after the thread-local objects of the library are gone: an engine that needs them may give up, but only on the name. */
static void destructor(void *argument) {
    for (int at = 0; at < 2; at++) {
        char name[64];
        mlb_verdict verdict;
        snprintf(name, sizeof name, "last-%d.example.org", (int)(intptr_t)argument);
        mlb_status status = mlb_classify(at ? tract : fused, name, strlen(name), NULL, 0, 1, &verdict);
        EXPECT(status == MLB_OK ? verdict.score > 0 || verdict.flags & MLB_FLAG_FAIL_OPEN : all_zero(&verdict, sizeof verdict), "%s: %s, score %f, flags %x", name,
               mlb_strerror((int)status), verdict.score, verdict.flags);
    }
}

int main(void) {
    /* No cache: each call runs the model. */
    tract = init(SETTINGS("model.engine", "tract", "cache.entries", "0"));
    fused = init(SETTINGS("cache.entries", "0"));
    pthread_key_create(&last_words, destructor);
    pthread_t threads[8];
    for (intptr_t number = 1; number <= rounds(200); number += 8) {
        for (intptr_t at = 0; at < 8; at++)
            threads[at] = run_thread(body, (void *)(number + at));
        for (int at = 0; at < 8; at++)
            join_thread(threads[at]);
    }
    end(tract);
    end(fused);
    /* Threads that outlive the engine they used. */
    return finish();
}

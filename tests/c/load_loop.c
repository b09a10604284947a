/* dlopen, init, classify, free, dlclose, again and again, while other threads of the host live: the object stays
 * mapped, no thread and no descriptor stays. */
#include "common.h"

#include <dlfcn.h>

static volatile bool over;

static void *bystander(void *argument) {
    (void)argument;
    while (!over) {
        void *block = malloc(1000);
        struct timespec rest = {0, 1000000};
        nanosleep(&rest, NULL);
        free(block);
    }
    return NULL;
}

static void *symbol(void *library, const char *name) {
    void *address = dlsym(library, name);
    REQUIRE(address, "%s: %s", name, dlerror());
    return address;
}

static void round_trip(const char *path, const char *state, int round) {
    void *library = dlopen(path, RTLD_NOW | (round % 2 ? RTLD_GLOBAL : RTLD_LOCAL));
    REQUIRE(library, "%s", dlerror());
    /* POSIX's way around ISO C, which has no cast from an object pointer to a function pointer. */
    mlb_status (*config_new)(mlb_config **), (*config_set)(mlb_config *, const char *, const char *, char *, size_t);
    mlb_status (*start)(const mlb_config *, mlb_engine **, char *, size_t);
    mlb_status (*classify)(const mlb_engine *, const char *, size_t, const uint8_t *, size_t, uint16_t, mlb_verdict *);
    mlb_status (*flush)(const mlb_engine *, uint32_t);
    void (*config_free)(mlb_config *), (*stop)(mlb_engine *);
    *(void **)&config_new = symbol(library, "mlb_config_new");
    *(void **)&config_set = symbol(library, "mlb_config_set");
    *(void **)&config_free = symbol(library, "mlb_config_free");
    *(void **)&start = symbol(library, "mlb_init");
    *(void **)&classify = symbol(library, "mlb_classify");
    *(void **)&flush = symbol(library, "mlb_flush");
    *(void **)&stop = symbol(library, "mlb_free");

    char err[256] = "", name[64];
    mlb_config *config = NULL;
    mlb_engine *engine = NULL;
    REQUIRE(config_new(&config) == MLB_OK, "mlb_config_new");
    EXPECT(config_set(config, "state_dir", state, err, sizeof err) == MLB_OK, "%s", err);
    EXPECT(config_set(config, "record.allow", "all", err, sizeof err) == MLB_OK, "%s", err);
    if (round % 3 == 0)
        EXPECT(config_set(config, "instance", "loop", err, sizeof err) == MLB_OK, "%s", err);
    REQUIRE(start(config, &engine, err, sizeof err) == MLB_OK, "round %d: %s", round, err);
    config_free(config);
    mlb_verdict verdict;
    snprintf(name, sizeof name, "round-%d.example.com", round);
    EXPECT(classify(engine, name, strlen(name), NULL, 0, 1, &verdict) == MLB_OK && verdict.score > 0, "%s", name);
    if (round % 10 == 0)
        EXPECT(flush(engine, PATIENCE_MS) == MLB_OK, "flush");
    stop(engine);
    EXPECT(dlclose(library) == 0, "%s", dlerror());
    EXPECT(dlopen(path, RTLD_NOW | RTLD_NOLOAD) || !dlerror(), "asking for the library");
}

static bool is_mapped(const char *name) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[600];
    bool found = false;
    while (maps && fgets(line, sizeof line, maps))
        found = found || strstr(line, name);
    if (maps)
        fclose(maps);
    return found;
}

int main(void) {
    const char *path = getenv("MLB_LIBRARY");
    REQUIRE(path, "MLB_LIBRARY is not set");
    const char *state = format_path("%s/state", scratch());
    pthread_t bystanders[2] = {run_thread(bystander, NULL), run_thread(bystander, NULL)};
    round_trip(path, state, 0);
    int descriptors = count_descriptors(), total = rounds(200);
    for (int round = 1; round <= total; round++)
        round_trip(path, state, round);
    EXPECT(is_mapped("libmlbridge"), "the library was unmapped");
    EXPECT(count_descriptors() <= descriptors, "%d descriptors, %d after the first round", count_descriptors(), descriptors);
    EXPECT(wait_for_threads(3), "%d threads, 3 are the host's", count_threads());
    over = true;
    join_thread(bystanders[0]);
    join_thread(bystanders[1]);
    EXPECT(sql(state, "select count(*) from event where name like 'round-%'") == total + 1, "%lld rows, %d rounds",
           sql(state, "select count(*) from event where name like 'round-%'"), total + 1);
    return finish();
}

/* A client as a host's adapter would be, built against the header of an old release and run with the library of today:
 * what it uses works as it did, and nothing is written beyond the structures it knows. */
#include <stdio.h>
#include <string.h>

#include "mlbridge.h"

static int failures;

static void expect(int holds, const char *what) {
    if (holds)
        return;
    failures++;
    fprintf(stderr, "client built against an old header: %s\n", what);
}

int main(void) {
    struct {
        char before[16];
        union {
            mlb_verdict verdict;
            mlb_stats stats;
        } out;
        char behind[64];
    } guarded;
    char err[256] = "", text[256];
    int level = -1;
    expect(mlb_abi_version() == MLB_ABI_VERSION, "mlb_abi_version");
    mlb_config *config = NULL;
    mlb_engine *engine = NULL;
    expect(mlb_config_new(&config) == MLB_OK, "mlb_config_new");
    expect(mlb_config_set(config, "instance", "client", err, sizeof err) == MLB_OK, err);
    expect(mlb_init(config, &engine, err, sizeof err) == MLB_OK, err);
    mlb_config_free(config);
    if (!engine)
        return 1;

    memset(&guarded, 0x5a, sizeof guarded);
    expect(mlb_classify(engine, "www.example.com", 15, NULL, 0, 1, &guarded.out.verdict) == MLB_OK, "mlb_classify");
    expect(guarded.out.verdict.score > 0 && guarded.out.verdict.decision == MLB_ALLOW && guarded.out.verdict.action == MLB_PASS, "the verdict");
    for (size_t at = sizeof(mlb_verdict); at < sizeof guarded.out; at++)
        expect(((char *)&guarded.out)[at] == 0x5a, "a byte behind the verdict was written");
    memset(&guarded, 0x5a, sizeof guarded);
    expect(mlb_classify_wire(engine, (const uint8_t *)"\3www\7example\3com", 17, NULL, 0, 28, &guarded.out.verdict) == MLB_OK, "mlb_classify_wire");
    memset(&guarded, 0x5a, sizeof guarded);
    expect(mlb_stats_get(engine, &guarded.out.stats, sizeof guarded.out.stats) == MLB_OK, "mlb_stats_get");
    expect(guarded.out.stats.classified == 2 && guarded.out.stats.by_model == 2 && guarded.out.stats.errors == 0, "the counters");
    for (size_t at = 0; at < sizeof guarded.behind; at++)
        expect(guarded.behind[at] == 0x5a && guarded.before[at % 16] == 0x5a, "a byte beside the counters was written");
    expect(mlb_message(engine, text, sizeof text, &level) == MLB_OK && text[0] == 0, "mlb_message");
    expect(mlb_classify(engine, "a..b", 4, NULL, 0, 1, &guarded.out.verdict) == MLB_E_NAME, "a status of old");
    mlb_free(engine);
    engine = NULL;
    expect(mlb_attach("client", &engine) == MLB_OK && engine, "mlb_attach");
    mlb_free(engine);
    return failures > 0;
}

/* What calls the library; apart, so that a program that loads it at run time is not linked to it. */
#include "common.h"

mlb_config *config_of(const char *const *settings) {
    mlb_config *config = NULL;
    char room[64];
    REQUIRE(mlb_config_new(&config) == MLB_OK && config, "no configuration");
    /* A busy machine must not turn a free into a loss; tests of that loss set it themselves. */
    REQUIRE(mlb_config_set(config, "close_timeout_ms", "60000", room, sizeof room) == MLB_OK, "%s", room);
    for (; settings[0]; settings += 2) {
        char err[512] = "";
        mlb_status status = mlb_config_set(config, settings[0], settings[1], err, sizeof err);
        EXPECT(status == MLB_OK, "%s = \"%s\": %s: %s", settings[0], settings[1], mlb_strerror((int)status), err);
    }
    return config;
}

mlb_status try_init(const char *const *settings, mlb_engine **out, char *err, size_t err_len) {
    mlb_config *config = config_of(settings);
    mlb_status status = mlb_init(config, out, err, err_len);
    mlb_config_free(config);
    EXPECT((status == MLB_OK) == (*out != NULL), "mlb_init: %s with the engine at %p", mlb_strerror((int)status),
           (void *)*out);
    return status;
}

mlb_engine *init(const char *const *settings) {
    mlb_engine *engine = NULL;
    char err[512] = "";
    mlb_status status = try_init(settings, &engine, err, sizeof err);
    REQUIRE(status == MLB_OK, "mlb_init: %s: %s", mlb_strerror((int)status), err);
    return engine;
}

mlb_status try_reload(const mlb_engine *engine, const char *const *settings, char *err, size_t err_len) {
    mlb_config *config = config_of(settings);
    mlb_status status = mlb_reload(engine, config, err, err_len);
    mlb_config_free(config);
    return status;
}

mlb_verdict ask(const mlb_engine *engine, const char *name) {
    mlb_verdict verdict;
    memset(&verdict, 0xa5, sizeof verdict);
    mlb_status status = mlb_classify(engine, name, strlen(name), NULL, 0, 1, &verdict);
    EXPECT(status == MLB_OK, "%s: %s", name, mlb_strerror((int)status));
    return verdict;
}

void ask_many(const mlb_engine *engine, const char *prefix, int first, int count) {
    for (int number = first; number < first + count; number++) {
        char name[128];
        snprintf(name, sizeof name, "%s-%d.example.net", prefix, number);
        ask(engine, name);
    }
}

bool all_zero(const void *bytes, size_t length) {
    const unsigned char *byte = bytes;
    while (length > 0 && *byte == 0)
        byte++, length--;
    return length == 0;
}

mlb_stats stats_of(const mlb_engine *engine) {
    mlb_stats stats;
    memset(&stats, 0xa5, sizeof stats);
    mlb_status status = mlb_stats_get(engine, &stats, sizeof stats);
    EXPECT(status == MLB_OK, "mlb_stats_get: %s", mlb_strerror((int)status));
    return stats;
}

void expect_ledger(const mlb_engine *engine) {
    mlb_stats s = stats_of(engine);
    uint64_t dropped = s.dropped_queue + s.dropped_store + s.dropped_forked;
    uint64_t accounted =
        s.skipped + s.not_recorded + s.sampled_out + s.coalesced + dropped + s.queued + s.stored;
    EXPECT(s.classified == accounted,
           "classified %llu is not skipped %llu + not recorded %llu + sampled out %llu + coalesced %llu + dropped "
           "(queue %llu, store %llu, forked %llu) + queued %llu + stored %llu",
           (unsigned long long)s.classified, (unsigned long long)s.skipped, (unsigned long long)s.not_recorded,
           (unsigned long long)s.sampled_out, (unsigned long long)s.coalesced, (unsigned long long)s.dropped_queue,
           (unsigned long long)s.dropped_store, (unsigned long long)s.dropped_forked, (unsigned long long)s.queued,
           (unsigned long long)s.stored);
    EXPECT(s.stored + s.recovered == s.delivered + s.dead_lettered + s.pending + s.evicted,
           "stored %llu + recovered %llu is not delivered %llu + dead-lettered %llu + pending %llu + evicted %llu",
           (unsigned long long)s.stored, (unsigned long long)s.recovered, (unsigned long long)s.delivered, (unsigned long long)s.dead_lettered,
           (unsigned long long)s.pending, (unsigned long long)s.evicted);
}

void end(mlb_engine *engine) {
    expect_ledger(engine);
    mlb_free(engine);
}

const char *sink_error(const mlb_engine *engine) {
    static char text[1024];
    mlb_status status = mlb_sink_error(engine, text, sizeof text);
    EXPECT(status == MLB_OK, "mlb_sink_error: %s", mlb_strerror((int)status));
    return text;
}

mlb_status flush_patiently(const mlb_engine *engine) {
    mlb_status status = MLB_OK;
    for (unsigned waited = 0; waited < PATIENCE_MS; waited += 100) {
        status = mlb_flush(engine, PATIENCE_MS - waited);
        if (status == MLB_OK)
            return status;
        sleep_ms(100);
    }
    return status;
}

bool wait_for_counter(const mlb_engine *engine, size_t offset, uint64_t least) {
    for (unsigned waited = 0; waited < PATIENCE_MS; waited += 20) {
        mlb_stats stats = stats_of(engine);
        uint64_t counter;
        memcpy(&counter, (const char *)&stats + offset, sizeof counter);
        if (counter >= least)
            return true;
        sleep_ms(20);
    }
    return false;
}

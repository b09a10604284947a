/* NULL and absurd arguments give a status, never a crash; an error leaves a zeroed verdict, NULL handles and nothing
 * else written. */
#include "common.h"

#include <sys/mman.h>

static const char FILL = 0x5a;

static void expect_untouched(const char *bytes, size_t from, size_t to, const char *what) {
    for (size_t at = from; at < to; at++)
        if (!EXPECT(bytes[at] == FILL, "%s: byte %zu was written", what, at))
            return;
}

/* A status that is an error and has a text of its own. */
static void expect_error(mlb_status status, const char *what) {
    EXPECT(status != MLB_OK, "%s: accepted", what);
    EXPECT(mlb_strerror((int)status)[0] != 0, "%s: status %d has no text", what, (int)status);
}

static void texts(void) {
    for (int status = -3; status < 300; status++) {
        const char *text = mlb_strerror(status);
        EXPECT(text && text[0] && strlen(text) < 200, "status %d", status);
        EXPECT(text == mlb_strerror(status), "status %d: the text is not static", status);
    }
    EXPECT(mlb_strerror(INT32_MAX) && mlb_strerror(INT32_MIN), "extreme status");
    EXPECT(mlb_abi_version() == MLB_ABI_VERSION, "header %d, library %u", MLB_ABI_VERSION, mlb_abi_version());
    EXPECT(mlb_version() && strchr(mlb_version(), '.'), "version");
}

static void settings(void) {
    mlb_config *config = NULL;
    char err[300];
    EXPECT(mlb_config_new(NULL) == MLB_E_INVALID, "NULL out");
    REQUIRE(mlb_config_new(&config) == MLB_OK && config, "mlb_config_new");
    EXPECT(mlb_config_set(NULL, "mode", "observe", err, sizeof err) == MLB_E_INVALID, "NULL configuration");
    EXPECT(mlb_config_set(config, NULL, "observe", err, sizeof err) == MLB_E_INVALID, "NULL key");
    EXPECT(mlb_config_set(config, "mode", NULL, err, sizeof err) == MLB_E_INVALID, "NULL value");
    EXPECT(mlb_config_set(config, "no.such.key", "1", err, sizeof err) == MLB_E_CONFIG, "unknown key");
    EXPECT(strstr(err, "no.such.key") != NULL, "the text does not name the key: %s", err);
    static const char *const bad[][2] = {
        {"", ""},
        {"mode", "sometimes"},
        {"mode", ""},
        {"cache.entries", "-1"},
        {"cache.entries", "99999999999999999999999"},
        {"cache.entries", "many"},
        {"threshold.vet", "1.5"},
        {"threshold.vet", "nan"},
        {"threshold.block", "-0.1"},
        {"block.action", "explode"},
        {"block.ttl", "-5"},
        {"sinkhole.ipv4", "2001:db8::1"},
        {"sinkhole.ipv6", "192.0.2.1"},
        {"record.allow", "sample:0"},
        {"record.allow", "sample:"},
        {"record.client", "somewhat"},
        {"queue.events", "0"},
        {"close_timeout_ms", "soon"},
        {"groups.x.cidr", "10.0.0.0/33"},
        {"mode\n", "observe"},
    };
    for (size_t row = 0; row < sizeof bad / sizeof bad[0]; row++) {
        memset(err, FILL, sizeof err);
        mlb_status status = mlb_config_set(config, bad[row][0], bad[row][1], err, sizeof err);
        EXPECT(status == MLB_E_CONFIG, "%s = \"%s\": %s", bad[row][0], bad[row][1], mlb_strerror((int)status));
        if (status != MLB_E_CONFIG || !EXPECT(memchr(err, 0, sizeof err) != NULL, "%s: text without end", bad[row][0]))
            continue;
        EXPECT(strstr(err, bad[row][0]) || strchr(bad[row][0], '\n'), "\"%s\" does not name %s", err, bad[row][0]);
    }
    EXPECT(mlb_config_set(config, "mode", "\xff\xfe", err, sizeof err) == MLB_E_INVALID, "a value that is no UTF-8");
    char huge[70000];
    memset(huge, 'x', sizeof huge - 1);
    huge[sizeof huge - 1] = 0;
    expect_error(mlb_config_set(config, huge, "1", err, sizeof err), "a key of 70,000 bytes");
    expect_error(mlb_config_set(config, "mode", huge, err, sizeof err), "a value of 70,000 bytes");

    /* Room for the text: none, one byte, few, and a claim of room that NULL contradicts. */
    EXPECT(mlb_config_set(config, "mode", "x", NULL, 0) == MLB_E_CONFIG, "no room for the text");
    EXPECT(mlb_config_set(config, "mode", "x", NULL, 100) != MLB_OK, "NULL text of length 100");
    EXPECT(mlb_config_set(config, "mode", "x", err, 0) == MLB_E_CONFIG, "text of length 0");
    for (size_t room = 1; room < 64; room++) {
        memset(err, FILL, sizeof err);
        EXPECT(mlb_config_set(config, "mode", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", err, room) == MLB_E_CONFIG, "text of %zu", room);
        EXPECT(memchr(err, 0, room) != NULL, "text of %zu bytes has no end", room);
        expect_untouched(err, room, sizeof err, "text");
        size_t length = strnlen(err, room);
        size_t tail = 0;
        while (tail < length && ((unsigned char)err[length - 1 - tail] & 0xc0) == 0x80)
            tail++;
        unsigned char lead = tail < length ? (unsigned char)err[length - 1 - tail] : 0;
        bool whole = lead < 0x80 ? tail == 0 : tail == (lead >= 0xf0 ? 3U : lead >= 0xe0 ? 2U : 1U);
        EXPECT(whole, "text of %zu bytes is cut within a character", room);
    }

    expect_error(mlb_config_load(config, "/no/such/file.toml", err, sizeof err), "missing file");
    EXPECT(strstr(err, "/no/such/file.toml") != NULL, "the text does not name the file: %s", err);
    EXPECT(mlb_config_load(NULL, "/etc/hosts", err, sizeof err) == MLB_E_INVALID, "NULL configuration");
    EXPECT(mlb_config_load(config, NULL, err, sizeof err) == MLB_E_INVALID, "NULL path");
    expect_error(mlb_config_load(config, "/", err, sizeof err), "a folder as file");
    expect_error(mlb_config_load(config, "/dev/zero", err, sizeof err), "an endless file");
    expect_error(mlb_config_load(config, huge, err, sizeof err), "a path of 70,000 bytes");
    const char *path = format_path("%s/broken.toml", scratch());
    write_file(path, "mode = \"observe\"\nblock.ttl = \"oops\"\n", 0600);
    expect_error(mlb_config_load(config, path, err, sizeof err), "a bad value in a file");
    EXPECT(strstr(err, "block.ttl") != NULL, "the text does not name the key: %s", err);

    /* All or nothing: `observe` of the broken file must not be in force. */
    EXPECT(mlb_config_set(config, "lists.block", path = format_path("%s/block", scratch()), err, sizeof err) == MLB_OK, "%s", err);
    write_file(path, "blocked.example\n", 0600);
    mlb_engine *engine = NULL;
    EXPECT(mlb_init(config, &engine, err, sizeof err) == MLB_OK, "%s", err);
    if (engine)
        EXPECT(ask(engine, "blocked.example").action == MLB_NXDOMAIN, "half of a broken file is in force");
    mlb_free(engine);
    mlb_config_free(config);
    mlb_config_free(NULL);
}

static void handles(void) {
    char err[300] = "";
    mlb_engine *engine;
    memset(&engine, FILL, sizeof engine);
    mlb_config *config = config_of(SETTINGS("lists.block", "/no/such/list"));
    expect_error(mlb_init(config, &engine, err, sizeof err), "a missing list");
    EXPECT(engine == NULL, "the handle is not NULL after an error");
    EXPECT(strstr(err, "/no/such/list") != NULL, "the text does not name the file: %s", err);
    EXPECT(mlb_init(config, NULL, err, sizeof err) == MLB_E_INVALID, "NULL out");
    EXPECT(mlb_init(config, &engine, NULL, 0) != MLB_OK, "no room for the text");
    mlb_config_free(config);
    config = config_of(SETTINGS("threshold.vet", "0.9", "threshold.block", "0.5"));
    EXPECT(mlb_init(config, &engine, err, sizeof err) == MLB_E_CONFIG, "vet above block: %s", err);
    mlb_config_free(config);
    config = config_of(SETTINGS("model.path", "/no/such/model"));
    expect_error(mlb_init(config, &engine, err, sizeof err), "a missing model");
    EXPECT(strstr(err, "/no/such/model") != NULL, "the text does not name the model: %s", err);
    mlb_config_free(config);
    config = config_of(SETTINGS("block.action", "sinkhole"));
    EXPECT(mlb_init(config, &engine, err, sizeof err) == MLB_E_CONFIG, "a sinkhole without address");
    mlb_config_free(config);
    memset(&engine, FILL, sizeof engine);
    EXPECT(mlb_attach("nobody", &engine) == MLB_E_INVALID && engine == NULL, "an instance that is not there");
    memset(&engine, FILL, sizeof engine);
    EXPECT(mlb_attach(NULL, &engine) == MLB_E_INVALID && engine == NULL, "NULL instance");
    EXPECT(mlb_attach("nobody", NULL) == MLB_E_INVALID, "NULL out");
    EXPECT(mlb_attach("", &engine) == MLB_E_INVALID, "empty instance");
    EXPECT(mlb_attach("\xff\xfe", &engine) == MLB_E_INVALID, "instance that is no UTF-8");
    mlb_free(NULL);
}

/* One call of each classifier with arguments that must be refused. */
static void refused(const mlb_engine *engine, const char *name, size_t length, const uint8_t *client, size_t client_length,
                    mlb_status expected, const char *what) {
    mlb_verdict verdict;
    memset(&verdict, FILL, sizeof verdict);
    mlb_status status = mlb_classify(engine, name, length, client, client_length, 1, &verdict);
    EXPECT(status == expected, "%s: %s", what, mlb_strerror((int)status));
    EXPECT(all_zero(&verdict, sizeof verdict), "%s: the verdict is not zeroed", what);
    memset(&verdict, FILL, sizeof verdict);
    status = mlb_classify_wire(engine, (const uint8_t *)name, length, client, client_length, 1, &verdict);
    EXPECT(status != MLB_OK, "%s: accepted as wire form", what);
    EXPECT(all_zero(&verdict, sizeof verdict), "%s: the verdict of the wire form is not zeroed", what);
}

static void classify(const mlb_engine *engine) {
    static const uint8_t address[32] = {192, 0, 2, 1};
    mlb_verdict verdict;
    refused(NULL, "example.com", 11, NULL, 0, MLB_E_INVALID, "NULL engine");
    refused(engine, NULL, 11, NULL, 0, MLB_E_INVALID, "NULL name with a length");
    refused(engine, NULL, SIZE_MAX, NULL, 0, MLB_E_INVALID, "NULL name of length SIZE_MAX");
    refused(engine, NULL, 0, NULL, 0, MLB_E_INVALID, "NULL name");
    refused(engine, "example.com", SIZE_MAX, NULL, 0, MLB_E_INVALID, "length SIZE_MAX");
    refused(engine, "example.com", SIZE_MAX / 2, NULL, 0, MLB_E_NAME, "length SIZE_MAX / 2");
    refused(engine, "example.com", (size_t)PTRDIFF_MAX + 1, NULL, 0, MLB_E_INVALID, "length PTRDIFF_MAX + 1");
    refused(engine, "", 0, NULL, 0, MLB_E_NAME, "no name");
    refused(engine, "a..b", 4, NULL, 0, MLB_E_NAME, "an empty label");
    static const size_t lengths[] = {1, 2, 3, 5, 15, 17, 32, SIZE_MAX};
    for (size_t row = 0; row < sizeof lengths / sizeof lengths[0]; row++)
        refused(engine, "example.com", 11, address, lengths[row], MLB_E_INVALID, "client of an odd length");
    refused(engine, "example.com", 11, NULL, 4, MLB_E_INVALID, "NULL client of length 4");
    refused(engine, "example.com", 11, NULL, 16, MLB_E_INVALID, "NULL client of length 16");
    EXPECT(mlb_classify(engine, "example.com", 11, address, 0, 1, &verdict) == MLB_OK, "no client, with a pointer");
    EXPECT(mlb_classify(engine, "example.com", 11, NULL, 0, 1, NULL) == MLB_E_INVALID, "NULL verdict");
    EXPECT(mlb_classify_wire(engine, address, 3, NULL, 0, 1, NULL) == MLB_E_INVALID, "NULL verdict");

    /* A verdict, a name and a client that are not aligned, the name at the very end of a page. */
    char bytes[sizeof verdict + 8];
    for (size_t shift = 0; shift < 8; shift++) {
        memset(bytes, FILL, sizeof bytes);
        mlb_status status = mlb_classify(engine, "example.com", 11, address + shift, 4, 1, (mlb_verdict *)(void *)(bytes + shift));
        EXPECT(status == MLB_OK || (status == MLB_E_INVALID && shift > 0), "verdict at offset %zu: %d", shift, (int)status);
        expect_untouched(bytes, 0, shift, "before the verdict");
        expect_untouched(bytes, shift + sizeof verdict, sizeof bytes, "behind the verdict");
    }
    long page = sysconf(_SC_PAGESIZE);
    char *pages = mmap(NULL, (size_t)page * 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(pages != MAP_FAILED && mprotect(pages + page, (size_t)page, PROT_NONE) == 0, "mmap");
    static const char *const names[] = {"a", "example.com", "xn--bcher-kva.example", "\\097.example.com", "b\xc3\xbc" "cher.example", "\\"};
    for (size_t row = 0; row < sizeof names / sizeof names[0]; row++) {
        size_t length = strlen(names[row]);
        char *name = pages + page - length;
        memcpy(name, names[row], length);
        any_status(mlb_classify(engine, name, length, NULL, 0, 1, &verdict));
        any_status(mlb_classify_wire(engine, (const uint8_t *)name, length, NULL, 0, 1, &verdict));
    }
    munmap(pages, (size_t)page * 2);
    for (unsigned qtype = 0; qtype <= 65535; qtype += 257)
        EXPECT(mlb_classify(engine, "example.com", 11, NULL, 0, (uint16_t)qtype, &verdict) == MLB_OK, "type %u", qtype);
}

static void batch(const mlb_engine *engine) {
    static const char *const names[] = {"example.com", "a..b", NULL, "www.example.org"};
    static const size_t lengths[] = {11, 4, 7, 15};
    float scores[5] = {-1, -1, -1, -1, -1};
    EXPECT(mlb_score_batch(NULL, names, lengths, 1, scores) == MLB_E_INVALID, "NULL engine");
    EXPECT(mlb_score_batch(engine, NULL, lengths, 1, scores) == MLB_E_INVALID, "NULL names");
    EXPECT(mlb_score_batch(engine, names, NULL, 1, scores) == MLB_E_INVALID, "NULL lengths");
    EXPECT(mlb_score_batch(engine, names, lengths, 1, NULL) == MLB_E_INVALID, "NULL scores");
    EXPECT(mlb_score_batch(engine, names, lengths, 0, scores) == MLB_OK, "nothing to score");
    any_status(mlb_score_batch(engine, NULL, NULL, 0, NULL));
    EXPECT(scores[0] == -1, "something was written");
    expect_error(mlb_score_batch(engine, names, lengths, SIZE_MAX, scores), "SIZE_MAX names");
    expect_error(mlb_score_batch(engine, names, lengths, SIZE_MAX / 8 + 1, scores), "more names than memory has room for");
    mlb_status status = mlb_score_batch(engine, names, lengths, 4, scores);
    EXPECT(status == MLB_OK || status == MLB_E_INVALID, "a NULL among the names: %d", (int)status);
    if (status == MLB_OK) {
        EXPECT(scores[0] >= 0 && scores[0] <= 1 && scores[3] >= 0 && scores[3] <= 1, "scores %f %f", scores[0], scores[3]);
        EXPECT(scores[1] != scores[1] && scores[2] != scores[2], "what is no name must be NaN: %f %f", scores[1], scores[2]);
    }
    EXPECT(scores[4] == -1, "a score too many");
}

typedef mlb_status text_call(const mlb_engine *engine, char *buffer, size_t room, size_t *need);

static mlb_status explain(const mlb_engine *engine, char *buffer, size_t room, size_t *need) {
    return mlb_explain(engine, "www.example.com", 15, buffer, room, need);
}

/* The calls that tell the room they need. */
static void text_with_need(const mlb_engine *engine, text_call *call, const char *what) {
    size_t need = 12345, again = 0;
    EXPECT(call(NULL, NULL, 0, &need) == MLB_E_INVALID, "%s: NULL engine", what);
    EXPECT(call(engine, NULL, 0, &need) == MLB_E_RANGE && need > 2 && need < 10000000, "%s: need %zu", what, need);
    EXPECT(call(engine, NULL, 100, &again) != MLB_OK, "%s: NULL buffer of length 100", what);
    EXPECT(call(engine, NULL, 0, NULL) != MLB_OK, "%s: no buffer and no need", what);
    char *buffer = malloc(need + 64);
    for (int attempt = 0; buffer && attempt < 3; attempt++) {
        size_t room = attempt == 0 ? 1 : attempt == 1 ? need / 2 : need - 1;
        memset(buffer, FILL, need + 64);
        EXPECT(call(engine, buffer, room, &again) == MLB_E_RANGE, "%s: %zu bytes of %zu are enough", what, room, need);
        EXPECT(again == need, "%s: need %zu, then %zu", what, need, again);
        expect_untouched(buffer, 0, need + 64, what);
        EXPECT(call(engine, buffer, room, NULL) == MLB_E_RANGE, "%s: too small, no need", what);
    }
    if (buffer) {
        memset(buffer, FILL, need + 64);
        EXPECT(call(engine, buffer, need, NULL) == MLB_OK, "%s: the room asked for is not enough", what);
        EXPECT(memchr(buffer, 0, need) != NULL, "%s: no end", what);
        expect_untouched(buffer, need, need + 64, what);
    }
    free(buffer);
}

static void texts_of_engine(const mlb_engine *engine) {
    text_with_need(engine, explain, "mlb_explain");
    text_with_need(engine, mlb_metrics, "mlb_metrics");
    char buffer[64];
    size_t need = 0;
    EXPECT(mlb_explain(engine, NULL, 5, buffer, sizeof buffer, &need) == MLB_E_INVALID, "NULL name");
    EXPECT(mlb_explain(engine, "a..b", 4, buffer, sizeof buffer, &need) == MLB_E_NAME, "not a name");
    EXPECT(mlb_explain(engine, "a.b", SIZE_MAX, buffer, sizeof buffer, &need) == MLB_E_INVALID, "length SIZE_MAX");

    EXPECT(mlb_sink_error(NULL, buffer, sizeof buffer) == MLB_E_INVALID, "NULL engine");
    EXPECT(mlb_sink_error(engine, NULL, 10) == MLB_E_INVALID, "NULL buffer");
    any_status(mlb_sink_error(engine, buffer, 0));
    memset(buffer, FILL, sizeof buffer);
    EXPECT(mlb_sink_error(engine, buffer, 1) == MLB_OK && buffer[0] == 0, "one byte");
    expect_untouched(buffer, 1, sizeof buffer, "mlb_sink_error");

    int level = 77;
    EXPECT(mlb_message(NULL, buffer, sizeof buffer, &level) == MLB_E_INVALID, "NULL engine");
    EXPECT(mlb_message(engine, NULL, 10, &level) == MLB_E_INVALID, "NULL buffer");
    any_status(mlb_message(engine, buffer, 0, &level));
    any_status(mlb_message(engine, buffer, sizeof buffer, NULL));
}

static void stats(const mlb_engine *engine) {
    mlb_stats whole;
    EXPECT(mlb_stats_get(NULL, &whole, sizeof whole) == MLB_E_INVALID, "NULL engine");
    EXPECT(mlb_stats_get(engine, NULL, sizeof whole) == MLB_E_INVALID, "NULL out");
    static char bytes[sizeof whole + 4096];
    static const size_t sizes[] = {0, 1, 7, 8, 9, 16, 20, sizeof whole - 8, sizeof whole - 1, sizeof whole, sizeof whole + 8, sizeof whole + 2048};
    mlb_stats reference = stats_of(engine);
    for (size_t row = 0; row < sizeof sizes / sizeof sizes[0]; row++) {
        size_t size = sizes[row], known = size < sizeof whole ? size : sizeof whole;
        memset(bytes, FILL, sizeof bytes);
        mlb_status status = mlb_stats_get(engine, (mlb_stats *)(void *)bytes, size);
        if (!EXPECT(status == MLB_OK, "%zu bytes: %s", size, mlb_strerror((int)status)))
            continue;
        EXPECT(memcmp(bytes, &reference, known / 8 * 8) == 0, "%zu bytes: other counters", size);
        EXPECT(all_zero(bytes + known, size - known), "%zu bytes: the rest is not zero", size);
        expect_untouched(bytes, size, sizeof bytes, "mlb_stats_get");
    }
}

int main(void) {
    texts();
    settings();
    handles();
    mlb_engine *engine = init(NO_SETTINGS);
    mlb_engine *defaults = NULL;
    EXPECT(mlb_init(NULL, &defaults, NULL, 0) == MLB_OK && defaults, "defaults");
    mlb_free(defaults);
    ask(engine, "www.example.com");
    classify(engine);
    batch(engine);
    texts_of_engine(engine);
    stats(engine);
    EXPECT(mlb_flush(NULL, 0) == MLB_E_INVALID, "NULL engine");
    EXPECT(mlb_flush(engine, 0) == MLB_OK && mlb_flush(engine, UINT32_MAX) == MLB_OK, "flush with nothing to flush");
    EXPECT(mlb_reload(NULL, NULL, NULL, 0) == MLB_E_INVALID, "NULL engine");
    mlb_verdict verdict = ask(engine, "www.example.com");
    EXPECT(verdict.score > 0 && all_zero(verdict.reserved, sizeof verdict.reserved), "the engine does not answer as before");
    end(engine);
    return finish();
}

/* What a host reads from a verdict: decisions by lists and thresholds, actions with their addresses and times to live,
 * observe mode, groups of clients, the breaker. */
#include "common.h"

#include <math.h>

static const uint8_t guest[4] = {198, 51, 100, 7}, guest_mapped[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, 7}, guest6[16] = {0x20, 1, 0xd, 0xb8, 0, 1};

static mlb_verdict ask_from(const mlb_engine *engine, const char *name, const uint8_t *client, size_t length) {
    mlb_verdict verdict;
    mlb_status status = mlb_classify(engine, name, strlen(name), client, length, 1, &verdict);
    EXPECT(status == MLB_OK, "%s: %s", name, mlb_strerror((int)status));
    return verdict;
}

static void expect_verdict(const mlb_engine *engine, const char *name, int source, int decision, int action) {
    mlb_verdict v = ask(engine, name);
    EXPECT(v.source == source && v.decision == decision && v.action == action, "%s: source %d, decision %d, action %d; expected %d, %d, %d", name, v.source, v.decision, v.action, source,
           decision, action);
    EXPECT(all_zero(v.reserved, sizeof v.reserved), "%s: the reserved bytes are not zero", name);
    EXPECT(action == MLB_SINKHOLE || (all_zero(v.sinkhole4, 4) && all_zero(v.sinkhole6, 16)), "%s: an address without a sinkhole", name);
    EXPECT(v.score >= 0 && v.score <= 1 && v.fpr >= 0 && v.fpr <= 1, "%s: score %f, fpr %f", name, v.score, v.fpr);
    EXPECT(v.label == (v.score >= 0.5F), "%s: label %d, score %f", name, v.label, v.score);
}

static void lists(void) {
    const char *allow = format_path("%s/allow", scratch()), *block = format_path("%s/block", scratch()), *popular = format_path("%s/popular.csv", scratch());
    write_file(allow, "# a comment\nexact-allow.wide.example\n*.allowed.example\nboth.example\n", 0600);
    write_file(block, "plain.example\r\n*.wide.example\n0.0.0.0 hosts.example\n127.0.0.1 localhost\n||adblock.example^\nBOTH.example.\n\xc3\xa4.example\n", 0600);
    write_file(popular, "1,popular.example\n2,other.example\n", 0600);
    mlb_engine *engine = init(SETTINGS("lists.allow", allow, "lists.block", block, "lists.popular", popular, "block.ttl", "123"));
    const struct {
        const char *name;
        int source, decision, action;
    } rows[] = {
        {"plain.example", MLB_SOURCE_BLOCKLIST, MLB_BLOCK, MLB_NXDOMAIN},
        {"PLAIN.example.", MLB_SOURCE_BLOCKLIST, MLB_BLOCK, MLB_NXDOMAIN},
        {"below.plain.example", MLB_SOURCE_MODEL, MLB_ALLOW, MLB_PASS},
        {"a.b.wide.example", MLB_SOURCE_BLOCKLIST, MLB_BLOCK, MLB_NXDOMAIN},
        {"wide.example", MLB_SOURCE_MODEL, MLB_ALLOW, MLB_PASS},
        {"exact-allow.wide.example", MLB_SOURCE_ALLOWLIST, MLB_ALLOW, MLB_PASS},
        {"below.exact-allow.wide.example", MLB_SOURCE_BLOCKLIST, MLB_BLOCK, MLB_NXDOMAIN},
        {"hosts.example", MLB_SOURCE_BLOCKLIST, MLB_BLOCK, MLB_NXDOMAIN},
        {"www.hosts.example", MLB_SOURCE_MODEL, MLB_ALLOW, MLB_PASS},
        {"adblock.example", MLB_SOURCE_BLOCKLIST, MLB_BLOCK, MLB_NXDOMAIN},
        {"www.adblock.example", MLB_SOURCE_BLOCKLIST, MLB_BLOCK, MLB_NXDOMAIN},
        {"xadblock.example", MLB_SOURCE_MODEL, MLB_ALLOW, MLB_PASS},
        {"both.example", MLB_SOURCE_ALLOWLIST, MLB_ALLOW, MLB_PASS},
        {"www.allowed.example", MLB_SOURCE_ALLOWLIST, MLB_ALLOW, MLB_PASS},
        {"\xc3\xa4.example", MLB_SOURCE_BLOCKLIST, MLB_BLOCK, MLB_NXDOMAIN},
        {"www.popular.example", MLB_SOURCE_POPULAR, MLB_ALLOW, MLB_PASS},
        {"localhost", MLB_SOURCE_SKIPPED, MLB_ALLOW, MLB_PASS},
    };
    for (size_t row = 0; row < sizeof rows / sizeof rows[0]; row++)
        expect_verdict(engine, rows[row].name, rows[row].source, rows[row].decision, rows[row].action);
    EXPECT(ask(engine, "plain.example").ttl == 123, "ttl %u", ask(engine, "plain.example").ttl);
    for (unsigned qtype = 1; qtype < 300; qtype++) {
        mlb_verdict verdict;
        EXPECT(mlb_classify(engine, "plain.example", 13, NULL, 0, (uint16_t)qtype, &verdict) == MLB_OK && verdict.decision == MLB_BLOCK, "type %u changes the verdict", qtype);
    }
    end(engine);
}

static void actions(void) {
    const char *block = format_path("%s/block", scratch());
    write_file(block, "blocked.example\n", 0600);
    static const char *const words[] = {"pass", "nxdomain", "nodata", "refused", "sinkhole", "drop"};
    for (int action = 0; action < 6; action++) {
        mlb_engine *engine = init(SETTINGS("lists.block", block, "block.action", words[action], "sinkhole.ipv4", "192.0.2.66", "sinkhole.ipv6", "2001:db8::66"));
        expect_verdict(engine, "blocked.example", MLB_SOURCE_BLOCKLIST, MLB_BLOCK, action);
        mlb_verdict verdict = ask(engine, "blocked.example");
        if (action == MLB_SINKHOLE) {
            static const uint8_t v4[4] = {192, 0, 2, 66}, v6[16] = {0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x66};
            EXPECT(memcmp(verdict.sinkhole4, v4, 4) == 0 && memcmp(verdict.sinkhole6, v6, 16) == 0, "the sinkhole's addresses");
        }
        EXPECT(verdict.ttl == 60, "%s: ttl %u", words[action], verdict.ttl);
        end(engine);
    }
    mlb_engine *engine = init(SETTINGS("lists.block", block, "mode", "observe"));
    expect_verdict(engine, "blocked.example", MLB_SOURCE_BLOCKLIST, MLB_BLOCK, MLB_PASS);
    EXPECT(ask(engine, "blocked.example").flags & MLB_FLAG_OBSERVED, "observe mode is not flagged");
    EXPECT(!(ask(engine, "free.example").flags & MLB_FLAG_OBSERVED), "a pass is flagged as observed");
    end(engine);
}

static void thresholds(void) {
    mlb_engine *plain = init(NO_SETTINGS);
    float score = ask(plain, "www.example.com").score;
    mlb_verdict cached = ask(plain, "www.example.com");
    EXPECT(cached.flags & MLB_FLAG_CACHED && cached.score == score && cached.model != 0, "flags %x", cached.flags);
    end(plain);
    char at[32], above[32];
    snprintf(at, sizeof at, "%.9g", score);
    snprintf(above, sizeof above, "%.9g", nextafterf(score, 2));
    REQUIRE(score < 1, "score %f", score);
    mlb_engine *engine = init(SETTINGS("threshold.vet", at, "threshold.block", above, "vet.action", "nodata"));
    expect_verdict(engine, "www.example.com", MLB_SOURCE_MODEL, MLB_VET, MLB_NODATA);
    end(engine);
    engine = init(SETTINGS("threshold.vet", "0", "threshold.block", at, "breaker.max_block_ratio", "1"));
    expect_verdict(engine, "www.example.com", MLB_SOURCE_MODEL, MLB_BLOCK, MLB_NXDOMAIN);
    end(engine);
    engine = init(SETTINGS("threshold.vet", above, "threshold.block", "1"));
    expect_verdict(engine, "www.example.com", MLB_SOURCE_MODEL, MLB_ALLOW, MLB_PASS);
    end(engine);
}

static void groups(void) {
    const char *block = format_path("%s/guests", scratch());
    write_file(block, "games.example\n", 0600);
    mlb_engine *engine = init(SETTINGS("groups.guests.cidr", "198.51.100.0/24,2001:db8:1::/48", "groups.guests.lists.block", block, "groups.guests.block.action", "refused"));
    EXPECT(ask(engine, "games.example").decision == MLB_ALLOW, "no client, yet the guests' list");
    EXPECT(ask_from(engine, "games.example", guest, 4).action == MLB_REFUSED, "a guest");
    EXPECT(ask_from(engine, "games.example", guest_mapped, 16).action == MLB_REFUSED, "a guest as ::ffff:a.b.c.d");
    EXPECT(ask_from(engine, "games.example", guest6, 16).action == MLB_REFUSED, "a guest over IPv6");
    static const uint8_t other[4] = {198, 51, 101, 7};
    EXPECT(ask_from(engine, "games.example", other, 4).decision == MLB_ALLOW, "the neighbour network");
    end(engine);
}

/* Lists are read again when their files change; a list that breaks or vanishes leaves the old one in force, and says so. */
static void lists_change(void) {
    const char *block = format_path("%s/changing", scratch());
    write_file(block, "first.example\n", 0600);
    mlb_engine *engine = init(SETTINGS("lists.block", block));
    EXPECT(ask(engine, "first.example").decision == MLB_BLOCK && ask(engine, "second.example").decision == MLB_ALLOW, "the list at first");
    const char *other = format_path("%s/changing.new", scratch());
    write_file(other, "second.example\nthird.example\n", 0600);
    EXPECT(rename(other, block) == 0, "rename");
    bool changed = false;
    for (unsigned waited = 0; waited < PATIENCE_MS && !changed; waited += 20, sleep_ms(20))
        changed = ask(engine, "second.example").decision == MLB_BLOCK;
    EXPECT(changed && ask(engine, "first.example").decision == MLB_ALLOW, "a changed list is not in force");
    char text[500] = "";
    int level = -1;
    while (mlb_message(engine, text, sizeof text, &level) == MLB_OK && text[0])
        continue;
    EXPECT(unlink(block) == 0, "unlink");
    bool told = false;
    for (unsigned waited = 0; waited < PATIENCE_MS && !told; waited += 20, sleep_ms(20))
        told = ask(engine, "third.example").flags & MLB_FLAG_MESSAGE;
    EXPECT(told && mlb_message(engine, text, sizeof text, &level) == MLB_OK && strstr(text, block), "nobody is told of the missing list: %s", text);
    EXPECT(ask(engine, "second.example").decision == MLB_BLOCK, "a missing list ends the blocking");
    end(engine);
}

/* A model that blocks everything must not take a site down. */
static void breaker(void) {
    mlb_engine *engine = init(SETTINGS("threshold.vet", "0", "threshold.block", "0", "breaker.min_queries", "50", "breaker.max_block_ratio", "0.5", "breaker.window_s", "600"));
    bool tripped = false;
    for (int number = 0; number < 2000 && !tripped; number++) {
        char name[64];
        snprintf(name, sizeof name, "www.site%d.com", number);
        mlb_verdict verdict = ask(engine, name);
        EXPECT(verdict.decision == MLB_BLOCK, "%s: decision %d", name, verdict.decision);
        tripped = verdict.flags & MLB_FLAG_BREAKER;
        EXPECT(verdict.action == (tripped ? MLB_PASS : MLB_NXDOMAIN), "%s: action %d, flags %x", name, verdict.action, verdict.flags);
    }
    EXPECT(tripped, "2,000 blocks of 2,000 sites and the breaker stays closed");
    EXPECT(ask(engine, "www.site1.com").flags & MLB_FLAG_MESSAGE, "nobody is told that the breaker tripped");
    EXPECT(stats_of(engine).breaker > 0, "the breaker is not counted");
    end(engine);
}

int main(void) {
    lists();
    actions();
    thresholds();
    groups();
    lists_change();
    breaker();
    return finish();
}

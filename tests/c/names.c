/* Names: long, escaped, international and odd ones; text and wire form of one name get the same verdict. */
#include "common.h"

#include <math.h>

struct wire {
    uint8_t bytes[300];
    size_t length;
};

/* Text without escapes to wire form, case kept. */
static struct wire wire_of(const char *text, size_t length) {
    struct wire wire = {{0}, 0};
    size_t start = 0;
    for (size_t at = 0; at <= length; at++) {
        if (at < length && text[at] != '.')
            continue;
        wire.bytes[wire.length++] = (uint8_t)(at - start);
        memcpy(wire.bytes + wire.length, text + start, at - start);
        wire.length += at - start;
        start = at + 1;
    }
    wire.bytes[wire.length++] = 0;
    return wire;
}

static mlb_status text(const mlb_engine *engine, const char *name, size_t length, mlb_verdict *verdict) {
    memset(verdict, 0xa5, sizeof *verdict);
    return mlb_classify(engine, name, length, NULL, 0, 1, verdict);
}

static mlb_status wire(const mlb_engine *engine, const void *name, size_t length, mlb_verdict *verdict) {
    memset(verdict, 0xa5, sizeof *verdict);
    return mlb_classify_wire(engine, name, length, NULL, 0, 1, verdict);
}

static bool same(mlb_verdict a, mlb_verdict b) {
    const uint32_t per_call = MLB_FLAG_CACHED | MLB_FLAG_MESSAGE | MLB_FLAG_DROPPED;
    a.flags &= ~per_call;
    b.flags &= ~per_call;
    return memcmp(&a, &b, sizeof a) == 0;
}

static void expect_same(const mlb_engine *engine, const char *name, const void *bytes, size_t length) {
    mlb_verdict of_text, of_wire;
    mlb_status status = text(engine, name, strlen(name), &of_text);
    EXPECT(status == MLB_OK, "%s: %s", name, mlb_strerror((int)status));
    status = wire(engine, bytes, length, &of_wire);
    EXPECT(status == MLB_OK, "%s in wire form: %s", name, mlb_strerror((int)status));
    EXPECT(same(of_text, of_wire), "%s: score %.9g as text, %.9g in wire form", name, of_text.score, of_wire.score);
}

static void expect_refused(const mlb_engine *engine, const char *name, size_t length, const char *what) {
    mlb_verdict verdict;
    mlb_status status = text(engine, name, length, &verdict);
    EXPECT(status == MLB_E_NAME, "%s: %s", what, mlb_strerror((int)status));
    EXPECT(all_zero(&verdict, sizeof verdict), "%s: the verdict is not zeroed", what);
}

static void expect_wire_refused(const mlb_engine *engine, const void *name, size_t length, const char *what) {
    mlb_verdict verdict;
    mlb_status status = wire(engine, name, length, &verdict);
    EXPECT(status == MLB_E_NAME, "%s: %s", what, mlb_strerror((int)status));
    EXPECT(all_zero(&verdict, sizeof verdict), "%s: the verdict is not zeroed", what);
}

static void usual(const mlb_engine *engine) {
    static const char *const names[] = {
        "example.com",     "www.Example.COM", "_dmarc.example.org", "r4---sn-x.googlevideo.com", "a.b.c.d.e.f.g.h.example.net",
        "xn--bcher-kva.de", "-.example.com",  "*.example.com",      "under_score.example.com",   "com.example.co.uk",
        "1.2.3.4.example",  "x.y",
    };
    for (size_t row = 0; row < sizeof names / sizeof names[0]; row++) {
        struct wire form = wire_of(names[row], strlen(names[row]));
        expect_same(engine, names[row], form.bytes, form.length);
        char dotted[128], upper[128];
        snprintf(dotted, sizeof dotted, "%s.", names[row]);
        expect_same(engine, dotted, form.bytes, form.length);
        snprintf(upper, sizeof upper, "%s", names[row]);
        for (char *letter = upper; *letter; letter++)
            *letter = *letter >= 'a' && *letter <= 'z' ? (char)(*letter - 32) : *letter;
        expect_same(engine, upper, form.bytes, form.length);
    }
}

static void odd_bytes(const mlb_engine *engine) {
    expect_same(engine, "a\\.b.example.com", "\3a.b\7example\3com", 17);
    expect_same(engine, "\\065\\066C.example.com", "\3abc\7example\3com", 17);
    expect_same(engine, "\\000nul.example.com", "\4\0nul\7example\3com", 18);
    expect_same(engine, "sp\\032ace.example.com", "\6sp ace\7example\3com", 20);
    expect_same(engine, "\\255\\254\\128.example.com", "\3\xff\xfe\x80\7example\3com", 17);
    expect_same(engine, "back\\\\slash.example.com", "\12back\\slash\7example\3com", 24);
    expect_same(engine, "\xff\xfe.example.com", "\2\xff\xfe\7example\3com", 16);
    /* A NUL byte in text with a length is a byte like any other, not an end. */
    mlb_verdict of_text, of_wire;
    EXPECT(text(engine, "a\0b.example.com", 15, &of_text) == MLB_OK, "a NUL byte in text");
    EXPECT(wire(engine, "\3a\0b\7example\3com", 17, &of_wire) == MLB_OK && same(of_text, of_wire), "a NUL byte: text and wire form differ");
    /* International text and its A-labels; wire form never sees IDNA. */
    expect_same(engine, "b\xc3\xbc" "cher.example.com", "\15xn--bcher-kva\7example\3com", 27);
    expect_same(engine, "B\xc3\x9c" "CHER.example.com", "\15xn--bcher-kva\7example\3com", 27);
    expect_same(engine, "\xe4\xbe\x8b\xe3\x81\x88.\xe3\x83\x86\xe3\x82\xb9\xe3\x83\x88", "\13xn--r8jz45g\12xn--zckzah", 24);
}

static void longest(const mlb_engine *engine) {
    /* 255 octets in wire form: 63 + 63 + 63 + 61 and four length bytes and the root. */
    char name[1100];
    static const int labels[] = {63, 63, 63, 61};
    size_t length = 0;
    for (int label = 0; label < 4; label++) {
        for (int at = 0; at < labels[label]; at++)
            name[length++] = (char)('a' + (at + label) % 26);
        name[length++] = '.';
    }
    name[--length] = 0;
    struct wire form = wire_of(name, length);
    EXPECT(form.length == 255, "%zu octets", form.length);
    expect_same(engine, name, form.bytes, form.length);
    char with_dot[1200];
    snprintf(with_dot, sizeof with_dot, "%s.", name);
    expect_same(engine, with_dot, form.bytes, form.length);
    /* The same name with each byte escaped: four times as long, as good. */
    char escaped[1100];
    size_t filled = 0;
    for (size_t at = 0; at < length; at++)
        filled += (size_t)snprintf(escaped + filled, sizeof escaped - filled, name[at] == '.' ? "." : "\\%03d", name[at]);
    expect_same(engine, escaped, form.bytes, form.length);
    /* One octet more. */
    snprintf(with_dot, sizeof with_dot, "%sz", name);
    expect_refused(engine, with_dot, length + 1, "256 octets");
    form = wire_of(with_dot, length + 1);
    expect_wire_refused(engine, form.bytes, form.length, "256 octets");
    /* 127 labels of one letter. */
    for (int label = 0; label < 127; label++)
        memcpy(name + 2 * label, "a.", 2);
    form = wire_of(name, 253);
    EXPECT(form.length == 255, "%zu octets", form.length);
    name[253] = 0;
    expect_same(engine, name, form.bytes, form.length);
}

static void refusals(const mlb_engine *engine) {
    static const char *const names[] = {"", "..", ".a", "a..", "a..b", "\\", "a\\", "\\1", "\\12", "\\256", "\\999.a", "a.\\"};
    for (size_t row = 0; row < sizeof names / sizeof names[0]; row++)
        expect_refused(engine, names[row], strlen(names[row]), names[row]);
    char label[80];
    memset(label, 'a', 64);
    memcpy(label + 64, ".com", 5);
    expect_refused(engine, label, 68, "a label of 64");
    char *megabyte = malloc(1 << 20);
    REQUIRE(megabyte, "memory");
    memset(megabyte, 'a', 1 << 20);
    expect_refused(engine, megabyte, 1 << 20, "a megabyte");
    expect_wire_refused(engine, megabyte, 1 << 20, "a megabyte");
    for (int at = 1; at < 1 << 20; at += 2)
        megabyte[at] = '.';
    expect_refused(engine, megabyte, 1 << 20, "a megabyte of labels");
    free(megabyte);
    expect_wire_refused(engine, "", 0, "nothing");
    expect_wire_refused(engine, "\3www", 4, "no root");
    expect_wire_refused(engine, "\3ww", 3, "a cut label");
    expect_wire_refused(engine, "\3www\300\14", 6, "a compression pointer");
    expect_wire_refused(engine, "\3www\0\0", 6, "bytes behind the root");
    expect_wire_refused(engine, "\100aaa", 4, "a label type of RFC 2673");
    expect_wire_refused(engine, "\377", 1, "a length of 255");
}

static void skipped(const mlb_engine *engine) {
    static const char *const names[] = {".", "localhost", "com", "1.0.0.127.in-addr.arpa", "printer.local", "a.localhost", "db.internal", "nas.home.arpa", "b.own.example", "own.example"};
    for (size_t row = 0; row < sizeof names / sizeof names[0]; row++) {
        mlb_verdict verdict = ask(engine, names[row]);
        EXPECT(verdict.source == MLB_SOURCE_SKIPPED && verdict.decision == MLB_ALLOW && verdict.action == MLB_PASS, "%s: source %d", names[row], verdict.source);
        EXPECT(verdict.score == 0 && verdict.label == MLB_BENIGN && verdict.fpr == 0, "%s was scored", names[row]);
    }
    static const char *const scored[] = {"example.com", "local.example.com", "xlocal.x", "notarpa.xarpa", "xown.example"};
    for (size_t row = 0; row < sizeof scored / sizeof scored[0]; row++)
        EXPECT(ask(engine, scored[row]).source == MLB_SOURCE_MODEL, "%s was not scored", scored[row]);
}

/* Bytes that nobody meant as a name, the same ones in each run. */
static void noise(const mlb_engine *engine) {
    uint64_t state = 88172645463325252ULL;
    for (int round = 0; round < rounds(20000); round++) {
        uint8_t bytes[320];
        for (size_t at = 0; at < sizeof bytes; at++) {
            state ^= state << 13, state ^= state >> 7, state ^= state << 17;
            bytes[at] = round % 2 ? (uint8_t)(state & 7) : (uint8_t)state;
        }
        mlb_verdict verdict;
        size_t length = state % sizeof bytes;
        mlb_status as_text = text(engine, (const char *)bytes, length, &verdict);
        EXPECT(as_text == MLB_OK || as_text == MLB_E_NAME, "noise %d as text: %d", round, (int)as_text);
        mlb_status as_wire = wire(engine, bytes, length, &verdict);
        EXPECT(as_wire == MLB_OK || as_wire == MLB_E_NAME, "noise %d in wire form: %d", round, (int)as_wire);
        EXPECT(isfinite(verdict.score), "noise %d: score %f", round, verdict.score);
    }
}

int main(void) {
    mlb_engine *engine = init(SETTINGS("zones.own", "own.example"));
    usual(engine);
    odd_bytes(engine);
    longest(engine);
    refusals(engine);
    skipped(engine);
    noise(engine);
    end(engine);
    return finish();
}

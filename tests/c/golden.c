/* Each model's golden scores (models/NAME/golden.tsv) hold within 1e-5 through every path: text, wire form, batch, cache,
 * tract and what the library chooses itself; within one path they are equal to the bit. */
#include "common.h"

#include <dirent.h>
#include <math.h>

#define TOLERANCE 1e-5

struct golden {
    char name[1100];
    double score;
};

static struct golden *read_golden(const char *path, size_t *count) {
    FILE *file = fopen(path, "r");
    REQUIRE(file, "%s: %s", path, strerror(errno));
    struct golden *rows = NULL;
    char line[4000];
    *count = 0;
    while (fgets(line, sizeof line, file)) {
        char *tab = strchr(line, '\t'), *end = NULL;
        if (line[0] == '#' || !tab)
            continue;
        double score = strtod(tab + 1, &end);
        if (end == tab + 1)
            continue; /* the heading */
        rows = realloc(rows, (*count + 1) * sizeof *rows);
        REQUIRE(rows && tab - line < 1100, "%s: %s", path, line);
        snprintf(rows[*count].name, sizeof rows->name, "%.*s", (int)(tab - line), line);
        rows[(*count)++].score = score;
    }
    fclose(file);
    return rows;
}

/* The wire form of a name without escapes and of ASCII; 0 where it has them. */
static size_t wire_of(const char *name, uint8_t *out) {
    size_t length = 0, label = 0;
    for (const char *at = name;; at++) {
        if (*at == '\\' || (unsigned char)*at >= 0x80)
            return 0;
        if (*at && *at != '.')
            continue;
        out[length] = (uint8_t)(at - name - (long)label);
        memcpy(out + length + 1, name + label, out[length]);
        length += out[length] + 1U;
        label = (size_t)(at - name) + 1;
        if (!*at || !at[1])
            break;
    }
    out[length++] = 0;
    return length;
}

static void compare(const char *settings_name, const struct golden *golden, const char *path, float score) {
    EXPECT(fabs(score - golden->score) <= TOLERANCE, "%s: %s by %s: %.9g, golden %.9g", settings_name, golden->name, path, score, golden->score);
}

static void through(const char *what, const char *const *settings, const struct golden *rows, size_t count) {
    mlb_engine *engine = init(settings);
    size_t in_wire = 0, scored = 0;
    for (size_t at = 0; at < count; at++) {
        const struct golden *golden = &rows[at];
        size_t length = strlen(golden->name);
        const char *name = golden->name;
        float score = -1;
        EXPECT(mlb_score_batch(engine, &name, &length, 1, &score) == MLB_OK, "%s", name);
        compare(what, golden, "batch", score);
        mlb_verdict verdict = ask(engine, name);
        if (verdict.source == MLB_SOURCE_SKIPPED)
            continue;
        scored++;
        compare(what, golden, "text", verdict.score);
        EXPECT(verdict.label == (verdict.score >= 0.5F), "%s: label %d at a score of %.9g", name, verdict.label, verdict.score);
        mlb_verdict cached = ask(engine, name);
        EXPECT(memcmp(&cached.score, &verdict.score, sizeof cached.score) == 0 && cached.fpr == verdict.fpr, "%s: %.9g, then from the cache %.9g", name, verdict.score, cached.score);
        EXPECT(cached.flags & MLB_FLAG_CACHED, "%s was not cached", name);
        uint8_t wire[300];
        size_t wire_length = length < 254 ? wire_of(name, wire) : 0;
        if (wire_length == 0)
            continue;
        in_wire++;
        EXPECT(mlb_classify_wire(engine, wire, wire_length, NULL, 0, 1, &cached) == MLB_OK, "%s in wire form", name);
        EXPECT(memcmp(&cached.score, &verdict.score, sizeof cached.score) == 0, "%s: %.9g, in wire form %.9g", name, verdict.score, cached.score);
    }
    EXPECT(scored > 0 && in_wire > 0, "%s: %zu of %zu names were scored, %zu in wire form", what, scored, count, in_wire);

    /* All at once: the same bits as one by one. */
    const char **names = malloc(count * sizeof *names);
    size_t *lengths = malloc(count * sizeof *lengths);
    float *scores = malloc(count * sizeof *scores);
    REQUIRE(names && lengths && scores, "memory");
    for (size_t at = 0; at < count; at++)
        names[at] = rows[at].name, lengths[at] = strlen(rows[at].name), scores[at] = -1;
    EXPECT(mlb_score_batch(engine, names, lengths, count, scores) == MLB_OK, "a batch of %zu", count);
    for (size_t at = 0; at < count; at++) {
        compare(what, &rows[at], "a batch of all", scores[at]);
        float alone = -1;
        EXPECT(mlb_score_batch(engine, &names[at], &lengths[at], 1, &alone) == MLB_OK, "%s", names[at]);
        EXPECT(memcmp(&alone, &scores[at], sizeof alone) == 0, "%s: %.9g alone, %.9g in a batch", names[at], alone, scores[at]);
    }
    free(names);
    free(lengths);
    free(scores);
    end(engine);
}

/* A batch by several threads gives the bits that one thread gives, wherever the shares end. */
static void batch_by_threads(void) {
    enum { COUNT = 5003 };
    static char text[COUNT][32];
    static const char *names[COUNT];
    static size_t lengths[COUNT];
    static float alone[COUNT], together[COUNT];
    for (size_t at = 0; at < COUNT; at++) {
        lengths[at] = (size_t)snprintf(text[at], sizeof text[at], "%s%zu.example-%zu.com", at % 100 ? "" : ".", at * 7919, at);
        names[at] = text[at];
    }
    mlb_engine *one = init(NO_SETTINGS), *four = init(SETTINGS("batch.threads", "4")), *all = init(SETTINGS("batch.threads", "0"));
    const size_t counts[] = {1, 1024, 1025, 4097, COUNT};
    EXPECT(mlb_score_batch(one, names, lengths, COUNT, alone) == MLB_OK, "one thread");
    for (size_t number = 0; number < sizeof counts / sizeof *counts; number++) {
        for (size_t at = 0; at < COUNT; at++)
            together[at] = -1;
        mlb_engine *engine = number % 2 ? all : four;
        EXPECT(mlb_score_batch(engine, names, lengths, counts[number], together) == MLB_OK, "%zu names", counts[number]);
        EXPECT(memcmp(together, alone, counts[number] * sizeof *alone) == 0, "%zu names: other scores than by one thread", counts[number]);
        EXPECT(counts[number] == COUNT || together[counts[number]] == -1, "%zu names: wrote beyond", counts[number]);
    }
    EXPECT(isnan(alone[0]) && !isnan(alone[1]), "what is no name has no score");
    EXPECT(wait_for_threads(1), "threads are left");
    end(one);
    end(four);
    end(all);
}

/* The verdict names the model by the first eight bytes of the SHA-256 of its manifest, which holds those of its files. */
static void expect_model_id(const char *folder) {
    char command[700], hex[17] = "";
    snprintf(command, sizeof command, "sha256sum '%s/manifest.json'", folder);
    FILE *sum = popen(command, "r");
    REQUIRE(sum && fscanf(sum, "%16s", hex) == 1, "%s", command);
    pclose(sum);
    mlb_engine *engine = init(SETTINGS("model.path", folder));
    char of_verdict[17];
    snprintf(of_verdict, sizeof of_verdict, "%016llx", (unsigned long long)ask(engine, "www.example.com").model);
    EXPECT(strcmp(of_verdict, hex) == 0, "%s: the verdict says %s, sha256sum %s", folder, of_verdict, hex);
    end(engine);
}

int main(void) {
    const char *models = getenv("MLB_MODELS");
    REQUIRE(models, "MLB_MODELS is not set");
    DIR *entries = opendir(models);
    REQUIRE(entries, "%s: %s", models, strerror(errno));
    int seen = 0;
    for (struct dirent *entry; (entry = readdir(entries));) {
        char folder[500], path[600];
        snprintf(folder, sizeof folder, "%s/%s", models, entry->d_name);
        snprintf(path, sizeof path, "%s/golden.tsv", folder);
        if (entry->d_name[0] == '.' || access(path, F_OK) != 0)
            continue;
        size_t count;
        struct golden *rows = read_golden(path, &count);
        EXPECT(count >= 16, "%s: %zu names", path, count);
        through(format_path("%s through tract", entry->d_name), SETTINGS("model.path", folder, "model.engine", "tract"), rows, count);
        through(format_path("%s", entry->d_name), SETTINGS("model.path", folder), rows, count);
        expect_model_id(folder);
        free(rows);
        seen++;
    }
    closedir(entries);
    EXPECT(seen > 0, "%s holds no model with golden scores", models);
    batch_by_threads();
    return finish();
}

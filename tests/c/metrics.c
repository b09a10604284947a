/* mlb_metrics is Prometheus text (exposition format 0.0.4): each family has its help and type before its samples, names
 * and labels are well formed, values are numbers, nothing is there twice, counters never fall, histograms add up, and the
 * numbers are those of mlb_stats. */
#include "common.h"

#include <ctype.h>
#include <math.h>
#include <regex.h>

static char text[1 << 17];

static const char *read_metrics(const mlb_engine *engine) {
    size_t need = 0;
    mlb_status status = mlb_metrics(engine, text, sizeof text, &need);
    EXPECT(status == MLB_OK, "mlb_metrics: %s", mlb_strerror((int)status));
    return text;
}

static regex_t compile(const char *pattern) {
    regex_t compiled;
    REQUIRE(regcomp(&compiled, pattern, REG_EXTENDED | REG_NOSUB) == 0, "%s", pattern);
    return compiled;
}

/* The value of a sample, or NaN. */
static double sample(const char *metrics, const char *series) {
    size_t length = strlen(series);
    for (const char *line = metrics; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (strncmp(line, series, length) == 0 && line[length] == ' ')
            return strtod(line + length, NULL);
    return NAN;
}

static void well_formed(const char *metrics) {
    regex_t help = compile("^# HELP [a-zA-Z_:][a-zA-Z0-9_:]* .+$");
    regex_t type = compile("^# TYPE [a-zA-Z_:][a-zA-Z0-9_:]* (counter|gauge|histogram|summary|untyped)$");
    regex_t value = compile("^[a-zA-Z_:][a-zA-Z0-9_:]*(\\{[a-zA-Z_][a-zA-Z0-9_]*=\"([^\"\\\\]|\\\\[\\\\\"n])*\"(,[a-zA-Z_][a-zA-Z0-9_]*=\"([^\"\\\\]|\\\\[\\\\\"n])*\")*,?\\})? "
                             "([-+]?[0-9.]+(e[-+]?[0-9]+)?|[-+]?Inf|NaN)$");
    EXPECT(metrics[0] && metrics[strlen(metrics) - 1] == '\n', "the text does not end with a line");
    char family[128] = "", kind[32] = "";
    static char seen[1 << 17];
    seen[0] = '\n', seen[1] = 0;
    static char copy[sizeof text];
    snprintf(copy, sizeof copy, "%s", metrics);
    double bucket = 0;
    for (char *line = strtok(copy, "\n"); line; line = strtok(NULL, "\n")) {
        if (strncmp(line, "# HELP ", 7) == 0) {
            EXPECT(regexec(&help, line, 0, NULL, 0) == 0, "help: %s", line);
            sscanf(line + 7, "%127s", family);
            kind[0] = 0;
            char heading[160];
            snprintf(heading, sizeof heading, "\n# %s\n", family);
            EXPECT(!strstr(seen, heading), "the family %s is there twice", family);
            strcat(seen, heading + 1);
            EXPECT(strncmp(family, "mlbridge_", 9) == 0, "%s is not ours", family);
            continue;
        }
        if (strncmp(line, "# TYPE ", 7) == 0) {
            char of[128] = "";
            EXPECT(regexec(&type, line, 0, NULL, 0) == 0, "type: %s", line);
            sscanf(line + 7, "%127s %31s", of, kind);
            EXPECT(strcmp(of, family) == 0, "the type of %s follows the help of %s", of, family);
            size_t length = strlen(of);
            bool total = length > 6 && strcmp(of + length - 6, "_total") == 0;
            EXPECT((strcmp(kind, "counter") == 0) == total, "%s is a %s", of, kind);
            bucket = 0;
            continue;
        }
        EXPECT(regexec(&value, line, 0, NULL, 0) == 0, "sample: %s", line);
        char series[256], name[128];
        snprintf(series, sizeof series, "%.*s", (int)(strrchr(line, ' ') - line), line);
        snprintf(name, sizeof name, "%.*s", (int)strcspn(line, "{ "), line);
        EXPECT(kind[0] && strncmp(name, family, strlen(family)) == 0, "%s stands below %s", name, family);
        const char *suffix = name + strlen(family);
        bool histogram = strcmp(kind, "histogram") == 0;
        EXPECT(histogram ? !strcmp(suffix, "_bucket") || !strcmp(suffix, "_sum") || !strcmp(suffix, "_count") : !*suffix, "%s is of the family %s", name, family);
        char heading[280];
        snprintf(heading, sizeof heading, "\n%s\n", series);
        EXPECT(!strstr(seen, heading), "%s is there twice", series);
        strcat(seen, heading + 1);
        double number = strtod(strrchr(line, ' '), NULL);
        EXPECT(strcmp(kind, "counter") != 0 || number >= 0, "%s", line);
        if (histogram && !strcmp(suffix, "_bucket")) {
            EXPECT(number >= bucket, "%s: less than the bucket before", line);
            bucket = number;
        }
        if (histogram && !strcmp(suffix, "_count"))
            EXPECT(number == bucket, "%s: the last bucket has %g", line, bucket);
    }
    regfree(&help);
    regfree(&type);
    regfree(&value);
}

static void expect_sample(const char *metrics, const char *series, uint64_t expected) {
    double number = sample(metrics, series);
    EXPECT(number == (double)expected, "%s is %g, mlb_stats says %llu", series, number, (unsigned long long)expected);
}

int main(void) {
    const char *list = format_path("%s/block", scratch());
    write_file(list, "blocked.example\n", 0600);
    mlb_engine *engine = init(SETTINGS("state_dir", format_path("%s/state", scratch()), "record.allow", "all", "lists.block", list));
    well_formed(read_metrics(engine));
    double before = sample(text, "mlbridge_classified_total");
    EXPECT(before == 0, "%g names before the first", before);
    for (int round = 0; round < 10; round++) {
        ask_many(engine, "metrics", round * 100, 100);
        ask(engine, "blocked.example");
        ask(engine, "localhost");
        EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "flush");
        well_formed(read_metrics(engine));
        double now = sample(text, "mlbridge_classified_total");
        EXPECT(now == before + 102, "%g names, then %g", before, now);
        before = now;
    }
    mlb_stats stats = stats_of(engine);
    read_metrics(engine);
    expect_sample(text, "mlbridge_classified_total", stats.classified);
    expect_sample(text, "mlbridge_skipped_total", stats.skipped);
    expect_sample(text, "mlbridge_blocked_total", stats.blocked);
    expect_sample(text, "mlbridge_stored_total", stats.stored);
    expect_sample(text, "mlbridge_coalesced_total", stats.coalesced);
    expect_sample(text, "mlbridge_dropped_queue_total", stats.dropped_queue);
    expect_sample(text, "mlbridge_queued", stats.queued);
    expect_sample(text, "mlbridge_pending", stats.pending);
    EXPECT(stats.blocked == 10 && stats.skipped == 10, "%llu blocked, %llu skipped", (unsigned long long)stats.blocked, (unsigned long long)stats.skipped);
    end(engine);
    return finish();
}

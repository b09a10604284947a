/* In every locale that is installed, C, POSIX and those the test runner made (Turkish, with its dotless i, and German,
 * with its decimal comma): the same scores to the bit, the same settings, the same numbers in every text. */
#include "common.h"

#include <locale.h>

static const char *const names[] = {"WWW.EXAMPLE.COM", "INSTITUT-FIZIKI.EXAMPLE", "xkqjzzqiii.example", "B\xc3\x9c" "CHER.example", "\xc4\xb0stanbul.example"};
#define NAMES (sizeof names / sizeof names[0])

static mlb_verdict reference[NAMES];
static char scores[16][32]; /* "score":0.123 as in the explanation, by name */

static void score_text(const mlb_engine *engine, const char *name, char *out, size_t room) {
    static char text[1 << 16];
    size_t need;
    out[0] = 0;
    EXPECT(mlb_explain(engine, name, strlen(name), text, sizeof text, &need) == MLB_OK, "mlb_explain");
    const char *score = strstr(text, "\"score\":");
    EXPECT(score, "no score in %s", text);
    if (score)
        snprintf(out, room, "%.*s", (int)strcspn(score, ",}"), score);
    EXPECT(strchr(out, '.') || strchr(out, 'e'), "\"%s\" has no decimal point", out);
}

static void in_locale(const char *locale) {
    mlb_engine *engine = init(SETTINGS("threshold.vet", "0.25", "threshold.block", "0.75", "breaker.max_block_ratio", "1", "mode", "observe"));
    for (size_t at = 0; at < NAMES; at++) {
        mlb_verdict verdict = ask(engine, names[at]);
        char text[32];
        score_text(engine, names[at], text, sizeof text);
        if (strcmp(locale, "C") == 0) {
            reference[at] = verdict;
            memcpy(scores[at], text, sizeof text);
        }
        verdict.flags = reference[at].flags;
        EXPECT(memcmp(&verdict, &reference[at], sizeof verdict) == 0, "%s: %s: score %.9g, in C %.9g", locale, names[at], verdict.score, reference[at].score);
        EXPECT(strcmp(text, scores[at]) == 0, "%s: %s, in C %s", locale, text, scores[at]);
    }
    static char metrics[1 << 16];
    size_t need;
    EXPECT(mlb_metrics(engine, metrics, sizeof metrics, &need) == MLB_OK, "mlb_metrics");
    EXPECT(strstr(metrics, "le=\"0.1\"") && !strstr(metrics, "0,1"), "%s: the metrics have no decimal point", locale);
    char err[200];
    mlb_config *config = config_of(NO_SETTINGS);
    EXPECT(mlb_config_set(config, "threshold.vet", "0,5", err, sizeof err) == MLB_E_CONFIG, "%s: a decimal comma is accepted", locale);
    EXPECT(strcmp(setlocale(LC_ALL, NULL), locale) == 0, "%s: the locale was changed to %s", locale, setlocale(LC_ALL, NULL));
    mlb_config_free(config);
    end(engine);
}

int main(void) {
    in_locale("C");
    in_locale("C"); /* the same again: what the other locales are compared with does not wander */
    FILE *installed = popen("locale -a; ls \"$LOCPATH\" 2>/dev/null", "r");
    REQUIRE(installed, "locale -a");
    char line[128];
    int seen = 0, turkish = 0;
    while (fgets(line, sizeof line, installed)) {
        line[strcspn(line, "\n")] = 0;
        if (!setlocale(LC_ALL, line))
            continue;
        seen++;
        turkish += strncmp(line, "tr_TR", 5) == 0;
        char name[256];
        snprintf(name, sizeof name, "%s", setlocale(LC_ALL, NULL));
        in_locale(name);
    }
    pclose(installed);
    EXPECT(seen >= 2, "only %d locales", seen);
    printf("(%d locales, tr_TR %s) ", seen, turkish ? "among them" : "not installed");
    return finish();
}

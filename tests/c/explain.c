/* mlb_explain is JSON for any name, agrees with the verdict, and neither records nor counts anything. */
#include "common.h"

static const struct {
    const char *name;
    size_t length;
} names[] = {
    {"www.example.com", 15}, {"blocked.example", 15}, {"localhost", 9}, {".", 1}, {"a\"quote\\\".example.com", 21}, {"a\0nul.example.com", 17}, {"tab\tline\n.example.com", 21},
    {"\xff\xfe\x80.example.com", 15}, {"b\xc3\xbc" "cher.example.com", 19}, {"back\\\\slash.example.com", 23}, {"</script>.example.com", 21}, {"\\226\\128\\168.example.com", 24},
};

static void expect_json(const char *text, const char *what) {
    const char *path = format_path("%s/explanation", scratch());
    write_file(path, text, 0600);
    FILE *answer = popen(format_path("sqlite3 :memory: \"select json_valid(readfile('%s')), json_extract(readfile('%s'), '$.name') is not null\"", path, path), "r");
    char line[64] = "";
    EXPECT(answer && fgets(line, sizeof line, answer) && strcmp(line, "1|1\n") == 0, "%s: sqlite3 says %s of %s", what, line, text);
    if (answer)
        pclose(answer);
}

int main(void) {
    const char *list = format_path("%s/block", scratch());
    write_file(list, "blocked.example\n", 0600);
    mlb_engine *engine = init(SETTINGS("lists.block", list, "threshold.vet", "0.4", "threshold.block", "0.6", "breaker.max_block_ratio", "1"));
    static const char *const decisions[] = {"allow", "vet", "block"};
    static const char *const sources[] = {"model", "override", "blocklist", "allowlist", "popular", "skipped"};
    static char text[1 << 16];
    for (size_t row = 0; row < sizeof names / sizeof names[0]; row++) {
        size_t need;
        mlb_verdict verdict;
        uint64_t before = stats_of(engine).classified;
        mlb_status status = mlb_explain(engine, names[row].name, names[row].length, text, sizeof text, &need);
        EXPECT(status == MLB_OK, "name %zu: %s", row, mlb_strerror((int)status));
        EXPECT(stats_of(engine).classified == before, "an explanation is counted");
        expect_json(text, names[row].name);
        EXPECT(mlb_classify(engine, names[row].name, names[row].length, NULL, 0, 1, &verdict) == MLB_OK, "name %zu", row);
        char wanted[64];
        snprintf(wanted, sizeof wanted, "\"decision\":\"%s\"", decisions[verdict.decision]);
        EXPECT(strstr(text, wanted), "%s: no %s in %s", names[row].name, wanted, text);
        snprintf(wanted, sizeof wanted, "\"source\":\"%s\"", sources[verdict.source]);
        EXPECT(strstr(text, wanted), "%s: no %s in %s", names[row].name, wanted, text);
        const char *score = strstr(text, "\"score\":");
        EXPECT(score && (verdict.source == MLB_SOURCE_MODEL ? strtof(score + 8, NULL) == verdict.score : !strncmp(score + 8, "null", 4)), "%s: score %.9g, explained %s", names[row].name,
               verdict.score, score ? score : "without one");
    }
    end(engine);
    return finish();
}

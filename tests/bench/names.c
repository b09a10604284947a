/* Names, and engines to ask; apart from bench.c, so that a program that loads the library itself is not linked to it. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

static struct name *names;
static size_t count;

void read_names(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file)
        die("%s: cannot be read", path);
    char line[4096];
    while (fgets(line, sizeof line, file)) {
        size_t length = strcspn(line, "\t\r\n");
        if (length < 4 || length > 100 || !memchr(line, '.', length))
            continue;
        names = realloc(names, (count + 1) * sizeof *names);
        if (!names)
            die("no memory");
        names[count].length = (uint16_t)length;
        memcpy(names[count].text, line, length);
        names[count++].text[length] = 0;
    }
    fclose(file);
    if (count < 500)
        die("%s: only %zu names", path, count);
}

size_t name_count(void) { return count; }

const struct name *real_name(size_t number) { return &names[number % count]; }

struct name fresh_name(size_t number) {
    const struct name *real = real_name(number);
    bool room = strcspn(real->text, ".") + 4 <= 63; /* a label's length */
    struct name made;
    made.length = (uint16_t)snprintf(made.text, sizeof made.text, "%c%c%c%c%s%s", 'a' + (int)(number % 26), 'a' + (int)(number / 26 % 26), 'a' + (int)(number / 676 % 26),
                                     'a' + (int)(number / 17576 % 26), room ? "" : ".", real->text);
    return made;
}

mlb_engine *open_engine(const char *const *settings) {
    char err[512] = "";
    mlb_config *config = NULL;
    mlb_engine *engine = NULL;
    if (mlb_config_new(&config) != MLB_OK)
        die("mlb_config_new");
    for (; settings[0]; settings += 2)
        if (mlb_config_set(config, settings[0], settings[1], err, sizeof err) != MLB_OK)
            die("%s", err);
    if (mlb_init(config, &engine, err, sizeof err) != MLB_OK)
        die("%s", err);
    mlb_config_free(config);
    return engine;
}

mlb_verdict classify(const mlb_engine *engine, const struct name *name) {
    mlb_verdict verdict;
    mlb_status status = mlb_classify(engine, name->text, name->length, NULL, 0, 1, &verdict);
    if (status != MLB_OK)
        die("%s: %s", name->text, mlb_strerror((int)status));
    return verdict;
}

mlb_stats counters(const mlb_engine *engine) {
    mlb_stats stats;
    if (mlb_stats_get(engine, &stats, sizeof stats) != MLB_OK)
        die("mlb_stats_get");
    return stats;
}

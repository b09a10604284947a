/* Nothing is printed, and no environment variable, working directory or time zone changes a verdict or is changed. */
#include "common.h"

extern char **environ;

static float score_of(const mlb_engine *engine, const char *name) { return ask(engine, name).score; }

static char *snapshot(void) {
    size_t length = 0;
    for (char **entry = environ; *entry; entry++)
        length += strlen(*entry) + 1;
    char *all = calloc(1, length + 1), *at = all;
    for (char **entry = environ; all && *entry; entry++)
        at += sprintf(at, "%s\n", *entry);
    return all;
}

/* Everything a host may do, errors and panics among it. */
static void whole_life(const char *state, float *first, float *second) {
    mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "all"));
    *first = score_of(engine, "www.example.com");
    *second = score_of(engine, "xkqjzzq7.example.net");
    mlb_verdict verdict;
    EXPECT(mlb_classify(engine, "a..b", 4, NULL, 0, 1, &verdict) == MLB_E_NAME, "a..b");
    EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "flush: %s", sink_error(engine));
    char err[256] = "";
    EXPECT(try_reload(engine, SETTINGS("state_dir", state, "lists.allow", "/no/such/list"), err, sizeof err) != MLB_OK, "a broken reload");
    end(engine);
    engine = init(SETTINGS("test.panic", "score"));
    EXPECT(mlb_classify(engine, "www.example.com", 15, NULL, 0, 1, &verdict) == MLB_E_PANIC, "a panic");
    end(engine);
    engine = NULL;
    EXPECT(try_init(SETTINGS("model.path", "/no/such/model"), &engine, err, sizeof err) != MLB_OK, "a broken init");
}

int main(void) {
    const char *state = format_path("%s/state", scratch()), *bait = format_path("%s/bait", scratch());
    const char *printed = format_path("%s/printed", scratch());
    mkdir(bait, 0700);
    float first[2], second[2];
    whole_life(state, &first[0], &second[0]);

    static const char *const variables[] = {
        "RUST_BACKTRACE", "RUST_LIB_BACKTRACE", "RUST_LOG", "RUST_MIN_STACK", "RUST_TEST_THREADS", "TRACT_LOG", "TRACT_DUMP_DEBUG", "http_proxy", "https_proxy", "HTTPS_PROXY",
        "ALL_PROXY", "all_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "TZ", "LANG", "LC_ALL", "MLBRIDGE_CONFIG", "MLB_CONFIG", "RAYON_NUM_THREADS", "OMP_NUM_THREADS", "SQLITE_FORCE_PROXY_LOCKING",
    };
    for (size_t row = 0; row < sizeof variables / sizeof variables[0]; row++)
        setenv(variables[row], "1", 1);
    setenv("RUST_LOG", "trace", 1);
    setenv("http_proxy", "http://127.0.0.1:9", 1);
    static const char *const folders[] = {"TMPDIR", "SQLITE_TMPDIR", "HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"};
    for (size_t row = 0; row < sizeof folders / sizeof folders[0]; row++)
        setenv(folders[row], bait, 1);
    char *before = snapshot(), here[600], there[600];
    EXPECT(getcwd(here, sizeof here), "getcwd");
    struct timespec noon = {1700000000, 0};
    struct tm local;
    localtime_r(&noon.tv_sec, &local);

    int file = open(printed, O_RDWR | O_CREAT | O_TRUNC, 0600), out = dup(1), err = dup(2);
    fflush(NULL);
    dup2(file, 1);
    dup2(file, 2);
    whole_life(state, &first[1], &second[1]);
    fflush(NULL);
    dup2(out, 1);
    dup2(err, 2);
    char text[1000] = "";
    ssize_t length = pread(file, text, sizeof text - 1, 0);
    EXPECT(length == 0, "printed: %s", text);
    EXPECT(first[0] == first[1] && second[0] == second[1], "scores %.9g %.9g, with variables %.9g %.9g", first[0], second[0], first[1], second[1]);
    char *after = snapshot();
    EXPECT(before && after && strcmp(before, after) == 0, "the environment was changed");
    EXPECT(getcwd(there, sizeof there) && strcmp(here, there) == 0, "the working directory was changed");
    EXPECT(count_files(bait) == 0, "something was written where the environment pointed");
    free(before);
    free(after);
    return finish();
}

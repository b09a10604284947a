/* mlb_message and MLB_FLAG_MESSAGE: a message for the host's log is announced by the verdicts, read once, in whole or cut
 * on a character boundary, and then no longer announced. */
#include "common.h"

static int read_all(const mlb_engine *engine, const char *wanted, bool *found) {
    char text[1000];
    int count = 0;
    for (; count < 1000; count++) {
        int level = -1;
        memset(text, 'x', sizeof text);
        EXPECT(mlb_message(engine, text, sizeof text, &level) == MLB_OK, "mlb_message");
        REQUIRE(memchr(text, 0, sizeof text), "a message without end");
        if (!text[0])
            break;
        EXPECT(level >= 0 && level <= 7, "%s: level %d", text, level);
        EXPECT(!strchr(text, '\n'), "a message of more than one line: %s", text);
        *found = *found || strstr(text, wanted);
    }
    return count;
}

static bool announced(const mlb_engine *engine) { return ask(engine, "www.example.com").flags & MLB_FLAG_MESSAGE; }

static bool wait_announced(const mlb_engine *engine) {
    for (unsigned waited = 0; waited < PATIENCE_MS; waited += 20) {
        if (announced(engine))
            return true;
        sleep_ms(20);
    }
    return false;
}

/* A list that vanishes or breaks while the engine runs, and a store that cannot be made: things to tell. */
static void about_the_store(void) {
    const char *state = format_path("%s/file/state", scratch());
    write_file(format_path("%s/file", scratch()), "in the way", 0600);
    mlb_engine *engine = NULL;
    char err[300] = "";
    if (try_init(SETTINGS("state_dir", state, "record.allow", "all", "store.flush_ms", "50"), &engine, err, sizeof err) != MLB_OK) {
        /* Told at once; then the same with a directory that is gone after init. */
        EXPECT(strstr(err, state), "%s", err);
        unlink(format_path("%s/file", scratch()));
        mkdir(format_path("%s/file", scratch()), 0700);
        engine = init(SETTINGS("state_dir", state, "record.allow", "all", "store.flush_ms", "50"));
        rmdir(format_path("%s/file", scratch()));
    }
    ask_many(engine, "unkept", 0, 50);
    EXPECT(wait_announced(engine), "nothing announces that the store cannot be made");
    /* A buffer too small for it: cut, and that was it, or an error and it stays. */
    char text[8];
    int level = -1;
    mlb_status status = mlb_message(engine, text, sizeof text, &level);
    EXPECT(status == MLB_OK || status == MLB_E_RANGE, "a small buffer: %s", mlb_strerror((int)status));
    EXPECT(status != MLB_OK || strlen(text) < sizeof text, "no end");
    bool found = status == MLB_OK;
    read_all(engine, state, &found);
    EXPECT(found, "no message names %s", state);
    /* The same trouble is not told again and again. */
    ask_many(engine, "unkept", 50, 2000);
    any_status(mlb_flush(engine, 1500));
    bool again = false;
    int count = read_all(engine, state, &again);
    EXPECT(count < 10, "%d messages about one trouble", count);
    end(engine);
}

static void about_nothing(void) {
    mlb_engine *engine = init(NO_SETTINGS);
    bool found = false;
    read_all(engine, "", &found);
    for (int round = 0; round < 1000; round++)
        EXPECT(!announced(engine), "a message is announced");
    char text[10] = "untouched";
    int level = -1;
    EXPECT(mlb_message(engine, text, sizeof text, &level) == MLB_OK && text[0] == 0, "there is none, but \"%.9s\"", text);
    EXPECT(!announced(engine), "still announced");
    end(engine);
}

/* Many threads read: each message comes to one of them. */
static mlb_engine *shared;
static int total;

static void *reader(void *argument) {
    (void)argument;
    bool found = false;
    __atomic_add_fetch(&total, read_all(shared, "", &found), __ATOMIC_SEQ_CST);
    return NULL;
}

static void read_by_many(void) {
    const char *state = format_path("%s/gone/state", scratch());
    shared = NULL;
    mkdir(format_path("%s/gone", scratch()), 0700);
    shared = init(SETTINGS("state_dir", state, "record.allow", "all", "store.flush_ms", "50"));
    rmdir(format_path("%s/gone", scratch()));
    ask_many(shared, "unkept", 0, 50);
    EXPECT(wait_announced(shared), "nothing announces that the store cannot be made");
    pthread_t threads[8];
    for (int at = 0; at < 8; at++)
        threads[at] = run_thread(reader, NULL);
    for (int at = 0; at < 8; at++)
        join_thread(threads[at]);
    EXPECT(total >= 1 && total < 10, "%d messages were read", total);
    end(shared);
}

int main(void) {
    about_nothing();
    about_the_store();
    read_by_many();
    return finish();
}

/* `instance` and mlb_attach: equal settings share one engine, other settings give a successor beside it, a failed init
 * leaves the last good one to attach to, and the newest engine of an instance is kept at rest after its last free. */
#include "common.h"

static const char *state, *list_a, *list_b;

/* The two sets of settings differ in what they block. */
static const char *const *with(const char *instance, const char *list) {
    static const char *tables[4][11];
    static int turn;
    const char **table = tables[turn++ % 4];
    const char *rows[] = {"instance", instance, "state_dir", state, "lists.block", list, "record.allow", "all", "store.flush_ms", "50", NULL};
    memcpy(table, rows, sizeof rows);
    return table;
}

static bool blocks(const mlb_engine *engine, const char *name) { return ask(engine, name).decision == MLB_BLOCK; }

static void expect_settings(const mlb_engine *engine, char which, const char *when) {
    EXPECT(blocks(engine, "a.example") == (which == 'a') && blocks(engine, "b.example") == (which == 'b'), "%s: not the settings %c", when, which);
}

static mlb_engine *attach(const char *instance) {
    mlb_engine *engine = NULL;
    mlb_status status = mlb_attach(instance, &engine);
    EXPECT((status == MLB_OK) == (engine != NULL), "mlb_attach: %d with %p", (int)status, (void *)engine);
    EXPECT(status == MLB_OK || status == MLB_E_INVALID, "mlb_attach: %s", mlb_strerror((int)status));
    return engine;
}

/* An engine that shares with another is warm from the other's calls; one of its own is not. */
static bool same_engine(const mlb_engine *one, const mlb_engine *other) {
    static int number;
    char name[64];
    snprintf(name, sizeof name, "probe-%d.example.org", number++);
    ask(one, name);
    return ask(other, name).flags & MLB_FLAG_CACHED;
}

static void sharing(void) {
    mlb_engine *first = init(with("share", list_a)), *second = init(with("share", list_a));
    EXPECT(same_engine(first, second), "equal settings give two engines");
    mlb_engine *changed = init(with("share", list_b));
    EXPECT(!same_engine(first, changed), "other settings give the same engine");
    expect_settings(first, 'a', "the old engine beside its successor");
    expect_settings(changed, 'b', "the successor");
    mlb_engine *equal = init(with("share", list_b));
    EXPECT(same_engine(changed, equal), "an init equal to the successor's gives another engine");
    mlb_engine *newest = attach("share");
    REQUIRE(newest, "nothing to attach to");
    EXPECT(same_engine(changed, newest), "attach gives another engine than the newest");
    /* An equal init makes the old engine the newest again. */
    mlb_engine *back = init(with("share", list_a));
    EXPECT(same_engine(first, back), "back to the old settings: not the engine that still lives");
    mlb_engine *again = attach("share");
    EXPECT(again && same_engine(first, again), "attach gives another engine than the newest");
    mlb_engine *stranger = init(with("other", list_a));
    EXPECT(!same_engine(first, stranger), "two instances share an engine");
    mlb_engine *all[] = {first, second, changed, equal, newest, back, again, stranger};
    for (size_t at = 0; at < sizeof all / sizeof all[0]; at++) {
        expect_settings(all[at], all[at] == changed || all[at] == equal || all[at] == newest ? 'b' : 'a', "until its last free");
        mlb_free(all[at]);
    }
}

static void without_instance(void) {
    mlb_engine *one = init(SETTINGS("mode", "enforce")), *other = init(SETTINGS("mode", "enforce"));
    EXPECT(!same_engine(one, other), "two engines without instance are one");
    end(one);
    end(other);
}

/* A host drops the old state before it loads new settings, and these fail. */
static void failed_reload(void) {
    EXPECT(attach("unsound") == NULL, "attach to nothing");
    mlb_engine *engine = init(with("unsound", list_a));
    expect_settings(engine, 'a', "at first");
    mlb_free(engine);
    mlb_engine *failed_one = NULL;
    char err[300] = "";
    EXPECT(try_init(with("unsound", "/no/such/list"), &failed_one, err, sizeof err) != MLB_OK, "a missing list is accepted");
    engine = attach("unsound");
    REQUIRE(engine, "after a failed init there is nothing to attach to");
    expect_settings(engine, 'a', "after a failed init");
    end(engine);
    /* Never began: attach has nothing. */
    EXPECT(try_init(with("stillborn", "/no/such/list"), &failed_one, err, sizeof err) != MLB_OK, "a missing list is accepted");
    EXPECT(attach("stillborn") == NULL, "attach to an engine that never was");
}

static void at_rest(void) {
    const int threads = 1;
    EXPECT(wait_for_threads(threads), "%d threads are left of earlier engines", count_threads() - threads);
    mlb_engine *engine = init(with("rest", list_a));
    ask_many(engine, "rest", 0, 100);
    mlb_free(engine);
    EXPECT(wait_for_threads(threads), "the worker of an engine at rest still runs");
    EXPECT(count_descriptors_below(state) == 0, "an engine at rest has %d files open", count_descriptors_below(state));
    EXPECT(sql(state, "select count(*) from event where name like 'rest-%'") == 100, "the last free did not flush");
    engine = attach("rest");
    REQUIRE(engine, "nothing is kept");
    expect_settings(engine, 'a', "attached");
    ask_many(engine, "again", 0, 100);
    EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "flush: %s", sink_error(engine));
    EXPECT(sql(state, "select count(*) from event where name like 'again-%'") == 100, "an attached engine does not record");
    mlb_engine *twin = attach("rest");
    EXPECT(twin && same_engine(engine, twin), "two attaches, two engines");
    mlb_free(twin);
    ask_many(engine, "still", 0, 10);
    mlb_free(engine);
    /* An equal init wakes what is kept; another one replaces it. */
    engine = init(with("rest", list_a));
    expect_settings(engine, 'a', "kept, then an equal init");
    mlb_free(engine);
    engine = init(with("rest", list_b));
    mlb_free(engine);
    engine = attach("rest");
    REQUIRE(engine, "nothing is kept");
    expect_settings(engine, 'b', "the successor replaced what was kept");
    end(engine);
    /* Another process can have the store now. */
    EXPECT(count_descriptors_below(state) == 0, "files are open at rest");
    /* Nothing grows, however often a host reloads. */
    int descriptors = count_descriptors();
    for (int round = 0; round < rounds(200); round++) {
        engine = init(with("rest", round % 2 ? list_a : list_b));
        expect_settings(engine, round % 2 ? 'a' : 'b', "in a row of reloads");
        mlb_free(engine);
    }
    EXPECT(wait_for_threads(threads) && count_descriptors() <= descriptors, "%d threads, %d descriptors after many reloads", count_threads(), count_descriptors());
}

/* What makes an engine the newest: a reload as well. */
static void reload_within(void) {
    mlb_engine *first = init(with("reload", list_a)), *second = init(with("reload", list_b));
    char err[300] = "";
    EXPECT(try_reload(first, with("reload", list_b), err, sizeof err) == MLB_OK, "reload: %s", err);
    expect_settings(first, 'b', "after a reload");
    mlb_engine *newest = attach("reload");
    EXPECT(newest && same_engine(first, newest), "a reload did not make its engine the newest");
    EXPECT(try_reload(first, with("another", list_b), err, sizeof err) != MLB_OK && strstr(err, "instance"), "a reload changes the instance: %s", err);
    const char *before = state;
    state = "/tmp/elsewhere";
    EXPECT(try_reload(first, with("reload", list_b), err, sizeof err) != MLB_OK && strstr(err, "state_dir"), "a reload changes the state directory: %s", err);
    state = before;
    mlb_free(newest);
    mlb_free(second);
    end(first);
}

int main(void) {
    state = format_path("%s/state", scratch());
    list_a = format_path("%s/list-a", scratch());
    list_b = format_path("%s/list-b", scratch());
    write_file(list_a, "a.example\n", 0600);
    write_file(list_b, "b.example\n", 0600);
    sharing();
    without_instance();
    failed_reload();
    at_rest();
    reload_within();
    return finish();
}

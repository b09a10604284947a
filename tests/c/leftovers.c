/* After free nothing is left: no thread, no descriptor, no temporary file, and the memory of many lives is that of one.
 * Also where init fails, and with every kind of call made in between. */
#include "common.h"

#include <malloc.h>

static char folder[300];

static void one_life(int number) {
    const char *state = format_path("%s/state", folder);
    mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "all", "metrics.file", format_path("%s/metrics.prom", folder)));
    ask_many(engine, "life", number * 20, 20);
    char text[8192], err[256];
    size_t need;
    any_status(mlb_explain(engine, "www.example.com", 15, text, sizeof text, &need));
    any_status(mlb_metrics(engine, text, sizeof text, &need));
    any_status(mlb_message(engine, text, sizeof text, NULL));
    EXPECT(try_reload(engine, SETTINGS("state_dir", state, "record.allow", "all", "block.ttl", "7"), err, sizeof err) == MLB_OK, "reload: %s", err);
    ask_many(engine, "reloaded", number * 20, 20);
    if (number % 2)
        EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "flush: %s", sink_error(engine));
    end(engine);
    mlb_engine *failing = NULL;
    EXPECT(try_init(SETTINGS("state_dir", state, "lists.allow", "/no/such/list"), &failing, err, sizeof err) != MLB_OK, "a missing list is accepted");
}

/* A program that the host starts must inherit nothing of the library's. */
static void closed_on_exec(const char *state) {
    bool open_before[256];
    for (int descriptor = 0; descriptor < 256; descriptor++)
        open_before[descriptor] = fcntl(descriptor, F_GETFD) >= 0;
    mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "all"));
    ask_many(engine, "exec", 0, 10);
    EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "flush: %s", sink_error(engine));
    int seen = 0;
    for (int descriptor = 0; descriptor < 256; descriptor++) {
        int flags = fcntl(descriptor, F_GETFD);
        if (flags < 0 || open_before[descriptor])
            continue;
        seen++;
        EXPECT(flags & FD_CLOEXEC, "descriptor %d would be inherited", descriptor);
    }
    EXPECT(seen > 0, "the store has no file open");
    end(engine);
}

static size_t heap(void) {
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

int main(void) {
    snprintf(folder, sizeof folder, "%s/life", scratch());
    mkdir(folder, 0700);
    int threads = count_threads();
    one_life(0);
    one_life(1);
    int descriptors = count_descriptors(), files = count_files(format_path("%s/state", folder));
    size_t memory = heap();
    int lives = rounds(50);
    for (int number = 2; number < lives + 2; number++)
        one_life(number);
    EXPECT(wait_for_threads(threads), "%d threads are left", count_threads() - threads);
    EXPECT(count_descriptors() == descriptors, "%d descriptors after two lives, %d after %d", descriptors, count_descriptors(), lives + 2);
    EXPECT(count_files(format_path("%s/state", folder)) == files, "%d files after two lives, %d after %d", files, count_files(format_path("%s/state", folder)), lives + 2);
    EXPECT(count_descriptors_below(folder) == 0, "a file is still open");
    /* An engine is megabytes; what threads' caches keep is not. valgrind tells the rest. */
    EXPECT(heap() < memory + (1 << 20), "%zu bytes after two lives, %zu after %d", memory, heap(), lives + 2);
    closed_on_exec(format_path("%s/state", folder));
    return finish();
}

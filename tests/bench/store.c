/* How many events a second the store takes: as many as fit into the queue at once, all different, then a flush. The names
 * are on a block list, so that the model's time is not in it.
 *   store STATE_DIR BLOCK_LIST     (the list: *.stored.example)
 * Prints a markdown table. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bench.h"

enum { ROUNDS = 7, ROWS = 200000 };

int main(int count, char **arguments) {
    if (count != 3)
        die("use: store STATE_DIR BLOCK_LIST");
    mlb_engine *engine = open_engine((const char *const[]){"state_dir", arguments[1], "lists.block", arguments[2], "queue.events", "262144", "record.client", "full", NULL});
    double per_second[ROUNDS], cpu[ROUNDS], call[ROUNDS];
    for (size_t round = 0; round < ROUNDS; round++) {
        uint64_t stored = counters(engine).stored;
        int64_t start = wall_ns(), process = process_cpu_ns(), own = thread_cpu_ns();
        for (size_t row = 0; row < ROWS; row++) {
            struct name name;
            name.length = (uint16_t)snprintf(name.text, sizeof name.text, "host-%zu-%zu.stored.example", round, row);
            const uint8_t client[4] = {10, (uint8_t)(row >> 16), (uint8_t)(row >> 8), (uint8_t)row};
            mlb_verdict verdict;
            if (mlb_classify(engine, name.text, name.length, client, 4, 1, &verdict) != MLB_OK || verdict.decision != MLB_BLOCK)
                die("%s", name.text);
        }
        call[round] = (double)(thread_cpu_ns() - own) / ROWS;
        if (mlb_flush(engine, 600000) != MLB_OK)
            die("flush");
        int64_t end = wall_ns();
        cpu[round] = (double)(process_cpu_ns() - process - (thread_cpu_ns() - own)) / ROWS;
        per_second[round] = ROWS / ((double)(end - start) / 1e9);
        stored = counters(engine).stored - stored;
        if (stored != ROWS)
            die("%llu of %d rows were stored", (unsigned long long)stored, ROWS);
    }
    mlb_free(engine);
    char path[600];
    struct stat info;
    snprintf(path, sizeof path, "%s/mlbridge.db", arguments[1]);
    if (stat(path, &info) != 0)
        die("%s", path);
    printf("| store | value | aim |\n|---|---:|---|\n");
    printf("| rows a second, first call to end of flush (median of %d times %d) | %.0f | >= 100,000 |\n", ROUNDS, ROWS, quantile(per_second, ROUNDS, 0.5));
    double worker = quantile(cpu, ROUNDS, 0.5);
    printf("| rows a second of the worker's CPU time (%.2f us a row) | %.0f | >= 100,000 |\n", worker / 1000, 1e9 / worker);
    printf("| the calling thread's CPU time a call, text made with snprintf included | %.0f ns | |\n", quantile(call, ROUNDS, 0.5));
    printf("| bytes a row in the database | %.0f | |\n", (double)info.st_size / ((double)ROUNDS * ROWS));
    return 0;
}

/* What the test programs share.
 *
 * A program is one promise of the C ABI. It runs its checks with EXPECT, which notes a failure and goes on, and ends
 * with `return finish();`: status 0, or 1 after a line for each check that failed. It gets from the environment
 *   MLB_LIBRARY  the shared library, for the programs that load it at run time
 *   MLB_MODELS   the folder of the models
 *   MLB_QUICK    set when every call is dear (valgrind): rounds() then gives a tenth
 * and writes only into scratch(), a private folder that finish() removes.
 *
 * Nothing here measures time: where a test must wait, it waits for a thing to happen, with a bound that only a broken
 * library reaches. */
#ifndef MLBRIDGE_TESTS_COMMON_H
#define MLBRIDGE_TESTS_COMMON_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "mlbridge.h"

/* The longest wait for something that must happen, in milliseconds, and a flush that has all that time. */
#define PATIENCE_MS 30000U

/* Exit status of a program that could try nothing, and has said why. */
#define SKIPPED 77

/* A list of settings: keys and values in turn, NULL at the end. Use: SETTINGS("instance", "a", "mode", "observe"). */
#define SETTINGS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define NO_SETTINGS ((const char *const[]){NULL})

/* Notes a failure with its place and a printf-style explanation if the condition does not hold. Gives the condition. */
#define EXPECT(condition, ...) expect((condition), __FILE__, __LINE__, #condition, __VA_ARGS__)
/* The same, and ends the program at once. */
#define REQUIRE(condition, ...) ((void)(EXPECT(condition, __VA_ARGS__) || (give_up(), false)))

bool expect(bool holds, const char *file, int line, const char *condition, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
void give_up(void) __attribute__((noreturn));

/* Removes the scratch folder and gives the exit status of the program. In a forked child use _exit(failed()). */
int finish(void);
int failed(void);

/* `full`, or a tenth of it (at least 1) where MLB_QUICK is set. */
int rounds(int full);

/* The private folder of this run. */
const char *scratch(void);
/* A text, usually a path, that lives until the program ends. */
const char *format_path(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Writes a file, replaces what was there. */
void write_file(const char *path, const char *text, mode_t mode);

/* Ends the process by SIGALRM after so many seconds. */
void watchdog(unsigned seconds);
/* First act of a forked child: forgets the parent's failures, and ends it by SIGALRM after so many seconds, because a hang
 * must end the test. */
void begin_child(unsigned seconds);
/* Waits for a child and expects that it ended by itself with status 0. */
void expect_child(pid_t child, const char *what);
/* Ends a child that has done its checks: as _exit, but under valgrind (MLB_QUICK) without the search for leaks, because
 * what a fork leaves of the other threads' memory is lost by nature. */
void end_child(void) __attribute__((noreturn));

/* For a call that may give any status; the header wants each one looked at. */
static inline void any_status(mlb_status status) { (void)status; }

/* Settings, engines and verdicts. The ones without a status expect MLB_OK. */
mlb_config *config_of(const char *const *settings);
mlb_status try_init(const char *const *settings, mlb_engine **out, char *err, size_t err_len);
mlb_engine *init(const char *const *settings);
mlb_status try_reload(const mlb_engine *engine, const char *const *settings, char *err, size_t err_len);
mlb_verdict ask(const mlb_engine *engine, const char *name);
/* Asks `count` distinct names, `PREFIX-N.example.net`, N from `first` on. */
void ask_many(const mlb_engine *engine, const char *prefix, int first, int count);
bool all_zero(const void *bytes, size_t length);

/* The counters, and the ledger of architecture: every classified name is accounted for. The host makes no call on the
 * engine meanwhile. */
mlb_stats stats_of(const mlb_engine *engine);
void expect_ledger(const mlb_engine *engine);
/* expect_ledger, then mlb_free. */
void end(mlb_engine *engine);

/* The text of mlb_sink_error. Static buffer; not for several threads. */
const char *sink_error(const mlb_engine *engine);
/* Repeats a flush until it gives MLB_OK, for as long as PATIENCE_MS; gives the last status. */
mlb_status flush_patiently(const mlb_engine *engine);
/* Waits until a counter of the engine, given by its offset in mlb_stats, is at least `least`. */
bool wait_for_counter(const mlb_engine *engine, size_t offset, uint64_t least);

/* The first number that a query on STATE_DIR/mlbridge.db gives, asked by the sqlite3 command: a process of its own,
 * because a stray open and close of the file would drop the library's locks. -1 if the command fails. */
long long sql(const char *state_dir, const char *query);
/* The command to which a test writes statements to hold a lock: `sqlite3 DB` reading a pipe. Statements are answered on
 * the other pipe. */
struct sql_shell {
    pid_t pid;
    FILE *in, *out;
};
struct sql_shell sql_open(const char *state_dir);
/* Writes a statement and waits until it was carried out. */
void sql_do(struct sql_shell *shell, const char *statement);
void sql_close(struct sql_shell *shell);

/* Of this process, from /proc. */
int count_threads(void);
/* Waits until there are so many threads: one that has said its last word needs a moment to be gone. */
bool wait_for_threads(int count);
int count_descriptors(void);
/* Descriptors that lead below a folder. */
int count_descriptors_below(const char *folder);
int count_files(const char *folder);

void sleep_ms(long milliseconds);
/* Starts a thread, and waits for one; both must work. */
pthread_t run_thread(void *(*body)(void *), void *argument);
void join_thread(pthread_t thread);

#endif

/* Signals are the host's: no thread of the library takes one, no handler and no mask of the host changes, and calls that
 * a signal interrupts end as they should. */
#include "common.h"

#include <dirent.h>
#include <sys/syscall.h>
#include <sys/time.h>

static volatile sig_atomic_t handled, ticks;

static void on_signal(int number) {
    (void)number;
    handled++;
}

static void on_tick(int number) {
    (void)number;
    ticks++;
}

/* SIGUSR1 is blocked in the only thread of the host: it must stay pending until the host asks for it. */
static void five_signals(void) {
    sigset_t user1, pending;
    sigemptyset(&user1);
    sigaddset(&user1, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &user1, NULL);
    struct sigaction action = {0};
    action.sa_handler = on_signal;
    sigaction(SIGUSR1, &action, NULL);
    for (int round = 0; round < 5; round++) {
        kill(getpid(), SIGUSR1);
        sigpending(&pending);
        EXPECT(sigismember(&pending, SIGUSR1), "signal %d does not wait for the host", round);
        struct timespec patience = {5, 0};
        EXPECT(sigtimedwait(&user1, NULL, &patience) == SIGUSR1, "signal %d is gone", round);
    }
    EXPECT(handled == 0, "%d signals were handled in a thread of the library", (int)handled);
    pthread_sigmask(SIG_UNBLOCK, &user1, NULL);
}

/* Each thread but the host's blocks everything that can be blocked, its own faults excepted. */
static void masks_of_threads(void) {
    DIR *tasks = opendir("/proc/self/task");
    REQUIRE(tasks, "/proc/self/task");
    int others = 0;
    for (struct dirent *entry; (entry = readdir(tasks));) {
        if (entry->d_name[0] == '.' || atoi(entry->d_name) == (int)syscall(SYS_gettid))
            continue;
        others++;
        char line[256];
        unsigned long long blocked = 0;
        FILE *status = fopen(format_path("/proc/self/task/%s/status", entry->d_name), "r");
        while (status && fgets(line, sizeof line, status))
            sscanf(line, "SigBlk: %llx", &blocked);
        if (status)
            fclose(status);
        for (int number = 1; number <= 31; number++) {
            bool never = number == SIGKILL || number == SIGSTOP || number == SIGSEGV || number == SIGBUS ||
                         number == SIGFPE || number == SIGILL || number == SIGABRT || number == SIGTRAP || number == SIGSYS;
            EXPECT(never || blocked >> (number - 1) & 1, "thread %s takes signal %d (%s)", entry->d_name, number, strsignal(number));
        }
    }
    closedir(tasks);
    EXPECT(others > 0, "the worker does not run");
}

static void same_handlers(const struct sigaction *before, const char *when) {
    for (int number = 1; number < 32; number++) {
        struct sigaction now;
        sigaction(number, NULL, &now);
        int flags = (now.sa_flags ^ before[number].sa_flags) & ~0x04000000; /* SA_RESTORER, which the C library adds */
        EXPECT(now.sa_handler == before[number].sa_handler && flags == 0, "%s: the handler of signal %d changed", when, number);
    }
}

/* An interval timer interrupts every call, and no call may be restarted by the system. */
static void interrupted_calls(mlb_engine *engine, const char *state) {
    struct sigaction action = {0};
    action.sa_handler = on_tick;
    sigaction(SIGALRM, &action, NULL);
    struct itimerval timer = {{0, 500}, {0, 500}};
    setitimer(ITIMER_REAL, &timer, NULL);
    for (int round = 0; round < rounds(20); round++) {
        ask_many(engine, "interrupted", round * 50, 50);
        mlb_status status = mlb_flush(engine, PATIENCE_MS);
        EXPECT(status == MLB_OK, "flush: %s", mlb_strerror((int)status));
    }
    mlb_engine *second = init(SETTINGS("state_dir", state, "record.allow", "all", "mode", "observe"));
    ask_many(second, "second", 0, 10);
    end(second);
    end(engine);
    timer.it_interval.tv_usec = timer.it_value.tv_usec = 0;
    setitimer(ITIMER_REAL, &timer, NULL);
    EXPECT(ticks > 0, "the timer did not interrupt anything");
    EXPECT(sql(state, "select count(*) from event where name like 'second-%'") == 10, "rows are missing");
}

int main(void) {
    const char *state = format_path("%s/state", scratch());
    struct sigaction before[32];
    for (int number = 1; number < 32; number++)
        sigaction(number, NULL, &before[number]);
    sigset_t mask_before, mask_now;
    pthread_sigmask(SIG_SETMASK, NULL, &mask_before);

    mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "all"));
    ask_many(engine, "first", 0, 10);
    EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "flush: %s", sink_error(engine));
    same_handlers(before, "with a worker");
    pthread_sigmask(SIG_SETMASK, NULL, &mask_now);
    for (int number = 1; number <= SIGRTMAX; number++)
        EXPECT(sigismember(&mask_before, number) == sigismember(&mask_now, number), "the host's mask of signal %d changed", number);
    masks_of_threads();
    five_signals();
    sigaction(SIGUSR1, &before[SIGUSR1], NULL);
    same_handlers(before, "after five signals");
    interrupted_calls(engine, state);
    return finish();
}

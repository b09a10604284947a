/* A call in steady state allocates nothing and asks the system for nothing: no lock is waited for, no file, no clock that
 * costs a system call. Shown by counting the allocations of the calling thread, and by a thread for which the kernel
 * traps every system call but the wake-up of the worker. */
#include "common.h"

#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static __thread bool counting;
static __thread unsigned allocations;

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

void *malloc(size_t size) {
    allocations += counting;
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    allocations += counting;
    return __libc_calloc(count, size);
}

void *realloc(void *block, size_t size) {
    allocations += counting;
    return __libc_realloc(block, size);
}

int posix_memalign(void **out, size_t alignment, size_t size) {
    allocations += counting;
    *out = __libc_memalign(alignment, size);
    return *out ? 0 : ENOMEM;
}

static volatile long trapped[32];
static volatile int traps;
static volatile bool armed;

static void on_trap(int number, siginfo_t *info, void *context) {
    (void)number, (void)context;
    if (armed && traps < 32)
        trapped[traps++] = info->si_syscall;
}

/* For the calling thread alone, for ever: every call traps, but these. */
static void watch_system_calls(void) {
    const size_t nr = offsetof(struct seccomp_data, nr), operation = offsetof(struct seccomp_data, args[1]);
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)nr),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 7, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit, 6, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 5, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_futex, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)operation),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, FUTEX_CMD_MASK),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, FUTEX_WAKE, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};
    EXPECT(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0, "seccomp: %s", strerror(errno));
}

struct job {
    const mlb_engine *engine;
    bool fresh;   /* names that were never asked */
    bool watched; /* system calls */
    unsigned allocations;
};

static void calls(const struct job *job, int from, int count) {
    static const uint8_t client[4] = {192, 0, 2, 1};
    static const char *const names[] = {"www.example.com", "plain.example", "localhost", "a.allowed.example", "often.example.com"};
    for (int number = from; number < from + count; number++) {
        mlb_verdict verdict;
        char name[64];
        int length = job->fresh ? snprintf(name, sizeof name, "fresh-%d.example.net", number) : snprintf(name, sizeof name, "%s", names[number % 5]);
        mlb_status status = mlb_classify(job->engine, name, (size_t)length, client, 4, 1, &verdict);
        if (status != MLB_OK)
            trapped[0] = -(long)status, traps = traps ? traps : 1;
    }
}

static void *run(void *argument) {
    struct job *job = argument;
    calls(job, 0, 2000); /* steady state: caches filled, worker at work */
    if (job->watched)
        watch_system_calls();
    armed = job->watched;
    counting = true;
    allocations = 0;
    calls(job, 2000, 2000);
    counting = false;
    armed = false;
    job->allocations = allocations;
    return NULL;
}

static void expect_quiet(const mlb_engine *engine, bool fresh, const char *what) {
    struct job job = {engine, fresh, !getenv("MLB_QUICK"), 0};
    traps = 0;
    join_thread(run_thread(run, &job));
    EXPECT(job.allocations == 0, "%s: %u allocations in 2,000 calls", what, job.allocations);
    for (int at = 0; at < traps; at++)
        if (!EXPECT(false, "%s: system call %ld (a negative number is a status)", what, trapped[at]))
            break;
}

int main(void) {
    struct sigaction action = {0};
    action.sa_sigaction = on_trap;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSYS, &action, NULL);
    if (getenv("MLB_QUICK"))
        printf("(system calls are not watched under valgrind, which makes its own) ");
    const char *allow = format_path("%s/allow", scratch()), *block = format_path("%s/block", scratch());
    write_file(allow, "*.allowed.example\n", 0600);
    write_file(block, "plain.example\n", 0600);
    mlb_engine *engine = init(SETTINGS("lists.allow", allow, "lists.block", block));
    expect_quiet(engine, false, "no store");
    end(engine);
    engine = init(SETTINGS("lists.allow", allow, "lists.block", block, "state_dir", format_path("%s/state", scratch()), "record.allow", "all", "queue.events", "65536"));
    expect_quiet(engine, false, "every call an event");
    end(engine);
    /* Through tract a name that is not in the cache costs allocations; the fused engine does without. */
    char err[256];
    engine = NULL;
    if (try_init(SETTINGS("model.engine", "fused", "state_dir", format_path("%s/fused", scratch()), "record.allow", "all", "queue.events", "65536"), &engine, err, sizeof err) == MLB_OK) {
        expect_quiet(engine, true, "the fused engine");
        end(engine);
    } else {
        printf("(no fused engine: %s) ", err);
    }
    return finish();
}

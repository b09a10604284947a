/* What needs no library: checks, files, processes, threads, the sqlite3 command. */
#include "common.h"

#include <dirent.h>
#include <ftw.h>
#include <stdarg.h>

static int failures;
static char scratch_dir[256];
static pid_t scratch_owner;

bool expect(bool holds, const char *file, int line, const char *condition, const char *format, ...) {
    if (holds)
        return true;
    /* A broken promise fails in a loop: the first lines tell enough. */
    if (__atomic_add_fetch(&failures, 1, __ATOMIC_SEQ_CST) > 20)
        return false;
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    const char *slash = strrchr(file, '/');
    fprintf(stderr, "%s:%d: not so: %s: %s\n", slash ? slash + 1 : file, line, condition, text);
    return false;
}

void give_up(void) {
    if (scratch_owner == getpid())
        finish();
    _exit(1);
}

int failed(void) { return __atomic_load_n(&failures, __ATOMIC_SEQ_CST) > 0; }

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *walk) {
    (void)info, (void)type, (void)walk;
    remove(path);
    return 0;
}

int finish(void) {
    if (scratch_dir[0] && scratch_owner == getpid())
        nftw(scratch_dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    return failed();
}

int rounds(int full) {
    if (!getenv("MLB_QUICK"))
        return full;
    return full >= 10 ? full / 10 : 1;
}

const char *scratch(void) {
    if (scratch_dir[0])
        return scratch_dir;
    const char *base = getenv("TMPDIR");
    snprintf(scratch_dir, sizeof scratch_dir, "%s/mlb-test-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(scratch_dir)) {
        perror(scratch_dir);
        _exit(1);
    }
    scratch_owner = getpid();
    return scratch_dir;
}

const char *format_path(const char *format, ...) {
    struct text {
        struct text *before;
        char text[600];
    };
    static struct text *all; /* so that valgrind sees that none is lost */
    struct text *made = malloc(sizeof *made);
    REQUIRE(made, "memory");
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(made->text, sizeof made->text, format, arguments);
    va_end(arguments);
    made->before = __atomic_load_n(&all, __ATOMIC_SEQ_CST);
    while (!__atomic_compare_exchange_n(&all, &made->before, made, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        continue;
    return made->text;
}

void write_file(const char *path, const char *text, mode_t mode) {
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);
    REQUIRE(file >= 0, "%s: %s", path, strerror(errno));
    REQUIRE(write(file, text, strlen(text)) == (ssize_t)strlen(text), "%s: %s", path, strerror(errno));
    fchmod(file, mode);
    close(file);
}

void watchdog(unsigned seconds) {
    signal(SIGALRM, SIG_DFL);
    alarm(seconds);
}

void begin_child(unsigned seconds) {
    failures = 0;
    watchdog(seconds);
}

void expect_child(pid_t child, const char *what) {
    int status = 0;
    pid_t ended;
    while ((ended = waitpid(child, &status, 0)) < 0 && errno == EINTR)
        continue;
    REQUIRE(ended == child, "%s: waitpid: %s", what, strerror(errno));
    EXPECT(!WIFSIGNALED(status), "%s: ended by signal %d (%s)", what, WTERMSIG(status), strsignal(WTERMSIG(status)));
    EXPECT(WIFSIGNALED(status) || WEXITSTATUS(status) == 0, "%s: exit status %d", what, WEXITSTATUS(status));
}

void end_child(void) {
    if (!failed() && getenv("MLB_QUICK"))
        execl("/bin/true", "true", (char *)NULL);
    _exit(failed());
}

long long sql(const char *state_dir, const char *query) {
    char command[1024];
    if (access(format_path("%s/mlbridge.db", state_dir), F_OK) != 0)
        return -1; /* the command would make it */
    snprintf(command, sizeof command, "sqlite3 -batch -cmd '.timeout 10000' '%s/mlbridge.db' \"%s\"", state_dir, query);
    FILE *answer = popen(command, "r");
    if (!answer)
        return -1;
    long long number = -1;
    if (fscanf(answer, "%lld", &number) != 1)
        number = -1;
    return pclose(answer) == 0 ? number : -1;
}

struct sql_shell sql_open(const char *state_dir) {
    struct sql_shell shell = {-1, NULL, NULL};
    int to[2], from[2];
    REQUIRE(pipe2(to, O_CLOEXEC) == 0 && pipe2(from, O_CLOEXEC) == 0, "pipe: %s", strerror(errno));
    shell.pid = fork();
    REQUIRE(shell.pid >= 0, "fork: %s", strerror(errno));
    if (shell.pid == 0) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        execlp("sqlite3", "sqlite3", "-batch", "-cmd", ".timeout 10000", format_path("%s/mlbridge.db", state_dir),
               (char *)NULL);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    shell.in = fdopen(to[1], "w");
    shell.out = fdopen(from[0], "r");
    return shell;
}

void sql_do(struct sql_shell *shell, const char *statement) {
    char line[256] = "";
    fprintf(shell->in, "%s\n.print done\n", statement);
    fflush(shell->in);
    do {
        if (!EXPECT(fgets(line, sizeof line, shell->out) != NULL, "sqlite3 ended at: %s", statement))
            return;
    } while (strcmp(line, "done\n") != 0);
}

void sql_close(struct sql_shell *shell) {
    fclose(shell->in);
    fclose(shell->out);
    waitpid(shell->pid, NULL, 0);
}

static int count_entries(const char *folder) {
    DIR *entries = opendir(folder);
    if (!entries)
        return -1;
    int count = 0;
    while (readdir(entries))
        count++;
    closedir(entries);
    return count - 2;
}

int count_threads(void) { return count_entries("/proc/self/task"); }

bool wait_for_threads(int count) {
    for (unsigned waited = 0; waited < PATIENCE_MS && count_threads() != count; waited += 5)
        sleep_ms(5);
    return count_threads() == count;
}

/* Less the one that reads the folder. */
int count_descriptors(void) { return count_entries("/proc/self/fd") - 1; }

int count_files(const char *folder) { return count_entries(folder); }

int count_descriptors_below(const char *folder) {
    int count = 0;
    for (int descriptor = 0; descriptor < 4096; descriptor++) {
        char link[64], target[512];
        snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
        ssize_t length = readlink(link, target, sizeof target - 1);
        if (length < 0)
            continue;
        target[length] = 0;
        count += strncmp(target, folder, strlen(folder)) == 0;
    }
    return count;
}

void sleep_ms(long milliseconds) {
    struct timespec rest = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    while (nanosleep(&rest, &rest) < 0 && errno == EINTR)
        continue;
}

pthread_t run_thread(void *(*body)(void *), void *argument) {
    pthread_t thread;
    int error = pthread_create(&thread, NULL, body, argument);
    REQUIRE(error == 0, "pthread_create: %s", strerror(error));
    return thread;
}

void join_thread(pthread_t thread) {
    int error = pthread_join(thread, NULL);
    EXPECT(error == 0, "pthread_join: %s", strerror(error));
}

#include "node-agent/agent/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "node-agent/agent/process.h"

#define FIRST_FD    3
#define FAILED_EXIT 127

void spawn_init(struct spawn *spawn, const char *path)
{
    *spawn = (struct spawn){.path = path, .stderr_fd = -1, .cgroup_fd = -1};
}

void spawn_clear(struct spawn *spawn)
{
    for (size_t i = 0; i < spawn->arg_count; i++)
        free(spawn->args[i]);
    *spawn = (struct spawn){0};
}

void spawn_arg(struct spawn *spawn, const char *format, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    if (length < 0 || spawn->arg_count == SPAWN_ARGS_MAX) {
        if (length >= 0)
            free(text);
        spawn->overflow = true;
        return;
    }
    spawn->args[spawn->arg_count++] = text;
    spawn->args[spawn->arg_count] = NULL;
}

int spawn_pass(struct spawn *spawn, int fd)
{
    if (spawn->fd_count == SPAWN_FDS_MAX) {
        spawn->overflow = true;
        return -1;
    }
    spawn->fds[spawn->fd_count++] = fd;
    return FIRST_FD + (int)spawn->fd_count - 1;
}

/* Only what concerns the program and its libraries: not the agent's service manager or log. */
static void select_environment(char **to, size_t max)
{
    static const char *const wanted[] = {"PATH=", "LANG=",         "TZ=",           "VMPOOL_",
                                         "HOME=", "ASAN_OPTIONS=", "UBSAN_OPTIONS="};
    size_t count = 0;
    for (char **entry = environ; *entry && count + 1 < max; entry++)
        for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
            if (strncmp(*entry, wanted[i], strlen(wanted[i])) == 0) {
                to[count++] = *entry;
                break;
            }
    to[count] = NULL;
}

/* ---- in the child: only async-signal-safe calls, as the agent has other threads ---------------
 */

/* The descriptors first move out of the way of the numbers they are to get. */
static int place_descriptors(const struct spawn *spawn, int status_fd)
{
    int high[SPAWN_FDS_MAX];
    int top = FIRST_FD + (int)spawn->fd_count;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int log = spawn->stderr_fd >= 0 ? spawn->stderr_fd : null;
    for (size_t i = 0; i < spawn->fd_count; i++) {
        high[i] = fcntl(spawn->fds[i], F_DUPFD_CLOEXEC, top + 1);
        if (high[i] < 0)
            return -1;
    }
    log = fcntl(log, F_DUPFD_CLOEXEC, top + 1);
    null = fcntl(null, F_DUPFD_CLOEXEC, top + 1);
    int status = fcntl(status_fd, F_DUPFD_CLOEXEC, top + 1);
    if (log < 0 || null < 0 || status < 0)
        return -1;
    for (size_t i = 0; i < spawn->fd_count; i++)
        if (dup2(high[i], FIRST_FD + (int)i) < 0)
            return -1;
    if (dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0 || dup2(status, top) < 0 ||
        fcntl(top, F_SETFD, FD_CLOEXEC) < 0)
        return -1;
    (void)syscall(SYS_close_range, (unsigned)top + 1, ~0u, 0u);
    return top;
}

static void default_signals(void)
{
    sigset_t none;
    for (int number = 1; number < 32; number++)
        (void)signal(number, SIG_DFL);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void run_child(const struct spawn *spawn, int go_fd, int status_fd,
                                char *const *environment)
{
    char go;
    if (read(go_fd, &go, 1) != 1)
        _exit(FAILED_EXIT); /* the agent died or could not note us */
    (void)setsid();
    default_signals();
    bool joined = spawn->cgroup_fd < 0 || write(spawn->cgroup_fd, "0", 1) == 1;
    int at = joined ? place_descriptors(spawn, status_fd) : -1;
    if (at >= 0)
        (void)execve(spawn->path, spawn->args, environment);
    int number = errno;
    ssize_t told = write(at >= 0 ? at : status_fd, &number, sizeof number);
    (void)told;
    _exit(FAILED_EXIT);
}

/* ---- in the agent ---------------------------------------------------------------------------- */

/* Lets the child go on; 0 once it runs the program, else the errno that stopped it. */
static int release(int go_fd, int status_fd)
{
    int number = 0;
    ssize_t count = write(go_fd, "g", 1);
    if (count != 1)
        return errno;
    do
        count = read(status_fd, &number, sizeof number);
    while (count < 0 && errno == EINTR);
    return count == 0 ? 0 : number;
}

static int register_child(pid_t pid, int *pidfd,
                          int (*registered)(void *context, pid_t pid, uint64_t start_ticks,
                                            struct error *err),
                          void *context, struct error *err)
{
    struct process_stat stat;
    if (process_stat(pid, &stat, err) < 0)
        return -1;
    *pidfd = process_open(pid, stat.start_ticks, err);
    if (*pidfd < 0)
        return -1;
    return registered(context, pid, stat.start_ticks, err);
}

int spawn_start(const struct spawn *spawn,
                int (*registered)(void *context, pid_t pid, uint64_t start_ticks,
                                  struct error *err),
                void *context, pid_t *pid, int *pidfd, struct error *err)
{
    char *environment[64];
    int go[2], status[2];
    if (spawn->overflow)
        return error_set(err, ERROR_USAGE, "too many arguments for %s", spawn->path);
    if (pipe2(go, O_CLOEXEC) < 0)
        return error_errno(err, errno, "pipe");
    auto_fd int go_read = go[0], go_write = go[1];
    if (pipe2(status, O_CLOEXEC) < 0)
        return error_errno(err, errno, "pipe");
    auto_fd int status_read = status[0], status_write = status[1];
    select_environment(environment, 64);

    pid_t child = fork();
    if (child < 0)
        return error_errno(err, errno, "fork");
    if (child == 0) {
        (void)close(go_write); /* so that the agent's death is seen */
        run_child(spawn, go_read, status_write, environment);
    }
    close_fd(&status_write);
    *pidfd = -1;
    int result = register_child(child, pidfd, registered, context, err);
    if (result == 0) {
        int number = release(go_write, status_read);
        if (number != 0)
            result = error_errno(err, number, "cannot run %s", spawn->path);
    }
    if (result == 0) {
        *pid = child;
        return 0;
    }
    close_fd(&go_write);
    (void)waitpid(child, NULL, 0); /* ends at once: it has seen no "go", or failed to run */
    close_fd(pidfd);
    return -1;
}

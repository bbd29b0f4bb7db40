#include "node-agent/agent/process.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "node-agent/agent/files.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

int process_stat(pid_t pid, struct process_stat *stat, struct error *err)
{
    char path[64], state = 0;
    auto_free char *text = NULL;
    size_t size;
    uint64_t user = 0, system = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (files_read(AT_FDCWD, path, 4096, &text, &size, err) < 0) {
        if (err->kind != ERROR_NOT_FOUND)
            (void)error_set(err, ERROR_NOT_FOUND, "process %d ends", (int)pid); /* ESRCH of read */
        return -1;
    }
    /* The name in brackets may hold anything, so fields count from the last bracket. */
    const char *rest = strrchr(text, ')');
    if (!rest || sscanf(rest,
                        ") %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64
                        " %*d %*d %*d %*d %*d %*d %" SCNu64,
                        &state, &user, &system, &stat->start_ticks) != 4)
        return error_set(err, ERROR_FAILED, "%s has a form this program does not know", path);
    if (state == 'Z' || state == 'X')
        return error_set(err, ERROR_NOT_FOUND, "process %d has ended", (int)pid);
    stat->cpu_ticks = user + system;
    return 0;
}

int process_open(pid_t pid, uint64_t start_ticks, struct error *err)
{
    struct process_stat stat = {0};
    auto_fd int fd = (int)syscall(SYS_pidfd_open, pid, 0u); /* close-on-exec by itself */
    if (fd < 0)
        return error_set(err, errno == ESRCH ? ERROR_NOT_FOUND : ERROR_FAILED, "process %d: %s",
                         (int)pid, strerror(errno));
    if (process_stat(pid, &stat, err) < 0)
        return -1;
    if (stat.start_ticks != start_ticks)
        return error_set(err, ERROR_NOT_FOUND, "process %d is another one by now", (int)pid);
    return take_fd(&fd);
}

void process_kill(int pidfd)
{
    if (pidfd >= 0)
        (void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0u);
}

int process_reap(int pidfd)
{
    siginfo_t info = {0};
    if (waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0)
        return -1;
    return info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
}

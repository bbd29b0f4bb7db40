#include "common/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The text behind "point=" in VMPOOL_FAULTS, or NULL. */
static const char *find_action(const char *faults, const char *point)
{
    size_t length = strlen(point);
    while (faults && *faults) {
        if (strncmp(faults, point, length) == 0 && faults[length] == '=')
            return faults + length + 1;
        faults = strchr(faults, ',');
        if (faults)
            faults++;
    }
    return NULL;
}

static bool is_action(const char *text, const char *action)
{
    size_t length = strlen(action);
    return strncmp(text, action, length) == 0 && (text[length] == 0 || text[length] == ',');
}

static void wait_ms(long ms)
{
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&left, &left) < 0 && errno == EINTR)
        continue;
}

static void note(const char *point)
{
    const char *path = getenv("VMPOOL_FAULTS_LOG");
    char line[128];
    int fd = path ? open(path, O_WRONLY | O_APPEND | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    int length = snprintf(line, sizeof line, "%s\n", point);
    (void)!write(fd, line, (size_t)length < sizeof line ? (size_t)length : sizeof line - 1);
    (void)close(fd);
}

bool fault_point(const char *point)
{
    const char *action = find_action(getenv("VMPOOL_FAULTS"), point);
    if (!action)
        return false;
    note(point);
    if (is_action(action, "kill"))
        (void)kill(getpid(), SIGKILL);
    else if (is_action(action, "stop"))
        (void)raise(SIGSTOP); /* to this thread: sent to the process, another may take it first */
    else if (strncmp(action, "delay:", 6) == 0)
        wait_ms(strtol(action + 6, NULL, 10));
    return is_action(action, "drop");
}

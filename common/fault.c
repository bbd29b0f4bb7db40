#include "common/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"

#define TEXT_MAX_BYTES 1024
#define HOLD_MAX_MS    10000
#define HOLD_STEP_MS   2

/* What VMPOOL_FAULTS says now; @text holds it where it stands in a file. NULL: nothing. */
static const char *read_faults(char text[TEXT_MAX_BYTES])
{
    const char *faults = getenv("VMPOOL_FAULTS");
    if (!faults || faults[0] != '@')
        return faults;
    auto_fd int fd = open(faults + 1, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, TEXT_MAX_BYTES - 1);
    if (size <= 0)
        return NULL;
    text[size] = '\0';
    return text;
}

/* The text behind "point=" in @faults, or NULL. */
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
    return strncmp(text, action, length) == 0 &&
           (text[length] == 0 || text[length] == ',' || text[length] == '\n');
}

static void wait_ms(long ms)
{
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&left, &left) < 0 && errno == EINTR)
        continue;
}

static void hold(const char *point)
{
    char text[TEXT_MAX_BYTES];
    for (long ms = 0; ms < HOLD_MAX_MS && find_action(read_faults(text), point); ms += HOLD_STEP_MS)
        wait_ms(HOLD_STEP_MS);
}

static void note(const char *point)
{
    const char *path = getenv("VMPOOL_FAULTS_LOG");
    char line[128];
    auto_fd int fd = path ? open(path, O_WRONLY | O_APPEND | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    int length = snprintf(line, sizeof line, "%s %d\n", point, (int)getpid());
    (void)!write(fd, line, (size_t)length < sizeof line ? (size_t)length : sizeof line - 1);
}

unsigned fault_message(const char *point)
{
    char text[TEXT_MAX_BYTES];
    const char *action = find_action(read_faults(text), point);
    if (!action)
        return 1;
    note(point);
    if (is_action(action, "kill"))
        (void)kill(getpid(), SIGKILL);
    else if (is_action(action, "stop"))
        (void)raise(SIGSTOP); /* to this thread: sent to the process, another may take it first */
    else if (is_action(action, "hold"))
        hold(point);
    else if (strncmp(action, "delay:", 6) == 0)
        wait_ms(strtol(action + 6, NULL, 10));
    return is_action(action, "drop") ? 0 : is_action(action, "repeat") ? 2 : 1;
}

bool fault_point(const char *point)
{
    return fault_message(point) == 0;
}

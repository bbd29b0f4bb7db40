#include "common/fault.h"

#include <errno.h>
#include <signal.h>
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

bool fault_point(const char *point)
{
    const char *action = find_action(getenv("VMPOOL_FAULTS"), point);
    if (!action)
        return false;
    if (is_action(action, "kill"))
        (void)kill(getpid(), SIGKILL);
    else if (is_action(action, "stop"))
        (void)kill(getpid(), SIGSTOP);
    else if (strncmp(action, "delay:", 6) == 0)
        wait_ms(strtol(action + 6, NULL, 10));
    return is_action(action, "drop");
}

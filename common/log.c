#include "common/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The one piece of process-wide state besides main's: a log line may come from anywhere. */
static struct {
    const char *name;
    enum log_level level;
    bool journal;
} sink = {.name = "vmpool", .level = LOG_LEVEL_INFO};

void log_init(const char *name, enum log_level level)
{
    sink.name = name;
    sink.level = level;
    sink.journal = getenv("JOURNAL_STREAM") != NULL;
}

int log_level_parse(const char *word, enum log_level *level)
{
    static const char *const words[] = {"error", "warn", "info", "debug"};
    for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(word, words[i]) == 0) {
            *level = (enum log_level)i;
            return 0;
        }
    }
    return -1;
}

static int put_prefix(char *line, size_t size, enum log_level level)
{
    static const char syslog_digit[] = {'3', '4', '6', '7'};
    static const char *const words[] = {"error", "warn ", "info ", "debug"};
    if (sink.journal)
        return snprintf(line, size, "<%c>", syslog_digit[level]);

    struct timespec now;
    struct tm parts;
    char stamp[32] = "";
    if (clock_gettime(CLOCK_REALTIME, &now) == 0 && gmtime_r(&now.tv_sec, &parts))
        (void)strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &parts);
    return snprintf(line, size, "%s.%03ldZ %s %s: ", stamp, now.tv_nsec / 1000000, words[level],
                    sink.name);
}

void log_line(enum log_level level, const char *format, ...)
{
    char line[2048];
    va_list args;
    if (level > sink.level)
        return;
    int start = put_prefix(line, sizeof line, level);
    if (start < 0)
        return;
    va_start(args, format);
    int length = vsnprintf(line + start, sizeof line - (size_t)start, format, args);
    va_end(args);
    if (length < 0)
        return;
    size_t end = (size_t)start + (size_t)length;
    if (end > sizeof line - 2)
        end = sizeof line - 2;
    for (size_t i = (size_t)start; i < end; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = ' ';
    line[end] = '\n';
    /* One write keeps lines of several threads whole; a log that cannot be written has no reader
     * who could be told. */
    ssize_t written = write(STDERR_FILENO, line, end + 1);
    (void)written;
}

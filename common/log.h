/*
 * log.h: lines to stderr, for people and for journald.
 *
 * Where stderr is the journal (JOURNAL_STREAM is set) each line starts with "<N>", the syslog level
 * journald reads (sd-daemon(3)); elsewhere with a time and a level word. Line breaks and control
 * bytes inside a message are replaced, so that nobody outside can forge a line.
 */
#pragma once

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Sets the name put before each line and the highest level printed. Call once, from main, before
 * any thread starts. @name must outlive the process's logging. */
void log_init(const char *name, enum log_level level);

/* Reads "error", "warn", "info" or "debug"; returns -1 on anything else. */
int log_level_parse(const char *word, enum log_level *level);

/* One line; safe from any thread. */
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

// The program that runs as the whole userspace of our Linux test guest: it watches its own clocks,
// puts load on memory and disk that checks itself, answers on the network, and reports all of it in
// one line of JSON. What it finds wrong it counts and never repairs: a migration must leave every
// counter of errors at 0.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What each part knows about itself, printed by report_json(). Texts are ASCII without quotes.
struct clock_report {
    uint64_t uptime_ms;           // CLOCK_MONOTONIC
    uint64_t longest_gap_us;      // between two looks at CLOCK_MONOTONIC 5 ms apart
    uint64_t gap_at_ms;           // when it ended
    int64_t largest_wall_jump_us; // CLOCK_REALTIME moved so much further than CLOCK_MONOTONIC in
                                  // one look
    uint64_t backwards;           // times a clock read less than before
};

struct memory_report {
    uint64_t mib;    // working set; 0: not running
    uint64_t passes; // times all of it was checked and rewritten
    uint64_t pages;  // pages written since the start
    uint64_t errors; // pages that held something else than was written
};

struct disk_report {
    uint64_t blocks_written;
    uint64_t blocks_verified;
    uint64_t errors;
    char text[96]; // of the last error
};

struct net_report {
    uint64_t connections; // open now
    uint64_t echoed_bytes;
};

// Starts the thread that looks at the clocks each 5 ms. -1 and errno on failure, as all
// *_start().
int clock_watch_start(void);
void clock_watch_reset(void); // forget the longest gap and jump
void clock_watch_report(struct clock_report *out);

// Rewrites and checks a working set of @mib without end, at most @mib_per_second (0: as fast as it
// can). Once.
int memory_load_start(uint64_t mib, uint64_t mib_per_second);
void memory_load_report(struct memory_report *out);

// Writes blocks with checksums to @device with O_DIRECT, flushes them, reads them back. Once.
int disk_load_start(const char *device);
void disk_load_report(struct disk_report *out);

// Listens for commands on PROBE_COMMAND_PORT (a line each, answered by one line) and echoes on
// PROBE_ECHO_PORT.
#define PROBE_COMMAND_PORT 7000
#define PROBE_ECHO_PORT    7001
int net_start(void);
void net_report(struct net_report *out);

// Waits for the power button in /dev/input and powers the guest off.
int power_button_start(void);

// The state of everything as one line of JSON without a newline. Returns its length.
size_t report_json(char *out, size_t capacity);
// Does one command line; the answer, without a newline, goes to @answer. See probe.c.
void command_run(const char *line, char *answer, size_t capacity);

// Mixes @a and @b into a pattern word (splitmix64's finaliser): equal inputs, equal words.
static inline uint64_t pattern_word(uint64_t a, uint64_t b)
{
    uint64_t x = a * 0x9e3779b97f4a7c15ULL + b;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

// Main: what the kernel command line asks for, the commands, the report.
//
//   vmpool.memory=MIB[:MIB_PER_SECOND]   start the memory load
//   vmpool.disk=DEVICE                   start the disk load
//   vmpool.report=SECONDS                report on the console so often (10; 0: never)
//
// Commands on the TCP port, a line each: "report", "reset", "memory MIB [MIB_PER_SECOND]", "disk
// DEVICE". All answer one line of JSON; a failure is {"error":"..."}.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "probe.h"

static unsigned long long ull(uint64_t value)
{
    return value;
}

// The kernel's word for the clock it uses, or "unknown".
static void read_clocksource(char *out, int capacity)
{
    FILE *file = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");
    snprintf(out, (size_t)capacity, "unknown");
    if (file == NULL) {
        return;
    }
    if (fgets(out, capacity, file) != NULL) {
        out[strcspn(out, "\n\"\\")] = '\0';
    }
    fclose(file);
}

size_t report_json(char *out, size_t capacity)
{
    struct clock_report clock;
    struct memory_report memory;
    struct disk_report disk;
    struct net_report net;
    char source[32];
    clock_watch_report(&clock);
    memory_load_report(&memory);
    disk_load_report(&disk);
    net_report(&net);
    read_clocksource(source, sizeof(source));
    int length = snprintf(
        out, capacity,
        "{\"uptime_ms\":%llu,\"cpus\":%ld,\"clocksource\":\"%s\",\"wall_ms\":%lld,"
        "\"longest_gap_us\":%llu,\"gap_at_ms\":%llu,\"largest_wall_jump_us\":%lld,\"clock_"
        "backwards\":%llu,"
        "\"memory_mib\":%llu,\"memory_passes\":%llu,\"memory_pages\":%llu,\"memory_errors\":%llu,"
        "\"disk_written\":%llu,\"disk_verified\":%llu,\"disk_errors\":%llu,\"disk_text\":\"%s\","
        "\"connections\":%llu,\"echoed_bytes\":%llu}",
        ull(clock.uptime_ms), sysconf(_SC_NPROCESSORS_ONLN), source, (long long)time(NULL) * 1000,
        ull(clock.longest_gap_us), ull(clock.gap_at_ms), (long long)clock.largest_wall_jump_us,
        ull(clock.backwards), ull(memory.mib), ull(memory.passes), ull(memory.pages),
        ull(memory.errors), ull(disk.blocks_written), ull(disk.blocks_verified), ull(disk.errors),
        disk.text, ull(net.connections), ull(net.echoed_bytes));
    return length > 0 && (size_t)length < capacity ? (size_t)length : 0;
}

static void answer_error(char *answer, size_t capacity, const char *text)
{
    snprintf(answer, capacity, "{\"error\":\"%s\"}", text);
}

void command_run(const char *line, char *answer, size_t capacity)
{
    unsigned long long mib = 0, rate = 0;
    char device[64];
    int result = 0;
    if (strcmp(line, "reset") == 0) {
        clock_watch_reset();
    } else if (sscanf(line, "memory %llu %llu", &mib, &rate) >= 1) {
        result = memory_load_start(mib, rate);
    } else if (sscanf(line, "disk %63s", device) == 1) {
        result = disk_load_start(device);
    } else if (strcmp(line, "report") != 0) {
        answer_error(answer, capacity,
                     "commands: report, reset, memory MIB [MIB_PER_SECOND], disk DEVICE");
        return;
    }
    if (result != 0) {
        answer_error(answer, capacity, strerror(errno));
        return;
    }
    (void)report_json(answer, capacity);
}

// What the command line says after @name=, up to a blank; false where it says nothing.
static bool boot_option(const char *cmdline, const char *name, char *out, size_t capacity)
{
    size_t length = strlen(name);
    for (const char *at = cmdline; (at = strstr(at, name)) != NULL; at += length) {
        if ((at == cmdline || at[-1] == ' ') && at[length] == '=') {
            snprintf(out, capacity, "%.*s", (int)strcspn(at + length + 1, " \n"), at + length + 1);
            return true;
        }
    }
    return false;
}

static void start_what_was_asked(const char *cmdline)
{
    char value[64], command[128], answer[2048];
    if (boot_option(cmdline, "vmpool.memory", value, sizeof(value))) {
        char *colon = strchr(value, ':');
        if (colon != NULL) {
            *colon = ' ';
        }
        snprintf(command, sizeof(command), "memory %s", value);
        command_run(command, answer, sizeof(answer));
        printf("vmpool-guest: %s: %s\n", command, answer);
    }
    if (boot_option(cmdline, "vmpool.disk", value, sizeof(value))) {
        snprintf(command, sizeof(command), "disk %s", value);
        command_run(command, answer, sizeof(answer));
        printf("vmpool-guest: %s: %s\n", command, answer);
    }
}

static void must(const char *what, int result)
{
    if (result != 0) {
        printf("vmpool-guest: cannot start %s: %s\n", what, strerror(errno));
    }
}

int main(void)
{
    char cmdline[4096] = "", value[64], report[2048];
    unsigned interval_s = 10;
    setvbuf(stdout, NULL, _IOLBF, 0);
    FILE *file = fopen("/proc/cmdline", "re");
    if (file != NULL) {
        (void)!fgets(cmdline, sizeof(cmdline), file);
        fclose(file);
    }
    must("the clock watch", clock_watch_start());
    must("the network services", net_start());
    must("the power button", power_button_start());
    printf("vmpool-guest: up\n");
    start_what_was_asked(cmdline);
    if (boot_option(cmdline, "vmpool.report", value, sizeof(value))) {
        interval_s = (unsigned)strtoul(value, NULL, 10);
    }
    for (;;) {
        sleep(interval_s > 0 ? interval_s : 3600);
        if (interval_s > 0 && report_json(report, sizeof(report)) > 0) {
            printf("vmpool-guest: %s\n", report);
        }
    }
}

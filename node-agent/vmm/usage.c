#include "node-agent/vmm/usage.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/cleanup.h"

#define STAT_GUEST_TIME 43 /* field of /proc/PID/stat, counted from 1; proc(5) */

static uint64_t microseconds(struct timeval time)
{
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_usec;
}

/* Time a thread has spent in the guest, in clock ticks. */
static uint64_t guest_ticks(pid_t tid)
{
    char path[64];
    char line[1024];
    (void)snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
    auto_file FILE *file = fopen(path, "re");
    if (!file || !fgets(line, sizeof line, file))
        return 0;
    /* The name in parentheses may hold spaces; fields are counted behind it. */
    const char *at = strrchr(line, ')');
    for (int field = 2; at && field < STAT_GUEST_TIME; field++)
        at = strchr(at + 1, ' ');
    unsigned long long ticks = 0;
    return at && sscanf(at, "%llu", &ticks) == 1 ? ticks : 0;
}

/* Resident memory that is not guest RAM: file pages and the rest of the anonymous ones. */
static uint64_t overhead_kib(uint64_t guest_bytes)
{
    char line[256];
    uint64_t sum = 0;
    auto_file FILE *file = fopen("/proc/self/status", "re");
    while (file && fgets(line, sizeof line, file)) {
        unsigned long long kib = 0;
        if (sscanf(line, "RssAnon: %llu", &kib) == 1 || sscanf(line, "RssFile: %llu", &kib) == 1)
            sum += kib;
    }
    uint64_t guest_kib = guest_bytes >> 10;
    return sum > guest_kib ? sum - guest_kib : 0;
}

void usage_read(const struct machine *machine, Vmpool__VmUsage *usage)
{
    struct machine_usage used;
    struct rusage self = {0};
    const struct vcpus *vcpus = machine_vcpus(machine);
    uint64_t ticks = 0;
    for (unsigned i = 0; i < vcpus_count(vcpus); i++)
        ticks += guest_ticks(vcpus_tid(vcpus, i));
    (void)getrusage(RUSAGE_SELF, &self);
    machine_usage(machine, &used);
    usage->cpu_guest_us = ticks * 1000000 / (uint64_t)sysconf(_SC_CLK_TCK);
    uint64_t user_us = microseconds(self.ru_utime); /* the kernel counts guest time as user time */
    usage->cpu_user_us = user_us > usage->cpu_guest_us ? user_us - usage->cpu_guest_us : 0;
    usage->cpu_system_us = microseconds(self.ru_stime);
    usage->memory_mib = used.memory_bytes >> 20;
    usage->net_rx_bytes = used.net_rx_bytes;
    usage->net_tx_bytes = used.net_tx_bytes;
    usage->disk_read_bytes = used.disk_read_bytes;
    usage->disk_write_bytes = used.disk_write_bytes;
    usage->vmm_overhead_kib = overhead_kib(used.memory_bytes);
}

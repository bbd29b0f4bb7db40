#include "node-agent/agent/meter.h"

#include <inttypes.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/statvfs.h>

#include "common/cleanup.h"
#include "common/clock.h"

struct port_search {
    int bridge;
    char *name; /* 16 bytes */
};

static bool take_uplink_port(void *context, const struct netlink_link *link)
{
    struct port_search *search = context;
    if (link->master != search->bridge || strcmp(link->kind, "tun") == 0)
        return true;
    (void)snprintf(search->name, 16, "%s", link->name);
    return false;
}

/* The interface of the route to 0.0.0.0/0 in the file proc(5) describes as /proc/net/route. */
static bool find_default_route(char name[16])
{
    auto_file FILE *file = fopen("/proc/net/route", "re");
    char line[256], interface[16];
    unsigned destination, gateway, mask;
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "%15s %8x %8x %*x %*d %*d %*d %8x", interface, &destination, &gateway,
                   &mask) == 4 &&
            destination == 0 && mask == 0) {
            (void)snprintf(name, 16, "%s", interface);
            return true;
        }
    }
    return false;
}

void meter_init(struct meter *meter, struct netlink *netlink, const char *wanted,
                const char *bridge, const char *storage)
{
    struct netlink_link link;
    struct error err = ERROR_INIT;
    *meter = (struct meter){.netlink = netlink, .storage = storage};
    if (wanted) {
        (void)snprintf(meter->uplink, sizeof meter->uplink, "%s", wanted);
        return;
    }
    if (netlink_find(netlink, bridge, &link, &err) == 0) {
        struct port_search search = {.bridge = link.index, .name = meter->uplink};
        (void)netlink_each(netlink, take_uplink_port, &search, &err);
    }
    if (!meter->uplink[0] && !find_default_route(meter->uplink))
        (void)snprintf(meter->uplink, sizeof meter->uplink, "%s", bridge);
}

uint64_t meter_uplink_bps(const struct meter *meter)
{
    auto_fd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ethtool_cmd command = {.cmd = ETHTOOL_GSET};
    struct ifreq request = {0};
    (void)snprintf(request.ifr_name, sizeof request.ifr_name, "%s", meter->uplink);
    request.ifr_data = (void *)&command;
    if (fd < 0 || ioctl(fd, SIOCETHTOOL, &request) < 0)
        return 0;
    uint32_t mbit = (uint32_t)command.speed_hi << 16 | command.speed;
    return mbit == (uint32_t)SPEED_UNKNOWN ? 0 : (uint64_t)mbit * 1000000;
}

int meter_parse_cpu(const char *line, struct meter_cpu *cpu)
{
    uint64_t user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice;
    if (sscanf(line,
               "cpu %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
               " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64,
               &user, &nice, &system, &idle, &iowait, &irq, &softirq, &steal, &guest,
               &guest_nice) != 10)
        return -1;
    cpu->guest = guest + guest_nice;
    cpu->user = user + nice > cpu->guest ? user + nice - cpu->guest : 0;
    cpu->system = system + irq + softirq;
    cpu->total = user + nice + system + idle + iowait + irq + softirq + steal;
    return 0;
}

uint64_t meter_rate(uint64_t before, uint64_t now, int64_t elapsed_ms)
{
    if (now <= before || elapsed_ms <= 0)
        return 0;
    return (uint64_t)((double)(now - before) * 1000.0 / (double)elapsed_ms);
}

static uint32_t permille(uint64_t before, uint64_t now, uint64_t total)
{
    return total && now > before ? (uint32_t)((now - before) * 1000 / total) : 0;
}

static void sample_cpu(struct meter *meter, Vmpool__NodeReport *report)
{
    auto_file FILE *file = fopen("/proc/stat", "re");
    char line[256];
    struct meter_cpu now;
    if (!file || !fgets(line, sizeof line, file) || meter_parse_cpu(line, &now) < 0)
        return;
    const struct meter_cpu *before = &meter->cpu;
    if (before->total && now.total > before->total) {
        uint64_t total = now.total - before->total;
        report->cpu_guest_permille = permille(before->guest, now.guest, total);
        report->cpu_user_permille = permille(before->user, now.user, total);
        report->cpu_system_permille = permille(before->system, now.system, total);
        report->cpu_permille =
            report->cpu_guest_permille + report->cpu_user_permille + report->cpu_system_permille;
    }
    meter->cpu = now;
}

static void sample_memory(Vmpool__NodeReport *report)
{
    auto_file FILE *file = fopen("/proc/meminfo", "re");
    char line[128];
    uint64_t total_kib = 0, available_kib = 0;
    while (file && fgets(line, sizeof line, file)) {
        (void)sscanf(line, "MemTotal: %" SCNu64, &total_kib);
        (void)sscanf(line, "MemAvailable: %" SCNu64, &available_kib);
    }
    report->memory_available_mib = available_kib / 1024;
    report->memory_used_mib = total_kib > available_kib ? (total_kib - available_kib) / 1024 : 0;
}

static void sample_uplink(struct meter *meter, int64_t elapsed_ms, Vmpool__NodeReport *report)
{
    struct netlink_link link;
    struct error err = ERROR_INIT;
    if (netlink_find(meter->netlink, meter->uplink, &link, &err) < 0)
        return;
    if (meter->sampled_ms) {
        report->net_rx_bps = 8 * meter_rate(meter->rx_bytes, link.rx_bytes, elapsed_ms);
        report->net_tx_bps = 8 * meter_rate(meter->tx_bytes, link.tx_bytes, elapsed_ms);
    }
    meter->rx_bytes = link.rx_bytes;
    meter->tx_bytes = link.tx_bytes;
}

void meter_sample(struct meter *meter, Vmpool__NodeReport *report)
{
    int64_t now_ms = clock_monotonic_ms();
    struct statvfs storage;
    double load;
    sample_cpu(meter, report);
    sample_memory(report);
    sample_uplink(meter, now_ms - meter->sampled_ms, report);
    if (statvfs(meter->storage, &storage) == 0) {
        report->storage_total_mib = (uint64_t)storage.f_blocks * storage.f_frsize >> 20;
        report->storage_free_mib = (uint64_t)storage.f_bavail * storage.f_frsize >> 20;
    }
    if (getloadavg(&load, 1) == 1 && load >= 0)
        report->load_centi = (uint32_t)(load * 100);
    meter->sampled_ms = now_ms;
}

/* Each node: its phase, what it has, what is reserved on it and what it measures. */
#include "controller/metrics.h"

#include <math.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "controller/pb.h"
#include "controller/placement.h"

struct row {
    const char *name;
    const struct node *node;
    const Vmpool__NodeFacts *facts;   /* NULL: not known */
    const Vmpool__NodeReport *report; /* NULL: none, or too old to say anything of now */
    struct sched_resources reserved;
};

/* ---- what the store knows ---- */

static double vms(const void *of)
{
    const struct row *row = of;
    return (double)row->node->vms;
}

static double last_report(const void *of)
{
    const struct row *row = of;
    return row->node->heard_wall_ms ? metrics_ms((uint64_t)row->node->heard_wall_ms) : NAN;
}

static double cpus(const void *of)
{
    const struct row *row = of;
    return row->facts ? (double)row->facts->cpus : NAN;
}

static double memory(const void *of)
{
    const struct row *row = of;
    return row->facts ? metrics_mib(row->facts->memory_mib) : NAN;
}

static double memory_kept(const void *of)
{
    const struct row *row = of;
    return row->facts ? metrics_mib(row->facts->reserved_memory_mib) : NAN;
}

static double bandwidth(const void *of)
{
    const struct row *row = of;
    return row->facts && row->facts->bandwidth_bps ? metrics_bps(row->facts->bandwidth_bps) : NAN;
}

static double cpus_reserved(const void *of)
{
    const struct row *row = of;
    return (double)row->reserved.cpu_milli / 1000;
}

static double memory_reserved(const void *of)
{
    const struct row *row = of;
    return metrics_mib(row->reserved.memory_mib);
}

static double bandwidth_reserved(const void *of)
{
    const struct row *row = of;
    return metrics_bps(row->reserved.bandwidth_bps);
}

/* ---- what it measures ---- */

static double cpu_used(const void *of)
{
    const struct row *row = of;
    return row->report ? metrics_permille(row->report->cpu_permille) : NAN;
}

static double cpu_user(const void *of)
{
    const struct row *row = of;
    return row->report ? metrics_permille(row->report->cpu_user_permille) : NAN;
}

static double cpu_system(const void *of)
{
    const struct row *row = of;
    return row->report ? metrics_permille(row->report->cpu_system_permille) : NAN;
}

static double cpu_guest(const void *of)
{
    const struct row *row = of;
    return row->report ? metrics_permille(row->report->cpu_guest_permille) : NAN;
}

static double load(const void *of)
{
    const struct row *row = of;
    return row->report ? row->report->load_centi / 100.0 : NAN;
}

static double memory_used(const void *of)
{
    const struct row *row = of;
    return row->report ? metrics_mib(row->report->memory_used_mib) : NAN;
}

static double memory_available(const void *of)
{
    const struct row *row = of;
    return row->report ? metrics_mib(row->report->memory_available_mib) : NAN;
}

static double receive(const void *of)
{
    const struct row *row = of;
    return row->report ? metrics_bps(row->report->net_rx_bps) : NAN;
}

static double transmit(const void *of)
{
    const struct row *row = of;
    return row->report ? metrics_bps(row->report->net_tx_bps) : NAN;
}

static double storage(const void *of)
{
    const struct row *row = of;
    return row->report ? metrics_mib(row->report->storage_total_mib) : NAN;
}

static double storage_free(const void *of)
{
    const struct row *row = of;
    return row->report ? metrics_mib(row->report->storage_free_mib) : NAN;
}

static const struct metric_column columns[] = {
    {"vmpool_node_vms", METRIC_GAUGE, "VMs that have their place on it.", vms},
    {"vmpool_node_last_report_timestamp_seconds", METRIC_GAUGE,
     "Unix time when it was last heard of.", last_report},
    {"vmpool_node_cpus", METRIC_GAUGE, "CPUs of the host.", cpus},
    {"vmpool_node_memory_bytes", METRIC_GAUGE, "Memory of the host.", memory},
    {"vmpool_node_memory_kept_bytes", METRIC_GAUGE, "Of it, what is kept for the host itself.",
     memory_kept},
    {"vmpool_node_bandwidth_bytes_per_second", METRIC_GAUGE,
     "What its uplink carries; none where the host can't tell.", bandwidth},
    {"vmpool_node_vcpus_reserved", METRIC_GAUGE, "vCPUs that VMs have reserved.", cpus_reserved},
    {"vmpool_node_memory_reserved_bytes", METRIC_GAUGE, "Memory that VMs have reserved.",
     memory_reserved},
    {"vmpool_node_bandwidth_reserved_bytes_per_second", METRIC_GAUGE,
     "Bandwidth that VMs have reserved.", bandwidth_reserved},
    {"vmpool_node_cpu_used_ratio", METRIC_GAUGE, "Share of all its CPUs that is busy.", cpu_used},
    {"vmpool_node_cpu_user_ratio", METRIC_GAUGE, "Of it, user time outside guests.", cpu_user},
    {"vmpool_node_cpu_system_ratio", METRIC_GAUGE, "Of it, system time.", cpu_system},
    {"vmpool_node_cpu_guest_ratio", METRIC_GAUGE, "Of it, time of guests.", cpu_guest},
    {"vmpool_node_load1", METRIC_GAUGE, "Load average of one minute.", load},
    {"vmpool_node_memory_used_bytes", METRIC_GAUGE, "Memory in use.", memory_used},
    {"vmpool_node_memory_available_bytes", METRIC_GAUGE,
     "Memory that programs could still take without swapping.", memory_available},
    {"vmpool_node_network_receive_bytes_per_second", METRIC_GAUGE, "What its uplink receives.",
     receive},
    {"vmpool_node_network_transmit_bytes_per_second", METRIC_GAUGE, "What its uplink sends.",
     transmit},
    {"vmpool_node_storage_bytes", METRIC_GAUGE, "Size of where local disks and images are.",
     storage},
    {"vmpool_node_storage_free_bytes", METRIC_GAUGE, "Of it, what is free.", storage_free},
};

static void write_phases(const struct controller *controller, struct metric_text *text)
{
    const ProtobufCEnumDescriptor *phases = &vmpool__node_phase__descriptor;
    metric_family(text, "vmpool_node_phase", METRIC_GAUGE,
                  "1 for the phase that the node is in, 0 for the others.");
    for (const struct node *node = controller->nodes; node; node = node->next)
        for (unsigned i = 1; i < phases->n_values; i++) { /* the first is none at all */
            Vmpool__NodePhase phase = (Vmpool__NodePhase)phases->values[i].value;
            const struct metric_label labels[] = {{"node", node->stored->name},
                                                  {"phase", node_phase_name(phase)}};
            metric_sample(text, labels, 2, node->phase == phase);
        }
}

void metrics_write_nodes(const struct controller *controller, struct metric_text *text)
{
    auto_free struct row *rows = mem_new((controller->nodes_by_name.count + 1) * sizeof *rows);
    size_t count = 0;
    write_phases(controller, text);
    for (const struct node *node = controller->nodes; node; node = node->next) {
        bool lost = node->phase == VMPOOL__NODE_PHASE__NODE_LOST;
        struct row *row = &rows[count++];
        *row = (struct row){.name = node->stored->name,
                            .node = node,
                            .facts = node->stored->facts,
                            .report = lost ? NULL : node->report};
        placement_reserved(controller, node, &row->reserved);
    }
    const struct metric_rows table = {"node", rows, count, sizeof *rows};
    metric_columns(text, &table, columns, sizeof columns / sizeof *columns);
}

/* Each VM: where it is, what it reserves, what it used, and how its last migration went. */
#include "controller/metrics.h"

#include <math.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "controller/migrate_review.h"
#include "controller/pb.h"
#include "controller/vms.h"

struct row {
    const char *name;
    const struct vm *vm;
    const Vmpool__VmUsage *usage;          /* NULL: not known, or too old to say anything of now */
    const Vmpool__MigrationReview *review; /* of its last migration; NULL: none that succeeded */
};

static double started(const void *of)
{
    const struct row *row = of;
    uint64_t wall_ms = row->vm->stored->started_wall_ms;
    return wall_ms && vm_phase_holds_host(row->vm->stored->phase) ? metrics_ms(wall_ms) : NAN;
}

/* ---- what it may use ---- */

static double vcpus(const void *of)
{
    const struct row *row = of;
    return row->vm->stored->spec->vcpus;
}

static double memory(const void *of)
{
    const struct row *row = of;
    return metrics_mib(row->vm->stored->spec->memory_mib);
}

static double bandwidth(const void *of)
{
    const struct row *row = of;
    return metrics_bps(row->vm->stored->spec->bandwidth_bps);
}

/* ---- what it used ---- */

static double cpu_guest(const void *of)
{
    const struct row *row = of;
    return row->usage ? metrics_us(row->usage->cpu_guest_us) : NAN;
}

static double cpu_user(const void *of)
{
    const struct row *row = of;
    return row->usage ? metrics_us(row->usage->cpu_user_us) : NAN;
}

static double cpu_system(const void *of)
{
    const struct row *row = of;
    return row->usage ? metrics_us(row->usage->cpu_system_us) : NAN;
}

static double memory_used(const void *of)
{
    const struct row *row = of;
    return row->usage ? metrics_mib(row->usage->memory_mib) : NAN;
}

static double memory_overhead(const void *of)
{
    const struct row *row = of;
    return row->usage ? metrics_kib(row->usage->vmm_overhead_kib) : NAN;
}

static double receive(const void *of)
{
    const struct row *row = of;
    return row->usage ? (double)row->usage->net_rx_bytes : NAN;
}

static double transmit(const void *of)
{
    const struct row *row = of;
    return row->usage ? (double)row->usage->net_tx_bytes : NAN;
}

static double disk_read(const void *of)
{
    const struct row *row = of;
    return row->usage ? (double)row->usage->disk_read_bytes : NAN;
}

static double disk_written(const void *of)
{
    const struct row *row = of;
    return row->usage ? (double)row->usage->disk_write_bytes : NAN;
}

/* ---- its last migration ---- */

static double duration(const void *of)
{
    const struct row *row = of;
    return row->review && row->review->duration_us ? metrics_us(row->review->duration_us) : NAN;
}

static double pause_taken(const void *of)
{
    const struct row *row = of;
    return row->review && row->review->pause_us ? metrics_us(row->review->pause_us) : NAN;
}

static double duration_error(const void *of)
{
    const struct row *row = of;
    return row->review && migrate_review_has_duration(row->review)
               ? metrics_permille(row->review->duration_error_permille)
               : NAN;
}

static double pause_error(const void *of)
{
    const struct row *row = of;
    return row->review && migrate_review_has_pause(row->review)
               ? metrics_permille(row->review->pause_error_permille)
               : NAN;
}

static const struct metric_column columns[] = {
    {"vmpool_vm_start_time_seconds", METRIC_GAUGE, "Unix time when it was started.", started},
    {"vmpool_vm_vcpus", METRIC_GAUGE, "vCPUs that it has reserved.", vcpus},
    {"vmpool_vm_memory_bytes", METRIC_GAUGE, "Memory that it has reserved.", memory},
    {"vmpool_vm_bandwidth_bytes_per_second", METRIC_GAUGE, "Bandwidth that it has reserved.",
     bandwidth},
    {"vmpool_vm_cpu_guest_seconds_total", METRIC_COUNTER, "Time of its vCPUs inside the guest.",
     cpu_guest},
    {"vmpool_vm_cpu_user_seconds_total", METRIC_COUNTER,
     "User time of its VMM, the guest's left out.", cpu_user},
    {"vmpool_vm_cpu_system_seconds_total", METRIC_COUNTER,
     "System time of the host's kernel for it, the guest's left out.", cpu_system},
    {"vmpool_vm_memory_used_bytes", METRIC_GAUGE,
     "Memory of the guest that takes memory of the host.", memory_used},
    {"vmpool_vm_memory_overhead_bytes", METRIC_GAUGE, "Memory of its VMM beside the guest's.",
     memory_overhead},
    {"vmpool_vm_network_receive_bytes_total", METRIC_COUNTER, "Sent to the guest.", receive},
    {"vmpool_vm_network_transmit_bytes_total", METRIC_COUNTER, "Sent by the guest.", transmit},
    {"vmpool_vm_disk_read_bytes_total", METRIC_COUNTER, "Read from its disks.", disk_read},
    {"vmpool_vm_disk_written_bytes_total", METRIC_COUNTER, "Written to its disks.", disk_written},
    {"vmpool_vm_last_migration_duration_seconds", METRIC_GAUGE,
     "What its last migration took, where that succeeded.", duration},
    {"vmpool_vm_last_migration_pause_seconds", METRIC_GAUGE,
     "How long that paused the guest, hashing left out.", pause_taken},
    {"vmpool_vm_last_migration_duration_error_ratio", METRIC_GAUGE,
     "Its predicted duration less the real one, as a share of the real one.", duration_error},
    {"vmpool_vm_last_migration_pause_error_ratio", METRIC_GAUGE,
     "Its predicted pause less the real one, as a share of the real one.", pause_error},
};

static void write_info(const struct controller *controller, struct metric_text *text)
{
    metric_family(text, "vmpool_vm_info", METRIC_GAUGE,
                  "1, with its phase and the node that it runs on or last ran on.");
    for (const struct vm *vm = controller->vms; vm; vm = vm->next) {
        const struct metric_label labels[] = {
            {"vm", vm->stored->spec->name},
            {"node", node_name_of(controller, vm->stored->node_id)},
            {"phase", vm_phase_name(vm->stored->phase)}};
        metric_sample(text, labels, 3, 1);
    }
}

void metrics_write_vms(const struct controller *controller, struct metric_text *text)
{
    auto_free struct row *rows = mem_new((controller->vms_by_name.count + 1) * sizeof *rows);
    size_t count = 0;
    write_info(controller, text);
    for (const struct vm *vm = controller->vms; vm; vm = vm->next) {
        const struct node *node = vm_node(controller, vm);
        bool lost = node && node->phase == VMPOOL__NODE_PHASE__NODE_LOST;
        const Vmpool__NodeVm *said = lost ? NULL : vm_said(vm);
        rows[count++] = (struct row){.name = vm->stored->spec->name,
                                     .vm = vm,
                                     .usage = said ? said->usage : NULL,
                                     .review = vm->stored->last_review};
    }
    const struct metric_rows table = {"vm", rows, count, sizeof *rows};
    metric_columns(text, &table, columns, sizeof columns / sizeof *columns);
}

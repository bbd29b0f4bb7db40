#include "node-agent/agent/vm_report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "node-agent/agent/faults.h"
#include "node-agent/agent/process.h"
#include "node-agent/agent/vm_verdict.h"

static const Vmpool__VmmStatus *last_status(const struct vm *vm)
{
    const Vmpool__VmmStatus *status = vmm_control_status(vm->control);
    return status || !vm->last ? status : vm->last->status;
}

/* A target that ran, or may have, and has failed since: its migration counts as completed, whatever
 * its VMM could say of it before it died; or as in post-copy, which also says that it ran. Told the
 * other way round, the source could be let run on from a state that is over. */
static void complete_migration(struct vm *vm, struct vm_description *out)
{
    if (!vm->record.incoming || !vm->record.ended || !vm->ran)
        return;
    if (!out->message.migration) {
        out->migration = (Vmpool__MigrationProgress)VMPOOL__MIGRATION_PROGRESS__INIT;
        out->migration.migration_id = vm->record.migration_id;
        out->message.migration = &out->migration;
    }
    if (strcmp(out->migration.migration_id, vm->record.migration_id) == 0 &&
        out->migration.phase != VMPOOL__MIGRATION_PHASE__MIGRATION_POSTCOPY)
        out->migration.phase = VMPOOL__MIGRATION_PHASE__MIGRATION_COMPLETED;
}

static void describe_status(const Vmpool__VmmStatus *status, bool rounds,
                            struct vm_description *out)
{
    Vmpool__NodeVm *message = &out->message;
    message->balloon_mib = status->balloon_mib;
    if (status->usage) {
        out->usage = *status->usage;
        message->usage = &out->usage;
    }
    if (status->migration) {
        out->migration = *status->migration;
        if (!rounds)
            out->migration.n_rounds = 0;
        message->migration = &out->migration;
    }
}

void vm_describe(struct vm *vm, bool rounds, struct vm_description *out)
{
    const Vmpool__VmmStatus *status = last_status(vm);
    Vmpool__NodeVm *message = &out->message;
    *message = (Vmpool__NodeVm)VMPOOL__NODE_VM__INIT;
    message->vm_id = vm->id;
    message->name = vm->spec->name;
    message->epoch = vm->record.epoch;
    message->state = vm->state;
    message->text = vm->text;
    message->net_rx_bps = vm->rx_bps;
    message->net_tx_bps = vm->tx_bps;
    message->cpu_permille = vm->cpu_permille;
    if (status)
        describe_status(status, rounds, out);
    complete_migration(vm, out);
}

Vmpool__NodeVm **vm_describe_all(struct agent *agent, size_t *count)
{
    size_t total = 0;
    for (struct vm *vm = agent->vms; vm; vm = vm->next)
        total++;
    *count = 0;
    /* One block: the table, and behind it what it points to. */
    size_t table_bytes = (total + 1) * sizeof(Vmpool__NodeVm *);
    table_bytes += -table_bytes % _Alignof(struct vm_description);
    char *block = malloc(table_bytes + total * sizeof(struct vm_description));
    if (!block)
        return NULL;
    Vmpool__NodeVm **table = (void *)block;
    struct vm_description *descriptions = (void *)(block + table_bytes);
    for (struct vm *vm = agent->vms; vm && *count < total; vm = vm->next) {
        vm_describe(vm, false, &descriptions[*count]);
        table[*count] = &descriptions[*count].message;
        ++*count;
    }
    return table;
}

void vm_describe_free(Vmpool__NodeVm **table)
{
    free(table);
}

void vm_send_event(struct vm *vm, const char *what)
{
    Vmpool__NodeVmEvent event = VMPOOL__NODE_VM_EVENT__INIT;
    Vmpool__NodeToController message = VMPOOL__NODE_TO_CONTROLLER__INIT;
    struct vm_description description;
    char word[16];
    (void)snprintf(word, sizeof word, "%s", what);
    vm_describe(vm, true, &description);
    event.vm = &description.message;
    event.what = word;
    message.body_case = VMPOOL__NODE_TO_CONTROLLER__BODY_VM_EVENT;
    message.vm_event = &event;
    loop_remove(vm->progress_timer);
    vm->progress_timer = NULL;
    vm->event_sent_ms = clock_monotonic_ms();
    vm->event_state = vm->state;
    vm->event_phase = description.message.migration ? description.migration.phase : 0;
    for (unsigned copies = fault_message("agent.event"); copies > 0; copies--)
        agent_send(vm->agent, &message);
}

void vm_answer(struct agent *agent, uint64_t request_id, struct vm *vm)
{
    Vmpool__NodeAnswer answer = VMPOOL__NODE_ANSWER__INIT;
    struct vm_description description;
    vm_describe(vm, true, &description);
    answer.vm = &description.message;
    agent_answer(agent, request_id, &answer);
}

static void on_progress_due(void *context)
{
    struct vm *vm = context;
    vm->progress_timer = NULL;
    vm_send_event(vm, "migration");
}

static void tell_progress(struct vm *vm)
{
    int64_t since_ms = clock_monotonic_ms() - vm->event_sent_ms;
    if (vm->progress_timer)
        return;
    if (since_ms >= VM_PROGRESS_INTERVAL_MS)
        vm_send_event(vm, "migration");
    else
        vm->progress_timer =
            loop_add_timer(vm->agent->loop, (uint64_t)(VM_PROGRESS_INTERVAL_MS - since_ms), 0,
                           on_progress_due, vm);
}

/* CPU as the kernel counts it for the process, which the VMM cannot embellish; traffic as the VMM
 * counts it. */
static void sample_rates(struct vm *vm, const Vmpool__VmUsage *usage)
{
    struct process_stat stat;
    struct error err = ERROR_INIT;
    int64_t now_ms = clock_monotonic_ms(), elapsed_ms = now_ms - vm->sampled_ms;
    if (vm->sampled_ms && elapsed_ms < (int64_t)vm->agent->report_interval_ms / 2)
        return;
    if (process_stat(vm->record.pid, &stat, &err) == 0) {
        uint64_t ticks_s = (uint64_t)sysconf(_SC_CLK_TCK);
        if (vm->sampled_ms)
            vm->cpu_permille = (uint32_t)(meter_rate(vm->cpu_ticks, stat.cpu_ticks, elapsed_ms) *
                                          1000 / (ticks_s ? ticks_s : 100));
        vm->cpu_ticks = stat.cpu_ticks;
    }
    if (usage) {
        if (vm->sampled_ms) {
            vm->rx_bps = 8 * meter_rate(vm->rx_bytes, usage->net_rx_bytes, elapsed_ms);
            vm->tx_bps = 8 * meter_rate(vm->tx_bytes, usage->net_tx_bytes, elapsed_ms);
        }
        vm->rx_bytes = usage->net_rx_bytes;
        vm->tx_bytes = usage->net_tx_bytes;
    }
    vm->sampled_ms = now_ms;
}

/* Until its bring-up is over a VM is "preparing", whatever its VMM already says. */
static Vmpool__VmState shown_state(const struct vm *vm, Vmpool__VmState said)
{
    bool early = vm->bringup &&
                 (said == VMPOOL__VM_STATE__VM_PAUSED || said == VMPOOL__VM_STATE__VM_UNKNOWN);
    return early ? VMPOOL__VM_STATE__VM_PREPARING : said;
}

static bool is_moving(const struct vm *vm, Vmpool__MigrationPhase phase)
{
    return vm->state == VMPOOL__VM_STATE__VM_INCOMING || vm->state == VMPOOL__VM_STATE__VM_READY ||
           vm->state == VMPOOL__VM_STATE__VM_MIGRATING ||
           phase == VMPOOL__MIGRATION_PHASE__MIGRATION_POSTCOPY;
}

static void limit_cpu(struct vm *vm, bool moving)
{
    struct error err = ERROR_INIT;
    if (moving == vm->moving)
        return;
    vm->moving = moving;
    if (cgroup_limit(&vm->agent->cgroup, vm->id, vm->spec->vcpus, moving, &err) < 0)
        log_warn("VM %s (%s): %s", vm->spec->name, vm->id, err.text);
}

void vm_take_status(struct vm *vm, const Vmpool__VmmStatus *status)
{
    struct error err = ERROR_INIT;
    if (strcmp(status->vm_id, vm->id) != 0) {
        if (!vm->warned)
            log_error("the VMM of VM %s says it is VM %.40s; its words are not used", vm->id,
                      status->vm_id);
        vm->warned = true;
        return;
    }
    vm->state = shown_state(vm, status->state);
    (void)snprintf(vm->text, sizeof vm->text, "%s", status->text);
    vm->ran = vm->ran || vm_state_has_run(status->state);
    if (status->epoch > vm->record.epoch && vm_raise_epoch(vm, status->epoch, &err) < 0)
        log_error("VM %s: %s", vm->id, err.text);
    sample_rates(vm, status->usage);

    Vmpool__MigrationPhase phase = status->migration ? status->migration->phase : 0;
    limit_cpu(vm, is_moving(vm, phase));
    if (vm->state == VMPOOL__VM_STATE__VM_PANICKED && vm->state != vm->event_state)
        vm_send_event(vm, "panic");
    else if (vm->state != vm->event_state)
        vm_send_event(vm, "state");
    else if (phase != vm->event_phase)
        vm_send_event(vm, "migration");
    else if (phase == VMPOOL__MIGRATION_PHASE__MIGRATION_POSTCOPY ||
             vm->state == VMPOOL__VM_STATE__VM_MIGRATING ||
             vm->state == VMPOOL__VM_STATE__VM_INCOMING)
        tell_progress(vm);
}

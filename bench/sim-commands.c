#include "bench/sim-commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/error.h"

#define ROUNDS 3

void sim_describe(struct sim_vm *vm, struct sim_description *out)
{
    out->vm = (Vmpool__NodeVm)VMPOOL__NODE_VM__INIT;
    out->vm.vm_id = vm->id;
    out->vm.name = vm->name;
    out->vm.epoch = vm->epoch;
    out->vm.state = vm->state;
    out->vm.text = vm->text;
    out->vm.usage = (Vmpool__VmUsage *)(uintptr_t)vm->usage;
    if (!vm->migration_id[0])
        return;
    out->migration = (Vmpool__MigrationProgress)VMPOOL__MIGRATION_PROGRESS__INIT;
    out->migration.migration_id = vm->migration_id;
    out->migration.phase = vm->phase;
    out->migration.round = vm->round;
    out->migration.wire_bytes = (uint64_t)vm->round << 20;
    out->vm.migration = &out->migration;
    if (vm->phase == VMPOOL__MIGRATION_PHASE__MIGRATION_POSTCOPY) {
        out->postcopy = (Vmpool__MigrationPostcopy)VMPOOL__MIGRATION_POSTCOPY__INIT;
        out->postcopy.faults = 3;
        out->postcopy.held = vm->state == VMPOOL__VM_STATE__VM_PAUSED;
        out->migration.postcopy = &out->postcopy;
        out->migration.remaining_bytes = 300u << 20;
    }
    if (vm->phase == VMPOOL__MIGRATION_PHASE__MIGRATION_COMPLETED) {
        out->pause = (Vmpool__MigrationPause)VMPOOL__MIGRATION_PAUSE__INIT;
        out->pause.total_us = 12000;
        out->migration.pause = &out->pause;
    }
}

bool sim_runs(const struct sim_vm *vm)
{
    return vm->state == VMPOOL__VM_STATE__VM_RUNNING || vm->state == VMPOOL__VM_STATE__VM_MIGRATING;
}

static void watch_invariant(struct sim_net *net, const struct sim_vm *vm)
{
    if (sim_runs(vm) && sim_net_running(net, vm->name) > 1)
        net->twice++;
}

static void set_state(struct sim_agent *agent, struct sim_vm *vm, Vmpool__VmState state,
                      const char *what)
{
    vm->state = state;
    watch_invariant(agent->net, vm);
    sim_send_event(agent, vm, what);
}

void sim_vm_becomes(struct sim_agent *agent, struct sim_vm *vm, Vmpool__VmState state)
{
    set_state(agent, vm, state, "state");
}

static struct sim_vm *find_vm(const struct sim_agent *agent, const char *id)
{
    struct sim_vm *vm = agent->vms;
    while (vm && strcmp(vm->id, id) != 0)
        vm = vm->next;
    return vm;
}

static struct sim_vm *new_vm(struct sim_agent *agent, const Vmpool__VmSpec *spec, uint64_t epoch)
{
    struct sim_vm *vm = calloc(1, sizeof *vm);
    if (!vm)
        abort();
    (void)snprintf(vm->id, sizeof vm->id, "%s", spec->id);
    (void)snprintf(vm->name, sizeof vm->name, "%s", spec->name);
    vm->epoch = epoch;
    vm->owner = agent;
    vm->next = agent->vms;
    agent->vms = vm;
    return vm;
}

/* The other end of a stream that broke: a source before it gave up runs on, a target that has not
 * got the word fails. */
static void break_stream(struct sim_agent *agent, const struct sim_vm *gone)
{
    for (struct sim_agent *other = agent->net->agents; other; other = other->next) {
        struct sim_vm *vm = other == agent ? NULL : find_vm(other, gone->id);
        if (!vm || strcmp(vm->migration_id, gone->migration_id) != 0)
            continue;
        if (vm->target == agent)
            vm->target = NULL;
        if (vm->state == VMPOOL__VM_STATE__VM_MIGRATING ||
            (vm->state == VMPOOL__VM_STATE__VM_PAUSED &&
             vm->phase == VMPOOL__MIGRATION_PHASE__MIGRATION_PAUSED)) {
            loop_remove(vm->timer);
            vm->timer = NULL;
            vm->phase = VMPOOL__MIGRATION_PHASE__MIGRATION_FAILED;
            set_state(other, vm, VMPOOL__VM_STATE__VM_RUNNING, "migration");
        } else if (vm->phase == VMPOOL__MIGRATION_PHASE__MIGRATION_POSTCOPY &&
                   vm->state == VMPOOL__VM_STATE__VM_RUNNING) {
            set_state(other, vm, VMPOOL__VM_STATE__VM_PAUSED, "state");
        } else if (vm->state == VMPOOL__VM_STATE__VM_INCOMING) {
            vm->phase = VMPOOL__MIGRATION_PHASE__MIGRATION_FAILED;
            set_state(other, vm, VMPOOL__VM_STATE__VM_FAILED, "migration");
        }
    }
}

void sim_vm_free(struct sim_agent *agent, struct sim_vm *vm)
{
    struct sim_vm **at = &agent->vms;
    while (*at != vm)
        at = &(*at)->next;
    *at = vm->next;
    loop_remove(vm->timer);
    if (vm->migration_id[0])
        break_stream(agent, vm);
    free(vm);
}

void sim_vm_vanishes(struct sim_agent *agent, struct sim_vm *vm)
{
    vm->state = VMPOOL__VM_STATE__VM_FAILED;
    loop_remove(vm->timer);
    vm->timer = NULL;
    (void)snprintf(vm->text, sizeof vm->text, "the VMM vanished");
    sim_send_event(agent, vm, "lost");
    if (vm->migration_id[0])
        break_stream(agent, vm);
}

/* ---- epochs and answers ---- */

static struct sim_seen *seen_of(struct sim_agent *agent, const char *vm_id)
{
    struct sim_seen *seen = agent->seen;
    while (seen && strcmp(seen->vm_id, vm_id) != 0)
        seen = seen->next;
    if (seen)
        return seen;
    seen = calloc(1, sizeof *seen);
    if (!seen)
        abort();
    (void)snprintf(seen->vm_id, sizeof seen->vm_id, "%s", vm_id);
    seen->next = agent->seen;
    agent->seen = seen;
    return seen;
}

static bool stale(struct sim_agent *agent, const char *vm_id, uint64_t epoch)
{
    struct sim_seen *seen = seen_of(agent, vm_id);
    if (epoch < seen->epoch)
        return true;
    seen->epoch = epoch;
    return false;
}

static void send_answer(struct sim_agent *agent, uint64_t request_id, Vmpool__NodeAnswer *answer)
{
    Vmpool__NodeToController message = VMPOOL__NODE_TO_CONTROLLER__INIT;
    message.request_id = request_id;
    message.body_case = VMPOOL__NODE_TO_CONTROLLER__BODY_ANSWER;
    message.answer = answer;
    if (!agent->no_answers)
        sim_send(agent, &message);
}

static void answer(struct sim_agent *agent, uint64_t request_id, Vmpool__NodeAnswer *body)
{
    struct sim_answer *kept = calloc(1, sizeof *kept);
    if (!kept)
        abort();
    kept->request_id = request_id;
    kept->size = vmpool__node_answer__get_packed_size(body);
    kept->data = malloc(kept->size + 1);
    if (!kept->data)
        abort();
    vmpool__node_answer__pack(body, kept->data);
    kept->next = agent->answers;
    agent->answers = kept;
    send_answer(agent, request_id, body);
}

static void refuse(struct sim_agent *agent, uint64_t request_id, uint32_t kind, const char *text)
{
    Vmpool__NodeAnswer body = VMPOOL__NODE_ANSWER__INIT;
    Vmpool__Failure failure = VMPOOL__FAILURE__INIT;
    char copy[128];
    (void)snprintf(copy, sizeof copy, "%s", text);
    failure.kind = kind;
    failure.text = copy;
    body.failure = &failure;
    answer(agent, request_id, &body);
}

static void answer_vm(struct sim_agent *agent, uint64_t request_id, struct sim_vm *vm)
{
    Vmpool__NodeAnswer body = VMPOOL__NODE_ANSWER__INIT;
    struct sim_description description;
    char address[] = "127.0.0.1";
    if (vm) {
        sim_describe(vm, &description);
        body.vm = &description.vm;
        if (vm->state == VMPOOL__VM_STATE__VM_INCOMING) {
            body.address = address;
            body.port = agent->port;
        }
    }
    answer(agent, request_id, &body);
}

static bool answered_before(struct sim_agent *agent, uint64_t request_id)
{
    const struct sim_answer *kept = agent->answers;
    while (kept && kept->request_id != request_id)
        kept = kept->next;
    if (!kept)
        return false;
    agent->repeats++;
    Vmpool__NodeAnswer *body = vmpool__node_answer__unpack(NULL, kept->size, kept->data);
    if (body) {
        send_answer(agent, request_id, body);
        vmpool__node_answer__free_unpacked(body, NULL);
    }
    return true;
}

/* ---- commands on a VM ---- */

static void on_start(struct sim_agent *agent, uint64_t request_id, const Vmpool__NodeVmStart *start)
{
    struct sim_vm *vm = find_vm(agent, start->spec->id);
    if (agent->refuse_start) {
        refuse(agent, request_id, agent->refuse_start, "this host does not want to");
        return;
    }
    if (stale(agent, start->spec->id, start->epoch)) {
        refuse(agent, request_id, ERROR_CONFLICT, "a higher epoch was seen");
        return;
    }
    if (!vm || vm->epoch != start->epoch || !sim_runs(vm)) {
        if (vm)
            sim_vm_free(agent, vm);
        vm = new_vm(agent, start->spec, start->epoch);
        agent->starts++;
        set_state(agent, vm, VMPOOL__VM_STATE__VM_RUNNING, "state");
    }
    answer_vm(agent, request_id, vm);
}

static void end(struct sim_agent *agent, uint64_t request_id, struct sim_vm *vm, bool discard)
{
    Vmpool__NodeAnswer body = VMPOOL__NODE_ANSWER__INIT;
    if (vm)
        sim_vm_free(agent, vm);
    body.discarded = discard;
    answer(agent, request_id, &body);
}

static void on_discard(struct sim_agent *agent, uint64_t request_id,
                       const Vmpool__NodeVmCommand *command)
{
    struct sim_vm *vm = find_vm(agent, command->vm_id);
    bool may_run = vm && (sim_runs(vm) || vm->state == VMPOOL__VM_STATE__VM_READY ||
                          vm->state == VMPOOL__VM_STATE__VM_PAUSED);
    if (may_run && vm->epoch > command->epoch) {
        refuse(agent, request_id, ERROR_CONFLICT, "it runs here at a higher epoch");
        return;
    }
    struct sim_seen *seen = seen_of(agent, command->vm_id);
    if (command->epoch > seen->epoch)
        seen->epoch = command->epoch;
    agent->discards++;
    end(agent, request_id, vm, true);
}

static void power_off(void *context)
{
    struct sim_vm *vm = context;
    vm->timer = NULL;
    sim_vm_becomes(vm->owner, vm, VMPOOL__VM_STATE__VM_STOPPED);
}

static void on_run(struct sim_agent *agent, uint64_t request_id, struct sim_vm *vm, uint64_t epoch)
{
    if (vm->state == VMPOOL__VM_STATE__VM_READY || vm->state == VMPOOL__VM_STATE__VM_PAUSED ||
        (vm->state == VMPOOL__VM_STATE__VM_GAVE_UP && epoch > vm->next_epoch)) {
        if (vm->state == VMPOOL__VM_STATE__VM_READY)
            vm->phase = VMPOOL__MIGRATION_PHASE__MIGRATION_COMPLETED;
        vm->epoch = epoch;
        agent->runs++;
        set_state(agent, vm, VMPOOL__VM_STATE__VM_RUNNING, "state");
    }
    if (vm->state == VMPOOL__VM_STATE__VM_RUNNING)
        answer_vm(agent, request_id, vm);
    else
        refuse(agent, request_id, ERROR_CONFLICT, "it can't run now");
}

static void on_vm_command(struct sim_agent *agent, uint64_t request_id,
                          const Vmpool__NodeVmCommand *command)
{
    struct sim_vm *vm = find_vm(agent, command->vm_id);
    if (command->action == VMPOOL__NODE_VM_COMMAND__ACTION__DISCARD) {
        on_discard(agent, request_id, command);
        return;
    }
    if (stale(agent, command->vm_id, command->epoch)) {
        refuse(agent, request_id, ERROR_CONFLICT, "a higher epoch was seen");
        return;
    }
    bool ends = command->action == VMPOOL__NODE_VM_COMMAND__ACTION__KILL ||
                command->action == VMPOOL__NODE_VM_COMMAND__ACTION__REMOVE;
    if (!vm && !ends) {
        refuse(agent, request_id, ERROR_NOT_FOUND, "no such VM here");
        return;
    }
    switch (command->action) {
    case VMPOOL__NODE_VM_COMMAND__ACTION__KILL:
        agent->kills++;
        end(agent, request_id, vm, false);
        break;
    case VMPOOL__NODE_VM_COMMAND__ACTION__REMOVE:
        agent->removes++;
        end(agent, request_id, vm, false);
        break;
    case VMPOOL__NODE_VM_COMMAND__ACTION__POWER_BUTTON:
        agent->buttons++;
        if (vm && !agent->ignore_button && !vm->timer)
            vm->timer = loop_add_timer(agent->net->loop, agent->net->step_ms, 0, power_off, vm);
        answer_vm(agent, request_id, vm);
        break;
    case VMPOOL__NODE_VM_COMMAND__ACTION__RUN:
        on_run(agent, request_id, vm, command->epoch);
        break;
    default:
        answer_vm(agent, request_id, vm);
        break;
    }
}

/* ---- migration ---- */

static void on_prepare(struct sim_agent *agent, uint64_t request_id,
                       const Vmpool__NodeMigratePrepare *prepare)
{
    if (agent->refuse_prepare) {
        refuse(agent, request_id, agent->refuse_prepare, "this host does not want to");
        return;
    }
    if (stale(agent, prepare->spec->id, prepare->next_epoch)) {
        refuse(agent, request_id, ERROR_CONFLICT, "a higher epoch was seen");
        return;
    }
    struct sim_vm *vm = find_vm(agent, prepare->spec->id);
    if (!vm || strcmp(vm->migration_id, prepare->migration_id) != 0) {
        if (vm)
            sim_vm_free(agent, vm);
        vm = new_vm(agent, prepare->spec, prepare->next_epoch);
        agent->prepares++;
        (void)snprintf(vm->migration_id, sizeof vm->migration_id, "%s", prepare->migration_id);
        vm->phase = VMPOOL__MIGRATION_PHASE__MIGRATION_CONNECTING;
        vm->state = VMPOOL__VM_STATE__VM_INCOMING;
    }
    answer_vm(agent, request_id, vm);
}

static void next_step(void *context);

static void later(struct sim_vm *vm)
{
    vm->timer = loop_add_timer(vm->owner->net->loop, vm->owner->net->step_ms, 0, next_step, vm);
}

static void hand_over(struct sim_vm *vm, struct sim_vm *copy)
{
    vm->phase = VMPOOL__MIGRATION_PHASE__MIGRATION_HANDOVER;
    set_state(vm->owner, vm, VMPOOL__VM_STATE__VM_GAVE_UP, "state");
    if (vm->owner->stop_at == SIM_GAVE_UP)
        return;
    bool rest = vm->owner->stop_at == SIM_POSTCOPY;
    vm->phase = copy->phase = rest ? VMPOOL__MIGRATION_PHASE__MIGRATION_POSTCOPY
                                   : VMPOOL__MIGRATION_PHASE__MIGRATION_COMPLETED;
    copy->round = vm->round;
    set_state(copy->owner, copy, VMPOOL__VM_STATE__VM_RUNNING, "state");
    sim_send_event(vm->owner, vm, "migration");
}

void sim_pages_come(struct sim_agent *agent, struct sim_vm *vm)
{
    struct sim_vm *copy = vm->target ? find_vm(vm->target, vm->id) : NULL;
    vm->phase = VMPOOL__MIGRATION_PHASE__MIGRATION_COMPLETED;
    if (copy) {
        copy->phase = vm->phase;
        sim_send_event(copy->owner, copy, "migration");
    }
    sim_send_event(agent, vm, "migration");
}

/* Rounds, then the pause, then ready, gave up and go. */
static void next_step(void *context)
{
    struct sim_vm *vm = context;
    struct sim_vm *copy = vm->target ? find_vm(vm->target, vm->id) : NULL;
    vm->timer = NULL;
    if (!copy) {
        vm->phase = VMPOOL__MIGRATION_PHASE__MIGRATION_FAILED;
        (void)snprintf(vm->text, sizeof vm->text, "the target is gone");
        set_state(vm->owner, vm, VMPOOL__VM_STATE__VM_RUNNING, "migration");
    } else if (vm->round < ROUNDS || vm->owner->stop_at == SIM_PRECOPY) {
        vm->round++;
        vm->phase = VMPOOL__MIGRATION_PHASE__MIGRATION_PRECOPY;
        sim_send_event(vm->owner, vm, "migration");
        later(vm);
    } else if (vm->state != VMPOOL__VM_STATE__VM_PAUSED) {
        vm->phase = VMPOOL__MIGRATION_PHASE__MIGRATION_PAUSED;
        set_state(vm->owner, vm, VMPOOL__VM_STATE__VM_PAUSED, "state");
        set_state(copy->owner, copy, VMPOOL__VM_STATE__VM_READY, "state");
        if (vm->owner->stop_at != SIM_READY)
            later(vm);
    } else {
        hand_over(vm, copy);
    }
}

static struct sim_agent *agent_at(const struct sim_net *net, unsigned port)
{
    struct sim_agent *agent = net->agents;
    while (agent && agent->port != port)
        agent = agent->next;
    return agent;
}

static void on_out(struct sim_agent *agent, uint64_t request_id, const Vmpool__NodeMigrateOut *out)
{
    struct sim_vm *vm = find_vm(agent, out->vm_id);
    if (!vm || stale(agent, out->vm_id, out->epoch)) {
        refuse(agent, request_id, vm ? ERROR_CONFLICT : ERROR_NOT_FOUND, "can't migrate");
        return;
    }
    if (vm->state == VMPOOL__VM_STATE__VM_RUNNING &&
        strcmp(vm->migration_id, out->migration_id) != 0) {
        agent->outs++;
        (void)snprintf(vm->migration_id, sizeof vm->migration_id, "%s", out->migration_id);
        vm->phase = VMPOOL__MIGRATION_PHASE__MIGRATION_CONNECTING;
        vm->state = VMPOOL__VM_STATE__VM_MIGRATING;
        vm->target = agent_at(agent->net, out->port);
        vm->next_epoch = out->next_epoch;
        vm->round = 0;
        later(vm);
    }
    answer_vm(agent, request_id, vm);
}

static void on_cancel(struct sim_agent *agent, uint64_t request_id,
                      const Vmpool__NodeMigrateCancel *cancel)
{
    struct sim_vm *vm = find_vm(agent, cancel->vm_id);
    agent->cancels++;
    if (vm && vm->state == VMPOOL__VM_STATE__VM_MIGRATING) {
        loop_remove(vm->timer);
        vm->timer = NULL;
        vm->phase = VMPOOL__MIGRATION_PHASE__MIGRATION_CANCELLED;
        set_state(agent, vm, VMPOOL__VM_STATE__VM_RUNNING, "migration");
    }
    answer_vm(agent, request_id, vm);
}

void sim_command(struct sim_agent *agent, const Vmpool__ControllerToNode *command)
{
    uint64_t id = command->request_id;
    if (answered_before(agent, id))
        return;
    switch (command->body_case) {
    case VMPOOL__CONTROLLER_TO_NODE__BODY_VM_START:
        on_start(agent, id, command->vm_start);
        break;
    case VMPOOL__CONTROLLER_TO_NODE__BODY_VM_COMMAND:
        on_vm_command(agent, id, command->vm_command);
        break;
    case VMPOOL__CONTROLLER_TO_NODE__BODY_MIGRATE_PREPARE:
        on_prepare(agent, id, command->migrate_prepare);
        break;
    case VMPOOL__CONTROLLER_TO_NODE__BODY_MIGRATE_OUT:
        on_out(agent, id, command->migrate_out);
        break;
    case VMPOOL__CONTROLLER_TO_NODE__BODY_MIGRATE_CANCEL:
        on_cancel(agent, id, command->migrate_cancel);
        break;
    default:
        break;
    }
}

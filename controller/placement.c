#include "controller/placement.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "controller/pb.h"
#include "controller/plans.h"
#include "controller/tallies.h"

/* Of an uplink whose speed the host can't tell: no limit that a reservation would reach. */
#define UNKNOWN_BANDWIDTH_BPS 1000000000000000u
/* Hosts tried before a VM is refused for --keep-n1. */
#define N1_TRIES 8

static void complain(const struct error *err)
{
    log_error("the scheduler's view is wrong: %s", err->text);
}

/* The scheduler's labels point into the messages they come from. */
static struct sched_label *borrow_labels(Vmpool__Label **labels, size_t count)
{
    struct sched_label *out = mem_new((count + 1) * sizeof *out);
    for (size_t i = 0; i < count; i++)
        out[i] = (struct sched_label){labels[i]->key, labels[i]->value};
    return out;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t without(uint64_t whole, uint64_t part)
{
    return whole > part ? whole - part : 0;
}

/* The most a VM can use. One without a reserved bandwidth may fill the uplink. */
static struct sched_resources most_of(const struct vm *vm, const struct node *node)
{
    const Vmpool__VmSpec *spec = vm->stored->spec;
    uint64_t uplink = node->stored->facts ? node->stored->facts->bandwidth_bps : 0;
    return (struct sched_resources){
        .cpu_milli = (uint64_t)spec->vcpus * 1000,
        .memory_mib = spec->memory_mib,
        .bandwidth_bps = larger(spec->bandwidth_bps, uplink),
    };
}

static struct sched_resources use_of(const Vmpool__NodeVm *said)
{
    return (struct sched_resources){
        .cpu_milli = said->cpu_permille,
        .memory_mib = said->usage ? said->usage->memory_mib : 0,
        .bandwidth_bps = larger(said->net_rx_bps, said->net_tx_bps),
    };
}

void placement_note_use(struct controller *controller, struct vm *vm, const Vmpool__NodeVm *said)
{
    const struct node *node = vm_node(controller, vm);
    if (!node)
        return;
    const struct sched_resources most = most_of(vm, node), used = use_of(said);
    forecast_add(&vm->forecast, &most, &used, (uint64_t)clock_monotonic_ms(),
                 2 * controller->config.report_interval_ms);
}

/* What the host itself uses now, and its VMs are expected to. */
static struct sched_resources expected_use(const struct node *node,
                                           const struct sched_resources *capacity)
{
    const Vmpool__NodeReport *report = node->report;
    struct forecast_sum sum = {0};
    struct sched_resources now = {0}, vms;
    for (const struct vm *vm = node->counted; vm; vm = vm->next_counted) {
        const struct claim *claim = vm_claim_of(vm, node->stored->id);
        if (!claim || !claim->said)
            continue;
        const struct sched_resources most = most_of(vm, node), used = use_of(claim->said);
        struct sched_resources mean, peak;
        forecast_expect(&vm->forecast, &most, &mean, &peak);
        forecast_sum_add(&sum, &mean, &peak);
        now.cpu_milli += used.cpu_milli;
        now.memory_mib += used.memory_mib;
        now.bandwidth_bps += used.bandwidth_bps;
    }
    forecast_sum_total(&sum, &vms);
    return (struct sched_resources){
        .cpu_milli = without(capacity->cpu_milli * report->cpu_permille / 1000, now.cpu_milli) +
                     vms.cpu_milli,
        .memory_mib = without(report->memory_used_mib, now.memory_mib) + vms.memory_mib,
        .bandwidth_bps =
            without(larger(report->net_rx_bps, report->net_tx_bps), now.bandwidth_bps) +
            vms.bandwidth_bps,
    };
}

void placement_set_node(struct controller *controller, const struct node *node)
{
    struct error err = ERROR_INIT;
    const Vmpool__NodeFacts *facts = node->stored->facts;
    struct sched_node out = {.name = node->stored->name,
                             .drained = node->stored->draining,
                             .lost = node->phase == VMPOOL__NODE_PHASE__NODE_LOST ||
                                     node->phase == VMPOOL__NODE_PHASE__NODE_JOINED};
    auto_free struct sched_label *labels =
        facts ? borrow_labels(facts->labels, facts->n_labels) : NULL;
    if (facts) {
        out.reserve.memory_mib = facts->reserved_memory_mib;
        out.capacity = (struct sched_resources){
            .cpu_milli = (uint64_t)facts->cpus * 1000,
            .memory_mib = facts->memory_mib,
            .bandwidth_bps = facts->bandwidth_bps ? facts->bandwidth_bps : UNKNOWN_BANDWIDTH_BPS};
        out.labels = labels;
        out.label_count = facts->n_labels;
    }
    if (node->report)
        out.used = expected_use(node, &out.capacity);
    if (scheduler_set_node(controller->scheduler, &out, &err) < 0)
        complain(&err);
}

void placement_remove_node(struct controller *controller, const struct node *node)
{
    struct error err = ERROR_INIT;
    if (scheduler_remove_node(controller->scheduler, node->stored->name, &err) < 0)
        complain(&err);
}

/* @selector is borrow_labels() of the VM's. */
static struct sched_request request_of(const Vmpool__VmSpec *spec,
                                       const struct sched_label *selector, size_t selector_count)
{
    static const Vmpool__PlacementRules none = VMPOOL__PLACEMENT_RULES__INIT;
    const Vmpool__PlacementRules *rules = spec->rules ? spec->rules : &none;
    return (struct sched_request){
        .vm = spec->name,
        .need = {.cpu_milli = (uint64_t)spec->vcpus * 1000,
                 .memory_mib = spec->memory_mib,
                 .bandwidth_bps = spec->bandwidth_bps},
        .selector = selector,
        .selector_count = selector_count,
        .anti_affinity_group = spec->anti_affinity_group,
        .anti_affinity_soft = rules->anti_affinity_soft,
        .affinity_group = rules->affinity_group,
        .spread_group = rules->spread_group,
        .spread_label = rules->spread_label,
        .spread_skew = rules->spread_skew,
        .tenant = rules->tenant,
    };
}

static void place(struct controller *controller, const struct sched_request *request,
                  const struct node *node)
{
    struct error err = ERROR_INIT;
    if (scheduler_place(controller->scheduler, request, node->stored->name, &err) < 0)
        complain(&err);
}

void placement_hold(struct controller *controller, const struct vm *vm, const struct node *node)
{
    auto_free struct sched_label *selector =
        borrow_labels(vm->stored->selector, vm->stored->n_selector);
    struct sched_request request = request_of(vm->stored->spec, selector, vm->stored->n_selector);
    request.since_s = vm->stored->created_wall_ms / 1000;
    place(controller, &request, node);
}

void placement_release(struct controller *controller, const struct vm *vm)
{
    scheduler_remove_vm(controller->scheduler, vm->stored->spec->name);
}

/* A name no VM can have. */
static const char *target_name(const struct vm *vm, char out[SCHED_NAME_MAX + 8])
{
    (void)snprintf(out, SCHED_NAME_MAX + 8, ">%s", vm->stored->spec->name);
    return out;
}

void placement_hold_target(struct controller *controller, const struct vm *vm,
                           const struct node *target)
{
    char name[SCHED_NAME_MAX + 8];
    auto_free struct sched_label *selector =
        borrow_labels(vm->stored->selector, vm->stored->n_selector);
    struct sched_request request = request_of(vm->stored->spec, selector, vm->stored->n_selector);
    request.since_s = vm->stored->created_wall_ms / 1000;
    request.vm = target_name(vm, name);
    place(controller, &request, target);
}

void placement_release_target(struct controller *controller, const struct vm *vm)
{
    char name[SCHED_NAME_MAX + 8];
    scheduler_remove_vm(controller->scheduler, target_name(vm, name));
}

void placement_reserved(const struct controller *controller, const struct node *node,
                        struct sched_resources *reserved)
{
    struct error err = ERROR_INIT;
    if (scheduler_reserved(controller->scheduler, node->stored->name, reserved, &err) < 0)
        complain(&err);
}

static bool was_tried(const struct placement_question *question, const struct node *node)
{
    for (size_t i = 0; node && i < question->tried_count; i++)
        if (strcmp(question->tried[i], node->stored->id) == 0)
            return true;
    return false;
}

/* The best of the hosts that have not refused yet. */
static struct node *best_untried(struct controller *controller,
                                 const struct placement_question *question,
                                 const struct sched_decision *decision)
{
    const struct sched_verdict *best = NULL;
    for (size_t i = 0; i < decision->verdict_count; i++) {
        const struct sched_verdict *verdict = &decision->verdicts[i];
        if (verdict->fits && (!best || verdict->score > best->score) &&
            !was_tried(question, node_by_name(controller, verdict->node)))
            best = verdict;
    }
    return best ? node_by_name(controller, best->node) : NULL;
}

/* The best of the hosts with which any one node can still be lost (--keep-n1). Those that fail get
 * a verdict of their own. */
static struct node *best_keeping_n1(struct controller *controller,
                                    const struct placement_question *question,
                                    const struct sched_request *request,
                                    struct sched_decision *decision, struct error *err)
{
    struct plan_config plan = plans_config(controller);
    struct plan_n1 n1 = {.holds = true};
    for (unsigned tries = 0; tries < N1_TRIES; tries++) {
        struct node *node = best_untried(controller, question, decision);
        if (!node)
            break;
        if (plan_check_n1_with(controller->scheduler, &plan, request, node->stored->name, &n1,
                               err) < 0)
            return NULL;
        if (n1.holds)
            return node;
        for (size_t i = 0; i < decision->verdict_count; i++) {
            struct sched_verdict *verdict = &decision->verdicts[i];
            if (strcmp(verdict->node, node->stored->name) != 0)
                continue;
            verdict->fits = false;
            (void)snprintf(verdict->filter, sizeof verdict->filter, "n+1");
            (void)snprintf(verdict->reason, sizeof verdict->reason,
                           "with it here, VM %.50s would have no place if %.50s were lost", n1.vm,
                           n1.node);
        }
    }
    if (!n1.holds) {
        (void)snprintf(decision->summary, sizeof decision->summary,
                       "the pool could no longer lose any one node (--keep-n1): if %s were lost, "
                       "VM %s would have no place; add a node, or stop a VM",
                       n1.node, n1.vm);
        (void)error_set(err, ERROR_NO_CAPACITY, "%s", decision->summary);
    }
    return NULL;
}

static Vmpool__HostVerdict *describe_verdict(struct controller *controller,
                                             const struct placement_question *question,
                                             const struct sched_verdict *verdict)
{
    Vmpool__HostVerdict *out = mem_new(sizeof *out);
    vmpool__host_verdict__init(out);
    pb_set(&out->node, verdict->node);
    out->fits = verdict->fits;
    out->score = verdict->score;
    pb_set(&out->reason, verdict->reason);
    pb_set(&out->filter, verdict->filter);
    pb_set(&out->change, verdict->change);
    if (!verdict->fits && question->not_node && strcmp(verdict->node, question->not_node) == 0) {
        pb_set(&out->reason, "is where the VM is now");
        pb_set(&out->change, "");
    }
    if (was_tried(question, node_by_name(controller, verdict->node))) {
        out->fits = false;
        pb_set(&out->reason, "was asked and refused");
        pb_set(&out->filter, "refused");
    }
    return out;
}

static Vmpool__Placement *describe(struct controller *controller,
                                   const struct placement_question *question,
                                   const struct sched_decision *decision, const struct node *chosen)
{
    Vmpool__Placement *out = mem_new(sizeof *out);
    vmpool__placement__init(out);
    pb_set(&out->node, chosen ? chosen->stored->name : "");
    pb_set(&out->summary, decision->summary);
    if (chosen && strcmp(chosen->stored->name, decision->node) != 0)
        pb_setf(&out->summary, "%s, as the better ones refused", chosen->stored->name);
    if (decision->verdict_count <= PLACEMENT_VERDICTS_MAX)
        for (size_t i = 0; i < decision->verdict_count; i++)
            pb_push(&out->verdicts, &out->n_verdicts,
                    describe_verdict(controller, question, &decision->verdicts[i]));
    return out;
}

int placement_check(const struct placement_question *question, struct error *err)
{
    auto_free struct sched_label *selector =
        borrow_labels(question->selector, question->selector_count);
    struct sched_request request = request_of(question->spec, selector, question->selector_count);
    request.only_node = question->only_node;
    request.not_node = question->not_node;
    return sched_request_check(&request, err);
}

struct node *placement_choose(struct controller *controller,
                              const struct placement_question *question, Vmpool__Placement **answer,
                              struct error *err)
{
    struct sched_decision decision = {0};
    auto_free struct sched_label *selector =
        borrow_labels(question->selector, question->selector_count);
    struct sched_request request = request_of(question->spec, selector, question->selector_count);
    request.only_node = question->only_node;
    request.not_node = question->not_node;
    bool keep_n1 = controller->config.keep_n1 && question->adds;
    bool full = keep_n1 || question->tried_count > 0 ||
                controller->nodes_by_name.count <= PLACEMENT_VERDICTS_MAX;
    int status = full ? scheduler_explain(controller->scheduler, &request, &decision, err)
                      : scheduler_choose(controller->scheduler, &request, &decision, err);
    struct node *chosen = NULL;
    if (status == 0 && keep_n1)
        chosen = best_keeping_n1(controller, question, &request, &decision, err);
    else if (status == 0)
        chosen = question->tried_count > 0 ? best_untried(controller, question, &decision)
                                           : node_by_name(controller, decision.node);
    if (status == 0 && !chosen && err->kind == ERROR_NONE)
        (void)error_set(err, ERROR_NO_CAPACITY, "no other host fits");
    tallies_decided(controller->tallies, chosen != NULL);
    if (answer)
        *answer = describe(controller, question, &decision, chosen);
    sched_decision_free(&decision);
    return chosen;
}

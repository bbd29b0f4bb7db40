/* place.c: VMs, the rules they keep, and where they are. */
#include <stdlib.h>
#include <string.h>

#include "scheduler/exits.h"
#include "scheduler/filter.h"
#include "scheduler/group.h"

static void free_vm(struct vm *vm)
{
    free(vm->selector);
    free(vm->tenant);
    free(vm->name);
    free(vm);
}

static void add_resources(struct sched_resources *sum, const struct sched_resources *r)
{
    sum->cpu_milli += r->cpu_milli;
    sum->memory_mib += r->memory_mib;
    sum->bandwidth_bps += r->bandwidth_bps;
}

static void subtract_resources(struct sched_resources *sum, const struct sched_resources *r)
{
    sum->cpu_milli -= r->cpu_milli;
    sum->memory_mib -= r->memory_mib;
    sum->bandwidth_bps -= r->bandwidth_bps;
}

static void enter_node(struct node *node, struct vm *vm)
{
    vm->node = node;
    vm->previous = NULL;
    vm->next = node->vms;
    if (node->vms)
        node->vms->previous = vm;
    node->vms = vm;
    node->vm_count++;
    add_resources(&node->reserved, &vm->need);
    for (int kind = 0; kind < GROUP_KINDS; kind++)
        group_enter(vm->groups[kind], node);
}

static void leave_node(struct vm *vm)
{
    struct node *node = vm->node;
    if (vm->next)
        vm->next->previous = vm->previous;
    if (vm->previous)
        vm->previous->next = vm->next;
    else
        node->vms = vm->next;
    node->vm_count--;
    subtract_resources(&node->reserved, &vm->need);
    for (int kind = 0; kind < GROUP_KINDS; kind++)
        group_leave(vm->groups[kind], node);
    vm->node = NULL;
}

static struct vm *add_vm(struct scheduler *pool, const char *name, struct error *err)
{
    struct vm *vm = calloc(1, sizeof *vm);
    if (vm)
        vm->name = strdup(name);
    if (!vm || !vm->name) {
        free(vm);
        (void)error_set(err, ERROR_FAILED, "out of memory for VM %s", name);
        return NULL;
    }
    if (name_map_add(&pool->vm_names, vm->name, vm, err) < 0) {
        free_vm(vm);
        return NULL;
    }
    return vm;
}

/* A copy of the request's selector in one allocation; *out is NULL for none. */
static int copy_selector(const struct sched_request *request, struct sched_label **out,
                         struct error *err)
{
    size_t count = request->selector_count, bytes = count * sizeof **out;
    *out = NULL;
    for (size_t i = 0; i < count; i++)
        bytes += strlen(request->selector[i].key) + strlen(request->selector[i].value) + 2;
    if (count == 0)
        return 0;
    struct sched_label *copy = malloc(bytes);
    if (!copy)
        return error_set(err, ERROR_FAILED, "out of memory for a selector");
    char *text = (char *)(copy + count);
    for (size_t i = 0; i < count; i++) {
        copy[i].key = text;
        text = stpcpy(text, request->selector[i].key) + 1;
        copy[i].value = text;
        text = stpcpy(text, request->selector[i].value) + 1;
    }
    *out = copy;
    return 0;
}

static const char *group_name(const struct vm *vm, enum group_kind kind)
{
    return vm->groups[kind] ? vm->groups[kind]->name : NULL;
}

struct sched_request pool_request_of(const struct vm *vm)
{
    const struct group *spread = vm->groups[GROUP_SPREAD];
    return (struct sched_request){
        .vm = vm->name,
        .need = vm->need,
        .selector = vm->selector,
        .selector_count = vm->selector_count,
        .anti_affinity_group = group_name(vm, GROUP_ANTI_AFFINITY),
        .anti_affinity_soft = vm->anti_affinity_soft,
        .affinity_group = group_name(vm, GROUP_AFFINITY),
        .spread_group = group_name(vm, GROUP_SPREAD),
        .spread_label = spread ? spread->key->name : NULL,
        .spread_skew = vm->spread_skew,
        .tenant = vm->tenant,
        .since_s = vm->since_s,
    };
}

void pool_move_vm(struct scheduler *pool, struct vm *vm, struct node *node)
{
    struct node *old = vm->node;
    leave_node(vm);
    if (old != node)
        pool_reindex_node(pool, old);
    enter_node(node, vm);
    pool_reindex_node(pool, node);
}

/* What a VM gets from its request, made before anything is changed. */
struct rules {
    struct sched_label *selector;
    char *tenant;
    struct group *groups[GROUP_KINDS];
};

static void drop_rules(struct scheduler *pool, struct rules *rules)
{
    for (int kind = 0; kind < GROUP_KINDS; kind++)
        group_drop_empty(pool, (enum group_kind)kind, rules->groups[kind]);
    free(rules->selector);
    free(rules->tenant);
}

static int make_rules(struct scheduler *pool, const struct sched_request *request,
                      struct rules *rules, struct error *err)
{
    const char *names[GROUP_KINDS] = {request->anti_affinity_group, request->affinity_group,
                                      request->spread_group};
    bool made = copy_selector(request, &rules->selector, err) == 0;
    if (made && request->tenant && *request->tenant) {
        rules->tenant = strdup(request->tenant);
        made = rules->tenant != NULL;
        if (!made)
            (void)error_set(err, ERROR_FAILED, "out of memory for a tenant");
    }
    for (int kind = 0; made && kind < GROUP_KINDS; kind++) {
        if (!names[kind] || !*names[kind])
            continue;
        rules->groups[kind] =
            group_ensure(pool, (enum group_kind)kind, names[kind],
                         kind == GROUP_SPREAD ? request->spread_label : NULL, err);
        made = rules->groups[kind] != NULL;
    }
    if (!made)
        drop_rules(pool, rules);
    return made ? 0 : -1;
}

/* Gives @vm, which is on no node, what it is to have; groups it leaves are dropped. */
static void take_rules(struct scheduler *pool, struct vm *vm, const struct sched_request *request,
                       const struct rules *rules)
{
    for (int kind = 0; kind < GROUP_KINDS; kind++) {
        struct group *old = vm->groups[kind];
        vm->groups[kind] = rules->groups[kind];
        if (old != rules->groups[kind])
            group_drop_empty(pool, (enum group_kind)kind, old);
    }
    free(vm->selector);
    free(vm->tenant);
    vm->selector = rules->selector;
    vm->selector_count = request->selector_count;
    vm->tenant = rules->tenant;
    vm->anti_affinity_soft = request->anti_affinity_soft;
    vm->spread_skew = request->spread_skew;
    vm->need = request->need;
}

static int check_placed(const struct sched_request *request, struct error *err)
{
    if (!request->vm || !*request->vm)
        return error_set(err, ERROR_USAGE, "a VM that is placed needs a name");
    if (pool_check_resources(&request->need, "the VM's size", err) < 0 ||
        request_check_names(request, err) < 0)
        return error_wrap(err, "VM %s", request->vm);
    return 0;
}

int scheduler_place(struct scheduler *pool, const struct sched_request *request,
                    const char *node_name, struct error *err)
{
    struct node *node = pool_find_node(pool, node_name);
    struct rules rules = {0};
    if (!node)
        return error_set(err, ERROR_NOT_FOUND, "no node '%s'", node_name);
    if (check_placed(request, err) < 0 || make_rules(pool, request, &rules, err) < 0)
        return -1;
    struct vm *vm = pool_find_vm(pool, request->vm);
    bool is_new = !vm;
    if (is_new)
        vm = add_vm(pool, request->vm, err);
    if (!vm) {
        drop_rules(pool, &rules);
        return -1;
    }
    if (vm->node) {
        struct node *old = vm->node;
        leave_node(vm);
        if (old != node)
            pool_reindex_node(pool, old);
    }
    take_rules(pool, vm, request, &rules);
    if (is_new)
        exits_begin(pool, vm, request->since_s ? request->since_s : pool->now_s);
    enter_node(node, vm);
    pool_reindex_node(pool, node);
    return 0;
}

void scheduler_remove_vm(struct scheduler *pool, const char *name)
{
    struct vm *vm = pool_find_vm(pool, name);
    if (!vm)
        return;
    struct node *node = vm->node;
    leave_node(vm);
    pool_reindex_node(pool, node);
    for (int kind = 0; kind < GROUP_KINDS; kind++)
        group_drop_empty(pool, (enum group_kind)kind, vm->groups[kind]);
    name_map_remove(&pool->vm_names, vm->name);
    free_vm(vm);
}

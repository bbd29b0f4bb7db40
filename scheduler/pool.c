/* pool.c: nodes, VMs and groups, and what each node has reserved. */
#include "scheduler/pool.h"

#include <stdlib.h>
#include <string.h>

#include "scheduler/tree.h"

/* Larger figures are refused, so that sums of reservations cannot overflow. */
#define RESOURCE_MAX   (UINT64_MAX >> 20)
#define OVERCOMMIT_MAX 10000u /* percent */

struct node *pool_find_node(const struct scheduler *pool, const char *name)
{
    return name_map_get(&pool->node_names, name);
}

struct vm *pool_find_vm(const struct scheduler *pool, const char *name)
{
    return name_map_get(&pool->vm_names, name);
}

struct group *pool_find_group(const struct scheduler *pool, const char *name)
{
    return name && *name ? name_map_get(&pool->group_names, name) : NULL;
}

uint64_t label_bit(const char *key, const char *value)
{
    return UINT64_C(1) << ((name_map_hash(key) * 31 + name_map_hash(value)) >> 58);
}

const char *node_label(const struct node *node, const char *key)
{
    for (size_t i = 0; i < node->label_count; i++)
        if (strcmp(node->labels[i].key, key) == 0)
            return node->labels[i].value;
    return NULL;
}

struct scheduler *scheduler_new(const struct sched_config *config, struct error *err)
{
    if (config->policy < SCHED_PACK || config->policy > SCHED_BEST) {
        (void)error_set(err, ERROR_USAGE, "policy %d is unknown", (int)config->policy);
        return NULL;
    }
    if (config->cpu_overcommit_percent > OVERCOMMIT_MAX ||
        config->memory_overcommit_percent > OVERCOMMIT_MAX ||
        config->bandwidth_overcommit_percent > OVERCOMMIT_MAX) {
        (void)error_set(err, ERROR_USAGE, "an overcommit ratio is at most %u percent",
                        OVERCOMMIT_MAX);
        return NULL;
    }
    struct scheduler *pool = calloc(1, sizeof *pool);
    if (!pool) {
        (void)error_set(err, ERROR_FAILED, "out of memory for a scheduler");
        return NULL;
    }
    pool->config = *config;
    pool->tree = calloc(1, sizeof *pool->tree);
    if (!pool->tree) {
        free(pool);
        (void)error_set(err, ERROR_FAILED, "out of memory for a scheduler");
        return NULL;
    }
    return pool;
}

static void free_labels(struct label *labels, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(labels[i].key);
        free(labels[i].value);
    }
    free(labels);
}

static void free_vm(struct vm *vm)
{
    free(vm->selector);
    free(vm->name);
    free(vm);
}

void scheduler_free(struct scheduler *pool)
{
    if (!pool)
        return;
    for (size_t i = 0; i < pool->node_count; i++)
        while (pool->nodes[i]->vms)
            scheduler_remove_vm(pool, pool->nodes[i]->vms->name);
    for (size_t i = 0; i < pool->node_count; i++) {
        struct node *node = pool->nodes[i];
        free_labels(node->labels, node->label_count);
        free(node);
    }
    free(pool->nodes);
    tree_free(pool->tree);
    free(pool->tree);
    name_map_free(&pool->node_names);
    name_map_free(&pool->vm_names);
    name_map_free(&pool->group_names);
    free(pool);
}

static int check_resources(const struct sched_resources *r, const char *what, struct error *err)
{
    if (r->cpu_milli > RESOURCE_MAX || r->memory_mib > RESOURCE_MAX ||
        r->bandwidth_bps > RESOURCE_MAX)
        return error_set(err, ERROR_USAGE, "%s is absurdly large", what);
    return 0;
}

static uint64_t scaled(uint64_t capacity, uint32_t percent)
{
    if (percent == 0)
        return capacity;
    return capacity / 100 * percent + capacity % 100 * percent / 100;
}

static int copy_labels(const struct sched_node *from, struct label **out, struct error *err)
{
    struct label *labels = calloc(from->label_count + 1, sizeof *labels);
    bool complete = labels != NULL;
    for (size_t i = 0; complete && i < from->label_count; i++) {
        labels[i].key = strdup(from->labels[i].key);
        labels[i].value = strdup(from->labels[i].value);
        complete = labels[i].key && labels[i].value;
    }
    if (!complete) {
        if (labels)
            free_labels(labels, from->label_count);
        return error_set(err, ERROR_FAILED, "out of memory for labels");
    }
    *out = labels;
    return 0;
}

/* A new node at the end of the order. */
static struct node *append_node(struct scheduler *pool, const char *name, struct error *err)
{
    if (pool->node_count == pool->node_space) {
        size_t space = pool->node_space ? pool->node_space * 2 : 16;
        struct node **nodes = reallocarray(pool->nodes, space, sizeof *nodes);
        if (!nodes) {
            (void)error_set(err, ERROR_FAILED, "out of memory for %zu nodes", space);
            return NULL;
        }
        pool->nodes = nodes;
        pool->node_space = space;
    }
    struct node *node = calloc(1, sizeof *node);
    if (!node) {
        (void)error_set(err, ERROR_FAILED, "out of memory for a node");
        return NULL;
    }
    memcpy(node->name, name, strlen(name) + 1);
    if (name_map_add(&pool->node_names, node->name, node, err) < 0) {
        free(node);
        return NULL;
    }
    node->position = pool->next_position++;
    pool->nodes[pool->node_count++] = node;
    return node;
}

/* Where @node stands in pool->nodes, which is sorted by position. */
static size_t index_of(const struct scheduler *pool, const struct node *node)
{
    size_t low = 0, high = pool->node_count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (pool->nodes[middle]->position <= node->position)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* O(N): the nodes behind it move up. */
static void delete_node(struct scheduler *pool, struct node *node)
{
    size_t index = index_of(pool, node);
    if (node->state)
        tree_remove(pool->tree, node);
    name_map_remove(&pool->node_names, node->name);
    pool->node_count--;
    memmove(&pool->nodes[index], &pool->nodes[index + 1],
            (pool->node_count - index) * sizeof(struct node *));
    free_labels(node->labels, node->label_count);
    free(node);
}

/* Makes the index agree with the node. Fails only where a node comes in. */
static int refresh_node(struct scheduler *pool, struct node *node, struct error *err)
{
    node->point = point_make(node, &node->reserved);
    if (node->drained || node->lost) {
        if (node->state)
            tree_remove(pool->tree, node);
        return 0;
    }
    if (!node->state)
        return tree_insert(pool->tree, node, err);
    return tree_update(pool->tree, node, err);
}

int pool_hide_node(struct scheduler *pool, struct node *node, bool hidden, struct error *err)
{
    node->drained = hidden;
    return refresh_node(pool, node, err);
}

/* refresh_node() after reservations have changed. Where memory is short the node is out of the
 * index and takes no VM until it is set again, as if it were drained; what is reserved stays
 * right. */
static void reindex_node(struct scheduler *pool, struct node *node)
{
    struct error ignored = ERROR_INIT;
    node->point = point_make(node, &node->reserved);
    if (node->state && tree_update(pool->tree, node, &ignored) < 0)
        node->drained = true;
}

static void fill_node(struct node *node, const struct sched_node *from,
                      const struct sched_config *config, struct label *labels)
{
    free_labels(node->labels, node->label_count);
    node->labels = labels;
    node->label_count = from->label_count;
    node->label_bits = 0;
    for (size_t i = 0; i < from->label_count; i++)
        node->label_bits |= label_bit(labels[i].key, labels[i].value);
    node->capacity = from->capacity;
    node->limit = (struct sched_resources){
        scaled(from->capacity.cpu_milli, config->cpu_overcommit_percent),
        scaled(from->capacity.memory_mib, config->memory_overcommit_percent),
        scaled(from->capacity.bandwidth_bps, config->bandwidth_overcommit_percent),
    };
    node->used = from->used;
    node->drained = from->drained;
    node->lost = from->lost;
}

int scheduler_set_node(struct scheduler *pool, const struct sched_node *from, struct error *err)
{
    if (!from->name || !*from->name || strlen(from->name) >= SCHED_NAME_MAX)
        return error_set(err, ERROR_USAGE, "a node's name must have 1 to %d bytes",
                         SCHED_NAME_MAX - 1);
    if (check_resources(&from->capacity, "the node's capacity", err) < 0 ||
        check_resources(&from->used, "the node's measured use", err) < 0)
        return error_wrap(err, "node %s", from->name);
    struct label *labels = NULL;
    if (copy_labels(from, &labels, err) < 0)
        return -1;
    struct node *node = pool_find_node(pool, from->name);
    bool is_new = !node;
    if (is_new)
        node = append_node(pool, from->name, err);
    if (!node) {
        free_labels(labels, from->label_count);
        return -1;
    }
    fill_node(node, from, &pool->config, labels);
    if (refresh_node(pool, node, err) == 0)
        return 0;
    if (is_new)
        delete_node(pool, node);
    else
        node->drained = true; /* it is not in the index, so it takes no VM */
    return -1;
}

int scheduler_remove_node(struct scheduler *pool, const char *name, struct error *err)
{
    struct node *node = pool_find_node(pool, name);
    if (!node)
        return error_set(err, ERROR_NOT_FOUND, "no node '%s'", name);
    if (node->vm_count)
        return error_set(err, ERROR_CONFLICT, "node %s still holds %zu VMs: drain it first", name,
                         node->vm_count);
    delete_node(pool, node);
    return 0;
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

static void join_group(struct group *group, struct vm *vm)
{
    vm->group = group;
    vm->group_previous = NULL;
    vm->group_next = group->members;
    if (group->members)
        group->members->group_previous = vm;
    group->members = vm;
}

static void leave_group(struct scheduler *pool, struct vm *vm)
{
    struct group *group = vm->group;
    if (!group)
        return;
    if (vm->group_next)
        vm->group_next->group_previous = vm->group_previous;
    if (vm->group_previous)
        vm->group_previous->group_next = vm->group_next;
    else
        group->members = vm->group_next;
    vm->group = NULL;
    if (!group->members) {
        name_map_remove(&pool->group_names, group->name);
        free(group->name);
        free(group);
    }
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
    vm->node = NULL;
}

/* The group called @name, made where it is missing; *group stays NULL for no name. */
static int ensure_group(struct scheduler *pool, const char *name, struct group **group,
                        struct error *err)
{
    *group = pool_find_group(pool, name);
    if (*group || !name || !*name)
        return 0;
    struct group *made = calloc(1, sizeof *made);
    if (made)
        made->name = strdup(name);
    if (!made || !made->name) {
        free(made);
        return error_set(err, ERROR_FAILED, "out of memory for group %s", name);
    }
    if (name_map_add(&pool->group_names, made->name, made, err) < 0) {
        free(made->name);
        free(made);
        return -1;
    }
    *group = made;
    return 0;
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

struct sched_request pool_request_of(const struct vm *vm)
{
    return (struct sched_request){
        .vm = vm->name,
        .need = vm->need,
        .selector = vm->selector,
        .selector_count = vm->selector_count,
        .anti_affinity_group = vm->group ? vm->group->name : NULL,
    };
}

void pool_move_vm(struct scheduler *pool, struct vm *vm, struct node *node)
{
    struct node *old = vm->node;
    leave_node(vm);
    if (old != node)
        reindex_node(pool, old);
    enter_node(node, vm);
    reindex_node(pool, node);
}

int scheduler_place(struct scheduler *pool, const struct sched_request *request,
                    const char *node_name, struct error *err)
{
    struct node *node = pool_find_node(pool, node_name);
    if (!node)
        return error_set(err, ERROR_NOT_FOUND, "no node '%s'", node_name);
    if (!request->vm || !*request->vm)
        return error_set(err, ERROR_USAGE, "a VM that is placed needs a name");
    if (check_resources(&request->need, "the VM's size", err) < 0)
        return error_wrap(err, "VM %s", request->vm);
    struct vm *vm = pool_find_vm(pool, request->vm);
    if (!vm)
        vm = add_vm(pool, request->vm, err);
    if (!vm)
        return -1;
    struct group *group = NULL;
    struct sched_label *selector = NULL;
    if (copy_selector(request, &selector, err) < 0 ||
        ensure_group(pool, request->anti_affinity_group, &group, err) < 0) {
        free(selector);
        if (!vm->node) {
            name_map_remove(&pool->vm_names, vm->name);
            free_vm(vm);
        }
        return -1;
    }
    free(vm->selector);
    vm->selector = selector;
    vm->selector_count = request->selector_count;
    if (vm->group != group) {
        leave_group(pool, vm);
        if (group)
            join_group(group, vm);
    }
    if (vm->node) {
        struct node *old = vm->node;
        leave_node(vm);
        if (old != node)
            reindex_node(pool, old);
    }
    vm->need = request->need;
    enter_node(node, vm);
    reindex_node(pool, node);
    return 0;
}

void scheduler_remove_vm(struct scheduler *pool, const char *name)
{
    struct vm *vm = pool_find_vm(pool, name);
    if (!vm)
        return;
    struct node *node = vm->node;
    leave_node(vm);
    reindex_node(pool, node);
    leave_group(pool, vm);
    name_map_remove(&pool->vm_names, vm->name);
    free_vm(vm);
}

int scheduler_reserved(const struct scheduler *pool, const char *name,
                       struct sched_resources *reserved, struct error *err)
{
    const struct node *node = pool_find_node(pool, name);
    if (!node)
        return error_set(err, ERROR_NOT_FOUND, "no node '%s'", name);
    *reserved = node->reserved;
    return 0;
}

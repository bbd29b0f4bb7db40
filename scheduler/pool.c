/* pool.c: the pool and its nodes; its VMs are in place.c. */
#include "scheduler/pool.h"

#include <stdlib.h>
#include <string.h>

#include "scheduler/exits.h"
#include "scheduler/group.h"
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

uint64_t label_bit(const char *key, const char *value)
{
    uint64_t at = (name_map_hash(key) * 31 + name_map_hash(value)) >> 58;
    return UINT64_C(1) << (at ? at : 1);
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
    if (exits_init(pool, err) < 0) {
        scheduler_free(pool);
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
    for (int kind = 0; kind < GROUP_KINDS; kind++)
        name_map_free(&pool->groups[kind]);
    domains_free(pool);
    lifetimes_free(pool->lifetimes);
    free(pool);
}

int pool_check_resources(const struct sched_resources *r, const char *what, struct error *err)
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

static uint64_t left_of(uint64_t capacity, uint64_t reserve)
{
    return capacity > reserve ? capacity - reserve : 0;
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
    node->drained = true; /* until it is filled in */
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
    if (node_is_open(node))
        domains_count(pool, node, -1);
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
    exits_refresh(pool, node);
    node->point = point_make(node, &node->reserved);
    if (!node_is_open(node)) {
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
    if (node_is_open(node))
        domains_count(pool, node, -1);
    node->drained = hidden;
    if (node_is_open(node))
        domains_count(pool, node, 1);
    return refresh_node(pool, node, err);
}

/* It takes no VM from now on. */
static void close_node(struct scheduler *pool, struct node *node)
{
    if (node_is_open(node))
        domains_count(pool, node, -1);
    node->drained = true;
}

/* Where memory is short the node is out of the index and takes no VM until it is set again, as if
 * it were drained; what is reserved stays right. */
void pool_reindex_node(struct scheduler *pool, struct node *node)
{
    struct error ignored = ERROR_INIT;
    exits_refresh(pool, node);
    node->point = point_make(node, &node->reserved);
    if (node->state && tree_update(pool->tree, node, &ignored) < 0)
        close_node(pool, node);
}

/* Counts a node and its VMs in or out of the domains its labels put it in. */
static void count_groups(struct scheduler *pool, struct node *node, bool in)
{
    if (!pool->label_keys)
        return;
    if (node_is_open(node))
        domains_count(pool, node, in ? 1 : -1);
    for (const struct vm *vm = node->vms; vm; vm = vm->next) {
        if (in)
            group_enter(vm->groups[GROUP_SPREAD], node);
        else
            group_leave(vm->groups[GROUP_SPREAD], node);
    }
}

static void fill_node(struct node *node, const struct sched_node *from,
                      const struct sched_config *config, struct label *labels)
{
    free_labels(node->labels, node->label_count);
    node->labels = labels;
    node->label_count = from->label_count;
    node->label_bits = 0;
    for (size_t i = 0; i < from->label_count; i++) {
        node->label_bits |= label_bit(labels[i].key, labels[i].value);
        if (strcmp(labels[i].key, SCHED_DEDICATED_LABEL) == 0)
            node->label_bits |= DEDICATED_BIT;
    }
    node->capacity = from->capacity;
    node->limit = (struct sched_resources){
        scaled(left_of(from->capacity.cpu_milli, from->reserve.cpu_milli),
               config->cpu_overcommit_percent),
        scaled(left_of(from->capacity.memory_mib, from->reserve.memory_mib),
               config->memory_overcommit_percent),
        scaled(left_of(from->capacity.bandwidth_bps, from->reserve.bandwidth_bps),
               config->bandwidth_overcommit_percent),
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
    if (pool_check_resources(&from->capacity, "the node's capacity", err) < 0 ||
        pool_check_resources(&from->used, "the node's measured use", err) < 0)
        return error_wrap(err, "node %s", from->name);
    struct label *labels = NULL;
    if (copy_labels(from, &labels, err) < 0)
        return -1;
    const struct node future = {.labels = labels, .label_count = from->label_count};
    struct node *node = pool_find_node(pool, from->name);
    bool is_new = !node;
    if (domains_prepare(pool, &future, err) < 0)
        node = NULL;
    else if (is_new)
        node = append_node(pool, from->name, err);
    if (!node) {
        free_labels(labels, from->label_count);
        return -1;
    }
    count_groups(pool, node, false);
    fill_node(node, from, &pool->config, labels);
    count_groups(pool, node, true);
    if (refresh_node(pool, node, err) == 0)
        return 0;
    if (is_new)
        delete_node(pool, node);
    else
        close_node(pool, node);
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

int scheduler_reserved(const struct scheduler *pool, const char *name,
                       struct sched_resources *reserved, struct error *err)
{
    const struct node *node = pool_find_node(pool, name);
    if (!node)
        return error_set(err, ERROR_NOT_FOUND, "no node '%s'", name);
    *reserved = node->reserved;
    return 0;
}

#include "scheduler/snapshot.h"

#include <stdlib.h>

#include "common/cleanup.h"
#include "scheduler/exits.h"
#include "scheduler/pool.h"

/* What config->look() and config->hot_ms() said. */
struct answers {
    struct snapshot snapshot; /* first, so that one is the other */
    struct plan_vm *vms;
    uint64_t *hot_ms;
    struct name_map of_vm, of_node; /* to them */
};

static void look(void *context, const char *vm, struct plan_vm *out)
{
    const struct answers *answers = context;
    const struct plan_vm *said = name_map_get(&answers->of_vm, vm);
    if (said) /* not one that is only asked about */
        *out = *said;
}

static uint64_t hot_ms(void *context, const char *node)
{
    const struct answers *answers = context;
    const uint64_t *said = name_map_get(&answers->of_node, node);
    return said ? *said : 0;
}

/* ---- copying ---- */

/* A node that takes nothing yet, so that the index is made once and not with every VM. */
static int set_node(struct scheduler *pool, const struct node *from, bool closed, struct error *err)
{
    auto_free struct sched_label *labels = calloc(from->label_count + 1, sizeof *labels);
    if (!labels)
        return error_set(err, ERROR_FAILED, "out of memory for a copy of the pool");
    for (size_t i = 0; i < from->label_count; i++)
        labels[i] = (struct sched_label){from->labels[i].key, from->labels[i].value};
    const struct sched_node node = {
        .name = from->name,
        .capacity = from->capacity,
        .used = from->used,
        .labels = labels,
        .label_count = from->label_count,
        .drained = closed || from->drained,
        .lost = from->lost,
    };
    if (scheduler_set_node(pool, &node, err) < 0)
        return -1;
    /* The limit is known, and what it came from is not. */
    struct node *copy = pool_find_node(pool, from->name);
    copy->limit = from->limit;
    pool_reindex_node(pool, copy);
    return 0;
}

/* In their order, which decides between equals. */
static int place_vms(struct scheduler *pool, const struct node *from, struct error *err)
{
    const struct vm *vm = from->vms;
    while (vm && vm->next)
        vm = vm->next;
    for (; vm; vm = vm->previous) {
        const struct sched_request request = pool_request_of(vm);
        if (scheduler_place(pool, &request, from->name, err) < 0)
            return -1;
    }
    return 0;
}

static struct scheduler *copy_pool(const struct scheduler *from, struct error *err)
{
    struct scheduler *pool = scheduler_new(&from->config, err);
    int status = pool ? 0 : -1;
    for (size_t i = 0; status == 0 && i < from->node_count; i++)
        status = set_node(pool, from->nodes[i], true, err);
    for (size_t i = 0; status == 0 && i < from->node_count; i++)
        status = place_vms(pool, from->nodes[i], err);
    if (status == 0)
        status = exits_copy(pool, from, err);
    for (size_t i = 0; status == 0 && i < from->node_count; i++)
        status = set_node(pool, from->nodes[i], false, err);
    if (status == 0)
        return pool;
    scheduler_free(pool);
    return NULL;
}

/* ---- asking ---- */

static int ask_node(struct answers *answers, const struct plan_config *config, size_t number,
                    struct error *err)
{
    const char *name = answers->snapshot.pool->nodes[number]->name;
    if (!config->hot_ms)
        return 0;
    answers->hot_ms[number] = config->hot_ms(config->context, name);
    return name_map_add(&answers->of_node, name, &answers->hot_ms[number], err);
}

static int ask_vms(struct answers *answers, const struct plan_config *config,
                   const struct node *node, size_t *number, struct error *err)
{
    for (const struct vm *vm = node->vms; vm; vm = vm->next) {
        struct plan_vm *said = &answers->vms[(*number)++];
        config->look(config->context, vm->name, said);
        if (name_map_add(&answers->of_vm, vm->name, said, err) < 0)
            return -1;
    }
    return 0;
}

static int ask(struct answers *answers, const struct plan_config *config, struct error *err)
{
    const struct scheduler *pool = answers->snapshot.pool;
    size_t number = 0;
    answers->vms = calloc(pool->vm_names.count + 1, sizeof *answers->vms);
    answers->hot_ms = calloc(pool->node_count + 1, sizeof *answers->hot_ms);
    if (!answers->vms || !answers->hot_ms)
        return error_set(err, ERROR_FAILED, "out of memory for a copy of the pool");
    for (size_t i = 0; i < pool->node_count; i++)
        if (ask_node(answers, config, i, err) < 0 ||
            (config->look && ask_vms(answers, config, pool->nodes[i], &number, err) < 0))
            return -1;
    return 0;
}

struct snapshot *snapshot_take(const struct scheduler *pool, const struct plan_config *config,
                               struct error *err)
{
    struct answers *answers = calloc(1, sizeof *answers);
    if (!answers) {
        (void)error_set(err, ERROR_FAILED, "out of memory for a copy of the pool");
        return NULL;
    }
    answers->snapshot.config = *config;
    answers->snapshot.config.context = answers;
    answers->snapshot.config.look = config->look ? look : NULL;
    answers->snapshot.config.hot_ms = config->hot_ms ? hot_ms : NULL;
    answers->snapshot.pool = copy_pool(pool, err);
    if (answers->snapshot.pool && ask(answers, config, err) == 0)
        return &answers->snapshot;
    snapshot_free(&answers->snapshot);
    return NULL;
}

void snapshot_free(struct snapshot *snapshot)
{
    if (!snapshot)
        return;
    struct answers *answers = snapshot->config.context;
    scheduler_free(snapshot->pool);
    name_map_free(&answers->of_vm);
    name_map_free(&answers->of_node);
    free(answers->vms);
    free(answers->hot_ms);
    free(answers);
}

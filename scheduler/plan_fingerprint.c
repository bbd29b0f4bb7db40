/*
 * plan_fingerprint.c: one number for the pool a plan was made for.
 *
 * Each node and each VM is hashed by itself (FNV-1a of its fields) and the hashes are added up, so
 * that the order does not matter and no sorting is needed.
 */
#include "scheduler/group.h"
#include "scheduler/plan.h"

#define FNV_BASIS UINT64_C(14695981039346656037)
#define FNV_PRIME UINT64_C(1099511628211)

static uint64_t mix_byte(uint64_t hash, unsigned byte)
{
    return (hash ^ byte) * FNV_PRIME;
}

static uint64_t mix_number(uint64_t hash, uint64_t number)
{
    for (int i = 0; i < 8; i++)
        hash = mix_byte(hash, (unsigned)(number >> (8 * i)) & 0xff);
    return hash;
}

/* The end counts too, so that "ab" "c" is not "a" "bc". */
static uint64_t mix_text(uint64_t hash, const char *text)
{
    for (; *text; text++)
        hash = mix_byte(hash, (unsigned char)*text);
    return mix_byte(hash, 0);
}

static uint64_t mix_resources(uint64_t hash, const struct sched_resources *r)
{
    return mix_number(mix_number(mix_number(hash, r->cpu_milli), r->memory_mib), r->bandwidth_bps);
}

/* Spreads what FNV leaves in the low bits before hashes are added. */
static uint64_t finish(uint64_t hash)
{
    hash ^= hash >> 33;
    hash *= UINT64_C(0xff51afd7ed558ccd);
    return hash ^ hash >> 33;
}

static uint64_t of_node(const struct node *node)
{
    uint64_t hash = mix_text(mix_byte(FNV_BASIS, 'n'), node->name);
    uint64_t labels = 0;
    hash = mix_resources(hash, &node->limit);
    hash = mix_byte(hash, (unsigned)node->drained * 2 + node->lost);
    for (size_t i = 0; i < node->label_count; i++)
        labels += finish(mix_text(mix_text(FNV_BASIS, node->labels[i].key), node->labels[i].value));
    return finish(mix_number(hash, labels));
}

static uint64_t of_vm(const struct vm *vm)
{
    uint64_t hash = mix_text(mix_byte(FNV_BASIS, 'v'), vm->name);
    hash = mix_resources(mix_text(hash, vm->node->name), &vm->need);
    for (int kind = 0; kind < GROUP_KINDS; kind++)
        hash = mix_text(hash, vm->groups[kind] ? vm->groups[kind]->id : "");
    hash = mix_number(hash, (uint64_t)vm->spread_skew * 2 + vm->anti_affinity_soft);
    hash = mix_text(hash, vm->tenant ? vm->tenant : "");
    for (size_t i = 0; i < vm->selector_count; i++)
        hash = mix_text(mix_text(hash, vm->selector[i].key), vm->selector[i].value);
    return finish(hash);
}

uint64_t scheduler_fingerprint(const struct scheduler *pool)
{
    uint64_t sum = (uint64_t)pool->config.policy;
    for (size_t i = 0; i < pool->node_count; i++) {
        sum += of_node(pool->nodes[i]);
        for (const struct vm *vm = pool->nodes[i]->vms; vm; vm = vm->next)
            sum += of_vm(vm);
    }
    return sum;
}

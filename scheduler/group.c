/* group.c: see group.h. */
#include "scheduler/group.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_FIRST 8

/* ---- members on each node ---- */

static size_t slot_of(const struct group *group, const struct node *node)
{
    return (size_t)((uint64_t)node->position * UINT64_C(0x9e3779b97f4a7c15) >> 20) &
           (group->slots - 1);
}

static struct tally *find_tally(const struct group *group, const struct node *node)
{
    size_t at = slot_of(group, node);
    while (group->tally[at].node && group->tally[at].node != node)
        at = (at + 1) & (group->slots - 1);
    return &group->tally[at];
}

size_t group_count(const struct group *group, const struct node *node)
{
    return group ? find_tally(group, node)->vms : 0;
}

/* At most three quarters of the slots are taken with @members on as many nodes. */
static int make_room(struct group *group, size_t members, struct error *err)
{
    size_t slots = group->slots ? group->slots : SLOTS_FIRST;
    while (members * 4 > slots * 3)
        slots *= 2;
    if (slots == group->slots)
        return 0;
    struct group larger = *group;
    larger.slots = slots;
    larger.tally = calloc(slots, sizeof *larger.tally);
    if (!larger.tally)
        return error_set(err, ERROR_FAILED, "out of memory for group %s", group->name);
    for (size_t i = 0; i < group->slots; i++)
        if (group->tally[i].node)
            *find_tally(&larger, group->tally[i].node) = group->tally[i];
    free(group->tally);
    *group = larger;
    return 0;
}

/* Closes the gap at @at: what was pushed on beyond it moves back. */
static void close_gap(struct group *group, size_t at)
{
    size_t mask = group->slots - 1;
    for (size_t next = (at + 1) & mask; group->tally[next].node; next = (next + 1) & mask) {
        size_t home = slot_of(group, group->tally[next].node);
        if (((next - home) & mask) >= ((next - at) & mask)) {
            group->tally[at] = group->tally[next];
            at = next;
        }
    }
    group->tally[at] = (struct tally){0};
}

static void count_domain(struct group *group, const struct node *node, size_t by)
{
    const struct domain *domain = group->key ? domain_of(group->key, node) : NULL;
    if (domain)
        group->in_domain[domain->index] += by;
}

void group_enter(struct group *group, struct node *node)
{
    if (!group)
        return;
    struct tally *tally = find_tally(group, node);
    tally->node = node;
    tally->vms++;
    group->members++;
    count_domain(group, node, 1);
}

void group_leave(struct group *group, struct node *node)
{
    if (!group)
        return;
    struct tally *tally = find_tally(group, node);
    group->members--;
    count_domain(group, node, SIZE_MAX); /* one less */
    if (--tally->vms == 0)
        close_gap(group, (size_t)(tally - group->tally));
}

/* ---- domains ---- */

struct label_key *domain_key(const struct scheduler *pool, const char *label)
{
    struct label_key *key = pool->label_keys;
    while (key && strcmp(key->name, label) != 0)
        key = key->next;
    return key;
}

struct domain *domain_of(const struct label_key *key, const struct node *node)
{
    const char *value = node_label(node, key->name);
    return value ? name_map_get(&key->values, value) : NULL;
}

/* One more domain of @key, with a count for it in each group. */
static int add_domain(struct label_key *key, const char *value, struct error *err)
{
    for (struct group *group = key->groups; group; group = group->key_next) {
        size_t *counts = reallocarray(group->in_domain, key->count + 1, sizeof *group->in_domain);
        if (!counts)
            return error_set(err, ERROR_FAILED, "out of memory for %s=%s", key->name, value);
        counts[key->count] = 0;
        group->in_domain = counts;
    }
    struct domain *domain = calloc(1, sizeof *domain);
    if (domain)
        domain->value = strdup(value);
    if (!domain || !domain->value) {
        free(domain);
        return error_set(err, ERROR_FAILED, "out of memory for %s=%s", key->name, value);
    }
    if (name_map_add(&key->values, domain->value, domain, err) < 0) {
        free(domain->value);
        free(domain);
        return -1;
    }
    domain->index = key->count++;
    domain->bit = label_bit(key->name, value);
    domain->next = key->domains;
    key->domains = domain;
    return 0;
}

static int prepare(struct label_key *key, const struct node *node, struct error *err)
{
    const char *value = node_label(node, key->name);
    return !value || name_map_get(&key->values, value) ? 0 : add_domain(key, value, err);
}

int domains_prepare(struct scheduler *pool, const struct node *node, struct error *err)
{
    for (struct label_key *key = pool->label_keys; key; key = key->next)
        if (prepare(key, node, err) < 0)
            return -1;
    return 0;
}

static void count_node(struct label_key *key, const struct node *node, int by)
{
    struct domain *domain = domain_of(key, node);
    if (domain)
        domain->open_nodes = by < 0 ? domain->open_nodes - 1 : domain->open_nodes + 1;
}

void domains_count(struct scheduler *pool, const struct node *node, int by)
{
    for (struct label_key *key = pool->label_keys; key; key = key->next)
        count_node(key, node, by);
}

static void free_key(struct label_key *key)
{
    for (struct domain *domain = key->domains, *next; domain; domain = next) {
        next = domain->next;
        free(domain->value);
        free(domain);
    }
    name_map_free(&key->values);
    free(key->name);
    free(key);
}

void domains_free(struct scheduler *pool)
{
    for (struct label_key *key = pool->label_keys, *next; key; key = next) {
        next = key->next;
        free_key(key);
    }
    pool->label_keys = NULL;
}

/* O(N), once for each label that groups are spread over. */
static struct label_key *ensure_key(struct scheduler *pool, const char *label, struct error *err)
{
    struct label_key *key = domain_key(pool, label);
    if (key)
        return key;
    key = calloc(1, sizeof *key);
    if (key)
        key->name = strdup(label);
    if (!key || !key->name) {
        free(key);
        (void)error_set(err, ERROR_FAILED, "out of memory for label %s", label);
        return NULL;
    }
    for (size_t i = 0; i < pool->node_count; i++) {
        const struct node *node = pool->nodes[i];
        if (prepare(key, node, err) < 0) {
            free_key(key);
            return NULL;
        }
        if (!node->drained && !node->lost)
            count_node(key, node, 1);
    }
    key->next = pool->label_keys;
    pool->label_keys = key;
    return key;
}

/* ---- groups by name ---- */

/* What a group is found by; @label: the one it is spread over. */
static void make_id(char out[GROUP_ID_MAX], const char *name, const char *label)
{
    (void)snprintf(out, GROUP_ID_MAX, "%s%s%s", name, label ? "\n" : "", label ? label : "");
}

struct group *group_find(const struct scheduler *pool, enum group_kind kind, const char *name,
                         const char *label)
{
    char id[GROUP_ID_MAX];
    if (!name || !*name)
        return NULL;
    make_id(id, name, label);
    return name_map_get(&pool->groups[kind], id);
}

static void free_group(struct group *group)
{
    free(group->tally);
    free(group->in_domain);
    free(group->id);
    free(group->name);
    free(group);
}

static int spread_over(struct scheduler *pool, struct group *group, const char *label,
                       struct error *err)
{
    struct label_key *key = ensure_key(pool, label, err);
    if (!key)
        return -1;
    group->in_domain = calloc(key->count + 1, sizeof *group->in_domain);
    if (!group->in_domain)
        return error_set(err, ERROR_FAILED, "out of memory for group %s", group->name);
    group->key = key;
    return 0;
}

static struct group *make_group(struct scheduler *pool, enum group_kind kind, const char *name,
                                const char *label, struct error *err)
{
    char id[GROUP_ID_MAX];
    make_id(id, name, label);
    struct group *group = calloc(1, sizeof *group);
    if (group) {
        group->name = strdup(name);
        group->id = strdup(id);
    }
    if (!group || !group->name || !group->id)
        (void)error_set(err, ERROR_FAILED, "out of memory for group %s", name);
    else if ((!label || spread_over(pool, group, label, err) == 0) &&
             name_map_add(&pool->groups[kind], group->id, group, err) == 0) {
        if (group->key) {
            group->key_next = group->key->groups;
            group->key->groups = group;
        }
        return group;
    }
    if (group)
        free_group(group);
    return NULL;
}

struct group *group_ensure(struct scheduler *pool, enum group_kind kind, const char *name,
                           const char *label, struct error *err)
{
    struct group *group = group_find(pool, kind, name, label);
    if (!group)
        group = make_group(pool, kind, name, label, err);
    if (group && make_room(group, group->members + 1, err) < 0) {
        group_drop_empty(pool, kind, group);
        return NULL;
    }
    return group;
}

void group_drop_empty(struct scheduler *pool, enum group_kind kind, struct group *group)
{
    if (!group || group->members)
        return;
    for (struct group **at = group->key ? &group->key->groups : NULL; at && *at;
         at = &(*at)->key_next)
        if (*at == group) {
            *at = group->key_next;
            break;
        }
    name_map_remove(&pool->groups[kind], group->id);
    free_group(group);
}

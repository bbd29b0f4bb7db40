/*
 * group.h: VMs that are placed with regard to each other, and the domains (racks, zones) that some
 * are spread over. Private to scheduler/.
 *
 * A group counts its VMs on each node, and, where it is spread, in each domain, so that asking
 * costs O(1) however many VMs are in it. Room for the counts is made when a VM joins and when a
 * domain appears: moving a VM cannot fail.
 */
#pragma once

#include "scheduler/pool.h"

/* The values a node label has had; each is a domain with an index that stays. Made for labels that
 * a group is spread over, and kept from then on. */
struct label_key {
    char *name;
    struct name_map values; /* of struct domain */
    struct domain *domains; /* a list */
    size_t count;
    struct group *groups; /* a list through group.key_next */
    struct label_key *next;
};

struct domain {
    char *value;
    size_t index;
    size_t open_nodes; /* neither drained nor lost */
    uint64_t bit;      /* label_bit() */
    struct domain *next;
};

/* VMs on one node; node is NULL in a free slot. */
struct tally {
    struct node *node;
    size_t vms;
};

struct group {
    char *id;   /* in the map of its kind: the name, with the label where it is spread */
    char *name; /* as requests have it */
    size_t members;
    struct tally *tally; /* open addressing, by the node's position; a power of two of slots */
    size_t slots;
    struct label_key *key; /* of a spread group; NULL: none */
    size_t *in_domain;     /* members by index of domain; as long as the key has domains */
    struct group *key_next;
};

/* How many of the group's VMs @node holds; @group may be NULL. */
size_t group_count(const struct group *group, const struct node *node);

/* NULL where there is none, or no member in it. */
struct group *group_find(const struct scheduler *pool, enum group_kind kind, const char *name,
                         const char *label);
/* The group, made where it is missing, with room for one more member. */
struct group *group_ensure(struct scheduler *pool, enum group_kind kind, const char *name,
                           const char *label, struct error *err);
/* Frees a group that has no member. */
void group_drop_empty(struct scheduler *pool, enum group_kind kind, struct group *group);

/* A member comes to @node, or leaves it. */
void group_enter(struct group *group, struct node *node);
void group_leave(struct group *group, struct node *node);

/* NULL: no group is spread over it. */
struct label_key *domain_key(const struct scheduler *pool, const char *label);
/* Where @node is by that label; NULL: it lacks it. */
struct domain *domain_of(const struct label_key *key, const struct node *node);
/* Makes the domains that @node's labels name. Call before the node and its VMs are counted in. */
int domains_prepare(struct scheduler *pool, const struct node *node, struct error *err);
/* Counts an open node in or out (@by is 1 or -1) where it is. */
void domains_count(struct scheduler *pool, const struct node *node, int by);
void domains_free(struct scheduler *pool);

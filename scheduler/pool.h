/* pool.h: the pool as the scheduler believes it to be. Private to scheduler/. */
#pragma once

#include "common/name_map.h"
#include "scheduler/lifetimes.h"
#include "scheduler/point.h"

/* The longest name of a group, or of a label that it is spread over. */
#define GROUP_NAME_MAX 256
#define GROUP_ID_MAX   (2 * GROUP_NAME_MAX + 2)

/* Set in label_bits of a node that is kept for a tenant; no label has it. */
#define DEDICATED_BIT UINT64_C(1)

enum group_kind { GROUP_ANTI_AFFINITY, GROUP_AFFINITY, GROUP_SPREAD, GROUP_KINDS };

struct state;
struct group;
struct label_key;
struct tree;

struct label {
    char *key;
    char *value;
};

struct node {
    char name[SCHED_NAME_MAX];
    size_t position; /* the order of being added; never given again */
    struct sched_resources capacity;
    struct sched_resources limit; /* what reservations may reach: (capacity - reserve) x overcommit
                                   */
    struct sched_resources reserved;
    struct sched_resources used;
    struct label *labels;
    size_t label_count;
    uint64_t label_bits; /* label_bit() of each, or'ed, and DEDICATED_BIT */
    struct point point;  /* of reserved, kept up to date */
    struct state *state; /* in the index; NULL: takes no VM */
    struct node *state_left, *state_right;
    bool drained;
    bool lost;
    uint32_t exit_slot; /* when its VMs are expected to leave (exits.h); 0: not known */
    struct vm *vms;     /* a list through vm.next */
    size_t vm_count;
};

struct vm {
    char *name;
    struct node *node;
    struct sched_resources need;
    struct sched_label *selector; /* one allocation with its texts */
    size_t selector_count;
    char *tenant;                      /* NULL: none */
    struct group *groups[GROUP_KINDS]; /* NULL: none */
    uint32_t spread_skew;
    bool anti_affinity_soft;
    uint64_t since_s;
    uint64_t exit_s;    /* is expected to leave then */
    struct guess guess; /* when it came */
    unsigned moves;     /* of the plan that is being made */
    struct vm *next, *previous;
};

struct scheduler {
    struct sched_config config;
    struct node **nodes; /* in the order they were added */
    size_t node_count, node_space;
    size_t next_position;
    struct tree *tree; /* of the nodes that are neither drained nor lost */
    struct name_map node_names;
    struct name_map vm_names;
    struct name_map groups[GROUP_KINDS];
    struct label_key *label_keys; /* a list: those that groups are spread over */
    uint64_t now_s;
    struct lifetimes *lifetimes; /* NULL: the policy does not ask */
    bool uses_exits;             /* forecasts are good enough to act on */
};

/* Whether it takes VMs at all. */
static inline bool node_is_open(const struct node *node)
{
    return !node->drained && !node->lost;
}

struct node *pool_find_node(const struct scheduler *pool, const char *name);
struct vm *pool_find_vm(const struct scheduler *pool, const char *name);
/* What the VM would ask for if it had to be placed again. */
struct sched_request pool_request_of(const struct vm *vm);
/* Moves a VM that is placed. */
void pool_move_vm(struct scheduler *pool, struct vm *vm, struct node *node);
/* While it is hidden the node takes no VM, as if it were drained. Not for drained ones. */
int pool_hide_node(struct scheduler *pool, struct node *node, bool hidden, struct error *err);
/* Makes the index agree with what is reserved on @node now. */
void pool_reindex_node(struct scheduler *pool, struct node *node);
/* Figures that no machine has are ERROR_USAGE, so that sums cannot overflow. */
int pool_check_resources(const struct sched_resources *r, const char *what, struct error *err);
/* One bit for a label, never DEDICATED_BIT: what a node's bits lack, the node lacks. */
uint64_t label_bit(const char *key, const char *value);
/* The value a node's label has, or NULL. */
const char *node_label(const struct node *node, const char *key);

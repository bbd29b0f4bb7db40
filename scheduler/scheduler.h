/*
 * scheduler.h: where a VM should live. A pure library: no I/O, no clock, no globals; what time it
 * is and what was measured is told to it. The controller and the simulator call the same functions.
 *
 * A scheduler holds the pool as it believes it to be: nodes with capacity and measured use, and VMs
 * with their reservations. Filters say no with a reason that is kept; scores rank the rest. Equal
 * scores go to the node added first, so the same calls give the same decisions.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

struct scheduler;

#define SCHED_NAME_MAX 64

/* The three dimensions. CPU counts in thousandths of a vCPU, so measured use fits beside reserved.
 */
struct sched_resources {
    uint64_t cpu_milli;
    uint64_t memory_mib;
    uint64_t bandwidth_bps;
};

struct sched_label {
    const char *key;
    const char *value;
};

enum sched_policy {
    SCHED_PACK,    /* fill what is filled: the mean of the three */
    SCHED_SPREAD,  /* keep the fullest dimension of any host low */
    SCHED_BALANCE, /* use up CPU, memory and bandwidth together */
    SCHED_BEST,    /* fewest hosts in measurements: fill the fullest memory */
};
#define SCHED_POLICIES 4

struct sched_config {
    enum sched_policy policy;
    /* Reservations may reach capacity x ratio, in percent; 0 means 100. */
    uint32_t cpu_overcommit_percent;
    uint32_t memory_overcommit_percent;
    uint32_t bandwidth_overcommit_percent;
};

/* A node with this label is kept for VMs of the tenant that its value names. */
#define SCHED_DEDICATED_LABEL "dedicated"

struct sched_node {
    const char *name;
    struct sched_resources capacity;  /* the host's */
    struct sched_resources reserve;   /* of it kept for the host itself, before any overcommit */
    struct sched_resources used;      /* measured or forecast by the caller */
    const struct sched_label *labels; /* racks and zones, too */
    size_t label_count;
    bool drained; /* takes no new VM */
    bool lost;    /* not heard of: takes no new VM */
};

struct sched_request {
    const char *vm; /* the VM's name; for a migration it is placed already and its own share is not
                       counted twice */
    struct sched_resources need;
    const struct sched_label *selector; /* the node must carry each of them */
    size_t selector_count;
    const char *only_node; /* NULL: any */
    const char *not_node;  /* NULL: any; a migration's source */
    /* Of groups and tenant, NULL or "" is none. */
    const char *anti_affinity_group; /* no two VMs of a group on one node */
    bool anti_affinity_soft;         /* as few as can be, rather than none */
    const char *affinity_group;      /* where a VM of the group is, if one is placed */
    const char *spread_group;        /* with @spread_label: no domain, that is value of this label
                                        on open nodes, may have more than @spread_skew VMs of the
                                        group beyond what the domain with the fewest has */
    const char *spread_label;
    uint32_t spread_skew; /* 0 means 1 */
    const char *tenant;   /* may use nodes dedicated to this tenant besides open ones */
    uint64_t since_s;     /* of a VM that is placed: it has been there since; 0: comes now */
};

struct sched_verdict {
    char node[SCHED_NAME_MAX];
    bool fits;
    double score;     /* larger is better; only where it fits */
    char filter[24];  /* "node", "drained", "lost", "dedicated", "label", "affinity",
                         "anti-affinity", "spread", "memory", "cpu", "bandwidth" */
    char reason[160]; /* for people: "lacks memory: needs 2G, 512M free" */
    char change[256]; /* all that would have to change: "with 1.5G less memory and without group
                         db" */
};

struct sched_decision {
    char node[SCHED_NAME_MAX]; /* empty: no host fits */
    char summary[512];         /* one sentence: why this one, or what is missing and the closest */
    struct sched_verdict
        *verdicts; /* one a node, in the order the nodes were added; only from explain */
    size_t verdict_count;
};

/* "pack", "spread", "balance", "best" */
const char *sched_policy_name(enum sched_policy policy);
/* Reads such a word; anything else is ERROR_USAGE and names the words there are. */
int sched_policy_parse(const char *word, enum sched_policy *policy, struct error *err);

struct scheduler *scheduler_new(const struct sched_config *config, struct error *err);
void scheduler_free(struct scheduler *scheduler);

/* Adds a node or replaces what is known of it; its VMs stay. */
int scheduler_set_node(struct scheduler *scheduler, const struct sched_node *node,
                       struct error *err);
/* A node that still holds VMs is ERROR_CONFLICT. */
int scheduler_remove_node(struct scheduler *scheduler, const char *name, struct error *err);

/* Records that @request->vm holds its reservation on @node; a VM placed elsewhere moves. Does not
 * ask whether it fits: reality is recorded as it is. */
int scheduler_place(struct scheduler *scheduler, const struct sched_request *request,
                    const char *node, struct error *err);
/* Gives a VM's reservation back; unknown VMs are fine. */
void scheduler_remove_vm(struct scheduler *scheduler, const char *vm);
/* A VM that asked for @request has ended, or is about to be removed, after @lifetime_s: how long
 * VMs of its kind stay is learned from it. */
void scheduler_note_lifetime(struct scheduler *scheduler, const struct sched_request *request,
                             uint64_t lifetime_s);

/* What time it is, in seconds of a clock that @since_s of requests is of, too; never goes back.
 * Costs O(VMs) four times an hour and nothing in between. */
void scheduler_set_time(struct scheduler *scheduler, uint64_t now_s);
/* The share of the variance of lifetimes' logarithms that forecasts of late explained, 0 to 1;
 * *used: it is enough for SCHED_BEST to place by them. */
double scheduler_lifetimes_explained(const struct scheduler *scheduler, bool *used);

/* Whether the rules of a request can be kept at all: names that are too long, a spread without its
 * label and rules that contradict each other are ERROR_USAGE. Choosing asks the same. */
int sched_request_check(const struct sched_request *request, struct error *err);

/* Chooses a node and fills @decision (no verdicts). Returns 0, or -1 with ERROR_NO_CAPACITY and the
 * summary as text. Rules that contradict each other are ERROR_USAGE. Nothing is reserved. */
int scheduler_choose(const struct scheduler *scheduler, const struct sched_request *request,
                     struct sched_decision *decision, struct error *err);
/* The same decision with a verdict for each node; free with sched_decision_free(). */
int scheduler_explain(const struct scheduler *scheduler, const struct sched_request *request,
                      struct sched_decision *decision, struct error *err);
void sched_decision_free(struct sched_decision *decision);

/* Sum of the reservations on a node. */
int scheduler_reserved(const struct scheduler *scheduler, const char *node,
                       struct sched_resources *reserved, struct error *err);

/* ---- planning: nothing is changed, the caller decides ---- */

struct sched_move {
    const char *vm; /* these names live as long as the VM and the nodes do */
    const char *from;
    const char *to;
    uint64_t memory_mib; /* to be copied, each page at least once */
};

struct sched_plan {
    const char *node; /* where the request fits once the moves are made */
    struct sched_move *moves;
    size_t count;
};

/* For a request that fits nowhere: the fewest moves of VMs between hosts (at most @move_max) found
 * after which it fits; each VM that moves keeps its own rules. Made in order, each fits where it
 * goes. Looks at the hosts that are closest to fitting, so it may miss a plan, and costs O(N).
 * ERROR_NO_CAPACITY where none was found. Free @plan with sched_plan_free(). */
int scheduler_make_room(struct scheduler *scheduler, const struct sched_request *request,
                        size_t move_max, struct sched_plan *plan, struct error *err);
void sched_plan_free(struct sched_plan *plan);

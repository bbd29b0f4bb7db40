/*
 * sim-agent.h: agents that are not there: they speak node.proto over the real link, and their VMs
 * are entries of a table. For the controller's tests and for load (bench/).
 *
 * What a real agent promises is kept: a repeated command gets its old answer and does nothing, an
 * epoch lower than one seen is refused, a migration takes the steps of docs/architecture.md. A
 * network of agents watches the invariant over all of them: no VM runs twice.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/link.h"
#include "common/loop.h"
#include "proto/node.pb-c.h"

struct sim_agent;

/* The agents that reach each other. */
struct sim_net {
    struct loop *loop;
    struct link_context *link_context; /* NULL: each agent has its own */
    struct sim_agent *agents;
    unsigned step_ms; /* between two steps of a migration */
    unsigned twice;   /* times that a VM was seen to run on two agents: must stay 0 */
    unsigned next_port;
};

/* Where a migration stops by itself, as if the next word were lost. */
enum sim_stage {
    SIM_NOWHERE,
    SIM_PRECOPY,  /* streams for ever */
    SIM_READY,    /* target is ready, the source never hears it and stays paused */
    SIM_GAVE_UP,  /* the source gave up, its GO is lost */
    SIM_POSTCOPY, /* the guest runs at the target; pages come with sim_pages_come() */
};

struct sim_vm {
    struct sim_vm *next;
    char id[40], name[64];
    uint64_t epoch; /* of the copy, as reported */
    Vmpool__VmState state;
    char migration_id[40];
    Vmpool__MigrationPhase phase;
    char text[128];
    /* of a source */
    struct sim_agent *target;
    struct loop_source *timer;
    uint64_t next_epoch;
    unsigned round;
    struct sim_agent *owner;
    const Vmpool__VmUsage *usage; /* what it reports of it; NULL: nothing */
};

struct sim_seen {
    struct sim_seen *next;
    char vm_id[40];
    uint64_t epoch;
};

struct sim_answer {
    struct sim_answer *next;
    uint64_t request_id;
    uint8_t *data;
    size_t size;
};

struct sim_agent {
    struct sim_agent *next;
    struct sim_net *net;
    char name[64];
    struct link_keys keys;
    struct link_token token;
    struct link_client *link;
    bool joined, connected, welcomed;
    uint64_t hello_count;
    char refused[ERROR_TEXT_MAX]; /* the controller's or the link's last refusal */
    char boot_id[40];
    uint32_t cpus;
    uint64_t memory_mib, bandwidth_bps;
    uint64_t report_interval_ms;
    struct loop_source *report_timer;
    uint64_t sequence;
    uint32_t baseline_bytes;
    uint8_t *cpuid;
    size_t cpuid_size;
    unsigned port;

    /* Survive a crash of the agent, not of its host. */
    struct sim_vm *vms;
    struct sim_seen *seen;
    /* Do not. */
    struct sim_answer *answers;

    /* What it counts. */
    unsigned starts, repeats, removes, kills, discards, buttons, outs, prepares, runs, cancels;

    /* How it misbehaves. */
    uint32_t refuse_start; /* an enum error_kind; 0: starts */
    uint32_t refuse_prepare;
    bool ignore_button;
    bool no_answers;        /* does what it is told and says nothing of it */
    bool no_events;         /* and nothing that happens by itself, but for its reports */
    enum sim_stage stop_at; /* of migrations out */
};

void sim_net_init(struct sim_net *net, struct loop *loop);
/* Stops all agents and frees them. */
void sim_net_free(struct sim_net *net);

/* Adds an agent; it joins by @token and stays. */
struct sim_agent *sim_agent_new(struct sim_net *net, const char *name, const char *token);
/* What a sim_agent_known() says of itself; points into @agent. */
void sim_agent_facts(const struct sim_agent *agent, Vmpool__NodeFacts *facts);
/* Adds an agent that the controller at @address knows already by @keys; not started. */
struct sim_agent *sim_agent_known(struct sim_net *net, const char *name, const char *address,
                                  const uint8_t server_key[32], const struct link_keys *keys);
/* Connects, or does so again after sim_agent_stop(). */
void sim_agent_start(struct sim_agent *agent);
/* The agent's process ends; its VMs run on, its memory of answers is lost. */
void sim_agent_stop(struct sim_agent *agent);
/* The host loses power: the VMs too. Start it again with sim_agent_start(). */
void sim_agent_power_off(struct sim_agent *agent);

struct sim_vm *sim_agent_vm(const struct sim_agent *agent, const char *name);
/* Something happens to a VM by itself; an event is sent. */
void sim_vm_becomes(struct sim_agent *agent, struct sim_vm *vm, Vmpool__VmState state);
/* All pages of a post-copy have come: both ends are done. */
void sim_pages_come(struct sim_agent *agent, struct sim_vm *vm);
/* The VMM's process vanishes. */
void sim_vm_vanishes(struct sim_agent *agent, struct sim_vm *vm);
bool sim_runs(const struct sim_vm *vm);
/* Copies of a VM that run, over all agents. */
unsigned sim_net_running(const struct sim_net *net, const char *name);

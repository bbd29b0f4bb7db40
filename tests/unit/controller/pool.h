/*
 * pool.h: a controller, simulated agents and an admin, in one loop, for tests of the whole.
 */
#pragma once

#include "bench/sim-agent.h"
#include "controller/controller.h"
#include "controller/jobs.h"
#include "proto/admin.pb-c.h"

struct pool {
    struct loop *loop;
    struct config config;
    char state_dir[64], listen[64];
    struct controller *controller; /* NULL: runs elsewhere, or is stopped */
    struct sim_net net;

    struct link_client *admin;
    bool admin_connected;
    unsigned requests;
    Vmpool__AdminReply *replies[4096]; /* all that came, in order */
    unsigned reply_count;
};

/* A pool of @agents nodes "n1", "n2", ... that report. */
void pool_open(struct pool *pool, unsigned agents);
void pool_close(struct pool *pool);
/* Stops the controller as kill -9 would: nothing is committed or sent any more; and starts it. */
void pool_kill_controller(struct pool *pool);
void pool_start_controller(struct pool *pool);

struct sim_agent *pool_agent(struct pool *pool, const char *name);
char *pool_token(struct pool *pool);
struct sim_agent *pool_join(struct pool *pool, const char *name);

/* Runs the loop until @done says so, at most 10 s; false where it did not. */
typedef bool (*pool_done_fn)(struct pool *pool, const void *what);
bool pool_until(struct pool *pool, pool_done_fn done, const void *what);
/* Runs it for a while. */
void pool_run(struct pool *pool, int ms);

/* Sends a request (its version and id are filled in where unset) and awaits the last reply to it,
 * which lives as long as the pool. */
const Vmpool__AdminReply *pool_ask(struct pool *pool, Vmpool__AdminRequest *request);
/* Sends it and does not wait; returns its id, valid until the next request. */
const char *pool_send(struct pool *pool, Vmpool__AdminRequest *request);
const Vmpool__AdminReply *pool_reply(const struct pool *pool, const char *request_id);

/* Imports an image "debian" of a small ELF-like kernel. */
void pool_import_image(struct pool *pool);
/* Creates a VM and waits for its job's end; the job as it ended. */
const Vmpool__AdminReply *pool_create(struct pool *pool, const char *name, const char *on_node);
const Vmpool__AdminReply *pool_change(struct pool *pool, const char *name,
                                      Vmpool__VmChange__Action action, bool force);
/* Begins a migration; its job's id, or 0. */
uint64_t pool_migrate(struct pool *pool, const char *name, const char *to);
/* Waits for a job's end. */
struct job *pool_job_end(struct pool *pool, uint64_t id);
const struct vm *pool_vm(struct pool *pool, const char *name);
bool pool_await_phase(struct pool *pool, const char *name, Vmpool__VmPhase phase);
bool pool_await_node_phase(struct pool *pool, const char *name, Vmpool__NodePhase phase);

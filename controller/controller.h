/*
 * controller.h: the controller's parts, and the turn they work in.
 *
 * The tables in memory are what the store holds plus what the agents last said. A turn of the event
 * loop changes tables and store together and queues messages; at its end the store is committed,
 * and only then are the messages sent (outbox.h). So nothing is ever said or done that a restart
 * would not know of, and a hundred requests that arrive together cost one commit.
 *
 * Where the store can't be written, whoever asked is told so and the controller starts anew from
 * the store: what was not committed has not happened.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/link.h"
#include "common/loop.h"
#include "common/name_map.h"
#include "controller/config.h"
#include "controller/store.h"
#include "scheduler/scheduler.h"

struct node;
struct vm;
struct job;
struct image;
struct api;
struct complaint;
struct console;
struct images;
struct keys;
struct metrics_http;
struct outbox;
struct planner;
struct pool_cpu;
struct rebalance;
struct request;
struct stream;
struct tallies;

struct controller {
    struct config config;
    struct loop *loop;
    struct store *store;
    struct link_server *link;
    struct link_keys own_keys;
    char address[300]; /* advertised */
    struct scheduler *scheduler;
    struct loop_source *tick;
    struct loop_source *turn_end; /* set while something waits for the end of the turn */
    bool store_failed;            /* whoever runs the loop closes this one and opens another */
    int64_t started_wall_ms;
    struct rebalance *rebalance;
    struct planner *planner;
    int64_t checked_ms; /* when nodes were last looked at */

    struct node *nodes; /* by age */
    struct name_map nodes_by_name, nodes_by_id;
    struct vm *vms;
    struct name_map vms_by_name, vms_by_id, vms_by_mac;
    struct job *jobs; /* running and recently ended, newest first */
    bool jobs_moved;  /* since migrate_queue_advance() looked at them, or nodes came or went */
    uint64_t next_job, next_event, next_departure;
    uint64_t next_request; /* of commands that belong to no job */

    struct stream *streams;
    struct request *requests;
    struct console *consoles;

    struct outbox *outbox;
    struct keys *keys;
    struct pool_cpu *cpu;
    struct images *images;
    struct api *api;
    struct complaint *complaints;
    struct tallies *tallies;
    struct metrics_http *metrics; /* NULL: not served */
};

/* Opens the store, resumes jobs and listens. @config's strings must live as long. */
struct controller *controller_open(const struct config *config, struct loop *loop,
                                   struct error *err);
/* Frees it; VMs and agents go on. */
void controller_close(struct controller *controller);
/* Something was changed or queued: commit and send at the end of this turn. */
void controller_touch(struct controller *controller);
/* Says in the log what a peer with a known key did wrong, at most once per peer and 10 s. */
void controller_complain(struct controller *controller, const struct link_peer *peer,
                         const char *text);

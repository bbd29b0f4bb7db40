/*
 * harness.h: a controller of a few lines over the real link, and an agent in the same loop, in a
 * network namespace of their own.
 */
#pragma once

#include <stdbool.h>

#include "common/link.h"
#include "node-agent/agent/agent.h"
#include "proto/node.pb-c.h"

#define HARNESS_INBOX_MAX 4096

struct harness {
    char root[64]; /* temporary folder with state, run and storage below */
    struct loop *loop;
    struct link_server *server;
    struct link_keys server_keys, token_keys;
    char token[1024];
    bool token_used;
    uint8_t node_key[32];
    bool node_known;
    struct link_peer node;
    uint64_t report_interval_ms;
    bool silent_join; /* swallow the JOIN after noting the node: the answer is lost */

    /* The one image file it has, and how it sends it. */
    uint8_t *image;
    size_t image_bytes;
    char image_sha256[65];
    unsigned pieces_asked;
    unsigned pieces_withheld; /* so many are not sent */
    bool image_corrupt, image_short, image_wrong_total, image_absent;

    /* Everything the agent sent, in order; unpacked, freed by harness_stop(). */
    Vmpool__NodeToController *inbox[HARNESS_INBOX_MAX];
    size_t inbox_count;

    struct agent_options options;
    char paths[4][96];
    struct agent agent;
    bool agent_runs;
};

/* Enters a network namespace of the test's own with lo up; false where the kernel does not let us,
 * and the test should be skipped. */
bool harness_enter_network(void);

/* Opens the controller's end and prepares options for an agent. */
void harness_open(struct harness *harness);
void harness_close(struct harness *harness);
/* Starts the agent with @token or NULL. -1 as agent_start(). */
int harness_start_agent(struct harness *harness, const char *token, struct error *err);
/* Ends the agent as SIGTERM does. */
void harness_stop_agent(struct harness *harness);
/* Ends the controller, and makes a new one with the same keys on the same port. */
void harness_drop_controller(struct harness *harness);
void harness_restore_controller(struct harness *harness);

/* Runs the loop until the agent sent a message of @body_case with index >= @from, at most 10 s;
 * its index, or -1. */
int harness_wait(struct harness *harness, size_t from,
                 Vmpool__NodeToController__BodyCase body_case);
/* Runs the loop until @done(context) or @limit_ms passed; whether it came true. */
bool harness_until(struct harness *harness, int limit_ms, bool (*done)(struct harness *harness));
void harness_send(struct harness *harness, const Vmpool__ControllerToNode *message);
/* Makes the image of @bytes pseudo-random bytes, and its hash. */
void harness_make_image(struct harness *harness, size_t bytes);
/* A VM that boots that image; changed by the caller, valid until the next call. */
Vmpool__VmSpec *harness_spec(struct harness *harness, const char *id, const char *name);
/* Sends a start of @spec; its request id. */
uint64_t harness_send_start(struct harness *harness, uint64_t request_id, Vmpool__VmSpec *spec,
                            uint64_t epoch);
void harness_send_action(struct harness *harness, uint64_t request_id, const char *id,
                         uint64_t epoch, Vmpool__NodeVmCommand__Action action);
/* Waits for a report or event that shows VM @id in @state; NULL after 10 s. */
const Vmpool__NodeVm *harness_wait_state(struct harness *harness, size_t from, const char *id,
                                         Vmpool__VmState state);
/* Waits for the answer to @request_id; fails the test where none comes within 10 s. */
const Vmpool__NodeAnswer *harness_answer(struct harness *harness, uint64_t request_id);

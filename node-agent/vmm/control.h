/*
 * control.h: the control socket: proto/vmm.proto over a Unix SOCK_SEQPACKET socket.
 *
 * Who can open the socket may command the VM; the socket's owner and mode are the agent's affair. A
 * packet that is no request, or too large, ends its connection. Nobody is waited for: who does not
 * read his answers loses the connection. Events are states, not deltas, so one who does not keep up
 * with them misses some, and gets one of the latest state once there is room.
 */
#pragma once

#include <stdint.h>

#include "common/error.h"
#include "common/loop.h"
#include "proto/vmm.pb-c.h"

#define CONTROL_PACKET_MAX 65536u
#define CONTROL_CLIENTS    32u

struct control;

/* Names a request that is answered later; request_id 0: an event to one client. */
struct control_ticket {
    uint64_t client;
    uint64_t request_id;
};

struct control_events {
    /* One request; answer it now or later by control_answer(). */
    void (*request)(void *context, const struct control_ticket *ticket,
                    const Vmpool__VmmRequest *request);
    /* Send @ticket an event: it missed some. */
    void (*missed)(void *context, const struct control_ticket *ticket);
    void *context;
};

/* @listen_fd is taken over. */
struct control *control_new(struct loop *loop, int listen_fd, const struct control_events *events,
                            struct error *err);
void control_free(struct control *control);

/* Sends @reply, whose request_id is set here. A client that has left is no error. */
void control_answer(struct control *control, const struct control_ticket *ticket,
                    Vmpool__VmmReply *reply);

/* Sends @reply as an event to everybody connected. */
void control_broadcast(struct control *control, Vmpool__VmmReply *reply);

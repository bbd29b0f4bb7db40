/*
 * link_socket.h: what both ends of a link share: a ZeroMQ socket on our event loop.
 *
 * ZMQ_FD is edge-triggered: it says that *something* happened since ZMQ_EVENTS was last read, and
 * reading ZMQ_EVENTS, sending and receiving each swallow that edge (zmq_getsockopt(3), ZMQ_FD). So
 * the socket is read until it is empty, looked at again after each send, and once when it is
 * attached. A busy socket gives way to the rest of the loop after LINK_BATCH messages and goes on
 * in the next round.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/loop.h"

#define LINK_BATCH 64

enum link_read {
    LINK_READ_NONE, /* the socket is empty */
    LINK_READ_ONE,
    LINK_READ_CLOSED, /* the link was closed meanwhile and is freed */
};
/* Reads one message off the socket. */
typedef enum link_read (*link_socket_fn)(void *context);

struct link_socket {
    void *zmq;
    struct loop *loop;
    struct loop_source *watch;
    struct loop_source *again; /* a timer of 0 ms while there is more to read */
    link_socket_fn read_one;
    void *context;
};

/* Puts @zmq on the loop; the socket stays the caller's until link_socket_close(). */
int link_socket_attach(struct link_socket *socket, struct loop *loop, void *zmq,
                       link_socket_fn read_one, void *context, struct error *err);
/* To be called after each send on the socket. */
void link_socket_sent(struct link_socket *socket);
/* Takes it off the loop and closes the ZeroMQ socket. Not attached is fine. */
void link_socket_close(struct link_socket *socket);

/* CURVE, limits and heartbeats that both ends use. */
int link_socket_limits(void *zmq, struct error *err);
int link_option_int(void *zmq, int option, int value, struct error *err);
int link_option_bytes(void *zmq, int option, const void *value, size_t size, struct error *err);

/* Reads "host:port" into ZeroMQ's form "tcp://host:port"; port 0 only where @server. Sets ZMQ_IPV6
 * for a host in brackets. */
int link_endpoint(const char *address, bool server, void *zmq, char *out, size_t size,
                  struct error *err);

/* Opens the monitor of @zmq and attaches it. */
int link_monitor_attach(struct link_socket *monitor, struct loop *loop, void *zmq_context,
                        void *zmq, int events, link_socket_fn read_one, void *context,
                        struct error *err);
/* Reads one event off a monitor. */
bool link_monitor_read(struct link_socket *monitor, uint16_t *event, uint32_t *value);

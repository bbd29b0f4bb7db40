/*
 * channel.h: one connection of a migration: a non-blocking socket, its two seals and buffers.
 *
 * Page connections are served by a thread each, which waits inside channel_write() and
 * channel_need(); a stop descriptor that becomes readable ends any wait. The control connection is
 * served by the engine's poll loop: channel_queue(), channel_flush(), channel_fill() and
 * channel_next() never wait.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "common/error.h"
#include "node-agent/migration/seal.h"
#include "node-agent/migration/stream.h"

#define CHANNEL_IN_BYTES (STREAM_HEADER_BYTES + STREAM_PAYLOAD_MAX + STREAM_TAG_BYTES)

struct channel {
    int fd;            /* -1: none */
    int stop_fd;       /* the caller's */
    struct seal *seal; /* of what is sent; NULL: plain */
    struct seal *open; /* of what is received */
    uint8_t *in;       /* CHANNEL_IN_BYTES; [in_start, in_end) is unread */
    size_t in_start, in_end;
    uint8_t *out; /* queued frames; [out_start, out_end) is unsent */
    size_t out_start, out_end, out_size;
    _Atomic uint64_t sent, received; /* bytes the kernel took and gave */
    uint64_t waited_ns;              /* in channel_write(), for the kernel to take more */
};

/* Takes over @fd, which becomes non-blocking. channel_close() is harmless on a zeroed channel whose
 * fd is -1. */
int channel_open(struct channel *channel, int fd, int stop_fd, struct error *err);
void channel_close(struct channel *channel);

/* Connects to a numeric address within @timeout_ms; returns the descriptor or -1. */
int channel_connect(const char *host, uint16_t port, uint64_t timeout_ms, int stop_fd,
                    struct error *err);
/* TCP: no delay, keepalive, and a dead peer noticed after @dead_ms without an acknowledgement. */
void channel_tune(int fd, uint64_t dead_ms);

/* Waits for POLLIN or POLLOUT, the stop descriptor (error) or @deadline_ns (error TIMEOUT; 0: no
 * deadline). */
int channel_wait(int fd, short events, int stop_fd, int64_t deadline_ns, struct error *err);

/* Sends all; waits as long as it takes. @parts is changed. */
int channel_write(struct channel *channel, struct iovec *parts, size_t count, struct error *err);
/* Reads straight into @parts; waits as long as it takes. */
int channel_read(struct channel *channel, struct iovec *parts, size_t count, struct error *err);
/* Waits until @bytes are unread in @in, and reads at most @ahead more with them. 1, or 0 where the
 * peer closed before the first of them, or -1. */
int channel_need(struct channel *channel, size_t bytes, size_t ahead, struct error *err);

/* Puts a frame into the out queue, sealed. */
int channel_queue(struct channel *channel, const struct frame *frame, const void *payload,
                  struct error *err);
/* Sends what the kernel takes now of the queue. */
int channel_flush(struct channel *channel, struct error *err);
static inline bool channel_has_queued(const struct channel *channel)
{
    return channel->out_start < channel->out_end;
}

/* Receives what is there: 1 something came, 0 nothing now, -1 closed or failed. */
int channel_fill(struct channel *channel, struct error *err);
/* Takes the next whole frame out of @in, opened: 1, and @payload stays valid until the next fill;
 * 0 not there yet; -1 refused. */
int channel_next(struct channel *channel, enum stream_path path, struct frame *frame,
                 const uint8_t **payload, struct error *err);

static inline size_t channel_tag_bytes(const struct channel *channel)
{
    return channel->open ? STREAM_TAG_BYTES : 0;
}

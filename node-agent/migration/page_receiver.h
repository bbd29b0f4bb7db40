/*
 * page_receiver.h: the page streams of a target: a thread each, which puts pages straight into the
 * guest's RAM. Nothing that comes is trusted: frames are bounded by stream.h, and pages by RAM.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "node-agent/migration/channel.h"
#include "node-agent/migration/codec.h"
#include "node-agent/migration/demand.h"
#include "node-agent/migration/guest.h"
#include "node-agent/migration/migration.h"

struct page_inlet {
    struct page_receiver *receiver;
    struct channel channel;
    pthread_t thread;
    bool connected, started;
    bool on_demand;             /* the frame that is being taken; see demand.h */
    uint8_t *bounce;            /* of pages that are put in one step: made when needed, as are */
    struct codec_memory *codec; /* for encoded frames, and */
    uint8_t *encoded;           /* room for one, opened */
    _Atomic uint32_t round;     /* whose end was reached */
};

struct page_receiver {
    const struct migration_guest *guest;
    struct demand *demand; /* the target's */
    _Atomic uint64_t
        *touched; /* one bit a page that is perhaps not zeros; others need no zeroing */
    int stop_fd;
    int wake_fd; /* written when a stream reached the end of a round, or failed */
    unsigned count;
    struct page_inlet inlets[MIGRATION_STREAMS_MAX];

    pthread_mutex_t lock;
    struct error failure; /* under @lock: of the first thread that failed */
    _Atomic uint64_t pages_received, pages_zero;
};

int page_receiver_init(struct page_receiver *receiver, const struct migration_guest *guest,
                       int stop_fd, int wake_fd, struct error *err);
int page_receiver_start(struct page_receiver *receiver, struct error *err);
/* Ends the threads (@stop_fd must be readable by now), closes and frees. */
void page_receiver_stop(struct page_receiver *receiver);

/* Ends the threads by closing their connections: the next start has others. */
void page_receiver_hang_up(struct page_receiver *receiver);

/* The last round of which all streams reached the end, or -1 where a stream failed. */
int64_t page_receiver_round(struct page_receiver *receiver, struct error *err);
uint64_t page_receiver_bytes(const struct page_receiver *receiver);

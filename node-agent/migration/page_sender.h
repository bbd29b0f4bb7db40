/*
 * page_sender.h: the page streams of a source: N threads that share the dirty pages of a round.
 *
 * A thread claims a piece of the round's bitmap, re-protects its pages, then looks at and sends
 * them; so a page written after it was looked at is in the dirty log. Whoever is faster claims
 * more.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "node-agent/migration/channel.h"
#include "node-agent/migration/codec_meter.h"
#include "node-agent/migration/guest.h"
#include "node-agent/migration/migration.h"
#include "node-agent/migration/pacer.h"

struct supply;     /* supply.h */
struct page_frame; /* one that is being filled */
struct page_cache;

struct page_stream {
    struct page_sender *sender;
    struct channel channel;
    pthread_t thread;
    bool started;
    bool urgent; /* takes its bandwidth without waiting for it */
    struct page_frame *frame;
};

/* What a round is made of. */
struct page_round {
    uint32_t number;
    const uint64_t *bitmap; /* unchanged until the round is over */
    bool clear; /* re-protect pages before they are read; not while the guest is stopped */
    bool first; /* nothing was sent before: zero pages and holes need not be */
    struct supply *supply; /* post-copy instead of a round, until it is over; NULL else */
};

struct page_sender {
    const struct migration_guest *guest;
    struct pacer pacer;
    int stop_fd; /* eventfd: readable once threads shall end */
    int wake_fd; /* eventfd of the engine, written when a round has been sent or a thread failed */
    enum migration_compress compress; /* set before page_sender_start() */
    bool no_deltas;                   /* the target may lack what was sent before */
    struct codec_meter meter;
    unsigned count;
    struct page_stream streams[MIGRATION_STREAMS_MAX];

    pthread_mutex_t lock; /* for all below that is not atomic */
    pthread_cond_t changed;
    struct page_round round;
    struct page_cache *cache;       /* NULL before the second round, and where there is none */
    struct page_cache *round_cache; /* the same, or NULL where the round goes without */
    uint64_t cursor;                /* next page to claim */
    int64_t round_ns;               /* when the round began, and what had been sent by then */
    uint64_t round_bytes;
    unsigned busy; /* threads that have not finished the round */
    bool quit;
    struct error failure; /* of the first thread that failed */

    _Atomic uint64_t pages_sent, pages_zero; /* all rounds */
    _Atomic uint64_t pages_by[CODECS];       /* of those sent, by their codec */
};

/* @stop_fd and @wake_fd stay the caller's. Streams are added, then started. */
void page_sender_init(struct page_sender *sender, const struct migration_guest *guest,
                      uint64_t bandwidth_bps, int stop_fd, int wake_fd);
int page_sender_start(struct page_sender *sender, struct error *err);
/* Ends the threads (@stop_fd must be readable by now) and closes the streams; the counters stay. */
void page_sender_stop(struct page_sender *sender);
/* After page_sender_stop(). */
void page_sender_destroy(struct page_sender *sender);

/* Ends the threads by closing their connections; the next start has others. */
void page_sender_hang_up(struct page_sender *sender);

/* For supply.h, on the stream's thread: sends a page, a flush later at the latest. */
int page_stream_send(struct page_stream *stream, uint64_t page, struct error *err);
int page_stream_flush(struct page_stream *stream, struct error *err);

/* The target has thrown pages away: none is sent any more as what changed. Between rounds. */
void page_sender_forget(struct page_sender *sender);

void page_sender_begin_round(struct page_sender *sender, const struct page_round *round);
/* 1: the round has been handed to the kernel, 0: not yet, -1: a thread failed. */
int page_sender_round_sent(struct page_sender *sender, struct error *err);

/* Bytes the kernel took from all streams. */
uint64_t page_sender_bytes(const struct page_sender *sender);

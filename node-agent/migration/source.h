/* source.h: inside of the source: source.c (interface), source_steps.c (the table of steps, which
 * are in source_precopy.c, source_pause.c and source_handover.c), source_round.c, source_wait.c
 * (the poll loop and what the target says), source_postcopy.c. */
#pragma once

#include <pthread.h>

#include "node-agent/migration/channel.h"
#include "node-agent/migration/hot.h"
#include "node-agent/migration/link_model.h"
#include "node-agent/migration/migration.h"
#include "node-agent/migration/page_sender.h"
#include "node-agent/migration/policy.h"
#include "node-agent/migration/report.h"
#include "node-agent/migration/supply.h"

struct migration_source {
    struct migration_guest guest;
    struct migration_source_options options; /* limits resolved */
    struct report report;
    pthread_t thread;
    int wake_fd; /* cancel, or the page streams have something to tell */
    int stop_fd; /* readable: everything that waits shall end */

    pthread_mutex_t lock; /* cancel against give-up: exactly one of them wins */
    bool cancelled, gave_up, ended, leaving;

    /* From here on: the engine thread's own. */
    struct channel control;
    struct page_sender sender;
    uint64_t *bitmap; /* of the round */
    uint64_t *rest;   /* dirty pages that a round leaves out; NULL: none */
    uint8_t *state;   /* of the machine, between save and its sending */
    size_t state_size;
    uint64_t rtt_us;
    struct policy_memory memory;
    uint32_t round, attempt; /* attempt: number of the pause */
    uint64_t round_bytes;    /* of page streams when the round began */
    uint64_t round_sent, round_zero;
    uint64_t round_by[CODECS]; /* of round_sent, by codec */
    int64_t round_ns;
    struct link_model link; /* of bytes of pages */
    uint64_t rehearsed_us;  /* what saving and loading a machine state took at the target */
    struct migration_round last_round; /* the one in the pause */
    uint64_t remaining;                /* dirty pages */
    uint32_t throttle_percent;
    bool greeted, logging, paused;
    struct pause_times {
        int64_t begin, stopped, saved, ready, go;
        uint64_t hash_us;
        int64_t deadline;
    } at;              /* CLOCK_MONOTONIC, ns */
    int64_t failed_ns; /* when the last pause was taken back */

    /* What the target said last. */
    uint32_t round_done;
    uint32_t ready_attempt;
    struct stream_times ready_times, running_times;
    bool running, announced;
    int64_t running_ns; /* when its word came */
    uint64_t announce_us;

    uint64_t last_moved; /* stall detection */
    int64_t last_progress_ns, last_told_ns;
    bool stalled;

    struct hot hot;

    struct supply supply; /* post-copy; see source_postcopy.c */
    bool can_postcopy;    /* agreed upon with the target */
    bool postcopy;        /* the pause in hand ends in it, or did */
    bool dropping;        /* the pause to come is to end in it */
    bool itemised;        /* the pause is reported */
    bool refused;         /* the target said FAILED */
    uint64_t
        *told; /* pages the target was told to be stale; once it lost the link, that it lacks */
    uint64_t told_pages, dropped_pages;
    bool lacks_told, complete;
    uint64_t resume; /* number of the last attempt to connect anew */
    uint64_t backoff_ms;
    uint64_t bytes_before; /* over links that were lost */
};

/* ---- source_wait.c */

/* What source_wait() waits for; any of the bits ends the wait. */
enum source_event {
    SOURCE_ROUND_DONE = 1, /* the page streams sent it and the target has it all */
    SOURCE_READY = 2,      /* READY of this attempt */
    SOURCE_RUNNING = 4,
    SOURCE_ANNOUNCED = 8,
    SOURCE_DEADLINE = 16,   /* @deadline_ns passed */
    SOURCE_QUEUE_SENT = 32, /* the control connection's queue is empty */
    SOURCE_DROPPED = 64,    /* the target has dropped all it was told */
    SOURCE_LACKS = 128,     /* it said all it lacks */
    SOURCE_COMPLETE = 256,  /* it lacks nothing */
};

/* Serves the control connection until one of @wanted happens and returns it; -1 where the target
 * failed, the link broke or stalled, or (before give-up) someone cancelled. */
int source_wait(struct migration_source *source, unsigned wanted, int64_t deadline_ns,
                struct error *err);
int source_queue(struct migration_source *source, enum frame_type type, uint64_t argument,
                 const void *payload, uint32_t length, struct error *err);
/* Sends what is still queued, for the last time, until @deadline_ns at most. */
void source_goodbye(struct migration_source *source, int64_t deadline_ns);
/* Opens and greets one connection. */
int source_greet(struct migration_source *source, struct channel *channel, unsigned index,
                 struct error *err);

/* An answer took this long. */
void source_note_rtt(struct migration_source *source, uint64_t us);

/* ---- source_round.c */

/* Brings the counters of the report up to date. */
void source_report_counters(struct migration_source *source);

/* ---- source_steps.c */

/* Takes all steps; fills in the end of the report. */
void source_run(struct migration_source *source);

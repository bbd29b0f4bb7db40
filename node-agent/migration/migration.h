/*
 * migration.h: live migration of one VM, both ends. What pool-vmm calls; what it gives the engine
 * in return is guest.h.
 *
 * The engine has threads of its own and never calls back into the caller's: something to look at is
 * told by an eventfd (put it in the event loop, read its 8 bytes), and read as a snapshot. All
 * functions below may be called from any one thread and do not block, except where they say so.
 * Guest operations (guest.h) are called from the engine's threads.
 *
 * Who runs the guest, at every moment (the handover of docs/architecture.md):
 *
 *   source phase                     outcome                     who may run the guest
 *   CONNECTING PRECOPY PAUSED        PENDING                     the source
 *   FAILED CANCELLED                 SOURCE_RUNS                 the source, and it does
 *   HANDOVER                         PENDING, later IN_DOUBT     the target, once it hears GO
 *   POSTCOPY                         PENDING                     the target, and it does; the
 * source's process still has pages of it COMPLETED                        TARGET_RUNS the target,
 * and it does
 *
 *   IN_DOUBT: the source has given up and the target's word has not come. Only the controller may
 *   decide now: migration_target_run() at the target, or migration_target_discard() there and then,
 *   at a yet higher epoch, the source's VMM by its own means. The engine never decides.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "node-agent/migration/guest.h"

#define MIGRATION_KEY_BYTES   32
#define MIGRATION_ID_MAX      64 /* with the terminating 0 */
#define MIGRATION_STREAMS_MAX 16
#define MIGRATION_ROUNDS_KEPT 64 /* in the progress: the last ones */
#define MIGRATION_TEXT_MAX    256

/* Defaults that stand for 0 in struct migration_limits. */
#define MIGRATION_DEFAULT_DOWNTIME_MS 100
#define MIGRATION_DEFAULT_STREAMS     8
#define MIGRATION_SLOW_STREAMS        2 /* on one processor, or where no more is allowed than ... */
#define MIGRATION_SLOW_BPS            1000000000
#define MIGRATION_DEFAULT_TIMEOUT_MS  3600000 /* of the whole: one hour */
#define MIGRATION_DEFAULT_STALL_MS    60000   /* without any progress */

/* Same numbers as enum MigrationPhase of proto/common.proto. */
enum migration_phase {
    MIGRATION_PHASE_NONE = 0,
    MIGRATION_PHASE_CONNECTING = 1,
    MIGRATION_PHASE_PRECOPY = 2,
    MIGRATION_PHASE_PAUSED = 3,
    MIGRATION_PHASE_HANDOVER = 4,
    MIGRATION_PHASE_COMPLETED = 5,
    MIGRATION_PHASE_FAILED = 6,
    MIGRATION_PHASE_CANCELLED = 7,
    MIGRATION_PHASE_POSTCOPY = 8,
};

/* Where the guest is once the engine has finished. */
enum migration_outcome {
    MIGRATION_OUTCOME_PENDING = 0, /* not finished */
    MIGRATION_OUTCOME_SOURCE_RUNS, /* nothing happened to the guest */
    MIGRATION_OUTCOME_TARGET_RUNS,
    MIGRATION_OUTCOME_LOST,     /* the target ran the guest in post-copy and will never have all of
                                   its memory: the guest is over */
    MIGRATION_OUTCOME_IN_DOUBT, /* given up, no word from the target: both are stopped or the
                                   target runs; the controller finds out and decides */
};

/* Same numbers as enum MigrationMode of proto/common.proto. */
enum migration_mode {
    MIGRATION_MODE_AUTO = 0, /* pre-copy; post-copy where that does not converge, unless @verify */
    MIGRATION_MODE_PRECOPY = 1,
    MIGRATION_MODE_POSTCOPY = 2, /* one round of pre-copy, then post-copy */
};

/* How pages are compressed. Zero pages are never sent, whatever this says. Same numbers as enum
 * MigrationCompress of proto/common.proto. */
enum migration_compress {
    MIGRATION_COMPRESS_AUTO = 0, /* by whatever is faster, measured as it goes */
    MIGRATION_COMPRESS_OFF = 1,  /* pages are sent as they are */
    MIGRATION_COMPRESS_LZ4 = 2,  /* this one, faster or not */
    MIGRATION_COMPRESS_ZSTD = 3,
};

struct migration_limits {
    uint64_t downtime_limit_ms;       /* 0: MIGRATION_DEFAULT_DOWNTIME_MS */
    uint64_t bandwidth_bps;           /* bits a second on the wire; 0: no cap */
    uint32_t streams;                 /* 0: the engine chooses */
    bool verify;                      /* compare a hash of all RAM and state inside the pause */
    bool unencrypted;                 /* for measurements only; both ends must say so */
    uint64_t timeout_ms;              /* of the whole; 0: MIGRATION_DEFAULT_TIMEOUT_MS */
    bool no_throttle;                 /* never slow the guest, rather fail */
    uint64_t stall_timeout_ms;        /* without progress; 0: MIGRATION_DEFAULT_STALL_MS */
    enum migration_compress compress; /* the source's; the target takes what comes */
    enum migration_mode mode;
    bool no_postcopy;             /* the VM's owner does not want it: auto does without */
    uint64_t recovery_timeout_ms; /* target: a link lost in post-copy is waited for so long, then
                                     the guest is lost; 0: for ever */
};

struct migration_round {
    uint32_t number; /* from 1 */
    uint64_t pages_sent;
    uint64_t pages_zero;
    uint64_t wire_bytes;
    uint64_t duration_us;
    uint64_t dirtied_pages; /* found dirty when the round ended */
    uint64_t page_bytes;    /* of the pages sent, before they were encoded */
    uint64_t pages_delta;   /* of the pages sent: as what changed since an earlier round */
    uint8_t codec;          /* of most of them: enum codec */
};

/* The pause, itemised; total_us is the sum of all but announce_us. */
struct migration_pause {
    uint64_t total_us;
    uint64_t stop_us;
    uint64_t last_pages_us;
    uint64_t device_state_us;
    uint64_t verify_us;
    uint64_t handover_us;
    uint64_t activate_us;
    uint64_t announce_us;
};

/* What became of post-copy; all 0 where there was none. */
struct migration_postcopy {
    bool used;
    uint64_t faults;        /* pages somebody waited for */
    uint64_t fault_mean_us; /* from the fault until the page was there */
    uint64_t fault_max_us;
    uint32_t links_lost;
    bool held; /* target: the link is lost now, and the guest does not run; the text says so */
};

struct migration_progress {
    char migration_id[MIGRATION_ID_MAX];
    enum migration_phase phase;
    enum migration_outcome outcome; /* anything but PENDING: the engine has finished */
    uint32_t round;
    uint64_t ram_bytes;
    uint64_t wire_bytes;
    uint64_t pages_sent;
    uint64_t pages_zero;
    uint64_t page_bytes; /* of the pages sent, before they were encoded */
    uint64_t remaining_bytes;
    uint64_t dirty_bps; /* bits a second the guest dirties */
    uint64_t bandwidth_bps;
    uint64_t eta_ms; /* 0: not known */
    uint64_t predicted_pause_us;
    uint64_t elapsed_us;
    struct migration_pause pause; /* filled as the pause goes on */
    struct migration_postcopy postcopy;
    uint32_t pauses_failed; /* times the source resumed at the deadline and went on */
    uint32_t rounds_count;  /* entries of @rounds in use, oldest first */
    struct migration_round rounds[MIGRATION_ROUNDS_KEPT];
    bool verified; /* the hashes were compared and are equal */
    bool encrypted;
    uint32_t streams;
    uint32_t throttle_percent;     /* of their time that vCPUs that write are kept from running */
    enum error_kind error;         /* of a failure */
    char text[MIGRATION_TEXT_MAX]; /* reason of a failure, or a warning such as a stall */
};

/* ------------------------------------------------------------------ source */

struct migration_source_options {
    char migration_id[MIGRATION_ID_MAX];
    char host[64]; /* numeric IPv4 or IPv6 address */
    uint16_t port;
    uint8_t key[MIGRATION_KEY_BYTES];
    uint64_t epoch;      /* the source's own */
    uint64_t next_epoch; /* the target's; must be higher */
    struct migration_limits limits;
};

struct migration_source;

/* Starts sending @guest (copied; what it points to must outlive the source). The guest may be
 * running or paused. NULL where the options are wrong or threads cannot be made; a target that
 * cannot be reached is told by the progress. */
struct migration_source *migration_source_start(const struct migration_guest *guest,
                                                const struct migration_source_options *options,
                                                struct error *err);

/* Becomes readable when there is something new: each change of phase, each round, and every 100 ms.
 */
int migration_source_event_fd(const struct migration_source *source);

void migration_source_progress(struct migration_source *source, struct migration_progress *out);

/* Asks for the end; the guest runs on at the source. The progress says when it is done (CANCELLED).
 * ERROR_CONFLICT from give-up on, or where it has finished. */
int migration_source_cancel(struct migration_source *source, struct error *err);

/* Cancels where that is still possible, waits for the engine's threads (bounded: a second or two)
 * and frees. After give-up the guest stays given up. NULL is fine. */
void migration_source_free(struct migration_source *source);

/* ------------------------------------------------------------------ target */

enum migration_target_state {
    MIGRATION_TARGET_WAITING,   /* for the source to connect */
    MIGRATION_TARGET_INCOMING,  /* receiving; VM_INCOMING */
    MIGRATION_TARGET_READY,     /* loaded and verified; VM_READY. Without GO it stays so for ever */
    MIGRATION_TARGET_POSTCOPY,  /* runs at run_epoch; pages of it are still at the source */
    MIGRATION_TARGET_RUNNING,   /* runs at run_epoch; final */
    MIGRATION_TARGET_FAILED,    /* never ran and never will; or, outcome LOST, ran in post-copy and
                                   will not again; final */
    MIGRATION_TARGET_DISCARDED, /* likewise, by migration_target_discard(); final */
};

struct migration_target_options {
    char migration_id[MIGRATION_ID_MAX];
    uint8_t key[MIGRATION_KEY_BYTES];
    uint64_t next_epoch;
    struct migration_limits limits; /* streams: the most accepted, 0: MIGRATION_STREAMS_MAX */
};

struct migration_target;

/* Expects one migration on @listen_fd, a listening TCP (or, in tests, Unix) socket that stays the
 * caller's and must stay open until the target is freed. Strangers who connect are dropped without
 * an answer. */
struct migration_target *migration_target_start(const struct migration_guest *guest, int listen_fd,
                                                const struct migration_target_options *options,
                                                struct error *err);

int migration_target_event_fd(const struct migration_target *target);

/* Snapshot; @run_epoch (may be NULL) gets the epoch the guest runs at, 0 before it does. */
enum migration_target_state migration_target_progress(struct migration_target *target,
                                                      struct migration_progress *out,
                                                      uint64_t *run_epoch);

/* The controller's word where GO was lost: run at @epoch (next_epoch or higher). Only in READY, or
 * where it already runs at that very epoch (a repeat); ERROR_CONFLICT else. Blocks until the guest
 * runs or cannot. */
int migration_target_run(struct migration_target *target, uint64_t epoch, struct error *err);

/* Throws the VM away: when this returns 0 the guest has never run here and never will, so that the
 * source may be given a new epoch. ERROR_CONFLICT where it runs already. A repeat is harmless. */
int migration_target_discard(struct migration_target *target, struct error *err);

/* Waits for the engine's threads and frees. A guest that does not run yet is discarded. NULL is
 * fine. */
void migration_target_free(struct migration_target *target);

/* ------------------------------------------------------------------ dirty rate */

struct migration_dirty_sample {
    uint64_t pages_per_second; /* pages that turned dirty, a page again after each clearing */
    uint64_t set_pages;        /* different pages written in the whole time */
};

/* Watches a guest that runs for @duration_ms. Blocks: call it from a thread of its own, and not
 * while a migration goes on. */
int migration_sample_dirty(const struct migration_guest *guest, uint64_t duration_ms,
                           struct migration_dirty_sample *sample, struct error *err);

const char *migration_phase_name(enum migration_phase phase); /* "pre-copy" */

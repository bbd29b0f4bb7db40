/* target.h: inside of the target: target.c (interface), target_accept.c (greeting), target_steps.c
 * (what is done in each state) with target_states.c, target_hear.c (messages), target_load.c (the
 * machine) and target_orders.c, and target_postcopy.c. */
#pragma once

#include <pthread.h>

#include "node-agent/migration/channel.h"
#include "node-agent/migration/demand.h"
#include "node-agent/migration/migration.h"
#include "node-agent/migration/page_receiver.h"
#include "node-agent/migration/report.h"

#define TARGET_GREETINGS_MAX 32

/* A connection that has not shown yet that it belongs to this migration. */
struct greeting {
    int fd; /* -1: free */
    int64_t since_ns;
    size_t have;
    uint8_t hello[STREAM_HELLO_BYTES];
};

enum target_order { ORDER_NONE, ORDER_RUN, ORDER_DISCARD, ORDER_LEAVE };

struct migration_target {
    struct migration_guest guest;
    struct migration_target_options options; /* limits resolved */
    struct report report;
    pthread_t thread;
    int listen_fd;
    int wake_fd, stop_fd; /* as in the source */

    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum migration_target_state state; /* written by the engine thread under @lock */
    uint64_t run_epoch;
    bool ended;              /* the engine thread takes no more orders */
    enum target_order order; /* from outside, to the engine thread */
    uint64_t order_epoch;
    struct error order_error; /* its answer, once @order is NONE again */

    /* From here on: the engine thread's own. */
    struct greeting greetings[TARGET_GREETINGS_MAX];
    unsigned strangers; /* dropped, for the log */
    uint16_t streams;   /* the source said; 0: nothing said yet */
    bool verify;
    struct channel control;
    struct page_receiver receiver;
    uint8_t *machine; /* state of the machine, as it comes */
    size_t machine_size, machine_have;
    uint8_t hashes[STREAM_HASH_BYTES];
    bool have_hashes, link_lost;
    uint32_t attempt, last_round, round_done;
    uint64_t last_bytes;
    int64_t last_progress_ns;
    int64_t complete_ns, go_ns;
    struct stream_times times;

    struct demand demand; /* post-copy; see target_postcopy.c */
    bool can_postcopy;    /* agreed upon with the source */
    bool postcopy;        /* the pause in hand ends in it, or did */
    bool demanding;       /* RAM is watched */
    bool held;
    uint64_t resume; /* number of the source's last attempt to go on */
    int64_t resume_ns, lost_ns;
};

/* ---- target_accept.c */

/* Takes new connections and reads greetings; harmless to call when there are none. */
void target_accept(struct migration_target *target);
bool target_is_connected(const struct migration_target *target);
void target_close_greetings(struct migration_target *target);

/* ---- target_steps.c */

void target_run(struct migration_target *target);
/* Queues a frame on the control connection; without one it is lost, and nothing depends on it. */
int target_queue(struct migration_target *target, enum frame_type type, uint64_t argument,
                 const void *payload, size_t length, struct error *err);

/*
 * demand.h: the target's RAM while pages of it are lacking: post-copy as the target sees it.
 *
 *   before the pause    demand_stale()    what was sent of these pages is old: dropped, they are
 * lacking in the pause        demand_start()    from here on whoever touches a lacking page waits,
 * and a thread asks the source for it; a page that is neither lacking nor there is a hole, and
 * filled with zeros the guest runs      demand_put()      from the page streams nothing is lacking
 * demand_stop()     RAM is as any other
 *
 * A lacking page is put in one step with its arrival, so that nobody sees half of it; and it is
 * taken out of the set only after that. Calls are the engine thread's unless it says otherwise.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "node-agent/migration/channel.h"
#include "node-agent/migration/guest.h"
#include "node-agent/migration/stream.h"

#define DEMAND_WAITING_MAX 128u /* faults whose latency is measured at once */

struct demand {
    const struct migration_guest *guest;
    int wake_fd; /* raised when nothing is lacking any more */
    int quit_fd; /* readable: the thread shall end; -1: demand_stop() has nothing to do */
    pthread_t thread;
    _Atomic uint64_t *lacking, *asked; /* one bit a page; NULL until the first demand_stale() */
    _Atomic uint64_t left;             /* bits set in @lacking */
    _Atomic bool watching;
    _Atomic bool broken; /* RAM cannot be served any more; @failure says why */
    _Atomic bool loaded; /* the machine state is: a link that is lost is waited for */
    _Atomic bool cut;    /* a page stream ended */

    pthread_mutex_t lock;   /* for all below; the thread's, the page streams' and the engine's */
    struct channel *urgent; /* whose sending half is ours; NULL: the link is lost */
    struct waiting {
        uint64_t page;
        int64_t since_ns;
    } waiting[DEMAND_WAITING_MAX];
    unsigned waiting_count;
    uint64_t faults, latency_sum_us, latency_max_us;
    struct error failure;
};

/* Whether this target can: it has a userfaultfd, and RAM whose pages can be dropped. */
bool demand_is_possible(const struct migration_guest *guest);

/* Harmless pairs around everything else. destroy() expects that demand_stop() was called. */
void demand_init(struct demand *demand, const struct migration_guest *guest, int wake_fd);
void demand_destroy(struct demand *demand);

/* Drops the pages of @run. Fails where one of them cannot be dropped. */
int demand_stale(struct demand *demand, struct run run, struct error *err);
/* Nothing is lacking, for all will be sent again. The guest does not run; ends what was started. */
void demand_forget(struct demand *demand);

/* Watches RAM and starts the thread, which asks by @urgent. */
int demand_start(struct demand *demand, struct channel *urgent, struct error *err);
/* Ends the watch and the thread. Harmless where it was not started. What is lacking still becomes
 * zeros: nobody may look at RAM any more in that case. */
void demand_stop(struct demand *demand);

/* The machine state is loaded. Before that, a link that is lost or a source that is silent end the
 * watch, so that a load that waits for a page ends: it was in vain, and demand->broken says so. */
static inline void demand_loaded(struct demand *demand)
{
    atomic_store(&demand->loaded, true);
}

/* The link was lost (NULL: until this returns, its channel may be in use), or is there again, and
 * everything asked for is asked for anew. */
void demand_link(struct demand *demand, struct channel *urgent);

/* From a page stream, while RAM is watched or of a frame of post-copy: puts the pages of @run from
 * @data or, NULL, zeros. Pages that are not lacking are left alone or, with @replace, overwritten:
 * for a page of a round of pre-copy, when no guest runs here. */
int demand_put(struct demand *demand, struct run run, const uint8_t *data, bool replace,
               struct error *err);

/* From a page stream: it ended, whatever for. */
static inline void demand_cut(struct demand *demand)
{
    atomic_store(&demand->cut, true);
}

/* Any thread. */
static inline uint64_t demand_left(const struct demand *demand)
{
    return atomic_load(&demand->left);
}

/* Calls @take with each run of lacking pages until it returns something other than 0, and returns
 * that. */
int demand_list(const struct demand *demand,
                int (*take)(void *context, struct run run, struct error *err), void *context,
                struct error *err);

/*
 * hot.h: pages that are written while the first round goes on are not sent in it.
 *
 * The first round of a big guest over a slow link takes long, and what the guest writes meanwhile
 * is sent in vain. After a short while the log of all that is not claimed yet is cleared at once;
 * from then on, now and then, what it shows is taken out of the round. Those pages stay in the log,
 * so the next round or post-copy has them. How fast they turn up tells how fast the guest dirties,
 * which the number of pages dirtied in a whole long round hides.
 */
#pragma once

#include <stdint.h>

#include "common/error.h"

struct migration_source;

struct hot {
    uint64_t *seen;            /* all that was taken from the log since; NULL: not watching */
    uint64_t *slice;           /* of one look */
    uint64_t first;            /* page the watch began at */
    int64_t begin_ns, next_ns; /* of the watch; the next look */
    uint64_t pages;            /* that turned hot since then */
    uint64_t pages_per_second; /* that did, on the mean until whichever look; 0: not known */
};

/* Now and then, while the source waits. */
int hot_watch(struct migration_source *source, struct error *err);
/* A round is over: ORs what was taken from the log in it into source->bitmap. */
void hot_collect(struct migration_source *source);
void hot_free(struct hot *hot);

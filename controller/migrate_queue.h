/*
 * migrate_queue.h: how many migrations are under way at a time, and which is next.
 *
 * Two doors, each with a limit of what a host sends, a host receives and the pool does in all:
 *
 *     queue ──► prepare ──► ready ──► stream
 *          door 1                door 2
 *
 * Door 2 is the link's: as many may stream as config.h says. Through door 1 goes one more at each
 * end of a link, so that the next migration is ready the moment that the link is free.
 *
 * Both go by age: whoever can go through goes, oldest first, and nobody takes what the oldest one
 * that waits at a door still lacks. So each that waits is the oldest at some time, and goes.
 *
 * Who is where is the jobs' steps in the journal and nothing else: a restart loses none of it.
 */
#pragma once

#include "controller/jobs.h"

/* Lets those go on that may, and says to the others what they wait for. Called at the end of a
 * turn; true where jobs have entered new steps. */
bool migrate_queue_advance(struct controller *controller);

struct migrate_queue_counts {
    unsigned streaming; /* use a link */
    unsigned waiting;   /* for their turn, prepared or not */
};
struct migrate_queue_counts migrate_queue_count(const struct controller *controller);
/* The children of a job that have not begun: a drain or plan begins no more than may run in the
 * pool before some of them have their turn. */
unsigned migrate_queue_children(const struct controller *controller, const struct job *parent);

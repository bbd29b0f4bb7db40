#include "controller/migrate_queue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "controller/migrate.h"
#include "controller/migrate_review.h"
#include "controller/migration_words.h"
#include "controller/pb.h"
#include "controller/placement.h"

/* At each end of a link, so many get ready while others use it. */
#define AHEAD 1

enum stage {
    STAGE_NONE,
    STAGE_QUEUED,
    STAGE_PREPARES,
    STAGE_READY,
    STAGE_STREAMS,
};

static bool is_lost(const struct node *node)
{
    return !node || node->phase == VMPOOL__NODE_PHASE__NODE_LOST;
}

/* From the source's first page until it gave up; in post-copy until the last one has come. What
 * waits for a dead host uses no link. */
static bool uses_link(const struct controller *controller, const struct job *job)
{
    bool sends = strcmp(job->stored->step, "stream") == 0 && !job->stored->gave_up;
    return (sends || job->stored->pages_to_come) && !is_lost(migrate_source(controller, job)) &&
           !is_lost(migrate_target(controller, job));
}

static enum stage stage_of(const struct controller *controller, const struct job *job)
{
    if (job->kind != &job_vm_migrate || !job_running(job))
        return STAGE_NONE;
    if (uses_link(controller, job))
        return STAGE_STREAMS;
    const char *step = job->stored->step;
    return strcmp(step, "queue") == 0     ? STAGE_QUEUED
           : strcmp(step, "prepare") == 0 ? STAGE_PREPARES
           : strcmp(step, "ready") == 0   ? STAGE_READY
                                          : STAGE_NONE;
}

/* ---- counting ---- */

struct migrate_queue_counts migrate_queue_count(const struct controller *controller)
{
    struct migrate_queue_counts counts = {0};
    for (const struct job *job = controller->jobs; job; job = job->next) {
        enum stage stage = stage_of(controller, job);
        counts.streaming += stage == STAGE_STREAMS;
        counts.waiting += stage == STAGE_QUEUED || stage == STAGE_READY;
    }
    return counts;
}

unsigned migrate_queue_children(const struct controller *controller, const struct job *parent)
{
    unsigned count = 0;
    for (const struct job *job = controller->jobs; job; job = job->next)
        count +=
            job->stored->parent == parent->stored->id && job_running(job) &&
            (strcmp(job->stored->step, "place") == 0 || stage_of(controller, job) == STAGE_QUEUED);
    return count;
}

/* ---- the doors ---- */

enum { DOOR_PREPARE, DOOR_STREAM };

struct queue {
    struct controller *controller;
    struct job **jobs; /* migrations that run, oldest first */
    size_t count;
    unsigned total[NODE_DOORS];          /* that are through */
    const struct job *first[NODE_DOORS]; /* the oldest that waits */
    bool advanced;
};

static void note_through(struct queue *queue, const struct job *job, int door)
{
    struct node *source = migrate_source(queue->controller, job);
    struct node *target = migrate_target(queue->controller, job);
    queue->total[door]++;
    if (source)
        source->sends[door]++;
    if (target)
        target->receives[door]++;
}

static void collect(struct queue *queue)
{
    size_t size = 0;
    for (const struct job *job = queue->controller->jobs; job; job = job->next)
        size += stage_of(queue->controller, job) != STAGE_NONE;
    queue->jobs = mem_new((size + 1) * sizeof(struct job *));
    queue->count = size;
    for (struct job *job = queue->controller->jobs; job; job = job->next)
        if (stage_of(queue->controller, job) != STAGE_NONE)
            queue->jobs[--size] = job;
}

static void count_all(struct queue *queue)
{
    for (struct node *node = queue->controller->nodes; node; node = node->next)
        for (int door = 0; door < NODE_DOORS; door++)
            node->sends[door] = node->receives[door] = 0;
    for (size_t i = 0; i < queue->count; i++) {
        enum stage stage = stage_of(queue->controller, queue->jobs[i]);
        if (stage != STAGE_QUEUED)
            note_through(queue, queue->jobs[i], DOOR_PREPARE);
        if (stage == STAGE_STREAMS)
            note_through(queue, queue->jobs[i], DOOR_STREAM);
    }
}

/* One of a door's limits, and how to say that it is reached. */
struct limit {
    unsigned taken, most;
    bool claimed;     /* by the oldest that waits */
    unsigned streams; /* of those taken */
    unsigned most_streams;
    const char *who, *does;
};

static bool is_reached(const struct queue *queue, int door, const struct limit *limit, char *why,
                       size_t size)
{
    if (limit->taken + limit->claimed < limit->most)
        return false;
    if (limit->taken < limit->most)
        (void)snprintf(why, size, "waiting: job %llu is next for %s",
                       (unsigned long long)queue->first[door]->stored->id, limit->who);
    else if (limit->streams >= limit->most_streams)
        (void)snprintf(why, size, "waiting: %s already %s %u of %u", limit->who, limit->does,
                       limit->streams, limit->most_streams);
    else
        (void)snprintf(why, size, "waiting: others for %s get ready first", limit->who);
    return true;
}

static bool is_same(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

static bool has_not_reported(const struct node *node)
{
    return node->phase == VMPOOL__NODE_PHASE__NODE_JOINED;
}

/* Whether @job has to wait at a door, and in words for what. */
static bool is_held(const struct queue *queue, const struct job *job, int door, char *why,
                    size_t size)
{
    const struct config *config = &queue->controller->config;
    const struct node *source = migrate_source(queue->controller, job);
    const struct node *target = migrate_target(queue->controller, job);
    const struct job *first = queue->first[door];
    unsigned ahead = door == DOOR_PREPARE ? AHEAD : 0;
    if (!source || !target)
        return false; /* its next step says so */
    if (has_not_reported(source) || has_not_reported(target)) {
        (void)snprintf(why, size, "waiting until %s has reported",
                       has_not_reported(source) ? source->stored->name : target->stored->name);
        return true;
    }
    const struct limit limits[] = {
        {.taken = source->sends[door],
         .most = config->migrations_out + ahead,
         .claimed = first && is_same(first->stored->source_node, job->stored->source_node),
         .streams = source->sends[DOOR_STREAM],
         .most_streams = config->migrations_out,
         .who = source->stored->name,
         .does = "sends"},
        {.taken = target->receives[door],
         .most = config->migrations_in + ahead,
         .claimed = first && is_same(first->stored->target_node, job->stored->target_node),
         .streams = target->receives[DOOR_STREAM],
         .most_streams = config->migrations_in,
         .who = target->stored->name,
         .does = "receives"},
        {.taken = queue->total[door],
         .most = config->migrations_pool * (1 + ahead),
         .claimed = first,
         .streams = queue->total[DOOR_STREAM],
         .most_streams = config->migrations_pool,
         .who = "the pool",
         .does = "migrates"},
    };
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        if (is_reached(queue, door, &limits[i], why, size))
            return true;
    return false;
}

/* What is taken for good from the store is taken here, before anyone hears of it. */
static void begin_prepare(struct controller *controller, struct job *job)
{
    job->stored->next_epoch = vm_grant_epoch(controller, job->vm);
    (void)vm_happens(controller, job->vm, VM_EVENT_MIGRATE, "");
    migrate_review_begin(controller, job);
    job_say(controller, job, "preparing %s", job->stored->to_name);
    job_go(controller, job, "prepare");
}

static void begin_stream(struct controller *controller, struct job *job)
{
    migrate_review_stream(job);
    job_go(controller, job, "stream");
}

static void pass(struct queue *queue, int door, enum stage stage)
{
    char why[192];
    for (size_t i = 0; i < queue->count; i++) {
        struct job *job = queue->jobs[i];
        if (!job->vm || job->entering || stage_of(queue->controller, job) != stage)
            continue;
        if (is_held(queue, job, door, why, sizeof why)) {
            job_say(queue->controller, job, "%s", why);
            if (!queue->first[door])
                queue->first[door] = job;
            continue;
        }
        note_through(queue, job, door);
        queue->advanced = true;
        if (door == DOOR_PREPARE)
            begin_prepare(queue->controller, job);
        else
            begin_stream(queue->controller, job);
    }
}

bool migrate_queue_advance(struct controller *controller)
{
    struct queue queue = {.controller = controller};
    if (!controller->jobs_moved)
        return false;
    controller->jobs_moved = false;
    collect(&queue);
    if (queue.count > 0) {
        count_all(&queue);
        pass(&queue, DOOR_STREAM, STAGE_READY);
        pass(&queue, DOOR_PREPARE, STAGE_QUEUED);
    }
    free((void *)queue.jobs);
    return queue.advanced;
}

/* ---- the steps ---- */

/* Why a migration that waits can't go on from its source; NULL: it can. */
static const char *source_is_out(const struct controller *controller, const struct job *job)
{
    const struct node *source = migrate_source(controller, job);
    const struct claim *here = vm_claim_of(job->vm, job->stored->source_node);
    if (is_lost(source))
        return "its node was lost while it waited";
    return here && !migration_source_lives(here) ? "it ended while its migration waited" : NULL;
}

static void fail_waiting(struct controller *controller, struct job *job, const char *why)
{
    job_keep_failure(job, ERROR_CONFLICT, why);
    migrate_fail_at_source(controller, job);
}

void migrate_on_queue(struct controller *controller, struct job *job, const struct job_event *event)
{
    struct node *target = migrate_target(controller, job);
    const char *why = source_is_out(controller, job);
    if (event->what == JOB_CANCEL || why) {
        if (why)
            fail_waiting(controller, job, why);
        else
            migrate_fail_at_source(controller, job);
    } else if (is_lost(target) || target->stored->draining) {
        placement_release_target(controller, job->vm);
        job_go(controller, job, "place");
    } else if (event->what == JOB_ENTER) {
        placement_hold_target(controller, job->vm, target);
    }
}

/* What was prepared is there no more. */
static bool target_is_out(const struct job *job)
{
    const struct claim *there = vm_claim_of(job->vm, job->stored->target_node);
    return there && there->at_ms > job->entered_ms &&
           (!there->said || there->said->state == VMPOOL__VM_STATE__VM_FAILED);
}

void migrate_on_ready(struct controller *controller, struct job *job, const struct job_event *event)
{
    struct node *target = migrate_target(controller, job);
    const char *why = source_is_out(controller, job);
    if (event->what == JOB_CANCEL || why) {
        if (why)
            job_keep_failure(job, ERROR_CONFLICT, why);
        job_go(controller, job, "undo");
    } else if (is_lost(target)) {
        migrate_undo_because(controller, job, ERROR_UNREACHABLE, "it was lost");
    } else if (target_is_out(job)) {
        migrate_undo_because(controller, job, ERROR_FAILED, "what it had prepared is gone");
    } else if (event->what == JOB_ENTER) {
        placement_hold_target(controller, job->vm, target);
    }
}

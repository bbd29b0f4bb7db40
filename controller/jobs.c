#include "controller/jobs.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "controller/events.h"
#include "controller/pb.h"
#include "controller/streams.h"
#include "controller/tallies.h"

/* A command's request_id is its job's id and its place in the journal. */
#define SEQUENCE_BITS 16
/* How often a command is said, without an answer, within the time it may take. */
#define REPEATS 3

const struct job_kind *const job_kinds[JOB_KINDS] = {
    &job_vm_create, &job_vm_start,   &job_vm_stop,    &job_vm_kill,
    &job_vm_remove, &job_vm_migrate, &job_node_drain, &job_plan};

bool job_running(const struct job *job)
{
    return job->stored->phase == VMPOOL__JOB_PHASE__JOB_RUNNING;
}

static const struct job_kind *find_kind(const char *name)
{
    unsigned i = 0;
    while (i < JOB_KINDS && strcmp(job_kinds[i]->name, name) != 0)
        i++;
    return i < JOB_KINDS ? job_kinds[i] : NULL;
}

/* The index of a step, or step_count where the kind has none of that name. */
static unsigned find_step(const struct job_kind *kind, const char *name)
{
    unsigned i = 0;
    while (i < kind->step_count && strcmp(kind->steps[i].name, name) != 0)
        i++;
    return i;
}

static void tell(struct controller *controller, struct job *job, const struct job_event *event)
{
    if (!job_running(job))
        return;
    if (!job->vm && job->stored->vm_id[0])
        job_fail(controller, job, ERROR_NOT_FOUND, "the VM was removed meanwhile");
    else
        job->kind->steps[job->step].on(controller, job, event);
}

/* ---- the journal ---- */

void job_show(struct controller *controller, const struct job *job)
{
    if (!streams_watch(controller, job->stored->id))
        return;
    Vmpool__AdminReply reply = VMPOOL__ADMIN_REPLY__INIT;
    reply.body_case = VMPOOL__ADMIN_REPLY__BODY_JOB;
    reply.job = job_describe(job);
    reply.done = !job_running(job);
    streams_send(controller, job->stored->id, &reply);
    pb_free(reply.job);
}

void job_save(struct controller *controller, const struct job *job)
{
    char key[STORE_NUMBER_SIZE];
    store_put(controller->store, STORE_JOB, store_number(job->stored->id, key), &job->stored->base);
    controller->jobs_moved = true;
    controller_touch(controller);
    job_show(controller, job);
}

Vmpool__Store__Job *job_journal(const char *subject, const char *admin)
{
    Vmpool__Store__Job *stored = mem_new(sizeof *stored);
    vmpool__store__job__init(stored);
    pb_set(&stored->subject, subject);
    pb_set(&stored->admin, admin);
    return stored;
}

/* The oldest ended jobs make room. */
static void prune(struct controller *controller)
{
    unsigned ended = 0;
    for (struct job **at = &controller->jobs; *at;) {
        struct job *job = *at;
        char key[STORE_NUMBER_SIZE];
        if (job_running(job) || ++ended <= JOBS_KEPT) {
            at = &job->next;
            continue;
        }
        *at = job->next;
        store_delete(controller->store, STORE_JOB, store_number(job->stored->id, key));
        pb_free(job->stored);
        free(job);
    }
}

static void enter(struct job *job, const char *step)
{
    job->step = find_step(job->kind, step);
    if (job->step == job->kind->step_count)
        job->step = 0; /* of a journal from another version: its first step */
    pb_set(&job->stored->step, job->kind->steps[job->step].name);
    job->entering = job->fresh = true;
    job->awaiting = false;
    job->deadline_ms = 0;
    job->entered_ms = clock_monotonic_ms();
}

struct job *job_begin(struct controller *controller, const struct job_kind *kind, const char *step,
                      Vmpool__Store__Job *stored, struct vm *vm)
{
    struct job *job = mem_new(sizeof *job);
    job->kind = kind;
    job->stored = stored;
    job->vm = vm;
    stored->id = controller->next_job++;
    stored->phase = VMPOOL__JOB_PHASE__JOB_RUNNING;
    stored->created_wall_ms = (uint64_t)clock_wall_ms();
    stored->sequence = 1;
    pb_set(&stored->kind, kind->name);
    if (vm) {
        vm->job = job;
        pb_set(&stored->vm_id, vm->stored->spec->id);
    }
    struct job *parent = stored->parent ? job_by_id(controller, stored->parent) : NULL;
    if (parent)
        parent->children++;
    job->next = controller->jobs;
    controller->jobs = job;
    tallies_job_started(controller->tallies, job);
    enter(job, step);
    job_save(controller, job);
    return job;
}

void job_go(struct controller *controller, struct job *job, const char *step)
{
    job->stored->sequence++;
    enter(job, step);
    job_save(controller, job);
}

void job_again(struct controller *controller, struct job *job)
{
    job->entering = true;
    controller_touch(controller);
}

void job_next_command(struct controller *controller, struct job *job)
{
    job->stored->sequence++;
    job->awaiting = false;
    job_save(controller, job);
}

void job_say(struct controller *controller, struct job *job, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char text[ERROR_TEXT_MAX];
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (strcmp(text, job->stored->text) == 0)
        return;
    pb_set(&job->stored->text, text);
    job_save(controller, job);
}

void job_limit(struct job *job, uint64_t ms)
{
    job->deadline_ms = ms ? clock_monotonic_ms() + (int64_t)ms : 0;
}

void job_command(struct controller *controller, struct job *job, const struct node *node,
                 Vmpool__ControllerToNode *command)
{
    command->request_id = job->stored->id << SEQUENCE_BITS | job->stored->sequence;
    job->awaiting = true;
    (void)snprintf(job->awaited_node, sizeof job->awaited_node, "%s", node->stored->id);
    pb_free(job->told);
    job->told = pb_copy(&command->base);
    job->told_ms = clock_monotonic_ms();
    (void)node_send(controller, node, command);
}

static void repeat_command(struct controller *controller, struct job *job, int64_t now_ms)
{
    const struct node *node = job->awaiting ? node_by_id(controller, job->awaited_node) : NULL;
    if (!node || !job->told ||
        now_ms - job->told_ms < (int64_t)controller->config.command_timeout_ms / REPEATS)
        return;
    job->told_ms = now_ms;
    (void)node_send(controller, node, job->told);
}

/* ---- the end ---- */

static void end(struct controller *controller, struct job *job, Vmpool__JobPhase phase)
{
    if (!job_running(job))
        return;
    struct job *parent = job_by_id(controller, job->stored->parent);
    job->stored->phase = phase;
    job->stored->ended_wall_ms = (uint64_t)clock_wall_ms();
    job->entering = job->awaiting = false;
    pb_free(job->told);
    job->told = NULL;
    job->fresh = true;
    job->deadline_ms = 0;
    if (job->vm && job->vm->job == job)
        job->vm->job = NULL;
    job->vm = NULL;
    tallies_job_ended(controller->tallies, job);
    job_save(controller, job);
    if (parent && parent->children > 0) {
        parent->children--;
        tell(controller, parent, &(struct job_event){.what = JOB_CHILD, .child = job});
    }
}

void job_done(struct controller *controller, struct job *job, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char text[ERROR_TEXT_MAX];
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    pb_set(&job->stored->text, text);
    pb_free(job->stored->failure);
    job->stored->failure = NULL;
    end(controller, job, VMPOOL__JOB_PHASE__JOB_DONE);
}

void job_fail(struct controller *controller, struct job *job, enum error_kind kind,
              const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char text[ERROR_TEXT_MAX];
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    Vmpool__JobPhase phase =
        job->stored->cancelled ? VMPOOL__JOB_PHASE__JOB_CANCELLED : VMPOOL__JOB_PHASE__JOB_FAILED;
    if (kind == ERROR_NONE)
        kind = ERROR_FAILED;
    job_keep_failure(job, kind, text);
    pb_set(&job->stored->text, text);
    event_add(controller, job->stored->cancelled ? "info" : "error", "job.failed",
              job->stored->subject, job->stored->id, "%s %s: %s", job->kind->name,
              job->stored->cancelled ? "was cancelled" : "failed", text);
    end(controller, job, phase);
}

void job_keep_failure(struct job *job, enum error_kind kind, const char *text)
{
    struct error err = {.kind = kind};
    (void)snprintf(err.text, sizeof err.text, "%s", text);
    void *failure = pb_failure(&err);
    pb_free(job->stored->failure);
    job->stored->failure = failure;
}

int job_cancel(struct controller *controller, struct job *job, struct error *err)
{
    if (!job_running(job))
        return error_set(err, ERROR_CONFLICT, "job %llu has ended already",
                         (unsigned long long)job->stored->id);
    if (!job->kind->own_cancel)
        return error_set(err, ERROR_CONFLICT,
                         "a %s can't be cancelled: wait for it, its steps all have a limit",
                         job->kind->name);
    if (!job->stored->cancelled) {
        job->stored->cancelled = true;
        job_save(controller, job);
        tell(controller, job, &(struct job_event){.what = JOB_CANCEL});
    }
    return 0;
}

/* ---- what happens ---- */

struct job *job_by_id(const struct controller *controller, uint64_t id)
{
    struct job *job = id ? controller->jobs : NULL;
    while (job && job->stored->id != id)
        job = job->next;
    return job;
}

void jobs_answer(struct controller *controller, const struct node *node, uint64_t request_id,
                 const Vmpool__NodeAnswer *answer)
{
    struct job *job = job_by_id(controller, request_id >> SEQUENCE_BITS);
    /* An answer to a command of an earlier step, or from another than was asked, is late or wrong.
     */
    if (!job || !job_running(job) || !job->awaiting ||
        (request_id & ((1u << SEQUENCE_BITS) - 1)) != job->stored->sequence ||
        strcmp(job->awaited_node, node->stored->id) != 0)
        return;
    job->awaiting = false;
    tell(controller, job, &(struct job_event){.what = JOB_ANSWER, .answer = answer});
}

void jobs_claim(struct controller *controller, const struct claim *claim)
{
    if (claim->vm->job)
        tell(controller, claim->vm->job, &(struct job_event){.what = JOB_CLAIM, .claim = claim});
}

void jobs_node_changed(struct controller *controller)
{
    controller->jobs_moved = true;
    for (struct job *next, *job = controller->jobs; job; job = next) {
        next = job->next;
        tell(controller, job, &(struct job_event){.what = JOB_NODE});
    }
}

void jobs_node_connected(struct controller *controller, const struct node *node)
{
    for (struct job *job = controller->jobs; job; job = job->next)
        if (job->awaiting && strcmp(job->awaited_node, node->stored->id) == 0) {
            job->entering = true;
            controller_touch(controller);
        }
}

void jobs_enter(struct controller *controller)
{
    /* Entering a step may begin jobs and end others: start over until none is due. */
    for (struct job *job = controller->jobs; job;) {
        if (!job->entering || !job_running(job)) {
            job = job->next;
            continue;
        }
        job->entering = false;
        tell(controller, job, &(struct job_event){.what = JOB_ENTER});
        job = controller->jobs;
    }
}

void jobs_check(struct controller *controller)
{
    int64_t now_ms = clock_monotonic_ms();
    for (struct job *next, *job = controller->jobs; job; job = next) {
        next = job->next;
        if (job_running(job))
            repeat_command(controller, job, now_ms);
        if (job->deadline_ms == 0 || job->deadline_ms > now_ms || !job_running(job))
            continue;
        job->deadline_ms = 0;
        tell(controller, job, &(struct job_event){.what = JOB_TIMEOUT});
    }
    prune(controller);
}

/* ---- after a restart ---- */

static int load_job(void *context, const char *key, const uint8_t *data, size_t size,
                    struct error *err)
{
    struct controller *controller = context;
    (void)key;
    Vmpool__Store__Job *stored = pb_unpack(&vmpool__store__job__descriptor, data, size, err);
    if (!stored)
        return -1;
    const struct job_kind *kind = find_kind(stored->kind);
    if (!kind) {
        log_warn("job %llu is a \"%s\", which this version does not know: left out",
                 (unsigned long long)stored->id, stored->kind);
        pb_free(stored);
        return 0;
    }
    struct job *job = mem_new(sizeof *job);
    job->stored = stored;
    job->kind = kind;
    job->next = controller->jobs;
    controller->jobs = job;
    if (stored->id >= controller->next_job)
        controller->next_job = stored->id + 1;
    if (job_running(job)) {
        auto_free char *step = text_copy(stored->step);
        job->vm = vm_by_id(controller, stored->vm_id);
        if (job->vm)
            job->vm->job = job;
        enter(job, step);
    }
    return 0;
}

int jobs_load(struct controller *controller, struct error *err)
{
    return store_read(controller->store, STORE_JOB, "", 0, load_job, controller, err);
}

void jobs_resume(struct controller *controller)
{
    for (struct job *job = controller->jobs; job; job = job->next) {
        struct job *parent = job_running(job) ? job_by_id(controller, job->stored->parent) : NULL;
        if (parent)
            parent->children++;
        if (job_running(job))
            log_info("job %llu (%s %s) goes on at \"%s\"", (unsigned long long)job->stored->id,
                     job->kind->name, job->stored->subject, job->stored->step);
    }
    controller->jobs_moved = true;
    controller_touch(controller);
}

void jobs_free(struct controller *controller)
{
    while (controller->jobs) {
        struct job *job = controller->jobs;
        controller->jobs = job->next;
        pb_free(job->told);
        pb_free(job->stored);
        free(job);
    }
}

Vmpool__Job *job_describe(const struct job *job)
{
    const Vmpool__Store__Job *stored = job->stored;
    Vmpool__Job *out = mem_new(sizeof *out);
    vmpool__job__init(out);
    out->id = stored->id;
    pb_set(&out->kind, stored->kind);
    pb_set(&out->subject, stored->subject);
    out->phase = stored->phase;
    pb_set(&out->step, stored->step);
    pb_set(&out->text, stored->text);
    out->created_wall_ms = stored->created_wall_ms;
    out->ended_wall_ms = stored->ended_wall_ms;
    out->migration = stored->migration ? pb_copy(&stored->migration->base) : NULL;
    out->review = stored->review ? pb_copy(&stored->review->base) : NULL;
    if (!job_running(job) && stored->failure)
        out->failure = pb_copy(&stored->failure->base);
    out->steps_total = stored->total ? stored->total : job->kind->course;
    out->steps_done = stored->total ? stored->moved : job->step;
    if (stored->phase == VMPOOL__JOB_PHASE__JOB_DONE || out->steps_done > out->steps_total)
        out->steps_done = out->steps_total;
    pb_set(&out->admin, stored->admin);
    out->placement = stored->placement ? pb_copy(&stored->placement->base) : NULL;
    out->parent = stored->parent;
    pb_set(&out->from_node, stored->from_name);
    pb_set(&out->to_node, stored->to_name);
    return out;
}

#include "poolctl/job.h"

#include <inttypes.h>

#include "common/clock.h"
#include "common/units.h"
#include "poolctl/ask.h"
#include "poolctl/message.h"
#include "poolctl/placement.h"
#include "poolctl/progress.h"
#include "poolctl/summary.h"
#include "poolctl/view.h"

#define REDRAW_MS 500

int job_wait_options(const struct invocation *call, struct job_wait *wait, struct error *err)
{
    *wait = (struct job_wait){.no_wait = invocation_has(call, "no-wait")};
    return invocation_ms(call, "timeout", &wait->timeout_ms, err);
}

static int print_json(const struct invocation *call, const Vmpool__Job *job, struct error *err)
{
    struct view_style style = view_style_of(call);
    return view_one(&style, &view_jobs, NULL, message_to_json(&job->base, err), err);
}

/* A job that was started and is not waited for. */
static int print_started(const struct invocation *call, const Vmpool__Job *job, struct error *err)
{
    if (invocation_format(call) != OUTPUT_TABLE)
        return print_json(call, job, err);
    (void)fprintf(call->terminal.out, "%" PRIu64 "\n", job->id);
    return 0;
}

static int print_ended(const struct invocation *call, const Vmpool__Job *job, const char *from,
                       struct error *err)
{
    bool people = invocation_format(call) == OUTPUT_TABLE;
    if (!people && print_json(call, job, err) < 0)
        return -1;
    if (job->phase == VMPOOL__JOB_PHASE__JOB_DONE) {
        if (people)
            summary_print(call, job, from);
        return 0;
    }
    uint32_t kind = job->failure ? job->failure->kind : ERROR_FAILED;
    const char *text = job->failure && job->failure->text[0] ? job->failure->text : job->text;
    if (job->phase == VMPOOL__JOB_PHASE__JOB_CANCELLED)
        return error_set(err, ERROR_FAILED, "job %" PRIu64 " (%s %s) was cancelled%s%s", job->id,
                         job->kind, job->subject, text[0] ? ": " : "", text);
    return error_set(
        err, kind > ERROR_NONE && kind <= ERROR_UNREACHABLE ? (enum error_kind)kind : ERROR_FAILED,
        "%s %s failed: %s", job->kind, job->subject, text);
}

struct waiting {
    struct invocation *call;
    struct session *session;
    struct progress progress;
    uint64_t id;
    int64_t until_ms;
    uint64_t timeout_ms;
    bool lost_said;
};

/* Says once that the connection went, and that it is back. */
static void note_connection(struct waiting *waiting)
{
    bool lost = !session_connected(waiting->session);
    if (lost && !waiting->lost_said)
        progress_note(&waiting->progress,
                      "The connection to the controller is lost; the job goes on. Trying again.");
    else if (!lost && waiting->lost_said)
        progress_note(&waiting->progress, "The controller is back.");
    waiting->lost_said = lost;
}

/* Whether to stop waiting although the job runs: 1 Ctrl-C, -1 the timeout, 0 go on. */
static int given_up(struct waiting *waiting, struct error *err)
{
    char time[32];
    if (session_interrupted(waiting->session)) {
        progress_clear(&waiting->progress);
        (void)fprintf(waiting->call->terminal.err,
                      "Job %" PRIu64 " goes on. Watch it with 'poolctl job watch %" PRIu64
                      "', stop it with 'poolctl job cancel %" PRIu64 "'.\n",
                      waiting->id, waiting->id, waiting->id);
        waiting->call->interrupted = true;
        return 1;
    }
    if (clock_monotonic_ms() < waiting->until_ms)
        return 0;
    progress_clear(&waiting->progress);
    return error_set(err, ERROR_TIMEOUT,
                     "job %" PRIu64 " has not ended within %s and goes on: 'poolctl job watch "
                     "%" PRIu64 "', or 'poolctl job cancel %" PRIu64 "'",
                     waiting->id, units_format_ms(waiting->timeout_ms, time, sizeof time),
                     waiting->id, waiting->id);
}

/* Takes answers until the job has ended; its last one is given to the caller. NULL where waiting
 * ended first: by an error, or by Ctrl-C, which is none. */
static Vmpool__AdminReply *follow(struct waiting *waiting, struct session_request *watch,
                                  struct error *err)
{
    Vmpool__AdminReply *reply = NULL;
    Vmpool__AdminReply *last = NULL;
    while (given_up(waiting, err) == 0) {
        int got = session_next(waiting->session, watch, REDRAW_MS, &reply, err);
        if (got < 0)
            break;
        note_connection(waiting);
        if (got > 0 && reply->body_case == VMPOOL__ADMIN_REPLY__BODY_JOB) {
            vmpool__admin_reply__free_unpacked(last, NULL);
            last = reply;
            if (last->job->phase > VMPOOL__JOB_PHASE__JOB_RUNNING)
                return last;
        } else if (got > 0) {
            vmpool__admin_reply__free_unpacked(reply, NULL);
        }
        if (last && session_connected(waiting->session))
            progress_job(&waiting->progress, last->job);
    }
    vmpool__admin_reply__free_unpacked(last, NULL);
    return NULL;
}

int job_watch(struct invocation *call, struct session *session, uint64_t id,
              const struct job_wait *wait, struct error *err)
{
    struct waiting waiting = {.call = call, .session = session, .id = id, .until_ms = INT64_MAX};
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__JobWatch body = VMPOOL__JOB_WATCH__INIT;
    body.id = id;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_JOB_WATCH;
    request.job_watch = &body;
    if (wait->timeout_ms && wait->timeout_ms < INT64_MAX / 2)
        waiting.until_ms = clock_monotonic_ms() + (int64_t)wait->timeout_ms;
    waiting.timeout_ms = wait->timeout_ms;
    progress_begin(&waiting.progress, call);
    session_set_patience(session, SESSION_RETRY_MS);
    if (session_catch_interrupts(session, err) < 0)
        return -1;
    struct session_request *watch = session_begin(session, &request, err);
    if (!watch)
        return -1;
    Vmpool__AdminReply *ended = follow(&waiting, watch, err);
    progress_clear(&waiting.progress);
    session_end(session, watch);
    if (!ended)
        return err->kind == ERROR_NONE ? 0 : -1;
    int result = print_ended(call, ended->job, wait->from, err);
    vmpool__admin_reply__free_unpacked(ended, NULL);
    return result;
}

/* A refusal that comes with the reasons of each node. */
static int print_refusal(const struct invocation *call, const struct session *session,
                         struct error *err)
{
    const Vmpool__AdminReply *failed = session_failed(session);
    struct error ignored = ERROR_INIT;
    if (failed && failed->body_case == VMPOOL__ADMIN_REPLY__BODY_PLACEMENT &&
        invocation_has(call, "dry-run"))
        (void)placement_print(call, failed->placement, &ignored);
    return err->kind == ERROR_NONE ? error_set(err, ERROR_FAILED, "refused") : -1;
}

/* A change that was done at once is answered with how the nodes are now. */
static int print_nodes(const struct invocation *call, const Vmpool__AdminReply *reply,
                       const char *done, struct error *err)
{
    struct view_style style = view_style_of(call);
    json_t *json = message_to_json(&reply->nodes->base, err);
    json_t *node = json_incref(json_array_get(message_at(json, "nodes"), 0));
    int result = 0;
    if (style.format != OUTPUT_TABLE && node)
        result = view_one(&style, &view_nodes, NULL, json_incref(node), err);
    else if (!style.quiet)
        (void)fprintf(style.terminal.out, "%s %s.\n", message_text(node, "name"),
                      done ? done : "is as you want it");
    json_decref(node);
    json_decref(json);
    return result;
}

int job_run(struct invocation *call, struct session *session, Vmpool__AdminRequest *request,
            const struct job_wait *wait, struct error *err)
{
    Vmpool__AdminReply *reply = NULL;
    int result = 0;
    if (session_call(session, request, &reply, err) < 0)
        return print_refusal(call, session, err);
    if (reply->body_case == VMPOOL__ADMIN_REPLY__BODY_PLACEMENT)
        result = placement_print(call, reply->placement, err);
    else if (reply->body_case == VMPOOL__ADMIN_REPLY__BODY_NODES)
        result = print_nodes(call, reply, wait->done, err);
    else if (reply->body_case != VMPOOL__ADMIN_REPLY__BODY_JOB)
        result = error_set(err, ERROR_FAILED, ASK_WRONG_ANSWER);
    else if (reply->job->phase > VMPOOL__JOB_PHASE__JOB_RUNNING)
        result = print_ended(call, reply->job, wait->from, err);
    else if (wait->no_wait)
        result = print_started(call, reply->job, err);
    else
        result = job_watch(call, session, reply->job->id, wait, err);
    vmpool__admin_reply__free_unpacked(reply, NULL);
    return result;
}

/* cmd_job.c: poolctl job ls|show|watch|cancel. */
#include <inttypes.h>

#include "common/units.h"
#include "poolctl/ask.h"
#include "poolctl/commands.h"
#include "poolctl/job.h"
#include "poolctl/message.h"
#include "poolctl/placement.h"
#include "poolctl/summary.h"

static int read_id(const struct invocation *call, uint64_t *id, struct error *err)
{
    return units_parse_number(invocation_argument(call, 0), "JOB", 1, INT64_MAX, id, err);
}

static int run_ls(struct invocation *call, struct error *err)
{
    Vmpool__JobList body = VMPOOL__JOB_LIST__INIT;
    body.all = invocation_has(call, "all");
    ADMIN_REQUEST(request, JOB_LIST, job_list, &body);
    return ask_and_print(call, &request, VMPOOL__ADMIN_REPLY__BODY_JOBS, &view_jobs, err);
}

static const struct command job_ls = {
    .name = "ls",
    .summary = "list the jobs that run, and those that ended in the last day",
    .options =
        (const struct option[]){{.name = "all", .help = "also those that ended earlier"}, {0}},
    .run = run_ls,
};

static const struct field job_lines[] = {
    {"Id", "id", NULL, FIELD_NUMBER, 0},
    {"Kind", "kind", NULL, FIELD_TEXT, 0},
    {"Subject", "subject", NULL, FIELD_TEXT, 0},
    {"Phase", "phase", NULL, FIELD_PHASE, 0},
    {"Step", "step", NULL, FIELD_TEXT, FIELD_OPTIONAL},
    {"Steps", "steps_done", "steps_total", FIELD_NUMBER, FIELD_OPTIONAL},
    {"Text", "text", NULL, FIELD_TEXT, FIELD_OPTIONAL},
    {"Failure", "failure.text", NULL, FIELD_TEXT, FIELD_OPTIONAL},
    {"From", "from_node", NULL, FIELD_TEXT, FIELD_OPTIONAL},
    {"To", "to_node", NULL, FIELD_TEXT, FIELD_OPTIONAL},
    {"Why there", "placement.summary", NULL, FIELD_TEXT, FIELD_OPTIONAL},
    {"Created", "created_wall_ms", NULL, FIELD_TIME, 0},
    {"Ended", "ended_wall_ms", NULL, FIELD_TIME, FIELD_OPTIONAL},
    {"By", "admin", NULL, FIELD_TEXT, FIELD_OPTIONAL},
    {"Part of job", "parent", NULL, FIELD_NUMBER, FIELD_OPTIONAL},
    {0}};

static int print_job(const struct invocation *call, const Vmpool__Job *job, struct error *err)
{
    struct view_style style = view_style_of(call);
    json_t *json = message_to_json(&job->base, err);
    int result = view_one(&style, &view_jobs, job_lines, json_incref(json), err);
    const json_t *rounds = message_at(json, "migration.rounds");
    if (result == 0 && style.format == OUTPUT_TABLE && job->migration) {
        (void)fprintf(style.terminal.out, "\nMigration: %s\n",
                      message_text(json, "migration.phase"));
        summary_migration(call, job->migration, job->review);
        if (json_array_size(rounds) > 0)
            view_table(&style, &view_rounds, "", rounds);
    }
    json_decref(json);
    return result;
}

static int run_show(struct invocation *call, struct error *err)
{
    Vmpool__JobList body = VMPOOL__JOB_LIST__INIT;
    ADMIN_REQUEST(request, JOB_LIST, job_list, &body);
    Vmpool__AdminReply *reply = NULL;
    if (read_id(call, &body.id, err) < 0 ||
        ask(call, &request, VMPOOL__ADMIN_REPLY__BODY_JOBS, &reply, err) < 0)
        return -1;
    int result = reply->jobs->n_jobs > 0
                     ? print_job(call, reply->jobs->jobs[0], err)
                     : error_set(err, ERROR_NOT_FOUND,
                                 "there is no job %" PRIu64 ": see poolctl job ls --all", body.id);
    vmpool__admin_reply__free_unpacked(reply, NULL);
    return result;
}

static const struct command job_show = {
    .name = "show",
    .summary = "all about one job; of a migration the rounds and the pause",
    .arguments = ONE_ARGUMENT("JOB", "the job's id", COMPLETE_JOB),
    .run = run_show,
};

static int run_watch(struct invocation *call, struct error *err)
{
    uint64_t id = 0;
    struct job_wait wait;
    if (read_id(call, &id, err) < 0 || job_wait_options(call, &wait, err) < 0)
        return -1;
    struct session *session = session_open(call, err);
    int result = session ? job_watch(call, session, id, &wait, err) : -1;
    session_close(session);
    return result;
}

static const struct command job_watch_command = {
    .name = "watch",
    .summary = "show how far a job is until it ends, and how it ended",
    .details = "The exit status is the one the command that started the job would have had.",
    .arguments = ONE_ARGUMENT("JOB", "the job's id", COMPLETE_JOB),
    .options = (const struct option[]){{.name = "timeout",
                                        .value = "TIME",
                                        .help = "stop watching after this time (exit status 6)"},
                                       {0}},
    .run = run_watch,
};

static int run_cancel(struct invocation *call, struct error *err)
{
    struct view_style style = view_style_of(call);
    Vmpool__JobCancel body = VMPOOL__JOB_CANCEL__INIT;
    ADMIN_REQUEST(request, JOB_CANCEL, job_cancel, &body);
    Vmpool__AdminReply *reply = NULL;
    if (read_id(call, &body.id, err) < 0 ||
        ask(call, &request, VMPOOL__ADMIN_REPLY__BODY_JOB, &reply, err) < 0)
        return -1;
    int result = 0;
    if (style.format != OUTPUT_TABLE)
        result = view_one(&style, &view_jobs, NULL, message_to_json(&reply->job->base, err), err);
    else if (reply->job->phase == VMPOOL__JOB_PHASE__JOB_CANCELLED)
        (void)fprintf(style.terminal.out, "Job %" PRIu64 " is cancelled.\n", body.id);
    else
        (void)fprintf(style.terminal.out, "Job %" PRIu64 " is being cancelled.\n", body.id);
    vmpool__admin_reply__free_unpacked(reply, NULL);
    return result;
}

static const struct command job_cancel = {
    .name = "cancel",
    .summary = "stop a job and undo what it did",
    .details = "A migration can be cancelled until its handover; the VM then runs on where it was.",
    .arguments = ONE_ARGUMENT("JOB", "the job's id", COMPLETE_JOB),
    .run = run_cancel,
};

const struct command command_job = {
    .name = "job",
    .summary = "what the controller is doing and has done",
    .children =
        (const struct command *const[]){&job_ls, &job_show, &job_watch_command, &job_cancel, NULL},
};

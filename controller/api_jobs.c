/* Jobs and events: list, watch, cancel, follow. */
#include "common/clock.h"
#include "controller/api.h"
#include "controller/events.h"
#include "controller/jobs.h"
#include "controller/pb.h"
#include "controller/streams.h"

#define DAY_MS (24ull * 3600 * 1000)

static struct job *find_job(const struct controller *controller, uint64_t id, struct error *err)
{
    struct job *job = job_by_id(controller, id);
    if (!job)
        (void)error_set(err, ERROR_NOT_FOUND, "there is no job %llu: \"poolctl job ls\" shows them",
                        (unsigned long long)id);
    return job;
}

int api_job_list(struct controller *controller, struct api_call *call, struct error *err)
{
    const Vmpool__JobList *list = call->request->job_list;
    const struct job *only = list->id ? find_job(controller, list->id, err) : NULL;
    uint64_t since_ms = (uint64_t)clock_wall_ms() - DAY_MS;
    if (list->id && !only)
        return -1;
    Vmpool__JobTable *table = mem_new(sizeof *table);
    vmpool__job_table__init(table);
    call->reply.body_case = VMPOOL__ADMIN_REPLY__BODY_JOBS;
    call->reply.jobs = table;
    for (const struct job *job = only ? only : controller->jobs; job;
         job = only ? NULL : job->next) {
        if (table->n_jobs == TABLE_ROWS_MAX)
            api_send_part(controller, call);
        if (only || list->all || job_running(job) || job->stored->ended_wall_ms >= since_ms)
            pb_push(&table->jobs, &table->n_jobs, job_describe(job));
    }
    return 0;
}

int api_job_watch(struct controller *controller, struct api_call *call, struct error *err)
{
    const struct job *job = find_job(controller, call->request->job_watch->id, err);
    if (!job)
        return -1;
    api_reply_job(call, job);
    if (job_running(job)) {
        api_send_part(controller, call);
        stream_open(controller, job->stored->id, call->peer, call->request->request_id);
        call->later = true;
    }
    return 0;
}

int api_job_cancel(struct controller *controller, struct api_call *call, struct error *err)
{
    struct job *job = find_job(controller, call->request->job_cancel->id, err);
    if (!job || job_cancel(controller, job, err) < 0)
        return -1;
    api_reply_job(call, job);
    return 0;
}

int api_event_watch(struct controller *controller, struct api_call *call, struct error *err)
{
    (void)err;
    call->later = true;
    events_watch(controller, call->peer, call->request->request_id, call->request->event_watch);
    return 0;
}

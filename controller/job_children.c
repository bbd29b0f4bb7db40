#include "controller/job_children.h"

#include "controller/controller.h"
#include "controller/migrate_queue.h"
#include "controller/pb.h"

bool job_may_begin_child(const struct controller *controller, const struct job *job)
{
    return migrate_queue_children(controller, job) < controller->config.migrations_pool;
}

void job_say_children(struct controller *controller, struct job *job)
{
    unsigned waiting = migrate_queue_children(controller, job);
    job_say(controller, job, "%u of %u moved, %u moving, %u waiting", job->stored->moved,
            job->stored->total, job->children - waiting, waiting);
}

static void child_ended(struct controller *controller, struct job *job, const struct job *child)
{
    if (child->stored->phase == VMPOOL__JOB_PHASE__JOB_DONE)
        job->stored->moved++;
    else
        pb_push_text(&job->stored->failed_vms, &job->stored->n_failed_vms, child->stored->subject);
    job_save(controller, job);
}

bool job_tend_children(struct controller *controller, struct job *job,
                       const struct job_event *event)
{
    struct error err = ERROR_INIT;
    switch (event->what) {
    case JOB_CANCEL:
        for (struct job *child = controller->jobs; child; child = child->next)
            if (child->stored->parent == job->stored->id && job_running(child))
                (void)job_cancel(controller, child, &err);
        return true;
    case JOB_CHILD:
        child_ended(controller, job, event->child);
        return true;
    case JOB_ENTER:
    case JOB_TIMEOUT:
    case JOB_NODE:
        return true;
    default:
        return false;
    }
}

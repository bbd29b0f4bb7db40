#include "controller/faults.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fault.h"
#include "controller/jobs.h"

void faults_act(struct controller *controller, const char *moment)
{
    if (!getenv("VMPOOL_FAULTS"))
        return;
    for (struct job *job = controller->jobs; job; job = job->next) {
        char point[128];
        if (!job->fresh)
            continue;
        (void)snprintf(point, sizeof point, "job.%s.%s.%s", job->kind->name,
                       job_running(job) ? job->stored->step : "end", moment);
        (void)fault_point(point);
        if (strcmp(moment, "sent") == 0)
            job->fresh = false;
    }
}

/* job_children.h: what jobs have in common that move VMs by jobs of their own. */
#pragma once

#include "controller/jobs.h"

/* Counts a child that ended in @job's journal (moved, failed_vms), and hands a cancel on to all
 * that run. True where the step must look at what to do next. */
bool job_tend_children(struct controller *controller, struct job *job,
                       const struct job_event *event);

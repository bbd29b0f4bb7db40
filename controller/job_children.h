/* job_children.h: what jobs have in common that move VMs by jobs of their own. */
#pragma once

#include "controller/jobs.h"

/* Whether it may begin another child: only so many wait that the pool's links never do
 * (migrate_queue.h), and all else waits in the job itself, so that its VM is free and its host is
 * chosen late. */
bool job_may_begin_child(const struct controller *controller, const struct job *job);
/* "3 of 20 moved, 2 moving, 15 waiting" */
void job_say_children(struct controller *controller, struct job *job);
/* Counts a child that ended in @job's journal (moved, failed_vms), and hands a cancel on to all
 * that run. True where the step must look at what to do next. */
bool job_tend_children(struct controller *controller, struct job *job,
                       const struct job_event *event);

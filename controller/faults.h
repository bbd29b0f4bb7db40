/*
 * faults.h: where a test may make the controller die (common/fault.h).
 *
 * For each step S of each kind of job K, in the turn in which a job comes to that step:
 *
 *   job.K.S.entering     before the turn is committed: the step has not happened
 *   job.K.S.journalled   after it, before the step's command is sent
 *   job.K.S.sent         after that
 *
 * and the same with S "end" for the turn in which the job ends.
 */
#pragma once

#include "controller/controller.h"

void faults_act(struct controller *controller, const char *moment);

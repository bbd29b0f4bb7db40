/*
 * job.h: what every command that changes something does: start a job, wait for it and show how
 * far it is, and say how it ended.
 */
#pragma once

#include "common/error.h"
#include "poolctl/invocation.h"
#include "poolctl/session.h"

struct job_wait {
    uint64_t timeout_ms; /* to wait; 0: as long as it takes */
    bool no_wait;
    const char *done; /* said of a change that was made at once: "takes VMs again" */
    const char *from; /* node a VM moves from, where the job does not say it */
};

/* --no-wait and --timeout of @call. */
int job_wait_options(const struct invocation *call, struct job_wait *wait, struct error *err);

/* Sends @request, whose answer is a job, waits for its end unless told not to, and prints the
 * result. Where the answer is a placement instead (a dry run), prints that. A job that fails gives
 * its own error; Ctrl-C leaves it running and says how to go on. */
int job_run(struct invocation *call, struct session *session, Vmpool__AdminRequest *request,
            const struct job_wait *wait, struct error *err);

/* Watches a job that exists. */
int job_watch(struct invocation *call, struct session *session, uint64_t id,
              const struct job_wait *wait, struct error *err);

/* The options of commands that wait, for the command tree. */
#define JOB_WAIT_OPTIONS                                                                           \
    {.name = "no-wait", .help = "print the job's id and don't wait for its end"},                  \
    {                                                                                              \
        .name = "timeout", .value = "TIME",                                                        \
        .help = "stop waiting after this time; the job goes on (exit status 6)"                    \
    }

/*
 * jobs.h: every change of the pool is a job, written to the store before its first side effect.
 *
 * A kind of job is a table of steps. A step is one function that hears what happens while the job
 * is in it; it sends commands, waits, and ends by job_go() to another step or by ending the job.
 * All it needs is in the journal (Vmpool__Store__Job), because JOB_ENTER comes again after a
 * restart and whenever the node that a command went to connects again: the command is then sent
 * again, under the same request_id, and the agent answers what it answered before. So JOB_ENTER
 * must be safe to repeat: it may not count or choose anything anew.
 */
#pragma once

#include "controller/controller.h"
#include "controller/nodes.h"
#include "controller/vms.h"
#include "proto/store.pb-c.h"

/* Ended jobs kept for people. */
#define JOBS_KEPT 1000

enum job_happening {
    JOB_ENTER,   /* the step begins, or is taken up again */
    JOB_ANSWER,  /* to the step's command: @answer */
    JOB_TIMEOUT, /* the step took longer than its limit */
    JOB_CLAIM,   /* a node said something of the job's VM */
    JOB_NODE,    /* a node came, went or was removed */
    JOB_CANCEL,  /* the operator wants it undone; job->stored->cancelled is set */
    JOB_CHILD,   /* a child ended */
};

struct job_event {
    enum job_happening what;
    const Vmpool__NodeAnswer *answer;
    const struct claim *claim;
    const struct job *child;
};

typedef void (*job_step_fn)(struct controller *controller, struct job *job,
                            const struct job_event *event);

struct job_step {
    const char *name;
    job_step_fn on;
};

struct job_kind {
    const char *name;
    const struct job_step *steps;
    unsigned step_count;
    unsigned course; /* the first so many are those of a job that goes well */
    bool own_cancel; /* its steps hear JOB_CANCEL; others can't be cancelled */
};

struct job {
    struct job *next;
    Vmpool__Store__Job *stored;
    const struct job_kind *kind;
    unsigned step;
    struct vm *vm; /* it works on; NULL: none, or removed */
    bool entering; /* JOB_ENTER is due */
    bool fresh;    /* came to its step, or ended, in this turn; for faults.h */
    bool awaiting; /* an answer, from ... */
    char awaited_node[33];
    Vmpool__ControllerToNode *told; /* the last command, and when it was said last */
    int64_t told_ms;
    int64_t deadline_ms; /* monotonic; 0: none */
    int64_t entered_ms;
    unsigned children;  /* running */
    int64_t settled_ms; /* of a migration: when the source answered; 0: not yet */
    int64_t decide_ms;  /* of a migration: when we decide what did not end by itself; 0: open */
};

extern const struct job_kind job_vm_create, job_vm_start, job_vm_stop, job_vm_kill, job_vm_remove,
    job_vm_migrate, job_node_drain, job_plan;
/* All of them. */
#define JOB_KINDS 8
extern const struct job_kind *const job_kinds[JOB_KINDS];

/* Begins a job in @step: @stored (taken) has all but id, phase and times. */
struct job *job_begin(struct controller *controller, const struct job_kind *kind, const char *step,
                      Vmpool__Store__Job *stored, struct vm *vm);
/* A new journal entry, to be filled and given to job_begin(). */
Vmpool__Store__Job *job_journal(const char *subject, const char *admin);

/* To another step; the next command is a new one. */
void job_go(struct controller *controller, struct job *job, const char *step);
/* The same step once more, after those of the jobs that it began. */
void job_again(struct controller *controller, struct job *job);
/* The next command of the same step is a new one. */
void job_next_command(struct controller *controller, struct job *job);
void job_save(struct controller *controller, const struct job *job);
/* What it does now, for people. Saved, and shown to those who watch. */
void job_say(struct controller *controller, struct job *job, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Sends what it is now to those who watch; not saved. */
void job_show(struct controller *controller, const struct job *job);
/* JOB_TIMEOUT comes in @ms; 0: never. */
void job_limit(struct job *job, uint64_t ms);
/* Sends a command of this step to a node, and awaits its answer. Not connected: it is sent when
 * the node is back, by JOB_ENTER. One that stays unanswered is said again, as it was: either it or
 * its answer may be lost. */
void job_command(struct controller *controller, struct job *job, const struct node *node,
                 Vmpool__ControllerToNode *command);

void job_done(struct controller *controller, struct job *job, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Fails, or is cancelled where that was asked. */
void job_fail(struct controller *controller, struct job *job, enum error_kind kind,
              const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Keeps a reason that job_fail() will be called with later. */
void job_keep_failure(struct job *job, enum error_kind kind, const char *text);
bool job_running(const struct job *job);

/* For the other modules. */
struct job *job_by_id(const struct controller *controller, uint64_t id);
void jobs_answer(struct controller *controller, const struct node *node, uint64_t request_id,
                 const Vmpool__NodeAnswer *answer);
void jobs_claim(struct controller *controller, const struct claim *claim);
void jobs_node_changed(struct controller *controller);
/* The node connected: what it was told last is told again. */
void jobs_node_connected(struct controller *controller, const struct node *node);
int job_cancel(struct controller *controller, struct job *job, struct error *err);
/* Carries out what is due: entries and timeouts. By the end of each turn and the tick. */
void jobs_enter(struct controller *controller);
void jobs_check(struct controller *controller);
int jobs_load(struct controller *controller, struct error *err);
void jobs_resume(struct controller *controller);
void jobs_free(struct controller *controller);

/* For poolctl; free with pb_free(). */
Vmpool__Job *job_describe(const struct job *job);

/* migrate.h: what the steps of a migration share (job_vm_migrate.c). */
#pragma once

#include "controller/jobs.h"

/* The two ends; NULL where the node was removed. */
struct node *migrate_source(const struct controller *controller, const struct job *job);
struct node *migrate_target(const struct controller *controller, const struct job *job);

/* Commands of the current step. @node NULL: nothing is sent. */
void migrate_send(struct controller *controller, struct job *job, const struct node *node,
                  Vmpool__NodeVmCommand__Action action, uint64_t epoch);
void migrate_send_prepare(struct controller *controller, struct job *job,
                          const struct node *target);
void migrate_send_out(struct controller *controller, struct job *job, const struct node *source);
void migrate_send_cancel(struct controller *controller, struct job *job, const struct node *source);

/* Discards the target, which did not come to run, for a reason; the next host may be asked. */
void migrate_undo_because(struct controller *controller, struct job *job, enum error_kind kind,
                          const char *text);
/* The VM's last_migration, and its review, become this one's. */
void migrate_keep_progress(struct job *job);
/* Ends the job with the reason that was kept; the VM is what its old node says. */
void migrate_fail_at_source(struct controller *controller, struct job *job);

/* In "accept": true where the source may not go yet, for it has pages the target lacks; says what
 * is waited for, and goes to "lost" where they will not come (migrate_postcopy.c). */
bool migrate_awaits_pages(struct controller *controller, struct job *job);

/* Steps (migrate_queue.c, migrate_ends.c, migrate_postcopy.c). */
void migrate_on_queue(struct controller *, struct job *, const struct job_event *);
void migrate_on_ready(struct controller *, struct job *, const struct job_event *);
void migrate_on_undo(struct controller *, struct job *, const struct job_event *);
void migrate_on_abandon(struct controller *, struct job *, const struct job_event *);
void migrate_on_gone(struct controller *, struct job *, const struct job_event *);
void migrate_on_run_target(struct controller *, struct job *, const struct job_event *);
void migrate_on_take_back(struct controller *, struct job *, const struct job_event *);
void migrate_on_leave(struct controller *, struct job *, const struct job_event *);
void migrate_on_run_source(struct controller *, struct job *, const struct job_event *);
void migrate_on_lost(struct controller *, struct job *, const struct job_event *);
void migrate_on_accept(struct controller *, struct job *, const struct job_event *);

/* The pool as a whole: what it is, its nodes and VMs by phase, jobs and the scheduler. */
#include "controller/metrics.h"

#include "controller/migrate_queue.h"
#include "controller/tallies.h"

static void write_one(struct metric_text *text, const char *name, enum metric_type type,
                      const char *help, double value)
{
    metric_family(text, name, type, help);
    metric_sample(text, NULL, 0, value);
}

static void write_controller(const struct controller *controller, struct metric_text *text)
{
    const struct metric_label version = {"version", VMPOOL_VERSION};
    metric_family(text, "vmpool_build_info", METRIC_GAUGE, "1, with the controller's version.");
    metric_sample(text, &version, 1, 1);
    write_one(text, "vmpool_controller_start_time_seconds", METRIC_GAUGE,
              "Unix time when the controller began to count.",
              metrics_ms((uint64_t)controller->started_wall_ms));
}

static void write_nodes(const struct controller *controller, struct metric_text *text)
{
    const ProtobufCEnumDescriptor *phases = &vmpool__node_phase__descriptor;
    metric_family(text, "vmpool_nodes", METRIC_GAUGE, "Nodes by phase.");
    for (unsigned i = 1; i < phases->n_values; i++) { /* the first is none at all */
        Vmpool__NodePhase phase = (Vmpool__NodePhase)phases->values[i].value;
        const struct metric_label label = {"phase", node_phase_name(phase)};
        unsigned count = 0;
        for (const struct node *node = controller->nodes; node; node = node->next)
            count += node->phase == phase;
        metric_sample(text, &label, 1, count);
    }
}

static void write_vms(const struct controller *controller, struct metric_text *text)
{
    const ProtobufCEnumDescriptor *phases = &vmpool__vm_phase__descriptor;
    metric_family(text, "vmpool_vms", METRIC_GAUGE, "VMs by phase.");
    for (unsigned i = 1; i < phases->n_values; i++) {
        Vmpool__VmPhase phase = (Vmpool__VmPhase)phases->values[i].value;
        const struct metric_label label = {"phase", vm_phase_name(phase)};
        unsigned count = 0;
        for (const struct vm *vm = controller->vms; vm; vm = vm->next)
            count += vm->stored->phase == phase;
        metric_sample(text, &label, 1, count);
    }
}

static void write_jobs(const struct controller *controller, struct metric_text *text)
{
    const struct tallies *tallies = controller->tallies;
    unsigned running[JOB_KINDS] = {0};
    for (const struct job *job = controller->jobs; job; job = job->next)
        for (unsigned i = 0; i < JOB_KINDS; i++)
            running[i] += job->kind == job_kinds[i] && job_running(job);
    metric_family(text, "vmpool_jobs_running", METRIC_GAUGE, "Jobs that run now, by kind.");
    for (unsigned i = 0; i < JOB_KINDS; i++) {
        const struct metric_label label = {"kind", job_kinds[i]->name};
        metric_sample(text, &label, 1, running[i]);
    }
    metric_family(text, "vmpool_jobs_started_total", METRIC_COUNTER, "Jobs begun, by kind.");
    for (unsigned i = 0; i < JOB_KINDS; i++) {
        const struct metric_label label = {"kind", job_kinds[i]->name};
        metric_sample(text, &label, 1, (double)tallies->jobs_started[i]);
    }
    metric_family(text, "vmpool_jobs_ended_total", METRIC_COUNTER,
                  "Jobs ended, by kind and outcome; those begun before a restart, too.");
    for (unsigned i = 0; i < JOB_KINDS; i++)
        for (unsigned outcome = 0; outcome < TALLY_OUTCOMES; outcome++) {
            const struct metric_label labels[] = {{"kind", job_kinds[i]->name},
                                                  {"outcome", metrics_outcome_name(outcome)}};
            metric_sample(text, labels, 2, (double)tallies->jobs_ended[i][outcome]);
        }
}

static void write_scheduler(const struct controller *controller, struct metric_text *text)
{
    const struct tallies *tallies = controller->tallies;
    write_one(text, "vmpool_scheduler_decisions_total", METRIC_COUNTER,
              "Times that a node was looked for, dry runs included.", (double)tallies->decisions);
    write_one(text, "vmpool_scheduler_refusals_total", METRIC_COUNTER,
              "Of these, those that found none.", (double)tallies->refusals);
    bool used = false;
    double explained = scheduler_lifetimes_explained(controller->scheduler, &used);
    write_one(text, "vmpool_scheduler_lifetimes_explained_ratio", METRIC_GAUGE,
              "Share of the variance of VMs' lifetimes that forecasts of late explained (policy "
              "best).",
              explained);
    write_one(text, "vmpool_scheduler_lifetimes_used", METRIC_GAUGE,
              "1 while placements go by forecasts of lifetimes.", used ? 1 : 0);
}

void metrics_write_pool(const struct controller *controller, struct metric_text *text)
{
    write_controller(controller, text);
    write_nodes(controller, text);
    write_vms(controller, text);
    write_jobs(controller, text);
    write_scheduler(controller, text);
}

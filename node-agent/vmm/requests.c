/* requests.c: what each message of proto/vmm.proto does. */
#include <unistd.h>

#include "common/log.h"
#include "node-agent/vmm/migrate.h"
#include "node-agent/vmm/usage.h"
#include "node-agent/vmm/vmm_internal.h"

void vmm_send(struct vmm *vmm, const struct control_ticket *ticket, Vmpool__VmmReply *reply)
{
    Vmpool__VmmStatus status = VMPOOL__VMM_STATUS__INIT;
    Vmpool__VmUsage usage = VMPOOL__VM_USAGE__INIT;
    union {
        const char *text;
        char *field; /* protobuf-c has no const; nothing writes there */
    } id = {.text = vmm->options->id};
    status.protocol_version = VMPOOL__PROTOCOL_VERSION__PROTOCOL_CURRENT;
    status.vm_id = id.field;
    status.epoch = vmm->life.epoch;
    status.state = vmm->life.state;
    status.text = vmm->life.text;
    status.pid = (uint32_t)getpid();
    status.vcpus = vmm->config.cpus;
    status.memory_mib = vmm->config.memory_bytes >> 20;
    status.started_wall_ms = (uint64_t)vmm->started_wall_ms;
    if (vmm->machine) {
        status.balloon_mib = machine_balloon_kept_mib(vmm->machine);
        usage_read(vmm->machine, &usage);
        status.usage = &usage;
    }
    if (vmm->migrate)
        (void)migrate_progress(vmm->migrate, &status.migration);
    reply->status = &status;
    if (ticket)
        control_answer(vmm->control, ticket, reply);
    else
        control_broadcast(vmm->control, reply);
}

/* What a request came to; LATER: its answer is somebody else's affair now. */
enum outcome { DONE, REFUSED, LATER };

static enum outcome outcome_of(int status)
{
    return status < 0 ? REFUSED : DONE;
}

static enum outcome run(struct vmm *vmm, const struct control_ticket *ticket,
                        const Vmpool__VmmRun *request, struct error *err)
{
    if (vmm->life.state == VMPOOL__VM_STATE__VM_GAVE_UP &&
        migrate_take_back(vmm->migrate, request->epoch, err) < 0)
        return REFUSED;
    if (lifecycle_run(&vmm->life, request->epoch, err) < 0)
        return REFUSED;
    if (vmm->life.state == VMPOOL__VM_STATE__VM_READY)
        return migrate_run(vmm->migrate, request->epoch, ticket, err) < 0 ? REFUSED : LATER;
    vmm_keep_state(vmm);
    return outcome_of(machine_resume(vmm->machine, false, err));
}

static int pause_vm(struct vmm *vmm, const Vmpool__VmmPause *request, struct error *err)
{
    if (lifecycle_pause(&vmm->life, request->epoch, err) < 0)
        return -1;
    return machine_pause(vmm->machine, err);
}

static int press_button(struct vmm *vmm, struct error *err)
{
    if (vmm->life.state != VMPOOL__VM_STATE__VM_RUNNING &&
        vmm->life.state != VMPOOL__VM_STATE__VM_MIGRATING)
        return error_set(err, ERROR_CONFLICT, "the power button of a VM that is %s does nothing",
                         lifecycle_name(vmm->life.state));
    machine_press_power_button(vmm->machine);
    return 0;
}

static int set_balloon(struct vmm *vmm, const Vmpool__VmmBalloon *request, struct error *err)
{
    if (!vmm->machine)
        return error_set(err, ERROR_CONFLICT, "a VM that is %s has no balloon",
                         lifecycle_name(vmm->life.state));
    return machine_set_balloon(vmm->machine, request->target_mib, err);
}

static int quit(struct vmm *vmm, const Vmpool__VmmQuit *request, struct error *err)
{
    if (lifecycle_see(&vmm->life, request->epoch, err) < 0)
        return -1;
    /* Before the answer leaves: whoever hears it may start the VM elsewhere. */
    migrate_close(vmm->migrate);
    if (vmm->machine && machine_pause(vmm->machine, err) < 0)
        log_warn("%s: %s", vmm->options->name, err->text);
    loop_stop(vmm->loop);
    return 0;
}

static enum outcome dispatch(struct vmm *vmm, const struct control_ticket *ticket,
                             const Vmpool__VmmRequest *request, struct error *err)
{
    switch (request->body_case) {
    case VMPOOL__VMM_REQUEST__BODY_QUERY:
        return DONE;
    case VMPOOL__VMM_REQUEST__BODY_RUN:
        return run(vmm, ticket, request->run, err);
    case VMPOOL__VMM_REQUEST__BODY_PAUSE:
        return outcome_of(pause_vm(vmm, request->pause, err));
    case VMPOOL__VMM_REQUEST__BODY_POWER_BUTTON:
        return outcome_of(press_button(vmm, err));
    case VMPOOL__VMM_REQUEST__BODY_QUIT:
        return outcome_of(quit(vmm, request->quit, err));
    case VMPOOL__VMM_REQUEST__BODY_BALLOON:
        return outcome_of(set_balloon(vmm, request->balloon, err));
    case VMPOOL__VMM_REQUEST__BODY_MIGRATE_OUT:
        return outcome_of(migrate_out(vmm->migrate, request->migrate_out, err));
    case VMPOOL__VMM_REQUEST__BODY_MIGRATE_IN:
        return outcome_of(migrate_in(vmm->migrate, request->migrate_in, err));
    case VMPOOL__VMM_REQUEST__BODY_MIGRATE_CANCEL:
        return outcome_of(migrate_cancel(vmm->migrate, request->migrate_cancel, err));
    case VMPOOL__VMM_REQUEST__BODY_DIRTY_RATE:
        return migrate_sample(vmm->migrate, request->dirty_rate->duration_ms, ticket, err) < 0
                   ? REFUSED
                   : LATER;
    default:
        return outcome_of(error_set(err, ERROR_USAGE, "this pool-vmm does not know that request"));
    }
}

void vmm_on_request(void *context, const struct control_ticket *ticket,
                    const Vmpool__VmmRequest *request)
{
    struct vmm *vmm = context;
    struct error err = ERROR_INIT;
    Vmpool__VmmReply reply = VMPOOL__VMM_REPLY__INIT;
    Vmpool__Failure failure = VMPOOL__FAILURE__INIT;
    Vmpool__VmState before = vmm->life.state;
    enum outcome outcome = dispatch(vmm, ticket, request, &err);
    if (outcome == LATER)
        return;
    if (outcome == REFUSED) {
        failure.kind = (uint32_t)err.kind;
        failure.text = err.text;
        reply.failure = &failure;
    }
    vmm_send(vmm, ticket, &reply);
    if (vmm->life.state != before)
        vmm_announce(vmm);
}

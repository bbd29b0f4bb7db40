/* requests.c: what each message of proto/vmm.proto does. */
#include <unistd.h>

#include "common/log.h"
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
    reply->status = &status;
    if (ticket)
        control_answer(vmm->control, ticket, reply);
    else
        control_broadcast(vmm->control, reply);
}

static int run(struct vmm *vmm, const Vmpool__VmmRun *request, struct error *err)
{
    if (lifecycle_run(&vmm->life, request->epoch, err) < 0)
        return -1;
    return machine_resume(vmm->machine, false, err);
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

static int quit(struct vmm *vmm, const Vmpool__VmmQuit *request, struct error *err)
{
    if (lifecycle_see(&vmm->life, request->epoch, err) < 0)
        return -1;
    loop_stop(vmm->loop);
    return 0;
}

static int dispatch(struct vmm *vmm, const Vmpool__VmmRequest *request, struct error *err)
{
    switch (request->body_case) {
    case VMPOOL__VMM_REQUEST__BODY_QUERY:
        return 0;
    case VMPOOL__VMM_REQUEST__BODY_RUN:
        return run(vmm, request->run, err);
    case VMPOOL__VMM_REQUEST__BODY_PAUSE:
        return pause_vm(vmm, request->pause, err);
    case VMPOOL__VMM_REQUEST__BODY_POWER_BUTTON:
        return press_button(vmm, err);
    case VMPOOL__VMM_REQUEST__BODY_QUIT:
        return quit(vmm, request->quit, err);
    case VMPOOL__VMM_REQUEST__BODY_BALLOON:
        return machine_set_balloon(vmm->machine, request->balloon->target_mib, err);
    default:
        return error_set(err, ERROR_USAGE, "this pool-vmm does not know that request");
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
    if (dispatch(vmm, request, &err) < 0) {
        failure.kind = (uint32_t)err.kind;
        failure.text = err.text;
        reply.failure = &failure;
    }
    vmm_send(vmm, ticket, &reply);
    if (vmm->life.state != before) {
        Vmpool__VmmReply event = VMPOOL__VMM_REPLY__INIT;
        vmm_send(vmm, NULL, &event);
    }
}

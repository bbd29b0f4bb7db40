/* What reaches into a VM: its log and its console. */
#include "controller/api.h"
#include "controller/console.h"
#include "controller/requests.h"

int api_vm_log(struct controller *controller, struct api_call *call, struct error *err)
{
    const struct vm *vm = api_find_vm(controller, call->request->vm_log->name, err);
    if (!vm)
        return -1;
    struct node *node = vm_node(controller, vm);
    if (!node)
        return error_set(err, ERROR_NOT_FOUND, "VM %s was never started: it has no log",
                         vm->stored->spec->name);
    call->later = true;
    return request_log(controller, node, vm->stored->spec->id, vm->stored->epoch, call->peer,
                       call->request->request_id, err);
}

int api_console_open(struct controller *controller, struct api_call *call, struct error *err)
{
    const struct vm *vm = api_find_vm(controller, call->request->console_open->name, err);
    call->later = true;
    return vm ? console_open(controller, vm, call->peer, call->request->request_id, err) : -1;
}

int api_console_input(struct controller *controller, struct api_call *call, struct error *err)
{
    (void)err;
    call->later = true;
    console_input(controller, call->peer, call->request->console_input);
    return 0;
}

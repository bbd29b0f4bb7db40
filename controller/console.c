#include "controller/console.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "controller/outbox.h"
#include "controller/pb.h"

struct console {
    struct console *next;
    uint64_t session;
    char node[33];
    char *vm_id;
    char *request_id;
    struct link_peer peer;
};

static bool same_peer(const struct link_peer *a, const struct link_peer *b)
{
    return a->routing_length == b->routing_length &&
           memcmp(a->routing_id, b->routing_id, a->routing_length) == 0;
}

static void send_node(struct controller *controller, const struct console *console, bool open,
                      bool close, const ProtobufCBinaryData *input)
{
    Vmpool__ControllerToNode message = VMPOOL__CONTROLLER_TO_NODE__INIT;
    Vmpool__NodeConsole body = VMPOOL__NODE_CONSOLE__INIT;
    const struct node *node = node_by_id(controller, console->node);
    body.vm_id = console->vm_id;
    body.session = console->session;
    body.open = open;
    body.close = close;
    if (input)
        body.input = *input;
    message.request_id = ++controller->next_request;
    message.body_case = VMPOOL__CONTROLLER_TO_NODE__BODY_CONSOLE;
    message.console = &body;
    if (node)
        (void)node_send(controller, node, &message);
}

static void end(struct controller *controller, struct console *console)
{
    struct console **at = &controller->consoles;
    while (*at != console)
        at = &(*at)->next;
    *at = console->next;
    free(console->vm_id);
    free(console->request_id);
    free(console);
}

int console_open(struct controller *controller, const struct vm *vm, const struct link_peer *peer,
                 const char *request_id, struct error *err)
{
    unsigned count = 0;
    const struct node *node = vm_node(controller, vm);
    for (const struct console *other = controller->consoles; other; other = other->next)
        count++;
    if (count >= CONSOLES_MAX)
        return error_set(err, ERROR_CONFLICT, "%u consoles are open: close some", count);
    if (!node || !vm_phase_holds_host(vm->stored->phase))
        return error_set(err, ERROR_CONFLICT, "VM %s is %s: start it first", vm->stored->spec->name,
                         vm_phase_name(vm->stored->phase));
    if (!node->connected || node->phase == VMPOOL__NODE_PHASE__NODE_LOST)
        return error_set(err, ERROR_UNREACHABLE, "its node %s is not connected",
                         node->stored->name);
    struct console *console = mem_new(sizeof *console);
    console->session = ++controller->next_request;
    (void)snprintf(console->node, sizeof console->node, "%s", node->stored->id);
    console->vm_id = text_copy(vm->stored->spec->id);
    console->request_id = text_copy(request_id);
    console->peer = *peer;
    console->next = controller->consoles;
    controller->consoles = console;
    send_node(controller, console, true, false, NULL);
    return 0;
}

void console_input(struct controller *controller, const struct link_peer *peer,
                   const Vmpool__ConsoleInput *input)
{
    struct console *console = controller->consoles;
    while (console &&
           (strcmp(console->request_id, input->console) != 0 || !same_peer(&console->peer, peer)))
        console = console->next;
    if (!console || input->input.len > CONSOLE_INPUT_MAX)
        return;
    send_node(controller, console, false, input->close, &input->input);
    if (input->close)
        end(controller, console);
}

void console_from_node(struct controller *controller, const struct node *node,
                       const Vmpool__NodeConsoleData *data)
{
    struct console *console = controller->consoles;
    while (console && console->session != data->session)
        console = console->next;
    if (!console || strcmp(console->node, node->stored->id) != 0)
        return;
    Vmpool__AdminReply reply = VMPOOL__ADMIN_REPLY__INIT;
    Vmpool__ConsoleOutput output = VMPOOL__CONSOLE_OUTPUT__INIT;
    output.output = data->output;
    output.text = data->text;
    reply.request_id = console->request_id;
    reply.done = data->closed;
    reply.body_case = VMPOOL__ADMIN_REPLY__BODY_CONSOLE;
    reply.console = &output;
    outbox_admin(controller, &console->peer, &reply);
    if (data->closed)
        end(controller, console);
}

void consoles_drop_peer(struct controller *controller, const struct link_peer *peer)
{
    for (struct console *next, *console = controller->consoles; console; console = next) {
        next = console->next;
        if (!same_peer(&console->peer, peer))
            continue;
        send_node(controller, console, false, true, NULL);
        end(controller, console);
    }
}

void consoles_free(struct controller *controller)
{
    while (controller->consoles)
        end(controller, controller->consoles);
}

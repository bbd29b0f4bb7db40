#include "controller/requests.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "controller/outbox.h"
#include "controller/pb.h"

struct request {
    struct request *next;
    uint64_t id;
    char node[33];
    struct link_peer peer;
    char *admin_request;
    int64_t deadline_ms;
};

static void free_request(struct request *request)
{
    free(request->admin_request);
    free(request);
}

static void answer_admin(struct controller *controller, struct request *request,
                         Vmpool__Failure *failure, const char *text)
{
    Vmpool__AdminReply reply = VMPOOL__ADMIN_REPLY__INIT;
    Vmpool__Text body = VMPOOL__TEXT__INIT;
    auto_free char *copy = text_copy(text);
    reply.request_id = request->admin_request;
    reply.done = true;
    reply.failure = failure;
    if (!failure) {
        body.text = copy;
        reply.body_case = VMPOOL__ADMIN_REPLY__BODY_TEXT;
        reply.text = &body;
    }
    outbox_admin(controller, &request->peer, &reply);
}

int request_log(struct controller *controller, struct node *node, const char *vm_id, uint64_t epoch,
                const struct link_peer *peer, const char *request_id, struct error *err)
{
    unsigned count = 0;
    for (const struct request *other = controller->requests; other; other = other->next)
        count++;
    if (count >= REQUESTS_MAX)
        return error_set(err, ERROR_FAILED, "too many logs are asked for at once: try again");
    if (node->phase == VMPOOL__NODE_PHASE__NODE_LOST || !node->connected)
        return error_set(err, ERROR_UNREACHABLE, "node %s is not connected", node->stored->name);
    Vmpool__ControllerToNode command = VMPOOL__CONTROLLER_TO_NODE__INIT;
    Vmpool__NodeVmCommand body = VMPOOL__NODE_VM_COMMAND__INIT;
    auto_free char *id = text_copy(vm_id);
    struct request *request = mem_new(sizeof *request);
    request->id = ++controller->next_request;
    (void)snprintf(request->node, sizeof request->node, "%s", node->stored->id);
    request->peer = *peer;
    request->admin_request = text_copy(request_id);
    request->deadline_ms = clock_monotonic_ms() + (int64_t)controller->config.command_timeout_ms;
    request->next = controller->requests;
    controller->requests = request;
    body.vm_id = id;
    body.epoch = epoch;
    body.action = VMPOOL__NODE_VM_COMMAND__ACTION__LOG;
    command.request_id = request->id;
    command.body_case = VMPOOL__CONTROLLER_TO_NODE__BODY_VM_COMMAND;
    command.vm_command = &body;
    (void)node_send(controller, node, &command);
    return 0;
}

static struct request *take(struct controller *controller, uint64_t id)
{
    struct request **at = &controller->requests;
    while (*at && (*at)->id != id)
        at = &(*at)->next;
    struct request *request = *at;
    if (request)
        *at = request->next;
    return request;
}

void requests_answer(struct controller *controller, const struct node *node, uint64_t request_id,
                     const Vmpool__NodeAnswer *answer)
{
    struct request *request = take(controller, request_id);
    if (!request)
        return;
    if (strcmp(request->node, node->stored->id) == 0)
        answer_admin(controller, request, answer->failure, answer->console_tail);
    free_request(request);
}

void requests_check(struct controller *controller)
{
    int64_t now_ms = clock_monotonic_ms();
    for (struct request **at = &controller->requests; *at;) {
        struct request *request = *at;
        if (request->deadline_ms > now_ms) {
            at = &request->next;
            continue;
        }
        struct error err = ERROR_INIT;
        (void)error_set(&err, ERROR_TIMEOUT, "the node did not answer");
        *at = request->next;
        Vmpool__Failure *failure = pb_failure(&err);
        answer_admin(controller, request, failure, "");
        pb_free(failure);
        free_request(request);
    }
}

void requests_free(struct controller *controller)
{
    while (controller->requests) {
        struct request *request = controller->requests;
        controller->requests = request->next;
        free_request(request);
    }
}

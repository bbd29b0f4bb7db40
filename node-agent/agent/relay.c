#include "node-agent/agent/relay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "node-agent/agent/agent.h"
#include "node-agent/agent/vm.h"

struct session {
    bool open;
    uint64_t number;
    char vm_id[VM_ID_LENGTH + 1];
};

struct relay {
    struct session sessions[RELAY_SESSIONS_MAX];
};

struct relay *relay_new(void)
{
    return calloc(1, sizeof(struct relay));
}

void relay_free(struct relay *relay)
{
    free(relay);
}

static void send_data(struct agent *agent, uint64_t session, const uint8_t *data, size_t size)
{
    Vmpool__NodeToController message = VMPOOL__NODE_TO_CONTROLLER__INIT;
    Vmpool__NodeConsoleData body = VMPOOL__NODE_CONSOLE_DATA__INIT;
    body.session = session;
    body.output.data = (uint8_t *)(uintptr_t)data;
    body.output.len = size;
    message.body_case = VMPOOL__NODE_TO_CONTROLLER__BODY_CONSOLE;
    message.console = &body;
    agent_send(agent, &message);
}

static void send_closed(struct agent *agent, uint64_t session, const char *why)
{
    Vmpool__NodeToController message = VMPOOL__NODE_TO_CONTROLLER__INIT;
    Vmpool__NodeConsoleData body = VMPOOL__NODE_CONSOLE_DATA__INIT;
    char text[ERROR_TEXT_MAX];
    (void)snprintf(text, sizeof text, "%s", why);
    body.session = session;
    body.closed = true;
    body.text = text;
    message.body_case = VMPOOL__NODE_TO_CONTROLLER__BODY_CONSOLE;
    message.console = &body;
    agent_send(agent, &message);
}

static struct session *find(struct relay *relay, uint64_t number)
{
    for (size_t i = 0; i < RELAY_SESSIONS_MAX; i++)
        if (relay->sessions[i].open && relay->sessions[i].number == number)
            return &relay->sessions[i];
    return NULL;
}

/* A free place, where neither all are taken nor too many by this VM. */
static struct session *find_place(struct relay *relay, const char *vm_id)
{
    struct session *place = NULL;
    unsigned of_vm = 0;
    for (size_t i = 0; i < RELAY_SESSIONS_MAX; i++) {
        struct session *session = &relay->sessions[i];
        if (!session->open)
            place = session;
        else if (strcmp(session->vm_id, vm_id) == 0)
            of_vm++;
    }
    return of_vm < RELAY_SESSIONS_A_VM ? place : NULL;
}

static void open_session(struct agent *agent, const Vmpool__NodeConsole *message)
{
    struct vm *vm = name_is_uuid(message->vm_id) ? vm_find(agent, message->vm_id) : NULL;
    if (!vm || !vm->console) {
        send_closed(agent, message->session, "the VM does not run on this node");
        return;
    }
    auto_free uint8_t *tail = malloc(CONSOLE_TAIL_BYTES);
    struct session *session = find_place(agent->relay, vm->id);
    if (!session || !tail) {
        send_closed(agent, message->session, "too many console sessions are open");
        return;
    }
    size_t size = vm_console_tail(vm->console, tail);
    session->open = true;
    session->number = message->session;
    memcpy(session->vm_id, vm->id, sizeof session->vm_id);
    if (size)
        send_data(agent, session->number, tail, size);
}

static void feed(struct agent *agent, struct session *session, const ProtobufCBinaryData *input)
{
    struct error err = ERROR_INIT;
    struct vm *vm = vm_find(agent, session->vm_id);
    if (!vm || !vm->console)
        (void)error_set(&err, ERROR_FAILED, "the VM does not run on this node");
    else if (vm_console_input(vm->console, input->data, input->len, &err) == 0)
        return;
    session->open = false;
    send_closed(agent, session->number, err.text);
}

void relay_handle(struct agent *agent, const Vmpool__NodeConsole *message)
{
    struct session *session = find(agent->relay, message->session);
    if (!session && message->open) {
        open_session(agent, message);
        session = find(agent->relay, message->session);
    }
    if (!session)
        return;
    if (message->input.len)
        feed(agent, session, &message->input);
    if (message->close)
        session->open = false;
}

void relay_output(struct agent *agent, const char *vm_id, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < RELAY_SESSIONS_MAX; i++) {
        const struct session *session = &agent->relay->sessions[i];
        if (session->open && strcmp(session->vm_id, vm_id) == 0)
            send_data(agent, session->number, data, size);
    }
}

void relay_close_vm(struct agent *agent, const char *vm_id, const char *why)
{
    for (size_t i = 0; i < RELAY_SESSIONS_MAX; i++) {
        struct session *session = &agent->relay->sessions[i];
        if (!session->open || strcmp(session->vm_id, vm_id) != 0)
            continue;
        session->open = false;
        send_closed(agent, session->number, why);
    }
}

void relay_drop_all(struct agent *agent)
{
    memset(agent->relay->sessions, 0, sizeof agent->relay->sessions);
}

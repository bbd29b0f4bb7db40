/*
 * A stand-in for pool-vmm that speaks proto/vmm.proto and runs no guest: for the agent's
 * supervision only, which needs VMMs that misbehave on demand.
 *
 * Its --name chooses how: "dies" ends at once with a reason, "mute" answers nothing, "garbage"
 * answers with what is no reply, "stubborn" promises to quit and does not, "refuses" refuses to
 * run. On its console, "off" powers it off, "crash" kills it, "panic" panics it, "steal" makes it
 * claim another VM's id; anything else comes back. What it was started with is written to the
 * console first.
 */
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/last_state.h"
#include "proto/vmm.pb-c.h"

#define CLIENTS 8

struct test_vmm {
    const char *name;
    char id[64];
    int control, console;
    int control_clients[CLIENTS], console_clients[CLIENTS];
    bool incoming;
    uint64_t epoch;
    Vmpool__VmState state;
    int status; /* --status; -1: none */
    char text[64];
    char greeting[4096];
};

static void send_status(struct test_vmm *vmm, int fd, uint64_t request_id, const char *failure)
{
    Vmpool__VmmReply reply = VMPOOL__VMM_REPLY__INIT;
    Vmpool__VmmStatus status = VMPOOL__VMM_STATUS__INIT;
    Vmpool__Failure refused = VMPOOL__FAILURE__INIT;
    Vmpool__VmUsage usage = VMPOOL__VM_USAGE__INIT;
    char text[64];
    uint8_t packed[1024];
    if (strcmp(vmm->name, "mute") == 0)
        return;
    if (strcmp(vmm->name, "garbage") == 0) {
        (void)send(fd, "\xff\xff\xff garbage", 11, MSG_NOSIGNAL);
        return;
    }
    status.protocol_version = VMPOOL__PROTOCOL_VERSION__PROTOCOL_CURRENT;
    status.vm_id = vmm->id;
    status.epoch = vmm->epoch;
    status.state = vmm->state;
    status.text = vmm->text;
    status.usage = &usage;
    usage.memory_mib = 7;
    reply.request_id = request_id;
    reply.status = &status;
    if (failure) {
        (void)snprintf(text, sizeof text, "%s", failure);
        refused.kind = 5;
        refused.text = text;
        reply.failure = &refused;
    }
    size_t size = vmpool__vmm_reply__pack(&reply, packed);
    (void)send(fd, packed, size, MSG_NOSIGNAL);
}

static void keep(const struct test_vmm *vmm)
{
    struct last_state state = {.state = (int)vmm->state, .epoch = vmm->epoch};
    (void)snprintf(state.text, sizeof state.text, "%s", vmm->text);
    if (vmm->status >= 0)
        (void)last_state_write(vmm->status, &state);
}

static void broadcast(struct test_vmm *vmm)
{
    keep(vmm);
    for (size_t i = 0; i < CLIENTS; i++)
        if (vmm->control_clients[i] >= 0)
            send_status(vmm, vmm->control_clients[i], 0, NULL);
}

static const char *run(struct test_vmm *vmm, uint64_t epoch)
{
    if (strcmp(vmm->name, "refuses") == 0)
        return "this test VMM does not run";
    if (epoch < vmm->epoch)
        return "epoch too low";
    vmm->epoch = epoch;
    vmm->state = VMPOOL__VM_STATE__VM_RUNNING;
    return NULL;
}

static void handle_request(struct test_vmm *vmm, int fd, const Vmpool__VmmRequest *request)
{
    const char *failure = NULL;
    bool quit = false;
    switch (request->body_case) {
    case VMPOOL__VMM_REQUEST__BODY_RUN:
        failure = run(vmm, request->run->epoch);
        break;
    case VMPOOL__VMM_REQUEST__BODY_PAUSE:
        vmm->state = VMPOOL__VM_STATE__VM_PAUSED;
        break;
    case VMPOOL__VMM_REQUEST__BODY_MIGRATE_IN:
        vmm->epoch = request->migrate_in->next_epoch;
        break;
    case VMPOOL__VMM_REQUEST__BODY_MIGRATE_OUT:
        vmm->state = VMPOOL__VM_STATE__VM_MIGRATING;
        break;
    case VMPOOL__VMM_REQUEST__BODY_QUIT:
        if (request->quit->epoch < vmm->epoch)
            failure = "epoch too low";
        else
            quit = strcmp(vmm->name, "stubborn") != 0;
        break;
    default:
        break;
    }
    keep(vmm);
    send_status(vmm, fd, request->request_id, failure);
    if (quit)
        _exit(0);
}

static void handle_word(struct test_vmm *vmm, int fd, const char *word, size_t size)
{
    if (strncmp(word, "off", 3) == 0) {
        vmm->state = VMPOOL__VM_STATE__VM_STOPPED;
        broadcast(vmm);
        _exit(0);
    } else if (strncmp(word, "crash", 5) == 0) {
        (void)raise(SIGKILL);
    } else if (strncmp(word, "panic", 5) == 0) {
        vmm->state = VMPOOL__VM_STATE__VM_PANICKED;
        (void)snprintf(vmm->text, sizeof vmm->text, "guest panicked");
        broadcast(vmm);
    } else if (strncmp(word, "steal", 5) == 0) {
        vmm->id[0] = vmm->id[0] == 'f' ? 'e' : 'f';
        vmm->state = VMPOOL__VM_STATE__VM_STOPPED;
        broadcast(vmm);
    } else {
        (void)send(fd, word, size, MSG_NOSIGNAL);
    }
}

static void add_client(int *clients, int fd)
{
    for (size_t i = 0; i < CLIENTS; i++) {
        if (clients[i] < 0) {
            clients[i] = fd;
            return;
        }
    }
    (void)close(fd);
}

static void serve(struct test_vmm *vmm, bool control, int *client)
{
    char data[65536];
    ssize_t size = recv(*client, data, sizeof data - 1, 0);
    if (size <= 0) {
        (void)close(*client);
        *client = -1;
        return;
    }
    if (!control) {
        handle_word(vmm, *client, data, (size_t)size);
        return;
    }
    Vmpool__VmmRequest *request =
        vmpool__vmm_request__unpack(NULL, (size_t)size, (const uint8_t *)data);
    if (request)
        handle_request(vmm, *client, request);
    if (request)
        vmpool__vmm_request__free_unpacked(request, NULL);
}

static void turn(struct test_vmm *vmm)
{
    struct pollfd polls[2 + 2 * CLIENTS] = {{.fd = vmm->control, .events = POLLIN},
                                            {.fd = vmm->console, .events = POLLIN}};
    for (size_t i = 0; i < CLIENTS; i++) {
        polls[2 + i] = (struct pollfd){.fd = vmm->control_clients[i], .events = POLLIN};
        polls[2 + CLIENTS + i] = (struct pollfd){.fd = vmm->console_clients[i], .events = POLLIN};
    }
    if (poll(polls, 2 + 2 * CLIENTS, -1) < 0)
        return;
    for (size_t i = 0; i < CLIENTS; i++) {
        if (polls[2 + i].revents)
            serve(vmm, true, &vmm->control_clients[i]);
        if (polls[2 + CLIENTS + i].revents)
            serve(vmm, false, &vmm->console_clients[i]);
    }
    if (polls[0].revents)
        add_client(vmm->control_clients, accept(vmm->control, NULL, NULL));
    if (polls[1].revents) {
        int fd = accept(vmm->console, NULL, NULL);
        (void)send(fd, vmm->greeting, strlen(vmm->greeting), MSG_NOSIGNAL);
        add_client(vmm->console_clients, fd);
    }
}

int main(int argc, char **argv)
{
    struct test_vmm vmm = {.name = "", .control = -1, .console = -1, .status = -1};
    vmm.state = VMPOOL__VM_STATE__VM_PAUSED;
    for (size_t i = 0; i < CLIENTS; i++)
        vmm.control_clients[i] = vmm.console_clients[i] = -1;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        size_t used = strlen(vmm.greeting);
        (void)snprintf(vmm.greeting + used, sizeof vmm.greeting - used, "%s\n", argv[i]);
        if (strcmp(argv[i], "--name") == 0)
            vmm.name = value;
        else if (strcmp(argv[i], "--id") == 0)
            (void)snprintf(vmm.id, sizeof vmm.id, "%s", value);
        else if (strcmp(argv[i], "--epoch") == 0)
            vmm.epoch = strtoull(value, NULL, 10);
        else if (strcmp(argv[i], "--control") == 0)
            vmm.control = atoi(value + 3);
        else if (strcmp(argv[i], "--console") == 0)
            vmm.console = atoi(value + 3);
        else if (strcmp(argv[i], "--status") == 0)
            vmm.status = atoi(value + 3);
        else if (strcmp(argv[i], "--incoming") == 0)
            vmm.state = VMPOOL__VM_STATE__VM_INCOMING;
    }
    if (strcmp(vmm.name, "dies") == 0) {
        (void)fprintf(stderr, "pool-vmm: the kernel is no kernel\n");
        return 1;
    }
    keep(&vmm);
    for (;;)
        turn(&vmm);
}

#include "tests/unit/agent/harness.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <net/if.h>
#include <openssl/evp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "node-agent/agent/files.h"

#define WAIT_MS 10000

bool harness_enter_network(void)
{
    if (unshare(geteuid() == 0 ? CLONE_NEWNET : CLONE_NEWNET | CLONE_NEWUSER) < 0)
        return false;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    bool up = fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &request) == 0;
    if (fd >= 0)
        close(fd);
    return up;
}

static bool authorise(void *context, const uint8_t key[32], const char *address, char *user)
{
    struct harness *harness = context;
    (void)address;
    if (!harness->token_used && memcmp(key, harness->token_keys.public_key, 32) == 0)
        (void)snprintf(user, LINK_USER_MAX, "token:1");
    else if (harness->node_known && memcmp(key, harness->node_key, 32) == 0)
        (void)snprintf(user, LINK_USER_MAX, "node:n1");
    else
        return false;
    return true;
}

static void on_join(struct harness *harness, const Vmpool__NodeJoin *join)
{
    Vmpool__NodeJoined joined = VMPOOL__NODE_JOINED__INIT;
    Vmpool__ControllerToNode message = VMPOOL__CONTROLLER_TO_NODE__INIT;
    static char id[] = "n1";
    cr_assert_eq(join->public_key.len, 32);
    memcpy(harness->node_key, join->public_key.data, 32);
    harness->node_known = true;
    harness->token_used = true;
    joined.node_id = id;
    message.body_case = VMPOOL__CONTROLLER_TO_NODE__BODY_JOINED;
    message.joined = &joined;
    if (!harness->silent_join)
        harness_send(harness, &message);
}

static void on_hello(struct harness *harness)
{
    Vmpool__NodeWelcome welcome = VMPOOL__NODE_WELCOME__INIT;
    Vmpool__ControllerToNode message = VMPOOL__CONTROLLER_TO_NODE__INIT;
    welcome.protocol_version = VMPOOL__PROTOCOL_VERSION__PROTOCOL_CURRENT;
    welcome.report_interval_ms = harness->report_interval_ms;
    message.body_case = VMPOOL__CONTROLLER_TO_NODE__BODY_WELCOME;
    message.welcome = &welcome;
    harness_send(harness, &message);
}

static void on_image_need(struct harness *harness, const Vmpool__NodeImageNeed *need)
{
    Vmpool__NodeImagePiece piece = VMPOOL__NODE_IMAGE_PIECE__INIT;
    Vmpool__Failure failure = VMPOOL__FAILURE__INIT;
    Vmpool__ControllerToNode message = VMPOOL__CONTROLLER_TO_NODE__INIT;
    static char reason[] = "no such image";
    harness->pieces_asked++;
    if (harness->pieces_withheld) {
        harness->pieces_withheld--;
        return;
    }
    cr_assert_str_eq(need->sha256, harness->image_sha256);
    cr_assert_leq(need->offset + need->length, harness->image_bytes);
    piece.sha256 = need->sha256;
    piece.offset = need->offset;
    piece.total_bytes = harness->image_bytes + (harness->image_wrong_total ? 1 : 0);
    piece.data.data = harness->image + need->offset;
    piece.data.len = need->length - (harness->image_short ? 1 : 0);
    if (harness->image_absent) {
        failure.kind = ERROR_NOT_FOUND;
        failure.text = reason;
        piece.failure = &failure;
    }
    harness->image[need->offset] ^= harness->image_corrupt ? 1 : 0;
    message.body_case = VMPOOL__CONTROLLER_TO_NODE__BODY_IMAGE_PIECE;
    message.image_piece = &piece;
    harness_send(harness, &message);
    harness->image[need->offset] ^= harness->image_corrupt ? 1 : 0;
}

static void on_message(void *context, const struct link_peer *peer, const uint8_t *data,
                       size_t size)
{
    struct harness *harness = context;
    Vmpool__NodeToController *message = vmpool__node_to_controller__unpack(NULL, size, data);
    cr_assert(message, "the agent sent garbage");
    cr_assert_lt(harness->inbox_count, HARNESS_INBOX_MAX);
    harness->inbox[harness->inbox_count++] = message;
    harness->node = *peer;
    if (message->body_case == VMPOOL__NODE_TO_CONTROLLER__BODY_JOIN)
        on_join(harness, message->join);
    else if (message->body_case == VMPOOL__NODE_TO_CONTROLLER__BODY_HELLO)
        on_hello(harness);
    else if (message->body_case == VMPOOL__NODE_TO_CONTROLLER__BODY_IMAGE_NEED)
        on_image_need(harness, message->image_need);
}

static void on_refused(void *context, const char *address, const char *reason)
{
    (void)context, (void)address, (void)reason;
}

static const struct link_server_events server_events = {authorise, on_message, on_refused};

void harness_restore_controller(struct harness *harness)
{
    struct error err = ERROR_INIT;
    struct link_token token = {0};
    harness->server = link_server_open(harness->loop, "127.0.0.1:7400", &harness->server_keys,
                                       &server_events, harness, &err);
    cr_assert(harness->server, "%s", err.text);
    (void)snprintf(token.address, sizeof token.address, "127.0.0.1:7400");
    memcpy(token.server_key, harness->server_keys.public_key, 32);
    token.join_keys = harness->token_keys;
    cr_assert_eq(link_token_format(&token, harness->token, sizeof harness->token, &err), 0);
}

void harness_drop_controller(struct harness *harness)
{
    link_server_close(harness->server);
    harness->server = NULL;
}

void harness_open(struct harness *harness)
{
    struct error err = ERROR_INIT;
    static char name[] = "pool-agent";
    char *argv[] = {name, NULL};
    memset(harness, 0, sizeof *harness);
    log_init("agent-test", LOG_LEVEL_ERROR);
    (void)snprintf(harness->root, sizeof harness->root, "/tmp/vmpool-agent-XXXXXX");
    cr_assert(mkdtemp(harness->root));
    harness->loop = loop_new(&err);
    cr_assert(harness->loop);
    cr_assert_eq(link_keys_generate(&harness->server_keys, &err), 0);
    cr_assert_eq(link_keys_generate(&harness->token_keys, &err), 0);
    harness->report_interval_ms = 100;
    harness_restore_controller(harness);
    cr_assert_eq(options_parse(1, argv, &harness->options, &err), OPTIONS_RUN);
    static const char *const folders[] = {"state", "run", "storage", "vmm"};
    for (size_t i = 0; i < 4; i++)
        (void)snprintf(harness->paths[i], sizeof harness->paths[i], "%s/%s", harness->root,
                       folders[i]);
    harness->options.name = "n1";
    harness->options.cgroup = "vmpool-unit-test";
#ifdef TEST_VMM
    harness->options.vmm = TEST_VMM;
#endif
    harness->options.state_dir = harness->paths[0];
    harness->options.run_dir = harness->paths[1];
    harness->options.storage = harness->paths[2];
    harness->options.disk_dirs[0] = harness->paths[2];
}

void harness_close(struct harness *harness)
{
    struct error err = ERROR_INIT;
    harness_stop_agent(harness);
    harness_drop_controller(harness);
    for (size_t i = 0; i < harness->inbox_count; i++)
        vmpool__node_to_controller__free_unpacked(harness->inbox[i], NULL);
    loop_free(harness->loop);
    free(harness->image);
    cr_assert_eq(files_remove_tree(AT_FDCWD, harness->root, &err), 0, "%s", err.text);
}

int harness_start_agent(struct harness *harness, const char *token, struct error *err)
{
    harness->options.join = token;
    harness->agent_runs = true;
    return agent_start(&harness->agent, &harness->options, harness->loop, err);
}

void harness_stop_agent(struct harness *harness)
{
    if (harness->agent_runs)
        agent_stop(&harness->agent);
    harness->agent_runs = false;
}

bool harness_until(struct harness *harness, int limit_ms, bool (*done)(struct harness *harness))
{
    struct error err = ERROR_INIT;
    int64_t end_ms = clock_monotonic_ms() + limit_ms;
    while (!done(harness)) {
        int64_t left_ms = end_ms - clock_monotonic_ms();
        if (left_ms <= 0)
            return false;
        cr_assert_eq(loop_run_once(harness->loop, (int)left_ms, &err), 0);
    }
    return true;
}

int harness_wait(struct harness *harness, size_t from, Vmpool__NodeToController__BodyCase body_case)
{
    struct error err = ERROR_INIT;
    int64_t end_ms = clock_monotonic_ms() + WAIT_MS;
    for (size_t i = from;; i++) {
        while (i >= harness->inbox_count) {
            int64_t left_ms = end_ms - clock_monotonic_ms();
            if (left_ms <= 0)
                return -1;
            cr_assert_eq(loop_run_once(harness->loop, (int)left_ms, &err), 0);
        }
        if (harness->inbox[i]->body_case == body_case)
            return (int)i;
    }
}

void harness_send(struct harness *harness, const Vmpool__ControllerToNode *message)
{
    struct error err = ERROR_INIT;
    size_t size = vmpool__controller_to_node__get_packed_size(message);
    uint8_t *packed = malloc(size + 1);
    cr_assert(packed);
    (void)vmpool__controller_to_node__pack(message, packed);
    cr_assert_eq(link_server_send(harness->server, &harness->node, packed, size, &err), 0, "%s",
                 err.text);
    free(packed);
}

void harness_make_image(struct harness *harness, size_t bytes)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    uint32_t value = 1;
    harness->image = malloc(bytes);
    cr_assert(harness->image);
    harness->image_bytes = bytes;
    for (size_t i = 0; i < bytes; i++) {
        value = value * 1664525 + 1013904223;
        harness->image[i] = (uint8_t)(value >> 24);
    }
    cr_assert_eq(EVP_Digest(harness->image, bytes, digest, &size, EVP_sha256(), NULL), 1);
    for (unsigned i = 0; i < size; i++)
        (void)snprintf(harness->image_sha256 + i * 2, 3, "%02x", digest[i]);
}

Vmpool__VmSpec *harness_spec(struct harness *harness, const char *id, const char *name)
{
    static Vmpool__VmSpec spec;
    static Vmpool__ImageSpec image;
    static char id_copy[40], name_copy[64], cmdline[] = "console=ttyS0";
    if (!harness->image)
        harness_make_image(harness, 100000);
    vmpool__vm_spec__init(&spec);
    vmpool__image_spec__init(&image);
    (void)snprintf(id_copy, sizeof id_copy, "%s", id);
    (void)snprintf(name_copy, sizeof name_copy, "%s", name);
    image.kernel_sha256 = harness->image_sha256;
    image.kernel_bytes = harness->image_bytes;
    image.cmdline = cmdline;
    spec.id = id_copy;
    spec.name = name_copy;
    spec.vcpus = 1;
    spec.memory_mib = 64;
    spec.image = &image;
    return &spec;
}

uint64_t harness_send_start(struct harness *harness, uint64_t request_id, Vmpool__VmSpec *spec,
                            uint64_t epoch)
{
    Vmpool__ControllerToNode message = VMPOOL__CONTROLLER_TO_NODE__INIT;
    Vmpool__NodeVmStart start = VMPOOL__NODE_VM_START__INIT;
    start.spec = spec;
    start.epoch = epoch;
    message.request_id = request_id;
    message.body_case = VMPOOL__CONTROLLER_TO_NODE__BODY_VM_START;
    message.vm_start = &start;
    harness_send(harness, &message);
    return request_id;
}

void harness_send_action(struct harness *harness, uint64_t request_id, const char *id,
                         uint64_t epoch, Vmpool__NodeVmCommand__Action action)
{
    Vmpool__ControllerToNode message = VMPOOL__CONTROLLER_TO_NODE__INIT;
    Vmpool__NodeVmCommand command = VMPOOL__NODE_VM_COMMAND__INIT;
    char id_copy[64];
    (void)snprintf(id_copy, sizeof id_copy, "%s", id);
    command.vm_id = id_copy;
    command.epoch = epoch;
    command.action = action;
    message.request_id = request_id;
    message.body_case = VMPOOL__CONTROLLER_TO_NODE__BODY_VM_COMMAND;
    message.vm_command = &command;
    harness_send(harness, &message);
}

static const Vmpool__NodeVm *find_state(const Vmpool__NodeToController *message, const char *id,
                                        Vmpool__VmState state)
{
    Vmpool__NodeVm **vms = NULL;
    size_t count = 0;
    if (message->body_case == VMPOOL__NODE_TO_CONTROLLER__BODY_REPORT) {
        vms = message->report->vms;
        count = message->report->n_vms;
    } else if (message->body_case == VMPOOL__NODE_TO_CONTROLLER__BODY_HELLO) {
        vms = message->hello->vms;
        count = message->hello->n_vms;
    } else if (message->body_case == VMPOOL__NODE_TO_CONTROLLER__BODY_VM_EVENT) {
        vms = &message->vm_event->vm;
        count = 1;
    }
    for (size_t i = 0; i < count; i++)
        if (strcmp(vms[i]->vm_id, id) == 0 && vms[i]->state == state)
            return vms[i];
    return NULL;
}

const Vmpool__NodeVm *harness_wait_state(struct harness *harness, size_t from, const char *id,
                                         Vmpool__VmState state)
{
    struct error err = ERROR_INIT;
    int64_t end_ms = clock_monotonic_ms() + WAIT_MS;
    for (size_t i = from;; i++) {
        while (i >= harness->inbox_count) {
            int64_t left_ms = end_ms - clock_monotonic_ms();
            if (left_ms <= 0)
                return NULL;
            cr_assert_eq(loop_run_once(harness->loop, (int)left_ms, &err), 0);
        }
        const Vmpool__NodeVm *found = find_state(harness->inbox[i], id, state);
        if (found)
            return found;
    }
}

const Vmpool__NodeAnswer *harness_answer(struct harness *harness, uint64_t request_id)
{
    int at = -1;
    do {
        at = harness_wait(harness, (size_t)(at + 1), VMPOOL__NODE_TO_CONTROLLER__BODY_ANSWER);
        cr_assert_geq(at, 0, "no answer to request %llu", (unsigned long long)request_id);
    } while (harness->inbox[at]->request_id != request_id);
    return harness->inbox[at]->answer;
}

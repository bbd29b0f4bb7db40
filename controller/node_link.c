#include "controller/node_link.h"

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "controller/baseline.h"
#include "controller/console.h"
#include "controller/events.h"
#include "controller/images.h"
#include "controller/jobs.h"
#include "controller/keys.h"
#include "controller/outbox.h"
#include "controller/pb.h"
#include "controller/placement.h"
#include "controller/pool_cpu.h"
#include "controller/reconcile.h"
#include "controller/requests.h"
#include "controller/uuid.h"
#include "controller/validate.h"

static void refuse(struct controller *controller, const struct link_peer *peer, uint64_t request_id,
                   const struct error *err)
{
    Vmpool__ControllerToNode answer = VMPOOL__CONTROLLER_TO_NODE__INIT;
    answer.request_id = request_id;
    answer.body_case = VMPOOL__CONTROLLER_TO_NODE__BODY_REFUSED;
    answer.refused = pb_failure(err);
    outbox_node(controller, peer, &answer);
    pb_free(answer.refused);
    log_warn("%s at %s refused: %s", peer->user, peer->address, err->text);
}

static int check_version(uint32_t version, struct error *err)
{
    if (version == VMPOOL__PROTOCOL_VERSION__PROTOCOL_CURRENT)
        return 0;
    if (version > VMPOOL__PROTOCOL_VERSION__PROTOCOL_CURRENT)
        return error_set(err, ERROR_CONFLICT,
                         "the agent speaks protocol %u, this controller %d: upgrade the "
                         "controller first",
                         version, VMPOOL__PROTOCOL_VERSION__PROTOCOL_CURRENT);
    return error_set(err, ERROR_CONFLICT,
                     "the agent speaks protocol %u, this controller %d: upgrade the agent", version,
                     VMPOOL__PROTOCOL_VERSION__PROTOCOL_CURRENT);
}

/* ---- welcome ---- */

static void send_welcome(struct controller *controller, const struct node *node)
{
    struct error err = ERROR_INIT;
    Vmpool__ControllerToNode message = VMPOOL__CONTROLLER_TO_NODE__INIT;
    Vmpool__NodeWelcome welcome = VMPOOL__NODE_WELCOME__INIT;
    const uint8_t *cpu = NULL;
    size_t size = 0;
    if (pool_cpu_get(controller, &cpu, &size, &err) < 0)
        log_error("%s", err.text);
    welcome.protocol_version = VMPOOL__PROTOCOL_VERSION__PROTOCOL_CURRENT;
    welcome.node_id = node->stored->id;
    welcome.report_interval_ms = controller->config.report_interval_ms;
    welcome.cpuid_baseline = (ProtobufCBinaryData){size, (uint8_t *)(uintptr_t)cpu};
    message.body_case = VMPOOL__CONTROLLER_TO_NODE__BODY_WELCOME;
    message.welcome = &welcome;
    (void)node_send(controller, node, &message);
}

/* ---- join ---- */

static int check_facts(const struct controller *controller, const struct node *known,
                       const Vmpool__NodeFacts *facts, struct error *err)
{
    if (validate_facts(facts, err) < 0)
        return -1;
    return pool_cpu_check(controller, known, facts, err);
}

static int check_token(const struct controller *controller, const Vmpool__Store__Token *token,
                       const Vmpool__NodeJoin *join, struct error *err)
{
    if (token->node_id[0]) {
        /* The same node whose answer was lost may ask again. */
        const struct node *node = node_by_id(controller, token->node_id);
        if (node && join->public_key.len == 32 &&
            memcmp(node->stored->public_key.data, join->public_key.data, 32) == 0)
            return 0;
        return error_set(err, ERROR_CONFLICT,
                         "this token was used already: make another with \"poolctl node token\"");
    }
    if (token->expires_wall_ms <= (uint64_t)clock_wall_ms())
        return error_set(err, ERROR_CONFLICT,
                         "this token has expired: make another with \"poolctl node token\"");
    return 0;
}

static int check_join(const struct controller *controller, const Vmpool__Store__Token *token,
                      const Vmpool__NodeJoin *join, struct error *err)
{
    if (check_version(join->protocol_version, err) < 0 ||
        check_token(controller, token, join, err) < 0)
        return -1;
    if (token->node_id[0])
        return 0;
    if (validate_name(join->name, "the node's name", err) < 0)
        return -1;
    if (join->public_key.len != 32)
        return error_set(err, ERROR_USAGE, "a node's key has 32 bytes");
    if (node_by_name(controller, join->name))
        return error_set(err, ERROR_CONFLICT,
                         "a node named %s is in the pool: choose another --name, or remove that "
                         "one with \"poolctl node rm %s\"",
                         join->name, join->name);
    return check_facts(controller, NULL, join->facts, err);
}

static struct node *add_node(struct controller *controller, Vmpool__Store__Token *token,
                             const Vmpool__NodeJoin *join, struct error *err)
{
    char id[SHORT_ID_SIZE];
    short_id_make(id);
    if (keys_add(controller->keys, KEY_NODE, id, join->public_key.data, err) < 0)
        return NULL;
    Vmpool__Store__Node *stored = mem_new(sizeof *stored);
    vmpool__store__node__init(stored);
    pb_set(&stored->id, id);
    pb_set(&stored->name, join->name);
    pb_set_bytes(&stored->public_key, join->public_key.data, 32);
    stored->facts = join->facts ? pb_copy(&join->facts->base) : NULL;
    stored->joined_wall_ms = (uint64_t)clock_wall_ms();
    struct node *node = node_add(controller, stored);
    if (stored->facts)
        pool_cpu_added(controller, stored->facts);
    node_save(controller, node);
    pb_set(&token->node_id, id);
    store_put(controller->store, STORE_TOKEN, token->id, &token->base);
    event_add(controller, "info", "node.joined", join->name, 0, "by the token of %s", token->admin);
    return node;
}

void node_link_join(struct controller *controller, const struct link_peer *peer, const char *id,
                    const uint8_t *data, size_t size)
{
    struct error err = ERROR_INIT;
    Vmpool__Store__Token *token = keys_token(controller->keys, id);
    Vmpool__NodeToController *message =
        pb_unpack(&vmpool__node_to_controller__descriptor, data, size, &err);
    if (!message || !token)
        goto out;
    if (message->body_case != VMPOOL__NODE_TO_CONTROLLER__BODY_JOIN) {
        (void)error_set(&err, ERROR_USAGE, "a token's key may only join");
        refuse(controller, peer, message->request_id, &err);
        goto out;
    }
    struct node *node = NULL;
    if (check_join(controller, token, message->join, &err) == 0)
        node = token->node_id[0] ? node_by_id(controller, token->node_id)
                                 : add_node(controller, token, message->join, &err);
    if (!node) {
        refuse(controller, peer, message->request_id, &err);
        event_add(controller, "warning", "node.refused", message->join->name, 0, "at %s: %s",
                  peer->address, err.text);
        goto out;
    }
    Vmpool__ControllerToNode answer = VMPOOL__CONTROLLER_TO_NODE__INIT;
    Vmpool__NodeJoined joined = VMPOOL__NODE_JOINED__INIT;
    joined.node_id = node->stored->id;
    answer.request_id = message->request_id;
    answer.body_case = VMPOOL__CONTROLLER_TO_NODE__BODY_JOINED;
    answer.joined = &joined;
    outbox_node(controller, peer, &answer);
out:
    pb_free(message);
}

/* ---- hello, reports ---- */

static void heard(struct controller *controller, struct node *node)
{
    node->heard_ms = clock_monotonic_ms();
    node->heard_wall_ms = clock_wall_ms();
    node_happens(controller, node, NODE_EVENT_REPORT);
}

static bool facts_changed(const Vmpool__Store__Node *stored, const Vmpool__NodeHello *hello)
{
    if (strcmp(stored->boot_id, hello->boot_id) != 0 || !stored->facts)
        return true;
    size_t a_size = 0, b_size = 0;
    auto_free uint8_t *a = pb_pack(&stored->facts->base, &a_size);
    auto_free uint8_t *b = pb_pack(&hello->facts->base, &b_size);
    return a_size != b_size || memcmp(a, b, a_size) != 0;
}

/* The others hear of it only where the pool's CPU is another one now. */
static void change_cpu(struct controller *controller, const struct node *node, bool is_first)
{
    struct error err = ERROR_INIT;
    const uint8_t *cpu = NULL;
    size_t size = 0, old_size = 0;
    auto_free uint8_t *old = mem_new(BASELINE_BYTES_MAX);
    if (pool_cpu_get(controller, &cpu, &old_size, &err) == 0)
        memcpy(old, cpu, old_size);
    if (is_first)
        pool_cpu_added(controller, node->stored->facts);
    else
        pool_cpu_forget(controller);
    if (pool_cpu_get(controller, &cpu, &size, &err) == 0 && size == old_size &&
        memcmp(cpu, old, size) == 0)
        return;
    for (const struct node *other = controller->nodes; other; other = other->next)
        if (other != node)
            send_welcome(controller, other);
}

static void take_facts(struct controller *controller, struct node *node,
                       const Vmpool__NodeHello *hello)
{
    Vmpool__Store__Node *stored = node->stored;
    if (!facts_changed(stored, hello))
        return;
    if (stored->boot_id[0] && strcmp(stored->boot_id, hello->boot_id) != 0)
        event_add(controller, "warning", "node.restarted", stored->name, 0,
                  "the host was restarted");
    pb_set(&stored->boot_id, hello->boot_id);
    bool is_first = !stored->facts;
    bool cpu_changed =
        is_first || stored->facts->cpuid.len != hello->facts->cpuid.len ||
        (stored->facts->cpuid.len > 0 && memcmp(stored->facts->cpuid.data, hello->facts->cpuid.data,
                                                stored->facts->cpuid.len) != 0);
    pb_free(stored->facts);
    stored->facts = pb_copy(&hello->facts->base);
    node_save(controller, node);
    placement_set_node(controller, node);
    if (cpu_changed)
        change_cpu(controller, node, is_first);
}

static void on_hello(struct controller *controller, struct node *node, const struct link_peer *peer,
                     const Vmpool__NodeHello *hello)
{
    struct error err = ERROR_INIT;
    if (check_version(hello->protocol_version, &err) < 0 ||
        check_facts(controller, node, hello->facts, &err) < 0) {
        refuse(controller, peer, 0, &err);
        return;
    }
    node->peer = *peer;
    node->connected = true;
    take_facts(controller, node, hello);
    send_welcome(controller, node);
    heard(controller, node);
    node->marks = 0;
    reconcile_list(controller, node, hello->vms, hello->n_vms);
    jobs_node_connected(controller, node);
}

static void on_report(struct controller *controller, struct node *node, Vmpool__NodeReport *report)
{
    Vmpool__NodeVm **vms = report->vms;
    size_t count = report->n_vms;
    heard(controller, node);
    report->vms = NULL; /* kept as claims */
    report->n_vms = 0;
    pb_free(node->report);
    node->report = pb_copy(&report->base);
    report->vms = vms;
    report->n_vms = count;
    placement_set_node(controller, node);
    reconcile_list(controller, node, vms, count);
}

static void on_answer(struct controller *controller, struct node *node, uint64_t request_id,
                      const Vmpool__NodeAnswer *answer)
{
    heard(controller, node);
    /* What it says of the VM first: a job that the answer ends has nothing to learn from it any
     * more. */
    if (answer->vm)
        reconcile_one(controller, node, answer->vm);
    requests_answer(controller, node, request_id, answer);
    jobs_answer(controller, node, request_id, answer);
}

static void dispatch(struct controller *controller, struct node *node, const struct link_peer *peer,
                     Vmpool__NodeToController *message)
{
    switch (message->body_case) {
    case VMPOOL__NODE_TO_CONTROLLER__BODY_HELLO:
        on_hello(controller, node, peer, message->hello);
        return;
    case VMPOOL__NODE_TO_CONTROLLER__BODY_IMAGE_NEED:
        images_send_piece(controller, peer, message->request_id, message->image_need);
        return;
    default:
        break;
    }
    /* Everything else counts only on the connection that said hello: one left over from before
     * would be heard with an old view. */
    if (!node->connected || node->peer.routing_length != peer->routing_length ||
        memcmp(node->peer.routing_id, peer->routing_id, peer->routing_length) != 0)
        return;
    switch (message->body_case) {
    case VMPOOL__NODE_TO_CONTROLLER__BODY_REPORT:
        on_report(controller, node, message->report);
        break;
    case VMPOOL__NODE_TO_CONTROLLER__BODY_ANSWER:
        on_answer(controller, node, message->request_id, message->answer);
        break;
    case VMPOOL__NODE_TO_CONTROLLER__BODY_VM_EVENT:
        heard(controller, node);
        if (message->vm_event->vm)
            reconcile_one(controller, node, message->vm_event->vm);
        break;
    case VMPOOL__NODE_TO_CONTROLLER__BODY_CONSOLE:
        console_from_node(controller, node, message->console);
        break;
    default:
        log_debug("%s sent a message of no known kind", peer->user);
        break;
    }
}

void node_link_message(struct controller *controller, const struct link_peer *peer, const char *id,
                       const uint8_t *data, size_t size)
{
    struct error err = ERROR_INIT;
    struct node *node = node_by_id(controller, id);
    Vmpool__NodeToController *message =
        pb_unpack(&vmpool__node_to_controller__descriptor, data, size, &err);
    if (!message) {
        controller_complain(controller, peer, err.text);
    } else if (!node) {
        (void)error_set(&err, ERROR_NOT_FOUND,
                        "this node was removed from the pool: join again with a new token");
        refuse(controller, peer, message->request_id, &err);
    } else {
        dispatch(controller, node, peer, message);
    }
    pb_free(message);
}

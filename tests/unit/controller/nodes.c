/* Joining by token, hello, and what keys of each class may say. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "controller/keys.h"
#include "controller/pb.h"
#include "pool.h"

static struct pool pool;

static void start(void)
{
    pool_open(&pool, 1);
}

static void finish(void)
{
    pool_close(&pool);
}

TestSuite(nodes, .init = start, .fini = finish, .timeout = 60);

static bool is_refused(struct pool *p, const void *what)
{
    (void)p;
    return ((const struct sim_agent *)what)->refused[0] != '\0';
}

static void assert_refused(struct sim_agent *agent, const char *why)
{
    cr_assert(pool_until(&pool, is_refused, agent), "%s was not refused", agent->name);
    cr_assert(strstr(agent->refused, why), "%s", agent->refused);
    cr_assert_null(node_by_name(pool.controller, agent->name));
}

Test(nodes, a_node_joins_reports_and_is_described)
{
    const struct node *node = node_by_name(pool.controller, "n1");
    cr_assert(node);
    cr_assert_eq(node->phase, VMPOOL__NODE_PHASE__NODE_UP);
    Vmpool__Node *said = node_describe(pool.controller, node);
    cr_assert_eq(said->cpus, 8);
    cr_assert_eq(said->memory_mib, 16384);
    cr_assert_eq(said->memory_used_mib, 512);
    cr_assert_gt(said->last_report_wall_ms, 0);
    pb_free(said);
    /* Its own CPU is the pool's. */
    cr_assert_eq(pool_agent(&pool, "n1")->baseline_bytes, 80);
}

Test(nodes, a_token_lets_in_one_node_only)
{
    char token[600];
    (void)snprintf(token, sizeof token, "%s", pool_token(&pool));
    struct sim_agent *first = sim_agent_new(&pool.net, "n2", token);
    cr_assert(pool_await_node_phase(&pool, "n2", VMPOOL__NODE_PHASE__NODE_UP));
    struct sim_agent *second = sim_agent_new(&pool.net, "n3", token);
    assert_refused(second, "used already");
    cr_assert(node_by_name(pool.controller, "n2"));
    cr_assert(first->joined);
}

Test(nodes, a_used_token_is_still_used_after_a_restart)
{
    char token[600];
    (void)snprintf(token, sizeof token, "%s", pool_token(&pool));
    (void)sim_agent_new(&pool.net, "n2", token);
    cr_assert(pool_await_node_phase(&pool, "n2", VMPOOL__NODE_PHASE__NODE_UP));
    pool_kill_controller(&pool);
    pool_start_controller(&pool);
    cr_assert(pool_await_node_phase(&pool, "n2", VMPOOL__NODE_PHASE__NODE_UP));
    assert_refused(sim_agent_new(&pool.net, "n3", token), "used already");
}

Test(nodes, the_same_node_may_ask_again_as_its_answer_may_be_lost)
{
    char token[600];
    (void)snprintf(token, sizeof token, "%s", pool_token(&pool));
    struct sim_agent *agent = sim_agent_new(&pool.net, "n2", token);
    cr_assert(pool_await_node_phase(&pool, "n2", VMPOOL__NODE_PHASE__NODE_UP));
    sim_agent_stop(agent);
    agent->joined = false; /* it never heard that it was let in */
    agent->hello_count = 0;
    sim_agent_start(agent);
    for (int i = 0; i < 200 && agent->hello_count == 0; i++)
        pool_run(&pool, 20);
    cr_assert(agent->joined);
    cr_assert_eq(agent->refused[0], '\0', "%s", agent->refused);
}

Test(nodes, an_expired_token_is_told_to_be)
{
    char *token = pool_token(&pool);
    struct link_token parsed;
    struct error err = ERROR_INIT;
    char user[LINK_USER_MAX];
    const char *id = "";
    cr_assert_eq(link_token_parse(token, &parsed, &err), 0);
    cr_assert(keys_name(pool.controller->keys, parsed.join_keys.public_key, user, sizeof user));
    cr_assert_eq(keys_class(user, &id), KEY_TOKEN);
    Vmpool__Store__Token *stored = keys_token(pool.controller->keys, id);
    cr_assert(stored);
    stored->expires_wall_ms = (uint64_t)clock_wall_ms() - 1;
    assert_refused(sim_agent_new(&pool.net, "n2", token), "expired");
    /* Long after that, nobody knows it any more. */
    stored->expires_wall_ms = (uint64_t)clock_wall_ms() - TOKEN_REMEMBERED_MS - 1;
    pool_run(&pool, 300);
    cr_assert_not(keys_name(pool.controller->keys, parsed.join_keys.public_key, user, sizeof user));
}

Test(nodes, a_token_of_another_pool_is_refused_at_the_door)
{
    struct error err = ERROR_INIT;
    struct link_token parsed;
    char other[600];
    cr_assert_eq(link_token_parse(pool_token(&pool), &parsed, &err), 0);
    cr_assert_eq(link_keys_generate(&parsed.join_keys, &err), 0);
    cr_assert_eq(link_token_format(&parsed, other, sizeof other, &err), 0);
    assert_refused(sim_agent_new(&pool.net, "n2", other), "does not know our key");
}

Test(nodes, a_name_that_is_taken_or_wrong_is_refused_and_the_token_stays_good)
{
    char token[600];
    (void)snprintf(token, sizeof token, "%s", pool_token(&pool));
    struct sim_agent *twin = sim_agent_new(&pool.net, "n1", token);
    cr_assert(pool_until(&pool, is_refused, twin));
    cr_assert(strstr(twin->refused, "a node named n1"), "%s", twin->refused);
    sim_agent_stop(twin);
    assert_refused(sim_agent_new(&pool.net, "Not_a-name", token), "won't do");
    (void)sim_agent_new(&pool.net, "n2", token);
    cr_assert(pool_await_node_phase(&pool, "n2", VMPOOL__NODE_PHASE__NODE_UP));
}

Test(nodes, cpus_of_another_vendor_are_refused)
{
    char token[600];
    (void)snprintf(token, sizeof token, "%s", pool_token(&pool));
    struct sim_agent *agent = sim_agent_new(&pool.net, "n2", token);
    memcpy(agent->cpuid + 16, "Genu", 4); /* ebx of leaf 0 */
    assert_refused(agent, "different vendors");
}

Test(nodes, a_new_node_lowers_the_baseline_of_all)
{
    char token[600];
    (void)snprintf(token, sizeof token, "%s", pool_token(&pool));
    struct sim_agent *agent = sim_agent_new(&pool.net, "n2", token);
    agent->cpuid_size = 40; /* leaf 0 only */
    memset(agent->cpuid + 12, 0, 4);
    cr_assert(pool_await_node_phase(&pool, "n2", VMPOOL__NODE_PHASE__NODE_UP));
    pool_run(&pool, 100);
    cr_assert_eq(agent->baseline_bytes, 40);
}

/* ---- what a key may say ---- */

struct speaker {
    struct link_client *link;
    bool connected;
    unsigned messages;
    char refused[256];
};

static void on_connected(void *context)
{
    ((struct speaker *)context)->connected = true;
}

static void on_message(void *context, const uint8_t *data, size_t size)
{
    struct speaker *speaker = context;
    speaker->messages++;
    Vmpool__ControllerToNode *message = vmpool__controller_to_node__unpack(NULL, size, data);
    if (message && message->body_case == VMPOOL__CONTROLLER_TO_NODE__BODY_REFUSED)
        (void)snprintf(speaker->refused, sizeof speaker->refused, "%s", message->refused->text);
    if (message)
        vmpool__controller_to_node__free_unpacked(message, NULL);
}

static const struct link_client_events speaker_events = {on_connected, NULL, on_message, NULL};

static bool is_speaking(struct pool *p, const void *what)
{
    (void)p;
    return ((const struct speaker *)what)->connected;
}

static void connect_with(struct speaker *speaker, const struct link_keys *keys)
{
    struct error err = ERROR_INIT;
    memset(speaker, 0, sizeof *speaker);
    speaker->link = link_client_open(pool.loop, pool.listen, pool.controller->own_keys.public_key,
                                     keys, &speaker_events, speaker, &err);
    cr_assert(speaker->link);
    cr_assert(pool_until(&pool, is_speaking, speaker));
}

static void say(struct speaker *speaker, const ProtobufCMessage *message)
{
    struct error err = ERROR_INIT;
    uint8_t data[4096];
    size_t size = protobuf_c_message_pack(message, data);
    cr_assert_eq(link_client_send(speaker->link, data, size, &err), 0);
    pool_run(&pool, 200);
}

Test(nodes, a_nodes_key_can_ask_nothing_of_an_admin)
{
    struct speaker speaker;
    sim_agent_stop(pool_agent(&pool, "n1"));
    connect_with(&speaker, &pool_agent(&pool, "n1")->keys);
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__TokenCreate create = VMPOOL__TOKEN_CREATE__INIT;
    char id[] = "x";
    size_t tokens = keys_token_count(pool.controller->keys);
    request.protocol_version = 1;
    request.request_id = id;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_TOKEN_CREATE;
    request.token_create = &create;
    say(&speaker, &request.base);
    cr_assert_eq(speaker.messages, 0);
    cr_assert_eq(keys_token_count(pool.controller->keys), tokens);
    link_client_close(speaker.link);
}

Test(nodes, a_tokens_key_can_only_join)
{
    struct speaker speaker;
    struct link_token token;
    struct error err = ERROR_INIT;
    cr_assert_eq(link_token_parse(pool_token(&pool), &token, &err), 0);
    connect_with(&speaker, &token.join_keys);
    Vmpool__NodeToController message = VMPOOL__NODE_TO_CONTROLLER__INIT;
    Vmpool__NodeReport report = VMPOOL__NODE_REPORT__INIT;
    message.body_case = VMPOOL__NODE_TO_CONTROLLER__BODY_REPORT;
    message.report = &report;
    say(&speaker, &message.base);
    cr_assert(strstr(speaker.refused, "may only join"), "%s", speaker.refused);
    link_client_close(speaker.link);
}

Test(nodes, garbage_from_a_known_key_changes_nothing_and_others_are_served)
{
    struct speaker speaker;
    struct error err = ERROR_INIT;
    struct link_keys keys = pool_agent(&pool, "n1")->keys;
    connect_with(&speaker, &keys);
    uint32_t state = 1;
    for (int i = 0; i < 300; i++) {
        uint8_t garbage[200];
        for (unsigned j = 0; j < sizeof garbage; j++)
            garbage[j] = (uint8_t)((state = state * 1664525 + 1013904223) >> 24);
        cr_assert_eq(link_client_send(speaker.link, garbage, (size_t)i % sizeof garbage, &err), 0);
    }
    pool_run(&pool, 200);
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__StatusGet status = VMPOOL__STATUS_GET__INIT;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_STATUS;
    request.status = &status;
    cr_assert_eq(pool_ask(&pool, &request)->status->nodes_total, 1);
    link_client_close(speaker.link);
}

Test(nodes, another_protocol_version_is_told_what_to_upgrade)
{
    struct speaker speaker;
    sim_agent_stop(pool_agent(&pool, "n1"));
    connect_with(&speaker, &pool_agent(&pool, "n1")->keys);
    Vmpool__NodeToController message = VMPOOL__NODE_TO_CONTROLLER__INIT;
    Vmpool__NodeHello hello = VMPOOL__NODE_HELLO__INIT;
    hello.protocol_version = 7;
    message.body_case = VMPOOL__NODE_TO_CONTROLLER__BODY_HELLO;
    message.hello = &hello;
    say(&speaker, &message.base);
    cr_assert(strstr(speaker.refused, "upgrade the controller"), "%s", speaker.refused);
    link_client_close(speaker.link);
}

/* Joining and staying joined, with a controller over the real link. */
#include "node-agent/agent/uplink.h"

#include <criterion/criterion.h>
#include <string.h>

#include "tests/unit/agent/harness.h"

#define HELLO  VMPOOL__NODE_TO_CONTROLLER__BODY_HELLO
#define REPORT VMPOOL__NODE_TO_CONTROLLER__BODY_REPORT
#define JOIN   VMPOOL__NODE_TO_CONTROLLER__BODY_JOIN

static struct harness harness;

static void setup(void)
{
    if (!harness_enter_network())
        cr_skip_test("network namespaces are not permitted here");
    harness_open(&harness);
}

static void teardown(void)
{
    if (harness.loop)
        harness_close(&harness);
}

TestSuite(uplink, .init = setup, .fini = teardown, .timeout = 60);

static bool agent_failed(struct harness *at)
{
    return at->agent.fatal.kind != ERROR_NONE;
}

Test(uplink, a_token_joins_then_the_nodes_own_key_reports)
{
    struct error err = ERROR_INIT;
    cr_assert_eq(harness_start_agent(&harness, harness.token, &err), 0, "%s", err.text);
    int join = harness_wait(&harness, 0, JOIN);
    cr_assert_geq(join, 0);
    cr_assert_str_eq(harness.inbox[join]->join->name, "n1");
    cr_assert_gt(harness.inbox[join]->join->facts->memory_mib, 0);
    int hello = harness_wait(&harness, 0, HELLO);
    cr_assert_geq(hello, 0);
    cr_assert_str_eq(harness.node.user, "node:n1");
    cr_assert_str_eq(harness.inbox[hello]->hello->facts->migration_address, "127.0.0.1");
    int first = harness_wait(&harness, 0, REPORT);
    int second = harness_wait(&harness, (size_t)first + 1, REPORT);
    cr_assert_geq(second, 0);
    cr_assert_gt(harness.inbox[second]->report->sequence, harness.inbox[first]->report->sequence);
    cr_assert_gt(harness.inbox[second]->report->memory_available_mib, 0);
    cr_assert_gt(harness.inbox[second]->report->storage_total_mib, 0);
}

Test(uplink, a_joined_node_needs_no_token_and_survives_a_new_controller_process)
{
    struct error err = ERROR_INIT;
    cr_assert_eq(harness_start_agent(&harness, harness.token, &err), 0, "%s", err.text);
    cr_assert_geq(harness_wait(&harness, 0, REPORT), 0);
    harness_stop_agent(&harness);
    size_t before = harness.inbox_count;
    cr_assert_eq(harness_start_agent(&harness, NULL, &err), 0, "%s", err.text);
    int report = harness_wait(&harness, before, REPORT);
    cr_assert_geq(report, 0);
    harness_drop_controller(&harness);
    harness_restore_controller(&harness);
    before = harness.inbox_count;
    cr_assert_geq(harness_wait(&harness, before, HELLO), 0);
    cr_assert_geq(harness_wait(&harness, before, REPORT), 0);
}

Test(uplink, a_join_whose_answer_was_lost_is_completed_with_the_nodes_own_key)
{
    struct error err = ERROR_INIT;
    harness.silent_join = true;
    cr_assert_eq(harness_start_agent(&harness, harness.token, &err), 0, "%s", err.text);
    cr_assert_geq(harness_wait(&harness, 0, JOIN), 0);
    harness_stop_agent(&harness);
    cr_assert_eq(harness_start_agent(&harness, harness.token, &err), 0, "%s", err.text);
    cr_assert_geq(harness_wait(&harness, 0, REPORT), 0);
    cr_assert(harness.agent.identity.joined);
}

Test(uplink, a_joined_node_follows_its_controller_to_the_address_of_a_new_token)
{
    struct error err = ERROR_INIT;
    struct link_token token = {.address = "localhost:7400", .join_keys = harness.token_keys};
    char text[1024];
    cr_assert_eq(harness_start_agent(&harness, harness.token, &err), 0, "%s", err.text);
    cr_assert_geq(harness_wait(&harness, 0, REPORT), 0);
    harness_stop_agent(&harness);
    memcpy(token.server_key, harness.server_keys.public_key, 32);
    cr_assert_eq(link_token_format(&token, text, sizeof text, &err), 0);
    size_t from = harness.inbox_count;
    cr_assert_eq(harness_start_agent(&harness, text, &err), 0, "%s", err.text);
    cr_assert_geq(harness_wait(&harness, from, REPORT), 0);
    harness_stop_agent(&harness);
    cr_assert_eq(harness_start_agent(&harness, NULL, &err), 0);
    cr_assert_str_eq(harness.agent.identity.address, "localhost:7400");
    harness_stop_agent(&harness);

    token.server_key[0] ^= 1;
    cr_assert_eq(link_token_format(&token, text, sizeof text, &err), 0);
    cr_assert_eq(harness_start_agent(&harness, text, &err), -1);
    cr_assert_eq(err.kind, ERROR_CONFLICT, "%s", err.text);
}

Test(uplink, a_node_that_was_removed_joins_again_with_a_new_token)
{
    struct error err = ERROR_INIT;
    cr_assert_eq(harness_start_agent(&harness, harness.token, &err), 0, "%s", err.text);
    cr_assert_geq(harness_wait(&harness, 0, REPORT), 0);
    harness_stop_agent(&harness);
    harness.node_known = false;
    harness.token_used = false;
    size_t from = harness.inbox_count;
    cr_assert_eq(harness_start_agent(&harness, harness.token, &err), 0, "%s", err.text);
    int join = harness_wait(&harness, from, JOIN);
    cr_assert_geq(join, 0);
    cr_assert_geq(harness_wait(&harness, (size_t)join, REPORT), 0);
    harness_stop_agent(&harness);

    harness.node_known = false;
    cr_assert_eq(harness_start_agent(&harness, harness.token, &err), 0, "%s", err.text);
    cr_assert(harness_until(&harness, 20000, agent_failed));
    cr_assert(strstr(harness.agent.fatal.text, "poolctl node token"), "%s",
              harness.agent.fatal.text);
}

Test(uplink, a_used_token_fails_with_the_way_out)
{
    struct error err = ERROR_INIT;
    harness.token_used = true;
    cr_assert_eq(harness_start_agent(&harness, harness.token, &err), 0, "%s", err.text);
    cr_assert(harness_until(&harness, 20000, agent_failed));
    cr_assert_eq(harness.agent.fatal.kind, ERROR_UNREACHABLE);
    cr_assert(strstr(harness.agent.fatal.text, "poolctl node token"), "%s",
              harness.agent.fatal.text);
}

Test(uplink, a_node_in_no_pool_says_how_to_join)
{
    struct error err = ERROR_INIT;
    cr_assert_eq(harness_start_agent(&harness, NULL, &err), -1);
    cr_assert_eq(err.kind, ERROR_USAGE);
    cr_assert(strstr(err.text, "--join"));
    harness_stop_agent(&harness);
    error_clear(&err);
    cr_assert_eq(harness_start_agent(&harness, "vmpool1.garbage", &err), -1);
    cr_assert_eq(err.kind, ERROR_USAGE, "%s", err.text);
}

Test(uplink, a_second_agent_on_the_same_run_folder_is_refused)
{
    struct error err = ERROR_INIT;
    struct agent second;
    cr_assert_eq(harness_start_agent(&harness, harness.token, &err), 0, "%s", err.text);
    cr_assert_eq(agent_start(&second, &harness.options, harness.loop, &err), -1);
    cr_assert_eq(err.kind, ERROR_CONFLICT);
    agent_stop(&second);
}

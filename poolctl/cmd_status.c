/* cmd_status.c: poolctl status. */
#include "poolctl/ask.h"
#include "poolctl/commands.h"
#include "poolctl/message.h"
#include "poolctl/text.h"

static const struct field lines[] = {
    {"Pool", "pool_name", NULL, FIELD_TEXT, 0},
    {"Controller", "address", NULL, FIELD_TEXT, 0},
    {"Version", "version", NULL, FIELD_TEXT, 0},
    {"Up for", "started_wall_ms", NULL, FIELD_AGE, 0},
    {"Nodes up", "nodes_up", "nodes_total", FIELD_NUMBER, 0},
    {"VMs running", "vms_running", "vms_total", FIELD_NUMBER, 0},
    {"Jobs running", "jobs_running", NULL, FIELD_NUMBER, 0},
    {"Migrations running", "migrations_streaming", "migrations_pool_max", FIELD_NUMBER, 0},
    {"Migrations waiting", "migrations_waiting", NULL, FIELD_NUMBER, 0},
    {"At most from a host", "migrations_out_max", NULL, FIELD_NUMBER, 0},
    {"At most to a host", "migrations_in_max", NULL, FIELD_NUMBER, 0},
    {"Rebalancing", "rebalance", NULL, FIELD_TEXT, 0},
    {"CPU in use", "cpu_permille", NULL, FIELD_PERMILLE, 0},
    {"vCPUs reserved", "vcpus_reserved", "vcpus_total", FIELD_NUMBER, 0},
    {"Memory reserved", "memory_reserved_mib", "memory_total_mib", FIELD_MIB, 0},
    {"Memory in use", "memory_used_mib", "memory_total_mib", FIELD_MIB, 0},
    {"Bandwidth reserved", "bandwidth_reserved_bps", "bandwidth_total_bps", FIELD_BPS, 0},
    {"Bandwidth in use", "bandwidth_used_bps", "bandwidth_total_bps", FIELD_BPS, 0},
    {0}};

static const struct view view_status = {"status", "status", "pool_name", NULL, lines};

static int run(struct invocation *call, struct error *err)
{
    struct view_style style = view_style_of(call);
    Vmpool__StatusGet body = VMPOOL__STATUS_GET__INIT;
    ADMIN_REQUEST(request, STATUS, status, &body);
    Vmpool__AdminReply *reply = NULL;
    if (ask(call, &request, VMPOOL__ADMIN_REPLY__BODY_STATUS, &reply, err) < 0)
        return -1;
    json_t *status = message_to_json(&reply->status->base, err);
    int result = view_one(&style, &view_status, lines, status, err);
    for (size_t i = 0; style.format == OUTPUT_TABLE && i < reply->status->n_warnings; i++) {
        (void)fprintf(style.terminal.out, "%s%s", i == 0 ? "\n" : "",
                      style.terminal.colour ? "\033[33mwarning:\033[0m " : "warning: ");
        text_print_safe(style.terminal.out, reply->status->warnings[i], false);
        (void)fputc('\n', style.terminal.out);
    }
    vmpool__admin_reply__free_unpacked(reply, NULL);
    return result;
}

const struct command command_status = {
    .name = "status",
    .summary = "the pool at a glance: nodes, VMs, what is reserved and used, warnings",
    .examples = (const struct example[]){{"poolctl status", "The pool at a glance"},
                                         {"poolctl status -o json | jq .status.warnings",
                                          "Only what needs the operator"},
                                         {0}},
    .run = run,
};

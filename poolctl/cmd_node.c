/* cmd_node.c: poolctl node token|ls|show|drain|undrain|rm. */
#include <inttypes.h>
#include <string.h>

#include "poolctl/ask.h"
#include "poolctl/commands.h"
#include "poolctl/confirm.h"
#include "poolctl/job.h"
#include "poolctl/message.h"
#include "poolctl/text.h"

/* ---- token ---------------------------------------------------------------------------------- */

static const struct field token_fields[] = {{"TOKEN", "token", NULL, FIELD_TEXT, 0},
                                            {"EXPIRES", "expires_wall_ms", NULL, FIELD_TIME, 0},
                                            {0}};
static const struct view view_token = {"token", "token", "token", NULL, token_fields};

static int run_token(struct invocation *call, struct error *err)
{
    struct view_style style = view_style_of(call);
    char until[64];
    Vmpool__TokenCreate body = VMPOOL__TOKEN_CREATE__INIT;
    body.address = ask_text(invocation_option(call, "address"));
    if (invocation_ms(call, "valid", &body.valid_ms, err) < 0)
        return -1;
    ADMIN_REQUEST(request, TOKEN_CREATE, token_create, &body);
    Vmpool__AdminReply *reply = NULL;
    if (ask(call, &request, VMPOOL__ADMIN_REPLY__BODY_TOKEN, &reply, err) < 0)
        return -1;
    json_t *token = message_to_json(&reply->token->base, err);
    int result = -1;
    if (style.format != OUTPUT_TABLE) {
        result = view_one(&style, &view_token, NULL, token, err);
    } else if (token) {
        text_print_safe(style.terminal.out, reply->token->token, false);
        (void)fputc('\n', style.terminal.out);
        if (!style.quiet)
            (void)fprintf(style.terminal.err,
                          "Good for one node until %s. On that node: pool-agent --join TOKEN "
                          "--name NODE\n",
                          view_field(&style, &token_fields[1], token, until, sizeof until));
        json_decref(token);
        result = 0;
    }
    vmpool__admin_reply__free_unpacked(reply, NULL);
    return result;
}

static const struct command node_token = {
    .name = "token",
    .summary = "make a token that lets one host join the pool",
    .details = "The token carries the controller's address and public key and a secret that works "
               "once. Whoever has it can join a host, so treat it as a password.",
    .options =
        (const struct option[]){
            {.name = "valid", .value = "TIME", .help = "how long it can be used (default 1h)"},
            {.name = "address",
             .value = "HOST:PORT",
             .help = "where the new node reaches the controller, if not "
                     "at the address it was started with"},
            {0}},
    .examples = (const struct example[]){{"poolctl node token --valid 10m", "A token for a host "
                                                                            "that joins now"},
                                         {0}},
    .run = run_token,
};

/* ---- ls and show ---------------------------------------------------------------------------- */

static int run_ls(struct invocation *call, struct error *err)
{
    Vmpool__NodeList body = VMPOOL__NODE_LIST__INIT;
    ADMIN_REQUEST(request, NODE_LIST, node_list, &body);
    return ask_and_print(call, &request, VMPOOL__ADMIN_REPLY__BODY_NODES, &view_nodes, err);
}

static const struct command node_ls = {
    .name = "ls",
    .summary = "list the nodes with what is reserved and used on each",
    .details = "Pairs are reserved/total. USED is memory in use as the host itself measures it.",
    .run = run_ls,
};

static const struct field node_lines[] = {
    {"Name", "name", NULL, FIELD_TEXT, 0},
    {"Id", "id", NULL, FIELD_TEXT, 0},
    {"Phase", "phase", NULL, FIELD_PHASE, 0},
    {"Draining", "draining", NULL, FIELD_YES_NO, FIELD_OPTIONAL},
    {"Address", "address", NULL, FIELD_TEXT, 0},
    {"Version", "version", NULL, FIELD_TEXT, 0},
    {"Kernel", "kernel", NULL, FIELD_TEXT, 0},
    {"CPU model", "cpu_model", NULL, FIELD_TEXT, 0},
    {"Labels", "labels", NULL, FIELD_LABELS, FIELD_OPTIONAL},
    {"Last report", "last_report_wall_ms", NULL, FIELD_AGE, 0},
    {"VMs", "vms", NULL, FIELD_NUMBER, 0},
    {"CPU in use", "cpu_permille", NULL, FIELD_PERMILLE, 0},
    {"  by guests", "cpu_guest_permille", NULL, FIELD_PERMILLE, 0},
    {"  by programs", "cpu_user_permille", NULL, FIELD_PERMILLE, 0},
    {"  by the kernel", "cpu_system_permille", NULL, FIELD_PERMILLE, 0},
    {"vCPUs reserved", "vcpus_reserved", "cpus", FIELD_NUMBER, 0},
    {"Memory reserved", "memory_reserved_mib", "memory_mib", FIELD_MIB, 0},
    {"Memory in use", "memory_used_mib", "memory_mib", FIELD_MIB, 0},
    {"Kept for the host", "reserved_memory_mib", NULL, FIELD_MIB, 0},
    {"Bandwidth reserved", "bandwidth_reserved_bps", "bandwidth_bps", FIELD_BPS, 0},
    {"Traffic in", "net_rx_bps", NULL, FIELD_BPS, 0},
    {"Traffic out", "net_tx_bps", NULL, FIELD_BPS, 0},
    {"Storage free", "storage_free_mib", "storage_total_mib", FIELD_MIB, 0},
    {"Warnings", "warnings", NULL, FIELD_LIST, FIELD_OPTIONAL},
    {0}};

/* The VMs of the node, below its page. */
static int print_vms_of(const struct view_style *style, struct session *session, const char *node,
                        struct error *err)
{
    Vmpool__VmList body = VMPOOL__VM_LIST__INIT;
    ADMIN_REQUEST(request, VM_LIST, vm_list, &body);
    json_t *list = ask_list(session, &request, VMPOOL__ADMIN_REPLY__BODY_VMS, &view_vms, err);
    if (!list)
        return -1;
    for (size_t i = json_array_size(list); i > 0; i--)
        if (strcmp(message_text(json_array_get(list, i - 1), "node"), node) != 0)
            (void)json_array_remove(list, i - 1);
    if (json_array_size(list) > 0)
        view_table(style, &view_vms, "", list);
    json_decref(list);
    return 0;
}

static int run_show(struct invocation *call, struct error *err)
{
    struct view_style style = view_style_of(call);
    const char *name = invocation_argument(call, 0);
    Vmpool__NodeList body = VMPOOL__NODE_LIST__INIT;
    body.name = ask_text(name);
    ADMIN_REQUEST(request, NODE_LIST, node_list, &body);
    struct session *session = session_open(call, err);
    json_t *node = session ? ask_one(session, &request, VMPOOL__ADMIN_REPLY__BODY_NODES,
                                     &view_nodes, "node", name, err)
                           : NULL;
    int result = node ? view_one(&style, &view_nodes, node_lines, node, err) : -1;
    if (result == 0 && style.format == OUTPUT_TABLE)
        result = print_vms_of(&style, session, name, err);
    session_close(session);
    return result;
}

static const struct command node_show = {
    .name = "show",
    .summary = "all about one node, and the VMs on it",
    .arguments = ONE_ARGUMENT("NODE", "the node's name", COMPLETE_NODE),
    .run = run_show,
};

/* ---- changes -------------------------------------------------------------------------------- */

/* @done: what is said where the controller makes the change at once. */
static int change(struct invocation *call, Vmpool__NodeChange__Action action, const char *done,
                  struct error *err)
{
    struct job_wait wait;
    Vmpool__NodeChange body = VMPOOL__NODE_CHANGE__INIT;
    body.name = ask_text(invocation_argument(call, 0));
    body.action = action;
    body.dry_run = invocation_has(call, "dry-run");
    body.force = invocation_has(call, "force");
    ADMIN_REQUEST(request, NODE_CHANGE, node_change, &body);
    if (job_wait_options(call, &wait, err) < 0)
        return -1;
    wait.done = done;
    struct session *session = session_open(call, err);
    int result = session ? job_run(call, session, &request, &wait, err) : -1;
    session_close(session);
    return result;
}

static int run_drain(struct invocation *call, struct error *err)
{
    return change(call, VMPOOL__NODE_CHANGE__ACTION__DRAIN, "is drained", err);
}

static int run_undrain(struct invocation *call, struct error *err)
{
    return change(call, VMPOOL__NODE_CHANGE__ACTION__UNDRAIN, "takes VMs again", err);
}

static int run_rm(struct invocation *call, struct error *err)
{
    const char *name = invocation_argument(call, 0);
    if (confirm(call, err, "Take node %s out of the pool for good?", name) < 0)
        return -1;
    return change(call, VMPOOL__NODE_CHANGE__ACTION__REMOVE, "is no longer in the pool", err);
}

static const struct command node_drain = {
    .name = "drain",
    .summary = "move all VMs of a node elsewhere and place no new ones on it",
    .details = "Each VM is migrated while it runs. The node stays drained until 'poolctl node "
               "undrain'. Where a VM fits nowhere else it stays, and the drain says so.",
    .arguments = ONE_ARGUMENT("NODE", "the node's name", COMPLETE_NODE),
    .options =
        (const struct option[]){
            {.name = "dry-run", .help = "only say where each VM would go"}, JOB_WAIT_OPTIONS, {0}},
    .examples = (const struct example[]){{"poolctl node drain n2 --dry-run", "Look first"},
                                         {"poolctl node drain n2", "Empty a node, to service it"},
                                         {0}},
    .run = run_drain,
};

static const struct command node_undrain = {
    .name = "undrain",
    .summary = "let a drained node have VMs again",
    .arguments = ONE_ARGUMENT("NODE", "the node's name", COMPLETE_NODE),
    .options = (const struct option[]){JOB_WAIT_OPTIONS, {0}},
    .run = run_undrain,
};

static const struct command node_rm = {
    .name = "rm",
    .summary = "take a node out of the pool",
    .details =
        "The node must have no VMs: drain it first. Its key is forgotten, and it needs a new "
        "token to come back.",
    .arguments = ONE_ARGUMENT("NODE", "the node's name", COMPLETE_NODE),
    .options =
        (const struct option[]){
            {.name = "force",
             .help = "also a node that is gone for good, with the VMs that were on it"},
            JOB_WAIT_OPTIONS,
            {0}},
    .run = run_rm,
};

const struct command command_node = {
    .name = "node",
    .summary = "the hosts of the pool",
    .children =
        (const struct command *const[]){&node_token, &node_ls, &node_show, &command_node_top,
                                        &node_drain, &node_undrain, &node_rm, NULL},
};

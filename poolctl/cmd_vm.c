/* cmd_vm.c: poolctl vm ls|show|start|stop|kill|rm|explain. */
#include <inttypes.h>

#include "common/units.h"
#include "poolctl/ask.h"
#include "poolctl/commands.h"
#include "poolctl/confirm.h"
#include "poolctl/job.h"
#include "poolctl/message.h"
#include "poolctl/placement.h"
#include "poolctl/summary.h"

#define STOP_TIMEOUT_MS 60000
#define STOP_GRACE_MS   10000 /* the job's own end comes after the guest's */

/* ---- ls and show ---------------------------------------------------------------------------- */

static int run_ls(struct invocation *call, struct error *err)
{
    Vmpool__VmList body = VMPOOL__VM_LIST__INIT;
    ADMIN_REQUEST(request, VM_LIST, vm_list, &body);
    return ask_and_print(call, &request, VMPOOL__ADMIN_REPLY__BODY_VMS, &view_vms, err);
}

static const struct command vm_ls = {
    .name = "ls",
    .summary = "list the VMs: where each runs and what it has",
    .details = "CPU is in use now: 100% is one vCPU. MEMORY and BANDWIDTH are what is reserved.",
    .examples = (const struct example[]){{"poolctl vm ls --wide", "With traffic, labels and ids"},
                                         {"poolctl vm ls -o name", "Only the names, for a script"},
                                         {0}},
    .run = run_ls,
};

static const struct field vm_lines[] = {
    {"Name", "name", NULL, FIELD_TEXT, 0},
    {"Id", "id", NULL, FIELD_TEXT, 0},
    {"Phase", "phase", NULL, FIELD_PHASE, 0},
    {"Because", "text", NULL, FIELD_TEXT, FIELD_OPTIONAL},
    {"Node", "node", NULL, FIELD_TEXT, 0},
    {"Job", "job", NULL, FIELD_NUMBER, FIELD_OPTIONAL},
    {"Epoch", "epoch", NULL, FIELD_NUMBER, 0},
    {"Created", "created_wall_ms", NULL, FIELD_TIME, 0},
    {"Up for", "started_wall_ms", NULL, FIELD_AGE, FIELD_OPTIONAL},
    {"vCPUs", "spec.vcpus", NULL, FIELD_NUMBER, 0},
    {"CPU in use", "cpu_permille", NULL, FIELD_PERMILLE, 0},
    {"Memory", "spec.memory_mib", NULL, FIELD_MIB, 0},
    {"Memory in use", "usage.memory_mib", NULL, FIELD_MIB, FIELD_OPTIONAL},
    {"Balloon", "balloon_mib", NULL, FIELD_MIB, FIELD_OPTIONAL},
    {"Bandwidth", "spec.bandwidth_bps", NULL, FIELD_BPS, FIELD_DASH},
    {"Traffic in", "net_rx_bps", NULL, FIELD_BPS, 0},
    {"Traffic out", "net_tx_bps", NULL, FIELD_BPS, 0},
    {"MAC address", "spec.mac", NULL, FIELD_TEXT, 0},
    {"Labels", "spec.labels", NULL, FIELD_LABELS, FIELD_OPTIONAL},
    {"Not beside", "spec.anti_affinity_group", NULL, FIELD_TEXT, FIELD_OPTIONAL},
    {"No post-copy", "spec.no_postcopy", NULL, FIELD_YES_NO, FIELD_OPTIONAL},
    {"Beside", "spec.rules.affinity_group", NULL, FIELD_TEXT, FIELD_OPTIONAL},
    {"Spread with", "spec.rules.spread_group", NULL, FIELD_TEXT, FIELD_OPTIONAL},
    {"  over", "spec.rules.spread_label", NULL, FIELD_TEXT, FIELD_OPTIONAL},
    {"Tenant", "spec.rules.tenant", NULL, FIELD_TEXT, FIELD_OPTIONAL},
    {"Image", "spec.image.name", NULL, FIELD_TEXT, 0},
    {"Command line", "spec.image.cmdline", NULL, FIELD_TEXT, FIELD_OPTIONAL},
    {0}};

static const struct field disk_fields[] = {{"PATH", "path", NULL, FIELD_TEXT, 0},
                                           {"SIZE", "size_mib", NULL, FIELD_MIB, FIELD_DASH},
                                           {"READ-ONLY", "read_only", NULL, FIELD_YES_NO, 0},
                                           {0}};
static const struct view view_disks = {"disks", "disk", "path", NULL, disk_fields};

/* What does not fit on lines: disks and the last migration. */
static void print_rest(const struct invocation *call, const struct view_style *style,
                       const Vmpool__Vm *vm, const json_t *json)
{
    FILE *out = style->terminal.out;
    const json_t *disks = message_at(json, "spec.disks");
    const json_t *rounds = message_at(json, "last_migration.rounds");
    if (json_array_size(disks) > 0)
        view_table(style, &view_disks, "\nDisks", disks);
    if (!vm->last_migration || vm->last_migration->phase == VMPOOL__MIGRATION_PHASE__MIGRATION_NONE)
        return;
    (void)fprintf(out, "\nLast migration: %s\n", message_text(json, "last_migration.phase"));
    summary_migration(call, vm->last_migration, vm->last_review);
    if (json_array_size(rounds) > 0)
        view_table(style, &view_rounds, "", rounds);
}

static int print_vm(const struct invocation *call, const Vmpool__Vm *vm, struct error *err)
{
    struct view_style style = view_style_of(call);
    json_t *json = message_to_json(&vm->base, err);
    int result = view_one(&style, &view_vms, vm_lines, json_incref(json), err);
    if (result == 0 && style.format == OUTPUT_TABLE)
        print_rest(call, &style, vm, json);
    json_decref(json);
    return result;
}

static int run_show(struct invocation *call, struct error *err)
{
    const char *name = invocation_argument(call, 0);
    Vmpool__VmList body = VMPOOL__VM_LIST__INIT;
    body.name = ask_text(name);
    ADMIN_REQUEST(request, VM_LIST, vm_list, &body);
    Vmpool__AdminReply *reply = NULL;
    if (ask(call, &request, VMPOOL__ADMIN_REPLY__BODY_VMS, &reply, err) < 0)
        return -1;
    int result = reply->vms->n_vms > 0 ? print_vm(call, reply->vms->vms[0], err)
                                       : error_set(err, ERROR_NOT_FOUND,
                                                   "there is no VM '%s': see poolctl vm ls", name);
    vmpool__admin_reply__free_unpacked(reply, NULL);
    return result;
}

static const struct command vm_show = {
    .name = "show",
    .summary = "all about one VM, its disks and its last migration",
    .arguments = ONE_ARGUMENT("VM", "the VM's name", COMPLETE_VM),
    .run = run_show,
};

/* ---- changes -------------------------------------------------------------------------------- */

static int change(struct invocation *call, Vmpool__VmChange__Action action, struct error *err)
{
    struct job_wait wait;
    Vmpool__VmChange body = VMPOOL__VM_CHANGE__INIT;
    body.name = ask_text(invocation_argument(call, 0));
    body.action = action;
    body.force = invocation_has(call, "force");
    ADMIN_REQUEST(request, VM_CHANGE, vm_change, &body);
    if (job_wait_options(call, &wait, err) < 0)
        return -1;
    if (action == VMPOOL__VM_CHANGE__ACTION__STOP) {
        /* The time is the guest's; the job itself says when it is over. */
        body.timeout_ms = wait.timeout_ms ? wait.timeout_ms : STOP_TIMEOUT_MS;
        wait.timeout_ms = body.timeout_ms + STOP_GRACE_MS;
    }
    struct session *session = session_open(call, err);
    int result = session ? job_run(call, session, &request, &wait, err) : -1;
    session_close(session);
    return result;
}

static int run_start(struct invocation *call, struct error *err)
{
    return change(call, VMPOOL__VM_CHANGE__ACTION__START, err);
}

static int run_stop(struct invocation *call, struct error *err)
{
    return change(call, VMPOOL__VM_CHANGE__ACTION__STOP, err);
}

static int run_kill(struct invocation *call, struct error *err)
{
    const char *name = invocation_argument(call, 0);
    if (confirm(call, err, "Cut the power of VM %s? What it has not written to disk is lost.",
                name) < 0)
        return -1;
    return change(call, VMPOOL__VM_CHANGE__ACTION__KILL, err);
}

static int run_rm(struct invocation *call, struct error *err)
{
    const char *name = invocation_argument(call, 0);
    if (confirm(call, err, "Remove VM %s and the disks made for it?", name) < 0)
        return -1;
    return change(call, VMPOOL__VM_CHANGE__ACTION__REMOVE, err);
}

static const struct command vm_start = {
    .name = "start",
    .summary = "place a stopped VM on a node and start it",
    .arguments = ONE_ARGUMENT("VM", "the VM's name", COMPLETE_VM),
    .options = (const struct option[]){JOB_WAIT_OPTIONS, {0}},
    .run = run_start,
};

static const struct command vm_stop = {
    .name = "stop",
    .summary = "press the VM's power button and wait until it is off",
    .details = "The guest shuts itself down. One that does not in time keeps running, and the "
               "command fails, unless --force is given: then its power is cut.",
    .arguments = ONE_ARGUMENT("VM", "the VM's name", COMPLETE_VM),
    .options =
        (const struct option[]){
            {.name = "timeout",
             .value = "TIME",
             .help = "how long the guest may take (default 1m)"},
            {.name = "force", .help = "cut the power where the guest takes longer"},
            {.name = "no-wait", .help = "print the job's id and don't wait for its end"},
            {0}},
    .run = run_stop,
};

static const struct command vm_kill = {
    .name = "kill",
    .summary = "cut a VM's power at once",
    .arguments = ONE_ARGUMENT("VM", "the VM's name", COMPLETE_VM),
    .options = (const struct option[]){JOB_WAIT_OPTIONS, {0}},
    .run = run_kill,
};

static const struct command vm_rm = {
    .name = "rm",
    .summary = "remove a VM and the disks made for it",
    .details = "Disks given by a path are left alone. A running VM is refused unless --force is "
               "given: then its power is cut first.",
    .arguments = ONE_ARGUMENT("VM", "the VM's name", COMPLETE_VM),
    .options = (const struct option[]){{.name = "force", .help = "also a running VM"},
                                       JOB_WAIT_OPTIONS,
                                       {0}},
    .run = run_rm,
};

/* ---- explain -------------------------------------------------------------------------------- */

static int run_explain(struct invocation *call, struct error *err)
{
    Vmpool__VmExplain body = VMPOOL__VM_EXPLAIN__INIT;
    body.name = ask_text(invocation_argument(call, 0));
    ADMIN_REQUEST(request, VM_EXPLAIN, vm_explain, &body);
    Vmpool__AdminReply *reply = NULL;
    if (ask(call, &request, VMPOOL__ADMIN_REPLY__BODY_PLACEMENT, &reply, err) < 0)
        return -1;
    int result = placement_print(call, reply->placement, err);
    vmpool__admin_reply__free_unpacked(reply, NULL);
    return result;
}

static const struct command vm_explain = {
    .name = "explain",
    .summary = "why a VM is where it is, and why not elsewhere",
    .details = "For each node the reason it was refused, or its score. Where the VM fits nowhere "
               "the exit status is 2.",
    .arguments = ONE_ARGUMENT("VM", "the VM's name", COMPLETE_VM),
    .run = run_explain,
};

const struct command command_vm = {
    .name = "vm",
    .summary = "virtual machines",
    .children =
        (const struct command *const[]){&command_vm_create, &vm_ls, &vm_show, &vm_start, &vm_stop,
                                        &vm_kill, &vm_rm, &command_vm_migrate, &command_vm_console,
                                        &command_vm_log, &vm_explain, NULL},
};

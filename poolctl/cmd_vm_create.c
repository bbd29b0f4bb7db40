/* cmd_vm_create.c: poolctl vm create. */
#include <stdlib.h>
#include <string.h>

#include "common/units.h"
#include "poolctl/ask.h"
#include "poolctl/commands.h"
#include "poolctl/job.h"

#define MIB         (1ull << 20)
#define LIST_MAX    64
#define VCPUS_MAX   1024
#define LABEL_BYTES 512
#define SKEW_MAX    1000

/* What a VmCreate points to while it is sent. */
struct wanted {
    Vmpool__DiskSpec disks[LIST_MAX];
    Vmpool__DiskSpec *disk_list[LIST_MAX];
    Vmpool__Label labels[LIST_MAX];
    Vmpool__Label *label_list[LIST_MAX];
    Vmpool__Label selectors[LIST_MAX];
    Vmpool__Label *selector_list[LIST_MAX];
    Vmpool__PlacementRules rules;
    char *copies[3 * LIST_MAX + 2]; /* strings cut out of the command line */
    size_t copy_count;
};

static char *keep_copy(struct wanted *wanted, const char *text)
{
    char *copy = strdup(text);
    if (copy)
        wanted->copies[wanted->copy_count++] = copy;
    return copy;
}

/* "PATH", "SIZE", each with ",ro" or without: a path has a slash, a size begins with a digit. */
static int read_disk(struct wanted *wanted, const char *text, Vmpool__DiskSpec *disk,
                     struct error *err)
{
    uint64_t bytes = 0;
    vmpool__disk_spec__init(disk);
    char *copy = keep_copy(wanted, text);
    if (!copy)
        return error_set(err, ERROR_FAILED, "out of memory");
    char *comma = strrchr(copy, ',');
    if (comma && strcmp(comma, ",ro") == 0) {
        disk->read_only = true;
        *comma = '\0';
    }
    if (strchr(copy, '/')) {
        if (copy[0] != '/')
            return error_set(err, ERROR_USAGE,
                             "--disk: '%s' must be an absolute path, the same on each node", text);
        disk->path = copy;
        return 0;
    }
    if (units_parse_bytes(copy, MIB, &bytes, err) < 0)
        return error_set(err, ERROR_USAGE,
                         "--disk: '%s' is neither a path (/srv/web.img) nor a size (10G)", text);
    if (bytes < MIB)
        return error_set(err, ERROR_USAGE, "--disk: '%s' is less than 1M", text);
    if (disk->read_only)
        return error_set(err, ERROR_USAGE, "--disk: a new, empty disk cannot be read-only: '%s'",
                         text);
    disk->size_mib = bytes / MIB + (bytes % MIB != 0);
    return 0;
}

static int read_label(struct wanted *wanted, const char *option, const char *text,
                      Vmpool__Label *label, struct error *err)
{
    vmpool__label__init(label);
    if (strlen(text) > LABEL_BYTES)
        return error_set(err, ERROR_USAGE, "--%s: longer than %d bytes", option, LABEL_BYTES);
    char *copy = keep_copy(wanted, text);
    if (!copy)
        return error_set(err, ERROR_FAILED, "out of memory");
    char *equals = strchr(copy, '=');
    if (!equals || equals == copy)
        return error_set(err, ERROR_USAGE, "--%s: '%s' is not KEY=VALUE", option, text);
    *equals = '\0';
    label->key = copy;
    label->value = equals + 1;
    return 0;
}

static int read_labels(const struct invocation *call, const char *option, struct wanted *wanted,
                       Vmpool__Label *labels, Vmpool__Label **list, size_t *count,
                       struct error *err)
{
    size_t at = 0;
    for (const char *text = invocation_next(call, option, &at); text;
         text = invocation_next(call, option, &at)) {
        if (*count >= LIST_MAX)
            return error_set(err, ERROR_USAGE, "--%s: more than %d", option, LIST_MAX);
        if (read_label(wanted, option, text, &labels[*count], err) < 0)
            return -1;
        list[*count] = &labels[*count];
        ++*count;
    }
    return 0;
}

static int read_lists(const struct invocation *call, struct wanted *wanted, Vmpool__VmCreate *body,
                      struct error *err)
{
    size_t at = 0;
    for (const char *text = invocation_next(call, "disk", &at); text;
         text = invocation_next(call, "disk", &at)) {
        if (body->n_disks >= LIST_MAX)
            return error_set(err, ERROR_USAGE, "--disk: more than %d", LIST_MAX);
        wanted->disk_list[body->n_disks] = &wanted->disks[body->n_disks];
        if (read_disk(wanted, text, &wanted->disks[body->n_disks++], err) < 0)
            return -1;
    }
    body->disks = wanted->disk_list;
    body->labels = wanted->label_list;
    body->node_selector = wanted->selector_list;
    if (read_labels(call, "label", wanted, wanted->labels, wanted->label_list, &body->n_labels,
                    err) < 0)
        return -1;
    return read_labels(call, "selector", wanted, wanted->selectors, wanted->selector_list,
                       &body->n_node_selector, err);
}

/* "GROUP" or "GROUP:soft". */
static int read_anti_affinity(const struct invocation *call, struct wanted *wanted,
                              Vmpool__VmCreate *body, struct error *err)
{
    const char *text = invocation_option(call, "anti-affinity");
    char *copy = text ? keep_copy(wanted, text) : NULL;
    if (!text)
        return 0;
    if (!copy)
        return error_set(err, ERROR_FAILED, "out of memory");
    char *colon = strchr(copy, ':');
    if (colon && strcmp(colon, ":soft") != 0)
        return error_set(err, ERROR_USAGE, "--anti-affinity: '%s' is neither GROUP nor GROUP:soft",
                         text);
    if (colon)
        *colon = '\0';
    wanted->rules.anti_affinity_soft = colon != NULL;
    body->anti_affinity_group = copy;
    return 0;
}

/* "GROUP:LABEL" or "GROUP:LABEL:APART". */
static int read_spread(const struct invocation *call, struct wanted *wanted, struct error *err)
{
    const char *text = invocation_option(call, "spread");
    uint64_t skew = 1;
    if (!text)
        return 0;
    char *copy = keep_copy(wanted, text);
    if (!copy)
        return error_set(err, ERROR_FAILED, "out of memory");
    char *label = strchr(copy, ':');
    if (!label || label == copy || !label[1] || label[1] == ':')
        return error_set(err, ERROR_USAGE,
                         "--spread: '%s' is not GROUP:LABEL or GROUP:LABEL:APART, as in db:zone:1",
                         text);
    *label++ = '\0';
    char *apart = strchr(label, ':');
    if (apart)
        *apart++ = '\0';
    if (apart && units_parse_number(apart, "--spread", 1, SKEW_MAX, &skew, err) < 0)
        return -1;
    wanted->rules.spread_group = copy;
    wanted->rules.spread_label = label;
    wanted->rules.spread_skew = (uint32_t)skew;
    return 0;
}

static int read_rules(const struct invocation *call, struct wanted *wanted, Vmpool__VmCreate *body,
                      struct error *err)
{
    Vmpool__PlacementRules *rules = &wanted->rules;
    vmpool__placement_rules__init(rules);
    if (read_anti_affinity(call, wanted, body, err) < 0 || read_spread(call, wanted, err) < 0)
        return -1;
    rules->affinity_group = ask_text(invocation_option(call, "affinity"));
    rules->tenant = ask_text(invocation_option(call, "tenant"));
    if (rules->anti_affinity_soft || rules->affinity_group[0] || rules->spread_group[0] ||
        rules->tenant[0])
        body->rules = rules;
    return 0;
}

static int read_request(const struct invocation *call, struct wanted *wanted,
                        Vmpool__VmCreate *body, struct error *err)
{
    uint64_t vcpus = 1;
    body->name = ask_text(invocation_argument(call, 0));
    body->image = ask_text(invocation_option(call, "image"));
    body->on_node = ask_text(invocation_option(call, "on"));
    body->cmdline_extra = ask_text(invocation_option(call, "cmdline"));
    body->dry_run = invocation_has(call, "dry-run");
    body->stopped = invocation_has(call, "stopped");
    body->no_postcopy = invocation_has(call, "no-post-copy");
    body->memory_mib = 512;
    if (invocation_number(call, "cpus", 1, VCPUS_MAX, &vcpus, err) < 0 ||
        invocation_mib(call, "memory", &body->memory_mib, err) < 0 ||
        invocation_bps(call, "bandwidth", &body->bandwidth_bps, err) < 0)
        return -1;
    body->vcpus = (uint32_t)vcpus;
    if (read_rules(call, wanted, body, err) < 0)
        return -1;
    return read_lists(call, wanted, body, err);
}

static int run(struct invocation *call, struct error *err)
{
    struct wanted wanted = {.copy_count = 0};
    struct job_wait wait;
    struct session *session = NULL;
    int result = -1;
    Vmpool__VmCreate body = VMPOOL__VM_CREATE__INIT;
    ADMIN_REQUEST(request, VM_CREATE, vm_create, &body);
    if (job_wait_options(call, &wait, err) == 0 && read_request(call, &wanted, &body, err) == 0 &&
        (session = session_open(call, err)))
        result = job_run(call, session, &request, &wait, err);
    session_close(session);
    for (size_t i = 0; i < wanted.copy_count; i++)
        free(wanted.copies[i]);
    return result;
}

const struct command command_vm_create = {
    .name = "create",
    .summary = "make a VM, place it and start it",
    .details =
        "The scheduler chooses the node by CPU, memory and bandwidth, reserved and really used. "
        "--dry-run shows what it would choose and why, and changes nothing.\n\n"
        "A disk is an absolute path to a raw file or block device that every node sees, or a size: "
        "then an empty disk is made on the node, and the VM cannot be migrated. ',ro' after a "
        "path makes it read-only.",
    .arguments = ONE_ARGUMENT("NAME", "the new VM's name", COMPLETE_NOTHING),
    .options =
        (const struct option[]){
            {.name = "image",
             .value = "IMAGE",
             .required = true,
             .complete = COMPLETE_IMAGE,
             .help = "what it boots: see poolctl image ls"},
            {.name = "cpus", .value = "N", .help = "vCPUs (default 1)"},
            {.name = "memory",
             .value = "SIZE",
             .help = "RAM, in MiB without a unit (default 512M)"},
            {.name = "bandwidth",
             .value = "RATE",
             .help = "network rate kept free for it on the node (default none)"},
            {.name = "disk",
             .value = "PATH|SIZE",
             .repeated = true,
             .complete = COMPLETE_FILE,
             .help = "a disk, can be repeated: an existing one by path, or a new one by size"},
            {.name = "label",
             .value = "KEY=VALUE",
             .repeated = true,
             .help = "a label of the VM, can be repeated"},
            {.name = "anti-affinity",
             .value = "GROUP[:soft]",
             .help =
                 "never on one node with another VM of this group; soft: with as few as can be"},
            {.name = "affinity",
             .value = "GROUP",
             .help = "on one node with another VM of this affinity group, once there is one"},
            {.name = "spread",
             .value = "GROUP:LABEL[:APART]",
             .help = "spread the VMs of this group over the values of a node label, such as zone "
                     "or rack: none may have more than APART (default 1) VMs beyond another"},
            {.name = "tenant",
             .value = "TENANT",
             .help = "may use nodes with the label dedicated=TENANT, which take no other VM"},
            {.name = "selector",
             .value = "KEY=VALUE",
             .repeated = true,
             .help = "only on nodes with this label, can be repeated"},
            {.name = "on",
             .value = "NODE",
             .complete = COMPLETE_NODE,
             .help = "on this node and no other"},
            {.name = "cmdline",
             .value = "TEXT",
             .may_be_empty = true,
             .help = "added to the kernel command line of the image"},
            {.name = "no-post-copy",
             .help = "never migrate it by post-copy: see poolctl help vm migrate"},
            {.name = "stopped", .help = "create it, but don't start it"},
            {.name = "dry-run", .help = "only say where it would go, and why"},
            JOB_WAIT_OPTIONS,
            {0}},
    .examples =
        (const struct example[]){
            {"poolctl vm create web1 --image debian --cpus 2 --memory 512M --bandwidth 200M",
             "A VM with two vCPUs"},
            {"poolctl vm create db1 --image debian --memory 2G --disk /srv/pool/db1.img "
             "--anti-affinity db",
             "With a disk all nodes share, never beside another VM of group db"},
            {"poolctl vm create big --image debian --memory 64G --dry-run", "Would it fit?"},
            {0}},
    .run = run,
};

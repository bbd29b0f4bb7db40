/* cmd_vm_migrate.c: poolctl vm migrate. */
#include <string.h>

#include "poolctl/ask.h"
#include "poolctl/commands.h"
#include "poolctl/job.h"

#define STREAMS_MAX   64
#define WAIT_GRACE_MS 30000 /* beyond --timeout, in which the migration itself is given up */

/* The node the VM is on now, for the summary; "" where the controller does not say. */
static int find_source(struct session *session, const char *name, char *node, size_t size,
                       struct error *err)
{
    Vmpool__VmList body = VMPOOL__VM_LIST__INIT;
    body.name = ask_text(name);
    ADMIN_REQUEST(request, VM_LIST, vm_list, &body);
    Vmpool__AdminReply *reply = NULL;
    node[0] = '\0';
    if (ask_session(session, &request, VMPOOL__ADMIN_REPLY__BODY_VMS, &reply, err) < 0)
        return -1;
    if (reply->vms->n_vms > 0)
        (void)snprintf(node, size, "%s", reply->vms->vms[0]->node);
    vmpool__admin_reply__free_unpacked(reply, NULL);
    return 0;
}

static Vmpool__MigrationMode read_mode(const struct invocation *call)
{
    const char *word = invocation_option(call, "mode"); /* one of three, or NULL */
    if (word && strcmp(word, "precopy") == 0)
        return VMPOOL__MIGRATION_MODE__MODE_PRECOPY;
    return word && strcmp(word, "postcopy") == 0 ? VMPOOL__MIGRATION_MODE__MODE_POSTCOPY
                                                 : VMPOOL__MIGRATION_MODE__MODE_AUTO;
}

static Vmpool__MigrationCompress read_compress(const struct invocation *call)
{
    static const char *const words[] = {"auto", "off", "lz4", "zstd"};
    const char *word = invocation_option(call, "compress"); /* one of these, or NULL */
    for (int i = 1; word && i < (int)(sizeof(words) / sizeof(words[0])); i++)
        if (strcmp(word, words[i]) == 0)
            return (Vmpool__MigrationCompress)i;
    return VMPOOL__MIGRATION_COMPRESS__COMPRESS_AUTO;
}

static int read_limits(const struct invocation *call, Vmpool__MigrationLimits *limits,
                       struct error *err)
{
    uint64_t streams = 0;
    limits->verify = invocation_has(call, "verify");
    limits->no_throttle = invocation_has(call, "no-throttle");
    if (invocation_ms(call, "downtime-limit", &limits->downtime_limit_ms, err) < 0 ||
        invocation_bps(call, "bandwidth", &limits->bandwidth_bps, err) < 0 ||
        invocation_number(call, "streams", 1, STREAMS_MAX, &streams, err) < 0 ||
        invocation_ms(call, "timeout", &limits->timeout_ms, err) < 0 ||
        invocation_ms(call, "stall-timeout", &limits->stall_timeout_ms, err) < 0)
        return -1;
    limits->mode = read_mode(call);
    if (limits->verify && limits->mode == VMPOOL__MIGRATION_MODE__MODE_POSTCOPY)
        return error_set(err, ERROR_USAGE,
                         "--verify compares all RAM within the pause, and in post-copy RAM is not "
                         "complete then: choose one of them");
    limits->streams = (uint32_t)streams;
    limits->compress = read_compress(call);
    return 0;
}

static int run(struct invocation *call, struct error *err)
{
    char source[256] = "";
    struct job_wait wait = {.no_wait = invocation_has(call, "no-wait"), .from = source};
    Vmpool__MigrationLimits limits = VMPOOL__MIGRATION_LIMITS__INIT;
    Vmpool__VmMigrate body = VMPOOL__VM_MIGRATE__INIT;
    body.name = ask_text(invocation_argument(call, 0));
    body.to_node = ask_text(invocation_option(call, "to"));
    body.dry_run = invocation_has(call, "dry-run");
    body.limits = &limits;
    ADMIN_REQUEST(request, VM_MIGRATE, vm_migrate, &body);
    if (read_limits(call, &limits, err) < 0)
        return -1;
    if (limits.timeout_ms)
        wait.timeout_ms = limits.timeout_ms + WAIT_GRACE_MS;
    struct session *session = session_open(call, err);
    int result = session ? 0 : -1;
    if (result == 0 && !wait.no_wait && !body.dry_run)
        result = find_source(session, body.name, source, sizeof source, err);
    if (result == 0)
        result = job_run(call, session, &request, &wait, err);
    session_close(session);
    return result;
}

const struct command command_vm_migrate = {
    .name = "migrate",
    .summary = "move a running VM to another node",
    .details =
        "The guest goes on running while its memory is copied, in rounds, and is paused only for "
        "the last of it. If anything fails before the target has everything, it simply runs on "
        "where it was. At the end the pause is shown with each of its parts.\n\n"
        "Where the guest writes faster than the link carries, the vCPUs that write most are slowed "
        "step by step, up to 99%, until the rounds shrink; the others keep their speed, and all "
        "have it again afterwards. --no-throttle forbids that.\n\n"
        "--verify hashes all RAM and device state on both sides inside the pause and compares "
        "them; the pause grows by the time this takes.\n\n"
        "Where it still writes faster than the link carries after a second of that, --mode auto, "
        "the default, switches to post-copy: the guest goes on at the target at once, and the "
        "pages it touches first are fetched first. Until the last of them has come it needs both "
        "hosts: a link that is lost meanwhile pauses it until the link is back, and the death of "
        "either host ends it. --mode precopy never does that, and neither does auto with --verify, "
        "or for a VM made with --no-post-copy; --mode postcopy does it after one round.",
    .arguments = ONE_ARGUMENT("VM", "the VM's name", COMPLETE_VM),
    .options =
        (const struct option[]){
            {.name = "to",
             .value = "NODE",
             .complete = COMPLETE_NODE,
             .help = "the node to move to (default: the scheduler chooses)"},
            {.name = "downtime-limit",
             .value = "TIME",
             .help = "the longest pause the guest may see (default 100ms)"},
            {.name = "bandwidth",
             .value = "RATE",
             .help = "send at most so fast (default: no limit)"},
            {.name = "streams",
             .value = "N",
             .help = "TCP connections to send over (default: chosen by the engine)"},
            {.name = "mode",
             .value = "MODE",
             .words = "auto|precopy|postcopy",
             .help = "auto, precopy or postcopy (default auto)"},
            {.name = "compress",
             .value = "HOW",
             .words = "auto|off|lz4|zstd",
             .help = "compress pages: where it is faster (auto, the default), never, or always "
                     "with one codec"},
            {.name = "verify", .help = "compare RAM and device state of both sides in the pause"},
            {.name = "no-throttle",
             .help = "never slow the guest: fail where it writes faster than the link carries"},
            {.name = "timeout",
             .value = "TIME",
             .help = "give the migration up after this time; the VM runs on where it was"},
            {.name = "stall-timeout",
             .value = "TIME",
             .help = "give it up where nothing moves for so long (default 60s)"},
            {.name = "dry-run", .help = "only say where it would go, and why"},
            {.name = "no-wait", .help = "print the job's id and don't wait for its end"},
            {0}},
    .examples =
        (const struct example[]){
            {"poolctl vm migrate web1", "To the node the scheduler finds best"},
            {"poolctl vm migrate web1 --to n2 --verify", "To a certain node, proving that "
                                                         "nothing was lost"},
            {0}},
    .run = run,
};

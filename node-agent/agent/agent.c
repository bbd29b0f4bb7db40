#include "node-agent/agent/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "node-agent/agent/adopt.h"
#include "node-agent/agent/commands.h"
#include "node-agent/agent/faults.h"
#include "node-agent/agent/files.h"
#include "node-agent/agent/names.h"
#include "node-agent/agent/report.h"
#include "node-agent/agent/vm.h"

#define REPORT_INTERVAL_MIN_MS     100
#define REPORT_INTERVAL_MAX_MS     60000
#define REPORT_INTERVAL_DEFAULT_MS 2000

void agent_send(struct agent *agent, const Vmpool__NodeToController *message)
{
    struct error err = ERROR_INIT;
    bool first = message->body_case == VMPOOL__NODE_TO_CONTROLLER__BODY_JOIN ||
                 message->body_case == VMPOOL__NODE_TO_CONTROLLER__BODY_HELLO;
    if (!first && !uplink_ready(agent->uplink))
        return;
    if (uplink_send(agent->uplink, message, &err) < 0)
        log_debug("not sent: %s", err.text);
}

void agent_send_answer(struct agent *agent, uint64_t request_id, Vmpool__NodeAnswer *answer)
{
    Vmpool__NodeToController message = VMPOOL__NODE_TO_CONTROLLER__INIT;
    message.request_id = request_id;
    message.body_case = VMPOOL__NODE_TO_CONTROLLER__BODY_ANSWER;
    message.answer = answer;
    for (unsigned copies = fault_message("agent.answer"); copies > 0; copies--)
        agent_send(agent, &message);
}

void agent_answer(struct agent *agent, uint64_t request_id, Vmpool__NodeAnswer *answer)
{
    size_t size = vmpool__node_answer__get_packed_size(answer);
    auto_free uint8_t *packed = malloc(size + 1);
    if (packed)
        (void)vmpool__node_answer__pack(answer, packed);
    answers_finish(agent->answers, request_id, packed, size);
    agent_send_answer(agent, request_id, answer);
}

void agent_answer_error(struct agent *agent, uint64_t request_id, const struct error *err)
{
    Vmpool__NodeAnswer answer = VMPOOL__NODE_ANSWER__INIT;
    Vmpool__Failure failure = VMPOOL__FAILURE__INIT;
    char text[ERROR_TEXT_MAX];
    (void)snprintf(text, sizeof text, "%s", err->text);
    failure.kind = err->kind;
    failure.text = text;
    answer.failure = &failure;
    agent_answer(agent, request_id, &answer);
}

static void on_report_due(void *context)
{
    struct agent *agent = context;
    if (uplink_ready(agent->uplink))
        report_send(agent);
    vm_tick_all(agent);
}

static void on_greet(void *context, bool joining)
{
    report_greet(context, joining);
}

static void set_report_interval(struct agent *agent, uint64_t interval_ms)
{
    if (interval_ms == 0)
        interval_ms = REPORT_INTERVAL_DEFAULT_MS;
    if (interval_ms < REPORT_INTERVAL_MIN_MS)
        interval_ms = REPORT_INTERVAL_MIN_MS;
    if (interval_ms > REPORT_INTERVAL_MAX_MS)
        interval_ms = REPORT_INTERVAL_MAX_MS;
    if (agent->report_timer && interval_ms == agent->report_interval_ms)
        return;
    loop_remove(agent->report_timer);
    agent->report_interval_ms = interval_ms;
    agent->report_timer = loop_add_timer(agent->loop, 0, interval_ms, on_report_due, agent);
}

static void set_baseline(struct agent *agent, const ProtobufCBinaryData *cpuid)
{
    free(agent->baseline);
    agent->baseline = cpuid->len ? malloc(cpuid->len) : NULL;
    agent->baseline_bytes = agent->baseline ? cpuid->len : 0;
    if (agent->baseline)
        memcpy(agent->baseline, cpuid->data, cpuid->len);
}

static int check_welcome(const Vmpool__NodeWelcome *welcome, struct error *err)
{
    size_t entry_bytes = 40; /* struct kvm_cpuid_entry2 */
    if (welcome->cpuid_baseline.len % entry_bytes != 0 ||
        welcome->cpuid_baseline.len > FACTS_CPUID_MAX * entry_bytes)
        return error_set(err, ERROR_FAILED,
                         "the pool's CPU baseline is %zu bytes, not whole entries",
                         welcome->cpuid_baseline.len);
    if (welcome->bridge[0] && !name_is_interface(welcome->bridge))
        return error_set(err, ERROR_FAILED, "the pool's bridge name is no interface name");
    return 0;
}

static void use_bridge(struct agent *agent, const char *name)
{
    struct error err = ERROR_INIT;
    bool made = false;
    if (agent->bridge_ready && strcmp(agent->bridge, name) == 0)
        return;
    (void)snprintf(agent->bridge, sizeof agent->bridge, "%s", name);
    agent->bridge_ready = netlink_ensure_bridge(agent->netlink, name, &made, &err) == 0;
    if (!agent->bridge_ready)
        log_error("guests get no network: %s", err.text);
    else if (made)
        log_info("made bridge %s; add this host's uplink to it to reach other hosts", name);
    meter_init(&agent->meter, agent->netlink, agent->options->uplink, name,
               agent->options->storage);
}

static void on_welcome(void *context, const Vmpool__NodeWelcome *welcome)
{
    struct agent *agent = context;
    struct error err = ERROR_INIT;
    if (check_welcome(welcome, &err) < 0) {
        log_error("the controller's welcome is refused: %s", err.text);
        return;
    }
    set_baseline(agent, &welcome->cpuid_baseline);
    use_bridge(agent, welcome->bridge[0] ? welcome->bridge : agent->options->bridge);
    set_report_interval(agent, welcome->report_interval_ms);
    image_cache_connected(agent->images);
}

static void on_command(void *context, const Vmpool__ControllerToNode *command)
{
    commands_handle(context, command);
}

static void on_disconnected(void *context)
{
    struct agent *agent = context;
    relay_drop_all(agent);
}

static int on_image_need(void *context, const char *sha256, uint64_t offset, uint32_t length)
{
    struct agent *agent = context;
    struct error err = ERROR_INIT;
    Vmpool__NodeToController message = VMPOOL__NODE_TO_CONTROLLER__INIT;
    Vmpool__NodeImageNeed need = VMPOOL__NODE_IMAGE_NEED__INIT;
    char hash[SHA256_HEX_LENGTH + 1];
    (void)snprintf(hash, sizeof hash, "%s", sha256);
    need.sha256 = hash;
    need.offset = offset;
    need.length = length;
    message.request_id = ++agent->image_requests;
    message.body_case = VMPOOL__NODE_TO_CONTROLLER__BODY_IMAGE_NEED;
    message.image_need = &need;
    return uplink_ready(agent->uplink) ? uplink_send(agent->uplink, &message, &err) : -1;
}

static void on_failed(void *context, const struct error *err)
{
    struct agent *agent = context;
    agent->fatal = *err;
    loop_stop(agent->loop);
}

static const struct uplink_events uplink_events = {
    .greet = on_greet,
    .welcome = on_welcome,
    .command = on_command,
    .disconnected = on_disconnected,
    .failed = on_failed,
};

/* The run folder's lock is a descriptor no VMM inherits, so it ends with the agent. */
static int lock_run_dir(struct agent *agent, int run_fd, struct error *err)
{
    agent->lock_fd = openat(run_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (agent->lock_fd < 0)
        return error_errno(err, errno, "cannot create %s/lock", agent->options->run_dir);
    if (flock(agent->lock_fd, LOCK_EX | LOCK_NB) < 0)
        return error_set(err, ERROR_CONFLICT,
                         "another pool-agent uses %s; end it, or give this one another --run-dir",
                         agent->options->run_dir);
    return 0;
}

static int make_below(int dir_fd, const char *name, struct error *err)
{
    if (mkdirat(dir_fd, name, 0700) < 0 && errno != EEXIST)
        return error_errno(err, errno, "cannot create folder %s", name);
    return files_open_dir(dir_fd, name, err);
}

static int open_folders(struct agent *agent, struct error *err)
{
    const struct agent_options *options = agent->options;
    if (files_make_dirs(options->run_dir, 0755, err) < 0)
        return error_wrap(err, "--run-dir");
    if (files_make_dirs(options->storage, 0755, err) < 0)
        return error_wrap(err, "--storage");
    auto_fd int run_fd = files_open_dir(AT_FDCWD, options->run_dir, err);
    if (run_fd < 0 || lock_run_dir(agent, run_fd, err) < 0)
        return -1;
    agent->vms_fd = make_below(run_fd, "vms", err);
    agent->epochs_fd = make_below(run_fd, "epochs", err);
    return agent->vms_fd < 0 || agent->epochs_fd < 0 ? -1 : 0;
}

static int choose_name(struct agent *agent, struct error *err)
{
    char host[64] = "";
    if (agent->options->name) {
        (void)snprintf(agent->node_name, sizeof agent->node_name, "%s", agent->options->name);
        return 0;
    }
    (void)gethostname(host, sizeof host - 1);
    host[strcspn(host, ".")] = '\0';
    if (!name_is_node(host))
        return error_set(err, ERROR_USAGE,
                         "the host's name '%s' is no node name; give one with --name", host);
    (void)snprintf(agent->node_name, sizeof agent->node_name, "%s", host);
    return 0;
}

/* The VMM beside this program, unless told otherwise. */
static int choose_vmm(struct agent *agent, struct error *err)
{
    const char *given = agent->options->vmm;
    char self[sizeof agent->vmm_path - 16];
    if (given) {
        (void)snprintf(agent->vmm_path, sizeof agent->vmm_path, "%s", given);
    } else {
        ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
        self[length > 0 ? length : 0] = '\0';
        char *slash = strrchr(self, '/');
        if (!slash)
            return error_set(err, ERROR_FAILED, "cannot find pool-vmm: use --vmm");
        *slash = '\0';
        (void)snprintf(agent->vmm_path, sizeof agent->vmm_path, "%s/pool-vmm", self);
    }
    if (access(agent->vmm_path, X_OK) < 0)
        facts_warn(&agent->facts, "this host cannot run VMs: %s: %s; use --vmm", agent->vmm_path,
                   strerror(errno));
    return 0;
}

/* VMMs become an unprivileged user; only root can make them one. */
static void choose_user(struct agent *agent)
{
    static const char fallback[] = "nobody";
    const char *name = agent->options->user;
    const struct passwd *user = getpwnam(name);
    if (geteuid() != 0) {
        facts_warn(&agent->facts, "pool-agent does not run as root: VMs get no network, and their "
                                  "VMMs its own user");
        return;
    }
    if (!user) {
        user = getpwnam(fallback);
        facts_warn(&agent->facts, "there is no user %s: VMMs run as %s (make it, or use --user)",
                   name, user ? fallback : "65534");
    }
    (void)snprintf(agent->vmm_user, sizeof agent->vmm_user, "%u:%u", user ? user->pw_uid : 65534u,
                   user ? user->pw_gid : 65534u);
}

static void use_cgroup(struct agent *agent)
{
    struct error err = ERROR_INIT;
    if (cgroup_open(&agent->cgroup, agent->options->cgroup, &err) < 0)
        facts_warn(&agent->facts, "%s", err.text);
}

int agent_start(struct agent *agent, const struct agent_options *options, struct loop *loop,
                struct error *err)
{
    *agent = (struct agent){.options = options, .loop = loop};
    agent->lock_fd = agent->vms_fd = agent->epochs_fd = agent->cgroup.root_fd = -1;
    if (choose_name(agent, err) < 0 || open_folders(agent, err) < 0 ||
        identity_load(options->state_dir, &agent->identity, err) < 0 ||
        facts_gather(&agent->facts, err) < 0)
        return -1;
    agent->answers = answers_new();
    agent->relay = relay_new();
    if (!agent->answers || !agent->relay)
        return error_errno(err, ENOMEM, "agent");
    agent->netlink = netlink_open(err);
    agent->images = image_cache_open(loop, options->storage, options->image_cache_bytes,
                                     on_image_need, agent, err);
    if (!agent->netlink || !agent->images || choose_vmm(agent, err) < 0)
        return -1;
    choose_user(agent);
    use_cgroup(agent);
    if (adopt_all(agent, err) < 0)
        return -1;
    agent->uplink = uplink_open(loop, options->state_dir, &agent->identity, options->join,
                                &uplink_events, agent, err);
    if (!agent->uplink)
        return -1;
    use_bridge(agent, options->bridge);
    return 0;
}

void agent_stop(struct agent *agent)
{
    loop_remove(agent->report_timer);
    vm_leave_all(agent);
    uplink_close(agent->uplink);
    image_cache_close(agent->images);
    relay_free(agent->relay);
    cgroup_close(&agent->cgroup);
    netlink_close(agent->netlink);
    answers_free(agent->answers);
    facts_clear(&agent->facts);
    free(agent->baseline);
    close_fd(&agent->epochs_fd);
    close_fd(&agent->vms_fd);
    close_fd(&agent->lock_fd);
}

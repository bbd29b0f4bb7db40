#include "node-agent/vmm/vmm.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/last_state.h"
#include "common/log.h"
#include "node-agent/migration/uffd.h"
#include "node-agent/vmm/cpuid.h"
#include "node-agent/vmm/kvm.h"
#include "node-agent/vmm/migrate.h"
#include "node-agent/vmm/privileges.h"
#include "node-agent/vmm/resources.h"
#include "node-agent/vmm/vmm_internal.h"

/* ---- what happens ---- */

void vmm_keep_state(const struct vmm *vmm)
{
    struct last_state state = {.state = (int)vmm->life.state, .epoch = vmm->life.epoch};
    (void)snprintf(state.text, sizeof state.text, "%s", vmm->life.text);
    if (vmm->status_fd >= 0 && last_state_write(vmm->status_fd, &state) < 0)
        log_warn("%s: cannot keep the last state: %s", vmm->options->name, strerror(errno));
}

void vmm_announce(struct vmm *vmm)
{
    Vmpool__VmmReply reply = VMPOOL__VMM_REPLY__INIT;
    vmm_keep_state(vmm);
    if (vmm->control)
        vmm_send(vmm, NULL, &reply);
}

/* A client that had fallen behind hears how things are now. */
static void on_missed(void *context, const struct control_ticket *ticket)
{
    Vmpool__VmmReply reply = VMPOOL__VMM_REPLY__INIT;
    vmm_send(context, ticket, &reply);
}

/* The VM is over; the process stays for questions where someone can ask them. */
static void end(struct vmm *vmm, Vmpool__VmState state, const char *text)
{
    lifecycle_end(&vmm->life, state, text);
    log_warn("%s: %s: %s", vmm->options->name, lifecycle_name(state), text);
    vmm_announce(vmm);
    if (!vmm->control) {
        vmm->exit_status = ERROR_FAILED;
        loop_stop(vmm->loop);
    }
}

static int reboot(struct vmm *vmm, struct error *err)
{
    log_info("%s: the guest resets", vmm->options->name);
    machine_free(vmm->machine);
    vmm->machine = machine_new(&vmm->config, &vmm->machine_events, vmm->loop, err);
    if (!vmm->machine || machine_boot(vmm->machine, err) < 0)
        return error_wrap(err, "cannot restart the VM after its reset");
    return machine_resume(vmm->machine, false, err);
}

static void deal_with_end(struct vmm *vmm, enum guest_end how, const char *text)
{
    struct error err = ERROR_INIT;
    switch (how) {
    case GUEST_POWERED_OFF:
        lifecycle_end(&vmm->life, VMPOOL__VM_STATE__VM_STOPPED, "");
        vmm_announce(vmm);
        loop_stop(vmm->loop);
        break;
    case GUEST_RESET:
        if (reboot(vmm, &err) < 0)
            end(vmm, VMPOOL__VM_STATE__VM_FAILED, err.text);
        break;
    case GUEST_PANICKED:
        end(vmm, VMPOOL__VM_STATE__VM_PANICKED, text);
        break;
    default:
        end(vmm, VMPOOL__VM_STATE__VM_FAILED, text);
        break;
    }
}

static void on_ended(void *context, enum guest_end how, const char *text)
{
    struct vmm *vmm = context;
    /* A migration going out ends first: the machine may be about to go. */
    if (migrate_busy(vmm->migrate)) {
        vmm->pending_end = how;
        (void)snprintf(vmm->pending_text, sizeof vmm->pending_text, "%s", text);
        return;
    }
    deal_with_end(vmm, how, text);
}

void vmm_migration_over(struct vmm *vmm)
{
    enum guest_end how = vmm->pending_end;
    if (how == GUEST_RUNS || migrate_busy(vmm->migrate))
        return;
    vmm->pending_end = GUEST_RUNS;
    deal_with_end(vmm, how, vmm->pending_text);
}

static void on_output(void *context, const uint8_t *data, size_t size)
{
    struct vmm *vmm = context;
    console_write(vmm->console, data, size);
}

static void on_room(void *context)
{
    struct vmm *vmm = context;
    console_room(vmm->console);
}

static size_t on_input(void *context, const uint8_t *data, size_t size)
{
    struct vmm *vmm = context;
    return vmm->machine ? machine_console_input(vmm->machine, data, size) : size;
}

static void on_leave(void *context)
{
    struct vmm *vmm = context;
    loop_stop(vmm->loop);
}

static void on_signal(void *context, int signal_number)
{
    struct vmm *vmm = context;
    log_info("%s: ended by signal %d", vmm->options->name, signal_number);
    vmm->exit_status = ERROR_FAILED;
    loop_stop(vmm->loop);
}

/* ---- set-up ---- */

static int open_disks(struct vmm *vmm, struct error *err)
{
    for (unsigned i = 0; i < vmm->options->disk_count; i++) {
        bool read_only = vmm->options->disks[i].read_only;
        int fd = resources_open_file(vmm->options->disks[i].path, "--disk", read_only, err);
        if (fd < 0)
            return -1;
        vmm->config.disks[i] = (struct machine_disk){.fd = fd, .read_only = read_only};
        vmm->config.disk_count = i + 1;
    }
    return 0;
}

static int open_baseline(struct vmm *vmm, struct error *err)
{
    if (!vmm->options->cpuid)
        return 0;
    auto_fd int fd = resources_open_file(vmm->options->cpuid, "--cpuid", true, err);
    if (fd < 0)
        return -1;
    vmm->baseline = cpuid_read(fd, err);
    vmm->config.baseline = vmm->baseline;
    return vmm->baseline ? 0 : -1;
}

/* Fills the machine's configuration: everything opened, nothing made. */
static int open_resources(struct vmm *vmm, struct error *err)
{
    const struct options *options = vmm->options;
    struct machine_config *config = &vmm->config;
    config->kvm_fd =
        options->kvm ? resources_open_file(options->kvm, "--kvm", false, err) : kvm_open(err);
    if (config->kvm_fd < 0 || kvm_check(config->kvm_fd, err) < 0)
        return -1;
    if (options->kernel) {
        config->boot.kernel_fd = resources_open_file(options->kernel, "--kernel", true, err);
        if (config->boot.kernel_fd < 0)
            return -1;
    }
    if (options->initrd) {
        config->boot.initrd_fd = resources_open_file(options->initrd, "--initrd", true, err);
        if (config->boot.initrd_fd < 0)
            return -1;
    }
    if (options->tap) {
        config->tap_fd = resources_open_tap(options->tap, err);
        if (config->tap_fd < 0)
            return -1;
    }
    if (options->status) {
        vmm->status_fd = resources_open_file(options->status, "--status", false, err);
        if (vmm->status_fd < 0)
            return -1;
        vmm_keep_state(vmm);
    }
    return open_disks(vmm, err) < 0 ? -1 : open_baseline(vmm, err);
}

static int open_console(struct vmm *vmm, struct error *err)
{
    const char *where = vmm->options->console;
    const struct console_events events = {.input = on_input, .leave = on_leave, .context = vmm};
    bool stdio = strcmp(where, "stdio") == 0;
    int fd = -1;
    if (!stdio && strcmp(where, "none") != 0) {
        fd = resources_listen_unix(where, SOCK_STREAM, "--console", err);
        if (fd < 0)
            return -1;
    }
    vmm->console = console_new(vmm->loop, fd, stdio, &events, err);
    return vmm->console ? 0 : -1;
}

static int open_control(struct vmm *vmm, struct error *err)
{
    const struct control_events events = {
        .request = vmm_on_request, .missed = on_missed, .context = vmm};
    if (!vmm->options->control)
        return 0;
    int fd = resources_listen_unix(vmm->options->control, SOCK_SEQPACKET, "--control", err);
    if (fd < 0)
        return -1;
    vmm->control = control_new(vmm->loop, fd, &events, err);
    return vmm->control ? 0 : -1;
}

static int open_migration(struct vmm *vmm, struct error *err)
{
    int fd = -1;
    if (vmm->options->incoming) {
        fd = resources_listen_tcp(vmm->options->incoming, err);
        if (fd < 0)
            return -1;
        struct error why = ERROR_INIT;
        /* Only now have we got the right to one that KVM's own faults wait for. It comes before
         * KVM's descriptors, so that it closes before them as the process ends. */
        vmm->uffd = uffd_open(false, &why);
        if (vmm->uffd < 0)
            log_warn("%s: no post-copy to this host: %s", vmm->options->name, why.text);
    }
    vmm->migrate = migrate_new(vmm, fd, err);
    return vmm->migrate ? 0 : -1;
}

static int watch_signals(struct vmm *vmm, struct error *err)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    (void)sigaction(SIGPIPE, &ignore, NULL);
    if (loop_add_signal(vmm->loop, SIGTERM, on_signal, vmm, err) < 0 ||
        loop_add_signal(vmm->loop, SIGINT, on_signal, vmm, err) < 0 ||
        loop_add_signal(vmm->loop, SIGHUP, on_signal, vmm, err) < 0)
        return -1;
    return 0;
}

static int set_up(struct vmm *vmm, struct error *err)
{
    const struct options *options = vmm->options;
    vmm->loop = loop_new(err);
    if (!vmm->loop || watch_signals(vmm, err) < 0 || open_resources(vmm, err) < 0 ||
        open_console(vmm, err) < 0 || open_control(vmm, err) < 0 || open_migration(vmm, err) < 0)
        return -1;
    /* The machine starts threads, so this comes before it; and well before the first instruction.
     */
    if (privileges_drop(options->drop_user, options->uid, options->gid, err) < 0)
        return -1;
    vmm->machine = machine_new(&vmm->config, &vmm->machine_events, vmm->loop, err);
    if (!vmm->machine)
        return -1;
    if (options->incoming)
        return 0;
    if (machine_boot(vmm->machine, err) < 0)
        return -1;
    if (options->paused)
        return 0;
    lifecycle_run_at(&vmm->life, options->epoch);
    return machine_resume(vmm->machine, false, err);
}

static void tear_down(struct vmm *vmm)
{
    migrate_free(vmm->migrate);
    machine_free(vmm->machine);
    control_free(vmm->control);
    console_free(vmm->console);
    loop_free(vmm->loop);
    for (unsigned i = 0; i < vmm->config.disk_count; i++)
        close_fd(&vmm->config.disks[i].fd);
    close_fd(&vmm->config.tap_fd);
    close_fd(&vmm->config.boot.initrd_fd);
    close_fd(&vmm->config.boot.kernel_fd);
    close_fd(&vmm->config.kvm_fd);
    close_fd(&vmm->status_fd);
    close_fd(&vmm->uffd);
    free(vmm->baseline);
}

int vmm_run(const struct options *options, struct error *err)
{
    struct vmm vmm = {
        .options = options,
        .uffd = -1,
        .status_fd = -1,
        .started_wall_ms = clock_wall_ms(),
        .config = {.kvm_fd = -1,
                   .cpus = options->cpus,
                   .memory_bytes = options->memory_bytes,
                   .huge_pages = true,
                   .boot = {.kernel_fd = -1,
                            .initrd_fd = -1,
                            .cmdline = options->cmdline,
                            .protocol = options->boot},
                   .tap_fd = -1,
                   .rng = options->rng,
                   .balloon = options->balloon},
    };
    memcpy(vmm.config.mac, options->mac, sizeof vmm.config.mac);
    vmm.machine_events = (struct machine_events){
        .ended = on_ended, .output = on_output, .room = on_room, .context = &vmm};
    lifecycle_init(&vmm.life, options->epoch, options->incoming != NULL);
    int status = set_up(&vmm, err);
    if (status == 0)
        status = loop_run(vmm.loop, err);
    if (status == 0 && vmm.exit_status != 0)
        (void)error_set(err, ERROR_FAILED, "%s: %s", lifecycle_name(vmm.life.state),
                        vmm.life.text[0] ? vmm.life.text : "ended from outside");
    tear_down(&vmm);
    return status < 0 ? (int)err->kind : vmm.exit_status;
}

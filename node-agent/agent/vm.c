#include "node-agent/agent/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "node-agent/agent/bringup.h"
#include "node-agent/agent/files.h"
#include "node-agent/agent/ledger.h"
#include "node-agent/agent/process.h"
#include "node-agent/agent/relay.h"
#include "node-agent/agent/spec.h"
#include "node-agent/agent/unix_socket.h"
#include "node-agent/agent/vm_report.h"
#include "node-agent/agent/vm_verdict.h"
#include "node-agent/agent/vmm_log.h"

#define QUERY_TIMEOUT_MS 5000
#define QUIT_TIMEOUT_MS  3000
#define EXIT_TIMEOUT_MS  5000

struct ending {
    struct ending *next;
    vm_ended_fn done;
    void *context;
};

struct vm *vm_find(struct agent *agent, const char *id)
{
    struct vm *vm = agent->vms;
    while (vm && strcmp(vm->id, id) != 0)
        vm = vm->next;
    return vm;
}

/* ---- coming and going ------------------------------------------------------------------------ */

static void free_vm(struct vm *vm)
{
    loop_remove(vm->death);
    loop_remove(vm->kill_timer);
    loop_remove(vm->progress_timer);
    vmm_control_close(vm->control);
    vm_console_close(vm->console);
    while (vm->endings) {
        struct ending *ending = vm->endings;
        vm->endings = ending->next;
        free(ending);
    }
    if (vm->last)
        vmpool__vmm_reply__free_unpacked(vm->last, NULL);
    vmpool__vm_spec__free_unpacked(vm->spec, NULL);
    close_fd(&vm->pidfd);
    close_fd(&vm->dir_fd);
    free(vm);
}

struct vm *vm_from_folder(struct agent *agent, Vmpool__VmSpec *spec, const struct vm_record *record,
                          int dir_fd, struct error *err)
{
    struct vm *vm = calloc(1, sizeof *vm);
    if (!vm) {
        (void)error_errno(err, ENOMEM, "VM");
        return NULL;
    }
    vm->agent = agent;
    vm->spec = spec;
    vm->record = *record;
    vm->dir_fd = dir_fd;
    vm->pidfd = -1;
    vm->state = VMPOOL__VM_STATE__VM_PREPARING;
    (void)snprintf(vm->id, sizeof vm->id, "%s", spec->id);
    vm->next = agent->vms;
    agent->vms = vm;
    return vm;
}

static int count_vms(const struct agent *agent)
{
    int count = 0;
    for (const struct vm *vm = agent->vms; vm; vm = vm->next)
        count++;
    return count;
}

struct vm *vm_new(struct agent *agent, const Vmpool__VmSpec *spec, const struct vm_record *record,
                  struct error *err)
{
    if (vm_find(agent, spec->id) || count_vms(agent) >= VM_MAX) {
        (void)error_set(err, ERROR_CONFLICT, "VM %s is here already, or this node has too many VMs",
                        spec->id);
        return NULL;
    }
    if (mkdirat(agent->vms_fd, spec->id, 0700) < 0 && errno != EEXIST) {
        (void)error_errno(err, errno, "cannot create the VM's run folder");
        return NULL;
    }
    auto_fd int dir_fd = files_open_dir(agent->vms_fd, spec->id, err);
    Vmpool__VmSpec *copy = dir_fd < 0 ? NULL : spec_copy(spec, err);
    struct vm *vm = NULL;
    if (copy && record_save_spec(dir_fd, spec, err) == 0 && record_save(dir_fd, record, err) == 0)
        vm = vm_from_folder(agent, copy, record, dir_fd, err);
    if (vm) {
        (void)take_fd(&dir_fd);
        return vm;
    }
    if (copy)
        vmpool__vm_spec__free_unpacked(copy, NULL);
    struct error ignored = ERROR_INIT;
    (void)files_remove_tree(agent->vms_fd, spec->id, &ignored);
    return NULL;
}

static void unlink_vm(struct vm *vm)
{
    struct vm **place = &vm->agent->vms;
    while (*place != vm)
        place = &(*place)->next;
    *place = vm->next;
}

void vm_forget(struct vm *vm)
{
    struct agent *agent = vm->agent;
    struct error err = ERROR_INIT;
    char id[sizeof vm->id];
    memcpy(id, vm->id, sizeof id);
    relay_close_vm(agent, id, "the VM left this node");
    unlink_vm(vm);
    free_vm(vm);
    if (files_remove_tree(agent->vms_fd, id, &err) < 0)
        log_warn("VM %s: %s", id, err.text);
}

void vm_leave_all(struct agent *agent)
{
    while (agent->vms) {
        struct vm *vm = agent->vms;
        agent->vms = vm->next;
        bringup_abandon(vm->bringup);
        free_vm(vm);
    }
}

int vm_raise_epoch(struct vm *vm, uint64_t epoch, struct error *err)
{
    if (ledger_raise(vm->agent->epochs_fd, vm->id, epoch, 0, err) < 0)
        return -1;
    if (epoch <= vm->record.epoch)
        return 0;
    vm->record.epoch = epoch;
    return record_save(vm->dir_fd, &vm->record, err);
}

/* ---- the end of the process ------------------------------------------------------------------ */

static void close_connections(struct vm *vm)
{
    loop_remove(vm->death);
    loop_remove(vm->kill_timer);
    vm->death = vm->kill_timer = NULL;
    if (vm->control) {
        vm->last = vmm_control_take_last(vm->control);
        vmm_control_close(vm->control);
        vm->control = NULL;
    }
    close_fd(&vm->pidfd);
}

/* Each is off the list before it is called; the callee may forget the VM. */
static void tell_endings(struct ending *ending, const struct error *err)
{
    while (ending) {
        struct ending copy = *ending;
        free(ending);
        ending = copy.next;
        copy.done(copy.context, err);
    }
}

static void on_death(void *context, int fd, uint32_t events)
{
    struct vm *vm = context;
    (void)events;
    if (vm->control)
        vmm_control_drain(vm->control);
    vm_judge(vm, process_reap(fd), NULL);
    close_connections(vm);
    cgroup_remove(&vm->agent->cgroup, vm->id);
    relay_close_vm(vm->agent, vm->id, "the VM ended");

    struct ending *endings = vm->endings;
    vm->endings = NULL;
    if (vm->bringup) {
        bringup_vmm_died(vm->bringup);
        tell_endings(endings, NULL);
    } else if (endings) {
        tell_endings(endings, NULL);
    } else {
        log_warn("VM %s (%s) ended: %s", vm->spec->name, vm->id,
                 vm->text[0] ? vm->text : "powered off");
        vm_send_event(vm, vm->state == VMPOOL__VM_STATE__VM_FAILED ? "lost" : "state");
        if (!vm->ran && vm->record.incoming)
            vm_forget(vm);
    }
}

int vm_watch(struct vm *vm, int pidfd, struct error *err)
{
    vm->pidfd = pidfd;
    vm->death = loop_add_fd(vm->agent->loop, pidfd, EPOLLIN, on_death, vm, err);
    return vm->death ? 0 : -1;
}

/* ---- talking to it --------------------------------------------------------------------------- */

static void on_status(void *context)
{
    struct vm *vm = context;
    vm_take_status(vm, vmm_control_status(vm->control));
}

/* Where the process lives on, vm_tick_all() connects again. */
static void on_lost(void *context, const char *why)
{
    struct vm *vm = context;
    log_warn("VM %s: control connection: %s", vm->id, why);
    if (vm->last)
        vmpool__vmm_reply__free_unpacked(vm->last, NULL);
    vm->last = vmm_control_take_last(vm->control);
    vmm_control_close(vm->control);
    vm->control = NULL;
}

static void on_output(void *context, const uint8_t *data, size_t size)
{
    struct vm *vm = context;
    relay_output(vm->agent, vm->id, data, size);
}

static int connect_control(struct vm *vm, struct error *err)
{
    static const struct vmm_control_events events = {.status = on_status, .lost = on_lost};
    auto_fd int fd = unix_socket_connect(vm->dir_fd, "control.sock", SOCK_SEQPACKET, err);
    if (fd < 0)
        return -1;
    vm->control = vmm_control_open(vm->agent->loop, fd, &events, vm, err);
    if (!vm->control)
        return -1;
    (void)take_fd(&fd);
    return 0;
}

static int query(struct vm *vm, struct error *err)
{
    Vmpool__VmmRequest request = VMPOOL__VMM_REQUEST__INIT;
    Vmpool__VmmQuery body = VMPOOL__VMM_QUERY__INIT;
    request.body_case = VMPOOL__VMM_REQUEST__BODY_QUERY;
    request.query = &body;
    return vmm_control_send(vm->control, &request, QUERY_TIMEOUT_MS, NULL, NULL, err);
}

int vm_attach(struct vm *vm, struct error *err)
{
    struct error console_err = ERROR_INIT;
    if (!vm->control && connect_control(vm, err) < 0)
        return error_wrap(err, "VM %s", vm->id);
    if (!vm->console) {
        vm->console = vm_console_open(vm->agent->loop, vm->dir_fd, on_output, vm, &console_err);
        if (!vm->console)
            log_warn("VM %s has no console: %s", vm->id, console_err.text);
    }
    return query(vm, err);
}

void vm_tick_all(struct agent *agent)
{
    for (struct vm *vm = agent->vms; vm; vm = vm->next) {
        struct error err = ERROR_INIT;
        if (!vm_has_process(vm))
            continue;
        vmm_log_bound(vm->dir_fd);
        if (vm_attach(vm, &err) < 0)
            log_debug("%s", err.text);
    }
}

/* ---- ending it ------------------------------------------------------------------------------- */

static void kill_now(void *context)
{
    struct vm *vm = context;
    vm->kill_timer = NULL;
    log_warn("VM %s: its VMM does not end by itself and is killed", vm->id);
    process_kill(vm->pidfd);
}

static void on_quit_answer(void *context, const Vmpool__VmmReply *reply, const struct error *err)
{
    struct vm *vm = context;
    if (err && reply) {
        struct ending *endings = vm->endings;
        vm->endings = NULL;
        tell_endings(endings, err); /* refused: the epoch was too low */
        return;
    }
    if (err) {
        process_kill(vm->pidfd);
        return;
    }
    if (!vm->kill_timer)
        vm->kill_timer = loop_add_timer(vm->agent->loop, EXIT_TIMEOUT_MS, 0, kill_now, vm);
}

static void ask_to_quit(struct vm *vm, uint64_t epoch)
{
    Vmpool__VmmRequest request = VMPOOL__VMM_REQUEST__INIT;
    Vmpool__VmmQuit quit = VMPOOL__VMM_QUIT__INIT;
    struct error err = ERROR_INIT;
    quit.epoch = epoch;
    request.body_case = VMPOOL__VMM_REQUEST__BODY_QUIT;
    request.quit = &quit;
    if (!vm->control ||
        vmm_control_send(vm->control, &request, QUIT_TIMEOUT_MS, on_quit_answer, vm, &err) < 0)
        process_kill(vm->pidfd);
}

void vm_end(struct vm *vm, uint64_t epoch, bool force, vm_ended_fn done, void *context)
{
    struct error err = ERROR_INIT;
    bringup_cancel(vm->bringup);
    if (!vm_has_process(vm)) {
        done(context, NULL);
        return;
    }
    struct ending *ending = calloc(1, sizeof *ending);
    if (!ending) {
        (void)error_errno(&err, ENOMEM, "ending the VM");
        done(context, &err);
        return;
    }
    *ending = (struct ending){.next = vm->endings, .done = done, .context = context};
    vm->endings = ending;
    if (force)
        process_kill(vm->pidfd);
    else
        ask_to_quit(vm, epoch);
}

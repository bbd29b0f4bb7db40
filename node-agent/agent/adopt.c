#include "node-agent/agent/adopt.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "node-agent/agent/files.h"
#include "node-agent/agent/ledger.h"
#include "node-agent/agent/local_disk.h"
#include "node-agent/agent/process.h"
#include "node-agent/agent/tap.h"
#include "node-agent/agent/vm.h"
#include "node-agent/agent/vm_verdict.h"

#define LEDGER_AGE_S (7ll * 24 * 3600)

static void clear_unstarted(struct agent *agent, const char *id)
{
    struct error err = ERROR_INIT;
    local_disk_tidy(agent->options->storage, id);
    cgroup_remove(&agent->cgroup, id);
    if (files_remove_tree(agent->vms_fd, id, &err) < 0)
        log_warn("VM %s: %s", id, err.text);
    else
        log_info("VM %s: removed what a start that was interrupted had left", id);
}

/* What never ran was no copy and is no longer known; the rest stays to be reported. */
static void note_death(struct vm *vm, bool same_boot)
{
    vm_judge(vm, VM_EXIT_UNKNOWN,
             same_boot ? "its VMM ended while no agent ran" : "its host was restarted");
    cgroup_remove(&vm->agent->cgroup, vm->id);
    log_warn("VM %s (%s): %s", vm->spec->name, vm->id, vm->text[0] ? vm->text : "powered off");
    if (vm->record.incoming && !vm->ran)
        vm_forget(vm);
}

/* A VM whose record and spec were read. */
static void adopt_vm(struct vm *vm)
{
    struct error err = ERROR_INIT;
    const struct vm_record *record = &vm->record;
    vm->ran = true;    /* perhaps; to forget one that had would be worse */
    vm->moving = true; /* perhaps; its first status sets the limit then */
    if (record->ended) {
        vm->state = record->ended;
        (void)snprintf(vm->text, sizeof vm->text, "%s", record->text);
        return;
    }
    bool same_boot = strcmp(record->boot_id, vm->agent->facts.boot_id) == 0;
    int pidfd = same_boot ? process_open(record->pid, record->start_ticks, &err) : -1;
    if (pidfd < 0) {
        note_death(vm, same_boot);
        return;
    }
    vm->state = VMPOOL__VM_STATE__VM_UNKNOWN;
    if (vm_watch(vm, pidfd, &err) < 0 || vm_attach(vm, &err) < 0)
        log_warn("VM %s (%s): %s; will try again", vm->spec->name, vm->id, err.text);
    else
        log_info("adopted VM %s (%s), process %d", vm->spec->name, vm->id, (int)record->pid);
}

static void look_at(struct agent *agent, const char *id)
{
    struct error err = ERROR_INIT;
    struct vm_record record;
    auto_fd int dir_fd = files_open_dir(agent->vms_fd, id, &err);
    if (dir_fd < 0)
        return;
    if (record_load(dir_fd, &record, &err) < 0 && err.kind != ERROR_NOT_FOUND) {
        log_error("VM %s: %s; its folder is left as it is", id, err.text);
        return;
    }
    if (record.pid == 0 && !record.ended) {
        clear_unstarted(agent, id);
        return;
    }
    Vmpool__VmSpec *spec = record_load_spec(dir_fd, &err);
    if (!spec || strcmp(spec->id, id) != 0) {
        log_error("VM %s: %s; its folder is left as it is", id, spec ? "wrong id" : err.text);
        if (spec)
            vmpool__vm_spec__free_unpacked(spec, NULL);
        return;
    }
    struct vm *vm = vm_from_folder(agent, spec, &record, dir_fd, &err);
    if (!vm) {
        vmpool__vm_spec__free_unpacked(spec, NULL);
        return;
    }
    (void)take_fd(&dir_fd);
    adopt_vm(vm);
}

static bool all_told(const struct agent *agent)
{
    for (const struct vm *vm = agent->vms; vm; vm = vm->next)
        if (vm->control && vm->state == VMPOOL__VM_STATE__VM_UNKNOWN)
            return false;
    return true;
}

static bool is_here(void *context, const char *vm_id)
{
    return vm_find(context, vm_id) != NULL;
}

static int keep_epoch(void *context, const char *vm_id)
{
    return vm_find(context, vm_id) != NULL;
}

int adopt_all(struct agent *agent, struct error *err)
{
    int64_t end_ms = clock_monotonic_ms() + ADOPT_WAIT_MS;
    int copy = files_open_dir(agent->vms_fd, ".", err);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    if (!dir) {
        close_fd(&copy);
        return error_errno(err, errno, "cannot list the run folder");
    }
    for (struct dirent *entry; (entry = readdir(dir));)
        if (name_is_uuid(entry->d_name))
            look_at(agent, entry->d_name);
    (void)closedir(dir);
    tap_remove_strays(agent->netlink, is_here, agent);
    ledger_prune(agent->epochs_fd, LEDGER_AGE_S, keep_epoch, agent);
    while (!all_told(agent)) {
        int64_t left_ms = end_ms - clock_monotonic_ms();
        if (left_ms <= 0)
            break;
        if (loop_run_once(agent->loop, (int)left_ms, err) < 0)
            return -1;
    }
    return 0;
}

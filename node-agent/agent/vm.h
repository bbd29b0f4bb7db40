/*
 * vm.h: one VM on this node: its run folder, its VMM process, what is known of it.
 *
 * Life of a copy here:
 *
 *     vm_new          folder, spec.pb and record are written: the intent
 *     bringup.h       images, disks, tap, sockets; then the VMM runs (vm_launch.h)
 *     vm_attach       control and console connected: also what adoption does (adopt.h)
 *     vm_end          asked to quit, then killed; or it dies by itself
 *     (ended)         only folder, record and logs are left, and it is still reported, so that the
 *                     controller learns how it ended even if it is away now
 *     vm_forget       the folder goes too
 *
 * A target of a migration that dies before it ever ran is forgotten at once: it was no copy yet.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "node-agent/agent/agent.h"
#include "node-agent/agent/names.h"
#include "node-agent/agent/record.h"
#include "node-agent/agent/vm_console.h"
#include "node-agent/agent/vmm_control.h"

#define VM_MAX 1024 /* on one node */

struct bringup;

/* Called once when the VM's process is gone (@err NULL), or when the VMM refused to end. The VM may
 * be forgotten by then: look it up. */
typedef void (*vm_ended_fn)(void *context, const struct error *err);

struct vm {
    struct vm *next;
    struct agent *agent;
    char id[VM_ID_LENGTH + 1];
    Vmpool__VmSpec *spec;
    struct vm_record record; /* record.epoch is the copy's epoch */
    Vmpool__VmState state;
    char text[512];
    bool warned; /* its VMM's nonsense was logged, once */
    bool ran;    /* its guest has run here, or may have */
    bool moving; /* its group has no CPU limit; false also where that is not known */
    int dir_fd;
    int pidfd; /* -1: no process */
    struct loop_source *death;
    struct vmm_control *control;
    struct vm_console *console;
    struct bringup *bringup; /* it is being started */
    struct ending *endings;  /* who waits for its end */
    struct loop_source *kill_timer;
    Vmpool__VmmReply *last; /* the VMM's last words, once the connection is gone */

    struct loop_source *progress_timer;
    int64_t event_sent_ms;
    Vmpool__VmState event_state;
    Vmpool__MigrationPhase event_phase;

    int64_t sampled_ms;
    uint64_t cpu_ticks, rx_bytes, tx_bytes;
    uint64_t rx_bps, tx_bps;
    uint32_t cpu_permille;
};

/* The VM of that id, or NULL. */
struct vm *vm_find(struct agent *agent, const char *id);

/* Makes the VM's folder with spec and @record. ERROR_CONFLICT where it is here already. */
struct vm *vm_new(struct agent *agent, const Vmpool__VmSpec *spec, const struct vm_record *record,
                  struct error *err);
/* Takes over an existing folder, for adoption; @dir_fd and @spec become the VM's. */
struct vm *vm_from_folder(struct agent *agent, Vmpool__VmSpec *spec, const struct vm_record *record,
                          int dir_fd, struct error *err);
/* Frees the VM and removes its folder. Its process must be gone. */
void vm_forget(struct vm *vm);
/* Frees all VMs and touches nothing of theirs: the agent ends, they go on. */
void vm_leave_all(struct agent *agent);

/* Watches the process behind @pidfd, which becomes the VM's. */
int vm_watch(struct vm *vm, int pidfd, struct error *err);
/* Connects control and console where they aren't; asks for the status. */
int vm_attach(struct vm *vm, struct error *err);

/* Ends the VMM: cancels a bring-up, asks it to quit as of @epoch, and kills it where it does not;
 * at once where @force. @done may be called before this returns. */
void vm_end(struct vm *vm, uint64_t epoch, bool force, vm_ended_fn done, void *context);

/* The epoch this copy is at has risen: noted in record and ledger. */
int vm_raise_epoch(struct vm *vm, uint64_t epoch, struct error *err);

/* Whether a VMM process exists. */
static inline bool vm_has_process(const struct vm *vm)
{
    return vm->pidfd >= 0;
}

/* Once an interval: asks each VMM for its status, connects again where the connection was lost,
 * bounds the logs. */
void vm_tick_all(struct agent *agent);

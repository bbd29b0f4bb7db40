/*
 * vcpu.h: the virtual processors of a machine: one thread each, stopped and let go together.
 *
 * The vCPUs are made stopped. Only the machine's own thread (the event loop's) starts, stops and
 * frees them; a vCPU that meets the end of the guest says so by ended() from its own thread, after
 * which none of them enters the guest again until resumed.
 */
#pragma once

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"
#include "node-agent/vmm/bus.h"

struct vcpus;

/* How a guest came to its end. */
enum guest_end {
    GUEST_RUNS,
    GUEST_POWERED_OFF, /* S5 */
    GUEST_RESET,
    GUEST_PANICKED, /* said so itself, or triple-faulted */
    GUEST_FAILED,   /* KVM can't go on */
};

struct vcpu_host {
    int kvm_fd;
    int vm_fd;
    struct bus *ports;
    struct bus *mmio;
    /* Called from vCPU threads; @text says why for PANICKED and FAILED. */
    void (*ended)(void *context, enum guest_end end, const char *text);
    void *context;
};

/* Makes @count vCPUs and their threads, stopped. @host is copied. */
struct vcpus *vcpus_new(const struct vcpu_host *host, unsigned count, struct error *err);
/* Ends the threads and closes the vCPUs. NULL is fine. */
void vcpus_free(struct vcpus *vcpus);

unsigned vcpus_count(const struct vcpus *vcpus);
int vcpus_fd(const struct vcpus *vcpus, unsigned index);
/* Thread ids, for CPU accounting; 0 until the thread runs. */
pid_t vcpus_tid(const struct vcpus *vcpus, unsigned index);

/* From any thread: vCPU @index stays out of the guest until CLOCK_MONOTONIC @until_ns, or until the
 * vCPUs are stopped, whichever comes first. */
void vcpus_nap(struct vcpus *vcpus, unsigned index, int64_t until_ns);

void vcpus_resume(struct vcpus *vcpus);
/* Returns once no vCPU is in the guest or in a device's handler and every exit was completed, so
 * that registers are whole. */
void vcpus_pause(struct vcpus *vcpus);
/* From any thread, a handler included: no vCPU enters the guest again; does not wait. */
void vcpus_stop_soon(struct vcpus *vcpus);
/* From any thread, without waiting: while held no vCPU enters the guest, whatever the others want.
 * One that waits inside a handler, or inside KVM for a page of RAM, stops as soon as it gets out.
 */
void vcpus_hold(struct vcpus *vcpus, bool held);

/*
 * machine.h: one virtual machine: KVM's VM, RAM, vCPUs, board and devices.
 *
 * All functions are for the event loop's thread, unless said otherwise. A machine is made stopped,
 * with empty RAM: machine_boot() puts a kernel there, or state_load() a guest that moved in. A
 * reset is a new machine from the same configuration.
 */
#pragma once

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/loop.h"
#include "node-agent/vmm/boot/boot.h"
#include "node-agent/vmm/guest_memory.h"
#include "node-agent/vmm/vcpu.h"

#define MACHINE_DISKS_MAX 16

struct machine_disk {
    int fd;
    bool read_only;
};

/* Descriptors stay the caller's: a machine works on duplicates, so that the next one can be made.
 */
struct machine_config {
    int kvm_fd;
    unsigned cpus;
    uint64_t memory_bytes;
    bool huge_pages;                   /* transparent ones */
    const struct kvm_cpuid2 *baseline; /* NULL: all KVM offers here */
    struct boot_request boot;
    struct machine_disk disks[MACHINE_DISKS_MAX];
    unsigned disk_count;
    int tap_fd; /* -1: no network */
    uint8_t mac[6];
    bool rng;
    bool balloon;
};

struct machine_events {
    /* On the loop's thread. The vCPUs are stopping or stopped. */
    void (*ended)(void *context, enum guest_end end, const char *text);
    /* From vCPU threads: what the guest wrote to its console, and that it takes input again. */
    void (*output)(void *context, const uint8_t *data, size_t size);
    void (*room)(void *context);
    void *context;
};

struct machine_usage {
    uint64_t memory_bytes; /* of RAM that is backed */
    uint64_t net_rx_bytes; /* into the guest */
    uint64_t net_tx_bytes;
    uint64_t disk_read_bytes;
    uint64_t disk_write_bytes;
};

struct machine;

/* @config and @events are copied; what they point to must outlive the machine. */
struct machine *machine_new(const struct machine_config *config,
                            const struct machine_events *events, struct loop *loop,
                            struct error *err);
void machine_free(struct machine *machine);

/* Loads kernel and tables and sets the first vCPU's registers. */
int machine_boot(struct machine *machine, struct error *err);

/* Lets the guest run. @moved: it comes from another host (device.h). */
int machine_resume(struct machine *machine, bool moved, struct error *err);
/* A pause may come soon: devices begin what would make it long. Any thread. */
void machine_settle(const struct machine *machine);
/* Stops the vCPUs, then the devices; after it nothing writes to RAM. */
int machine_pause(struct machine *machine, struct error *err);

/* While held no vCPU enters the guest, resumed or not; for a guest whose RAM is not all there. Any
 * thread; waits for nobody. */
void machine_hold(struct machine *machine, bool held);

/* Whether the guest has come to an end; it can't run on then. */
bool machine_ended(struct machine *machine);

void machine_press_power_button(struct machine *machine);
/* Returns how many bytes the guest's serial port took. Any thread. */
size_t machine_console_input(struct machine *machine, const uint8_t *data, size_t size);
/* ERROR_NOT_FOUND where the machine has no balloon. */
int machine_set_balloon(struct machine *machine, uint64_t keep_mib, struct error *err);
uint64_t machine_balloon_kept_mib(const struct machine *machine);

void machine_usage(const struct machine *machine, struct machine_usage *usage);
struct guest_memory *machine_memory(struct machine *machine);
const struct vcpus *machine_vcpus(const struct machine *machine);

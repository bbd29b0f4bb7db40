/* machine_internal.h: the machine as machine.c, state.c and migrate.c see it. */
#pragma once

#include <pthread.h>

#include "node-agent/vmm/bus.h"
#include "node-agent/vmm/device.h"
#include "node-agent/vmm/devices/devices.h"
#include "node-agent/vmm/irq.h"
#include "node-agent/vmm/layout.h"
#include "node-agent/vmm/legacy/power.h"
#include "node-agent/vmm/legacy/uart.h"
#include "node-agent/vmm/machine.h"
#include "node-agent/vmm/pci.h"
#include "node-agent/vmm/vcpu_state.h"

#define MACHINE_BOARD_DEVICES 3

struct machine {
    struct machine_config config;
    struct machine_events events;
    struct loop *loop;
    struct device_thread *device_thread;
    int vm_fd;
    struct guest_memory memory;
    struct irq_chip *irqs;
    struct bus *ports;
    struct bus *mmio;
    struct vcpus *vcpus;
    struct throttle *throttle;
    struct vcpu_state_format vcpu_format;
    struct kvm_cpuid2 *cpuid;                   /* what this host offers, cut to the baseline */
    struct kvm_cpuid2 *shown[LAYOUT_VCPUS_MAX]; /* what each vCPU was given */
    bool running;
    bool manual_protect; /* KVM re-protects pages only by KVM_CLEAR_DIRTY_LOG */

    struct pci_bus *pci;
    struct virtio_blk *blks[MACHINE_DISKS_MAX]; /* the PCI bus owns its devices */
    struct virtio_net *net;                     /* NULL: no network */
    struct virtio_balloon *balloon;             /* NULL: none */

    struct uart *uart;
    struct power *power;
    struct device board[MACHINE_BOARD_DEVICES];
    unsigned board_count;

    pthread_mutex_t end_lock; /* guards end and end_text */
    enum guest_end end;
    char end_text[256];
    int end_fd; /* eventfd: the guest has ended */
    struct loop_source *end_source;
};

/* Every device of the machine in a fixed order: the board's, then those on the PCI bus. Returns
 * false when @index is past the last. */
bool machine_device(const struct machine *machine, unsigned index, const struct device **device);

/* Gives KVM the RAM slots; @log turns dirty logging on. Again: changes logging. */
int machine_set_slots(struct machine *machine, bool log, struct error *err);

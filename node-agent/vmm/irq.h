/*
 * irq.h: how devices interrupt the guest.
 *
 * Lines (GSI 0..23) belong to the in-kernel PICs and I/O APIC. Message-signalled interrupts go
 * either straight through KVM_SIGNAL_MSI or, for queues that are hot, by an irqfd and a route in
 * the kernel's routing table, so that a completion costs one eventfd write.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

struct irq_chip;

/* For the machine: the VM behind @vm_fd, which stays the caller's, has its in-kernel irqchip
 * already. Freed after all routes. */
struct irq_chip *irq_chip_new(int vm_fd, struct error *err);
void irq_chip_free(struct irq_chip *chip);

/* Returns once every interrupt signalled on an unmasked route has reached the in-kernel irqchip:
 * needed, devices quiet, before the local APICs are saved. */
int irq_chip_drain(struct irq_chip *chip, struct error *err);

struct irq_message {
    uint64_t address;
    uint32_t data;
};

/* Drives line @gsi; level-triggered users lower it again themselves. Any thread. */
int irq_set_line(struct irq_chip *chip, unsigned gsi, bool high, struct error *err);

/* Sends one message now. Any thread. */
int irq_send_message(struct irq_chip *chip, struct irq_message message, struct error *err);

/* An MSI route with its irqfd: writing 1 to irq_route_fd() interrupts the guest with the message
 * last set. Routes are few (one a queue vector); at most 256 in a machine. */
struct irq_route;
struct irq_route *irq_route_new(struct irq_chip *chip, struct error *err);
/* A masked route (message NULL) is taken out of the table; what arrives meanwhile stays in the
 * eventfd. */
int irq_route_set(struct irq_route *route, const struct irq_message *message, struct error *err);
int irq_route_fd(const struct irq_route *route);
/* True, and the eventfd emptied, where an interrupt is pending on a masked route (for the PBA). */
bool irq_route_take_pending(struct irq_route *route);
void irq_route_free(struct irq_route *route);

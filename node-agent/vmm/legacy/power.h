/*
 * power.h: the ways a guest ends itself, and the button that asks it to.
 *
 * LAYOUT_PORT_POWER: ACPI sleep control and status, reset. LAYOUT_PORT_GED: one byte of events for
 * the generic event device; reading takes them, its line is high while there are any. Ports 0x60
 * and 0x64: as much of a keyboard controller as resets a machine. ACPI_PVPANIC_PORT: the panic
 * device, one byte of events (docs/specs/pvpanic.txt of QEMU describes it).
 */
#pragma once

#include "common/error.h"
#include "node-agent/vmm/bus.h"
#include "node-agent/vmm/device.h"
#include "node-agent/vmm/irq.h"
#include "node-agent/vmm/vcpu.h"

struct power;

struct power_events {
    /* From vCPU threads. */
    void (*ended)(void *context, enum guest_end end, const char *text);
    void *context;
};

struct power *power_new(struct bus *ports, struct irq_chip *irqs, const struct power_events *events,
                        struct device *device, struct error *err);

/* Presses the power button. Any thread. */
void power_press_button(struct power *power);

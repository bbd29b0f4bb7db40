/*
 * acpi.h: the tables that describe the machine: RSDP, XSDT, FADT, MADT, MCFG, DSDT.
 *
 * A hardware-reduced machine (no SCI, no PM timer): sleep and reset by LAYOUT_PORT_POWER, the power
 * button by a generic event device at LAYOUT_PORT_GED, PCI with MSI only, hence no _PRT. Source:
 * ACPI 6.4, PCI Firmware Specification 3.2 (MCFG).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "node-agent/vmm/guest_memory.h"

/* Sleep control, status and reset, offsets into LAYOUT_PORT_POWER. */
#define ACPI_SLEEP_CONTROL 0
#define ACPI_SLEEP_STATUS  1
#define ACPI_RESET         2
#define ACPI_RESET_VALUE   1
#define ACPI_S5_TYPE       5 /* what \_S5 tells the guest to write as SLP_TYP */

/* What the generic event device reports in its byte. */
#define ACPI_GED_POWER_BUTTON 1

/* The port of the panic device. */
#define ACPI_PVPANIC_PORT 0x505

/* Writes all tables at LAYOUT_ACPI_START, the RSDP first. */
int acpi_write(struct guest_memory *memory, unsigned cpus, struct error *err);

/* The same into @out, which stands for guest-physical address LAYOUT_ACPI_START. Returns the bytes
 * used or 0 where they don't fit. *@dsdt gets the offset of the DSDT. */
size_t acpi_build(uint8_t *out, size_t capacity, unsigned cpus, size_t *dsdt);

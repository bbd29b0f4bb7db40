/*
 * layout.h: the guest-physical address map. One place, because boot tables, ACPI, PCI and the
 * memory slots must agree.
 *
 *   0x0000_0000  RAM: low part, up to LAYOUT_LOW_RAM_MAX (3 GiB)
 *     0x0000_7000    PVH start info / boot structures, GDT, identity page tables (below 640 KiB)
 *     0x000a_0000    hole up to 1 MiB that e820 leaves out; ACPI tables at 0x000e_0000
 *     0x0010_0000    the kernel's place and up
 *   0xc000_0000  PCI memory window: BARs (LAYOUT_PCI_MMIO_SIZE)
 *   0xe000_0000  ECAM: PCI configuration space of bus 0, reserved in e820
 *   0xfec0_0000  I/O APIC        0xfee0_0000  local APICs
 *   0xfeff_c000  KVM identity map page, then 3 pages of TSS (Intel needs them)
 *   0x1_0000_0000  RAM: the part above LAYOUT_LOW_RAM_MAX
 *
 * A "RAM offset" is the position of a byte in the guest's RAM, holes left out: offset = GPA in the
 * low part, GPA - 4 GiB + LAYOUT_LOW_RAM_MAX in the high part. Dirty bitmaps and the migration
 * stream count RAM pages by RAM offset / 4096.
 */
#pragma once

#include <stdint.h>

#define LAYOUT_PAGE_SIZE      4096u
#define LAYOUT_LOW_RAM_MAX    0xc0000000ull
#define LAYOUT_HIGH_RAM_START 0x100000000ull
#define LAYOUT_ACPI_START     0x000e0000ull
#define LAYOUT_ACPI_SIZE      0x00020000ull
#define LAYOUT_KERNEL_START   0x00100000ull
#define LAYOUT_PCI_MMIO_START 0xc0000000ull
#define LAYOUT_PCI_MMIO_SIZE  0x20000000ull
#define LAYOUT_ECAM_START     0xe0000000ull
#define LAYOUT_ECAM_SIZE      0x00100000ull /* one bus: 32 devices x 8 functions x 4 KiB */
#define LAYOUT_IOAPIC         0xfec00000ull
#define LAYOUT_LAPIC          0xfee00000ull
#define LAYOUT_IDENTITY_MAP   0xfeffc000ull
#define LAYOUT_TSS            0xfeffd000ull

/* I/O ports */
#define LAYOUT_PORT_COM1  0x3f8
#define LAYOUT_PORT_I8042 0x60  /* and 0x64 */
#define LAYOUT_PORT_CMOS  0x70  /* and 0x71 */
#define LAYOUT_PORT_POWER 0x600 /* ACPI sleep control and status, reset: 4 bytes */
#define LAYOUT_PORT_GED   0x604 /* generic event device: what happened; 4 bytes */

/* Interrupt lines (GSI) */
#define LAYOUT_GSI_COM1      4
#define LAYOUT_GSI_GED       9
#define LAYOUT_GSI_MSI_FIRST 24 /* MSI routes for irqfds begin behind the I/O APIC's pins */

#define LAYOUT_VCPUS_MAX 16

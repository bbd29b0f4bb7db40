#include "node-agent/vmm/boot/acpi.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "node-agent/vmm/boot/aml.h"
#include "node-agent/vmm/layout.h"

#define FADT_WBINVD         (1u << 0)
#define FADT_PROC_C1        (1u << 2)
#define FADT_SLEEP_BUTTON   (1u << 5) /* set: there is none of the fixed kind */
#define FADT_TMR_VAL_EXT    (1u << 8)
#define FADT_RESET_REG_SUP  (1u << 10)
#define FADT_HW_REDUCED     (1u << 20)
#define FADT_BOOT_NO_VGA    (1u << 2)
#define FADT_BOOT_NO_ASPM   (1u << 4)
#define MADT_LAPIC_ENABLED  1u
#define MADT_ALL_PROCESSORS 0xff
#define SPACE_SYSTEM_IO     1
#define TABLE_ALIGN         16u

struct __attribute__((packed)) table_header {
    char signature[4];
    uint32_t length;
    uint8_t revision;
    uint8_t checksum;
    char oem_id[6];
    char oem_table_id[8];
    uint32_t oem_revision;
    char creator_id[4];
    uint32_t creator_revision;
};

struct __attribute__((packed)) rsdp {
    char signature[8];
    uint8_t checksum; /* of the first 20 bytes */
    char oem_id[6];
    uint8_t revision;
    uint32_t rsdt;
    uint32_t length;
    uint64_t xsdt;
    uint8_t full_checksum;
    uint8_t reserved[3];
};

struct __attribute__((packed)) generic_address {
    uint8_t space;
    uint8_t bit_width;
    uint8_t bit_offset;
    uint8_t access_size;
    uint64_t address;
};

/* Only the fields of a hardware-reduced machine have names. */
struct __attribute__((packed)) fadt {
    struct table_header header;
    uint8_t unused_1[73];
    uint16_t boot_flags;
    uint8_t reserved_1;
    uint32_t flags;
    struct generic_address reset_register;
    uint8_t reset_value;
    uint16_t arm_boot_flags;
    uint8_t minor_version;
    uint64_t x_firmware_control;
    uint64_t x_dsdt;
    uint8_t unused_2[96];
    struct generic_address sleep_control;
    struct generic_address sleep_status;
    uint64_t hypervisor_vendor;
};
_Static_assert(sizeof(struct fadt) == 276, "FADT of ACPI 6.3 and later");

struct __attribute__((packed)) madt {
    struct table_header header;
    uint32_t lapic_address;
    uint32_t flags;
};

struct __attribute__((packed)) madt_lapic {
    uint8_t type; /* 0 */
    uint8_t length;
    uint8_t processor_uid;
    uint8_t apic_id;
    uint32_t flags;
};

struct __attribute__((packed)) madt_ioapic {
    uint8_t type; /* 1 */
    uint8_t length;
    uint8_t id;
    uint8_t reserved;
    uint32_t address;
    uint32_t first_gsi;
};

struct __attribute__((packed)) madt_nmi {
    uint8_t type; /* 4 */
    uint8_t length;
    uint8_t processor_uid;
    uint16_t flags;
    uint8_t lint;
};

struct __attribute__((packed)) mcfg {
    struct table_header header;
    uint64_t reserved_1;
    uint64_t address;
    uint16_t segment;
    uint8_t first_bus;
    uint8_t last_bus;
    uint32_t reserved_2;
};

/* The buffer being filled; the first byte is LAYOUT_ACPI_START for the guest. */
struct builder {
    uint8_t *out;
    size_t capacity;
    size_t used;
};

static uint8_t checksum_of(const void *data, size_t size)
{
    const uint8_t *bytes = data;
    uint8_t sum = 0;
    for (size_t i = 0; i < size; i++)
        sum = (uint8_t)(sum + bytes[i]);
    return (uint8_t)-sum;
}

static struct table_header header_of(const char *signature, uint8_t revision)
{
    struct table_header header = {.revision = revision, .oem_revision = 1, .creator_revision = 1};
    memcpy(header.signature, signature, 4);
    memcpy(header.oem_id, "VMPOOL", 6);
    memcpy(header.oem_table_id, "VMPOOL  ", 8);
    memcpy(header.creator_id, "VMPL", 4);
    return header;
}

/* Appends a table, sets its length and checksum. Returns its offset, 0 where it did not fit. */
static size_t append(struct builder *builder, const void *table, size_t size)
{
    size_t offset = (builder->used + TABLE_ALIGN - 1) & ~(size_t)(TABLE_ALIGN - 1);
    if (offset > builder->capacity || size > builder->capacity - offset)
        return 0;
    memcpy(builder->out + offset, table, size);
    struct table_header header;
    memcpy(&header, builder->out + offset, sizeof header);
    header.length = (uint32_t)size;
    header.checksum = 0;
    memcpy(builder->out + offset, &header, sizeof header);
    header.checksum = checksum_of(builder->out + offset, size);
    memcpy(builder->out + offset, &header, sizeof header);
    builder->used = offset + size;
    return offset;
}

static void put_pci_root(struct aml *aml)
{
    aml_open_device(aml, "PCI0");
    aml_name_eisa_id(aml, "_HID", "PNP0A08");
    aml_name_eisa_id(aml, "_CID", "PNP0A03");
    aml_name_integer(aml, "_UID", 0);
    aml_name_integer(aml, "_SEG", 0);
    aml_name_integer(aml, "_BBN", 0);
    aml_name_integer(aml, "_CCA", 1);
    aml_open_resources(aml);
    aml_bus_numbers(aml, 0, 0);
    aml_io(aml, 0xcf8, 8);
    aml_memory_range(aml, (uint32_t)LAYOUT_PCI_MMIO_START,
                     (uint32_t)(LAYOUT_PCI_MMIO_START + LAYOUT_PCI_MMIO_SIZE - 1));
    aml_close_resources(aml);
    aml_close(aml);
    /* The configuration window, so that the guest trusts MCFG. */
    aml_open_device(aml, "ECAM");
    aml_name_eisa_id(aml, "_HID", "PNP0C02");
    aml_name_integer(aml, "_UID", 0);
    aml_open_resources(aml);
    aml_memory_fixed(aml, (uint32_t)LAYOUT_ECAM_START, (uint32_t)LAYOUT_ECAM_SIZE);
    aml_close_resources(aml);
    aml_close(aml);
}

static void put_com1(struct aml *aml)
{
    aml_open_device(aml, "COM1");
    aml_name_eisa_id(aml, "_HID", "PNP0501");
    aml_name_integer(aml, "_UID", 1);
    aml_open_resources(aml);
    aml_io(aml, LAYOUT_PORT_COM1, 8);
    aml_irq(aml, LAYOUT_GSI_COM1);
    aml_close_resources(aml);
    aml_close(aml);
}

static void put_clock(struct aml *aml)
{
    aml_open_device(aml, "RTC0");
    aml_name_eisa_id(aml, "_HID", "PNP0B00");
    aml_open_resources(aml);
    aml_io(aml, LAYOUT_PORT_CMOS, 2);
    aml_close_resources(aml);
    aml_close(aml);
}

static void put_power_button(struct aml *aml)
{
    aml_open_device(aml, "PWRB");
    aml_name_eisa_id(aml, "_HID", "PNP0C0C");
    aml_name_integer(aml, "_UID", 0);
    aml_close(aml);
    aml_open_device(aml, "GED0");
    aml_name_string(aml, "_HID", "ACPI0013");
    aml_name_integer(aml, "_UID", 0);
    aml_open_resources(aml);
    aml_level_interrupt(aml, LAYOUT_GSI_GED);
    aml_close_resources(aml);
    aml_io_field(aml, "GREG", LAYOUT_PORT_GED, 4, "GEVT");
    aml_open_method(aml, "_EVT", 1, true);
    aml_notify_if(aml, "GEVT", ACPI_GED_POWER_BUTTON, "PWRB", 0x80);
    aml_close(aml);
    aml_close(aml);
}

/* By its name the device is QEMU's, because that is what Linux's driver looks for. */
static void put_pvpanic(struct aml *aml)
{
    aml_open_device(aml, "PEVT");
    aml_name_string(aml, "_HID", "QEMU0001");
    aml_name_integer(aml, "_STA", 0xf);
    aml_open_resources(aml);
    aml_io(aml, ACPI_PVPANIC_PORT, 1);
    aml_close_resources(aml);
    aml_close(aml);
}

static void put_processors(struct aml *aml, unsigned cpus)
{
    for (unsigned i = 0; i < cpus; i++) {
        char name[8];
        (void)snprintf(name, sizeof name, "C%03X", i & 0xfffu);
        aml_open_device(aml, name);
        aml_name_string(aml, "_HID", "ACPI0007");
        aml_name_integer(aml, "_UID", i);
        aml_close(aml);
    }
}

static size_t append_dsdt(struct builder *builder, unsigned cpus)
{
    uint8_t table[8192];
    struct table_header header = header_of("DSDT", 2);
    memcpy(table, &header, sizeof header);
    struct aml aml;
    aml_init(&aml, table + sizeof header, sizeof table - sizeof header);
    aml_open_scope(&aml, "\\_SB_");
    put_pci_root(&aml);
    put_com1(&aml);
    put_clock(&aml);
    put_power_button(&aml);
    put_pvpanic(&aml);
    put_processors(&aml, cpus);
    aml_close(&aml);
    aml_name_package(&aml, "_S5_", (const uint8_t[]){ACPI_S5_TYPE, 0, 0, 0}, 4);
    size_t size = aml_size(&aml);
    return size ? append(builder, table, sizeof header + size) : 0;
}

static struct generic_address byte_port(uint64_t port)
{
    return (struct generic_address){
        .space = SPACE_SYSTEM_IO, .bit_width = 8, .access_size = 1, .address = port};
}

static size_t append_fadt(struct builder *builder, size_t dsdt)
{
    struct fadt fadt = {.header = header_of("FACP", 6), .minor_version = 4};
    fadt.boot_flags = FADT_BOOT_NO_VGA | FADT_BOOT_NO_ASPM;
    fadt.flags = FADT_WBINVD | FADT_PROC_C1 | FADT_SLEEP_BUTTON | FADT_TMR_VAL_EXT |
                 FADT_RESET_REG_SUP | FADT_HW_REDUCED;
    fadt.reset_register = byte_port(LAYOUT_PORT_POWER + ACPI_RESET);
    fadt.reset_value = ACPI_RESET_VALUE;
    fadt.sleep_control = byte_port(LAYOUT_PORT_POWER + ACPI_SLEEP_CONTROL);
    fadt.sleep_status = byte_port(LAYOUT_PORT_POWER + ACPI_SLEEP_STATUS);
    fadt.x_dsdt = LAYOUT_ACPI_START + dsdt;
    memcpy(&fadt.hypervisor_vendor, "VMPOOL\0", sizeof fadt.hypervisor_vendor);
    return append(builder, &fadt, sizeof fadt);
}

static size_t append_madt(struct builder *builder, unsigned cpus)
{
    struct __attribute__((packed)) {
        struct madt madt;
        struct madt_lapic lapics[LAYOUT_VCPUS_MAX];
        struct madt_ioapic ioapic;
        struct madt_nmi nmi;
    } table = {.madt = {.header = header_of("APIC", 5), .lapic_address = (uint32_t)LAYOUT_LAPIC}};
    const struct madt_ioapic ioapic = {.type = 1,
                                       .length = sizeof ioapic,
                                       .id = 0,
                                       .address = (uint32_t)LAYOUT_IOAPIC,
                                       .first_gsi = 0};
    const struct madt_nmi nmi = {
        .type = 4, .length = sizeof nmi, .processor_uid = MADT_ALL_PROCESSORS, .lint = 1};
    uint8_t *bytes = (uint8_t *)&table;
    size_t used = sizeof table.madt;
    for (unsigned i = 0; i < cpus && i < LAYOUT_VCPUS_MAX; i++) {
        const struct madt_lapic lapic = {.type = 0,
                                         .length = sizeof lapic,
                                         .processor_uid = (uint8_t)i,
                                         .apic_id = (uint8_t)i,
                                         .flags = MADT_LAPIC_ENABLED};
        memcpy(bytes + used, &lapic, sizeof lapic);
        used += sizeof lapic;
    }
    memcpy(bytes + used, &ioapic, sizeof ioapic);
    used += sizeof ioapic;
    memcpy(bytes + used, &nmi, sizeof nmi);
    used += sizeof nmi;
    return append(builder, &table, used);
}

static size_t append_mcfg(struct builder *builder)
{
    struct mcfg mcfg = {.header = header_of("MCFG", 1), .address = LAYOUT_ECAM_START};
    return append(builder, &mcfg, sizeof mcfg);
}

static size_t append_xsdt(struct builder *builder, const size_t *tables, unsigned count)
{
    struct __attribute__((packed)) {
        struct table_header header;
        uint64_t entries[4];
    } xsdt = {.header = header_of("XSDT", 1)};
    for (unsigned i = 0; i < count; i++)
        xsdt.entries[i] = LAYOUT_ACPI_START + tables[i];
    return append(builder, &xsdt, sizeof xsdt.header + count * sizeof(uint64_t));
}

static void write_rsdp(struct builder *builder, size_t xsdt)
{
    struct rsdp rsdp = {.revision = 2, .length = sizeof rsdp, .xsdt = LAYOUT_ACPI_START + xsdt};
    memcpy(rsdp.signature, "RSD PTR ", 8);
    memcpy(rsdp.oem_id, "VMPOOL", 6);
    rsdp.checksum = checksum_of(&rsdp, 20);
    rsdp.full_checksum = checksum_of(&rsdp, sizeof rsdp);
    memcpy(builder->out, &rsdp, sizeof rsdp);
}

size_t acpi_build(uint8_t *out, size_t capacity, unsigned cpus, size_t *dsdt)
{
    if (capacity < sizeof(struct rsdp))
        return 0;
    struct builder builder = {.out = out, .capacity = capacity, .used = sizeof(struct rsdp)};
    *dsdt = append_dsdt(&builder, cpus);
    size_t tables[3] = {*dsdt ? append_fadt(&builder, *dsdt) : 0, append_madt(&builder, cpus),
                        append_mcfg(&builder)};
    for (unsigned i = 0; i < 3; i++)
        if (tables[i] == 0)
            return 0;
    size_t xsdt = append_xsdt(&builder, tables, 3);
    if (xsdt == 0)
        return 0;
    write_rsdp(&builder, xsdt);
    return builder.used;
}

int acpi_write(struct guest_memory *memory, unsigned cpus, struct error *err)
{
    auto_free uint8_t *tables = calloc(1, LAYOUT_ACPI_SIZE);
    if (!tables)
        return error_set(err, ERROR_FAILED, "out of memory for ACPI tables");
    size_t dsdt = 0;
    size_t size = acpi_build(tables, LAYOUT_ACPI_SIZE, cpus, &dsdt);
    if (size == 0)
        return error_set(err, ERROR_FAILED, "the ACPI tables of %u vCPUs do not fit", cpus);
    if (guest_memory_write(memory, LAYOUT_ACPI_START, tables, size) < 0)
        return error_set(err, ERROR_USAGE, "the guest has too little memory for ACPI tables");
    return 0;
}

#include "node-agent/vmm/boot/acpi.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "node-agent/vmm/boot/aml.h"
#include "node-agent/vmm/layout.h"

static uint8_t tables[LAYOUT_ACPI_SIZE];

static uint8_t sum_of(const uint8_t *bytes, size_t size)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < size; i++)
        sum = (uint8_t)(sum + bytes[i]);
    return sum;
}

static uint32_t get_32(size_t offset)
{
    uint32_t value;
    memcpy(&value, tables + offset, sizeof value);
    return value;
}

static uint64_t get_64(size_t offset)
{
    uint64_t value;
    memcpy(&value, tables + offset, sizeof value);
    return value;
}

Test(acpi, every_table_is_reached_and_sums_to_zero)
{
    for (unsigned cpus = 1; cpus <= LAYOUT_VCPUS_MAX; cpus++) {
        size_t dsdt = 0;
        memset(tables, 0, sizeof tables);
        size_t size = acpi_build(tables, sizeof tables, cpus, &dsdt);
        cr_assert_gt(size, 0);
        cr_expect_arr_eq(tables, "RSD PTR ", 8);
        cr_expect_eq(sum_of(tables, 20), 0);
        cr_expect_eq(sum_of(tables, 36), 0);
        size_t xsdt = get_64(24) - LAYOUT_ACPI_START;
        cr_assert_arr_eq(tables + xsdt, "XSDT", 4);
        cr_expect_eq(sum_of(tables + xsdt, get_32(xsdt + 4)), 0);
        const char *const names[] = {"FACP", "APIC", "MCFG"};
        cr_assert_eq(get_32(xsdt + 4), 36 + 3 * 8);
        for (unsigned i = 0; i < 3; i++) {
            size_t table = get_64(xsdt + 36 + i * 8) - LAYOUT_ACPI_START;
            cr_assert_lt(table, size);
            cr_expect_arr_eq(tables + table, names[i], 4);
            cr_expect_eq(sum_of(tables + table, get_32(table + 4)), 0, "%s", names[i]);
        }
        cr_expect_arr_eq(tables + dsdt, "DSDT", 4);
        cr_expect_eq(sum_of(tables + dsdt, get_32(dsdt + 4)), 0);
    }
}

Test(acpi, too_little_room_is_noticed)
{
    size_t dsdt = 0;
    for (size_t capacity = 0; capacity < 1200; capacity += 7)
        cr_expect_eq(acpi_build(tables, capacity, 16, &dsdt), 0, "%zu bytes", capacity);
}

Test(acpi, aml_overflow_and_open_blocks_are_noticed)
{
    uint8_t bytes[16];
    struct aml aml;
    aml_init(&aml, bytes, sizeof bytes);
    aml_open_scope(&aml, "\\_SB_");
    cr_expect_eq(aml_size(&aml), 0, "a block is open");
    aml_name_string(&aml, "_HID", "a text that does not fit");
    aml_close(&aml);
    cr_expect_eq(aml_size(&aml), 0);
    aml_init(&aml, bytes, sizeof bytes);
    aml_close(&aml);
    cr_expect_eq(aml_size(&aml), 0, "closed what was not open");
}

/* What an independent reader makes of the DSDT. */
Test(acpi, iasl_understands_the_dsdt)
{
    char folder[] = "/tmp/vmpool-acpi-XXXXXX";
    char path[64];
    char command[256];
    size_t dsdt = 0;
    if (system("command -v iasl >/dev/null 2>&1") != 0)
        cr_skip_test("no iasl (package acpica-tools)");
    cr_assert_gt(acpi_build(tables, sizeof tables, 4, &dsdt), 0);
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/dsdt.aml", folder);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(tables + dsdt, get_32(dsdt + 4), 1, file), 1);
    fclose(file);
    snprintf(command, sizeof command,
             "cd %s && iasl -d dsdt.aml >log 2>&1 && iasl -tc dsdt.dsl >>log 2>&1", folder);
    cr_expect_eq(system(command), 0, "iasl does not take our DSDT");
    snprintf(path, sizeof path, "%s/dsdt.dsl", folder);
    file = fopen(path, "r");
    cr_assert_not_null(file);
    char text[32768] = "";
    cr_assert_gt(fread(text, 1, sizeof text - 1, file), 0);
    fclose(file);
    const char *const wanted[] = {"Device (PCI0)",
                                  "PNP0A08",
                                  "Device (ECAM)",
                                  "Device (COM1)",
                                  "ACPI0013",
                                  "_EVT",
                                  "Notify (PWRB",
                                  "QEMU0001",
                                  "Device (C003)",
                                  "_S5",
                                  "ResourceConsumer, Level, ActiveHigh"};
    for (unsigned i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        cr_expect_not_null(strstr(text, wanted[i]), "no %s in the DSDT", wanted[i]);
    snprintf(command, sizeof command, "rm -r %s", folder);
    cr_expect_eq(system(command), 0);
}

#include "controller/baseline.h"

#include <criterion/criterion.h>
#include <linux/kvm.h>
#include <string.h>

typedef struct kvm_cpuid_entry2 entry;
#define AMD .ebx = 0x68747541, .ecx = 0x444d4163, .edx = 0x69746e65

static struct baseline_cpu cpu_of(const entry *entries, size_t size)
{
    return (struct baseline_cpu){(const uint8_t *)entries, size};
}

static size_t intersect(const struct baseline_cpu *cpus, size_t count, entry *out)
{
    struct error err = ERROR_INIT;
    size_t size = 0;
    static uint8_t bytes[BASELINE_BYTES_MAX];
    cr_assert_eq(baseline_intersect(cpus, count, bytes, &size, &err), 0, "%s", err.text);
    memcpy(out, bytes, size);
    return size / sizeof *out;
}

static const entry *find(const entry *entries, size_t count, uint32_t function, uint32_t index)
{
    for (size_t i = 0; i < count; i++)
        if (entries[i].function == function && entries[i].index == index)
            return &entries[i];
    return NULL;
}

static entry get(const entry *entries, size_t count, uint32_t function, uint32_t index)
{
    static const entry none;
    const entry *found = find(entries, count, function, index);
    cr_assert(found, "no leaf %x.%u", function, index);
    return found ? *found : none;
}

static const entry one[] = {
    {.function = 0, .eax = 0xd, AMD},
    {.function = 1, .eax = 0x800f12, .ebx = 0x01000800, .ecx = 0xff, .edx = 0xf0f0},
    {.function = 7, .index = 0, .eax = 1, .ebx = 0xffff, .ecx = 0x10, .edx = 0x20},
    {.function = 7, .index = 1, .eax = 0xf0},
    {.function = 0xd, .index = 0, .eax = 0xe7, .ebx = 0xa88, .ecx = 0xa88},
    {.function = 0xd, .index = 5, .eax = 0x40, .ebx = 0x440},
    {.function = 0x40000000, .eax = 0x40000001, .ebx = 0x4b4d564b, .ecx = 0x564b4d56, .edx = 0x4d},
    {.function = 0x40000001, .eax = 0x0100007b},
    {.function = 0x80000000, .eax = 0x80000008, AMD},
    {.function = 0x80000008, .eax = 0x3030, .ebx = 0x1000},
};
static const entry other[] = {
    {.function = 0, .eax = 0x7, AMD},
    {.function = 1, .eax = 0x800f11, .ebx = 0x02000800, .ecx = 0x0f, .edx = 0xff00},
    {.function = 7, .index = 0, .eax = 0, .ebx = 0x0ff0, .ecx = 0x30, .edx = 0},
    {.function = 0x40000000, .eax = 0x40000001, .ebx = 0x4b4d564b, .ecx = 0x564b4d56, .edx = 0x4d},
    {.function = 0x40000001, .eax = 0x01000003},
    {.function = 0x80000000, .eax = 0x80000008, AMD},
    {.function = 0x80000008, .eax = 0x302b, .ebx = 0x3000},
};

Test(baseline, features_are_those_of_all)
{
    entry out[32];
    struct baseline_cpu cpus[] = {cpu_of(one, sizeof one), cpu_of(other, sizeof other)};
    size_t count = intersect(cpus, 2, out);
    cr_assert_eq(get(out, count, 0, 0).eax, 7);
    cr_assert_eq(get(out, count, 1, 0).ecx, 0x0f);
    cr_assert_eq(get(out, count, 1, 0).edx, 0xf000);
    cr_assert_eq(get(out, count, 1, 0).eax, 0x800f11);
    cr_assert_eq(get(out, count, 7, 0).ebx, 0x0ff0);
    cr_assert_eq(get(out, count, 7, 0).ecx, 0x10);
    cr_assert_eq(get(out, count, 7, 0).edx, 0);
    cr_assert_eq(get(out, count, 0x40000001, 0).eax, 0x01000003);
    cr_assert_eq(get(out, count, 0x80000008, 0).eax, 0x302b);
    cr_assert_eq(get(out, count, 0x80000008, 0).ebx, 0x1000);
    /* What one does not have, or lies above the lowered limit, is gone. */
    cr_assert_null(find(out, count, 7, 1));
    cr_assert_null(find(out, count, 0xd, 0));
}

Test(baseline, of_one_cpu_is_that_cpu)
{
    entry out[32];
    struct baseline_cpu cpus[] = {cpu_of(one, sizeof one)};
    cr_assert_eq(intersect(cpus, 1, out), sizeof one / sizeof *one);
    cr_assert_eq(memcmp(out, one, sizeof one), 0);
}

Test(baseline, the_order_of_nodes_means_nothing)
{
    entry forth[32], back[32];
    struct baseline_cpu a[] = {cpu_of(one, sizeof one), cpu_of(other, sizeof other)};
    struct baseline_cpu b[] = {cpu_of(other, sizeof other), cpu_of(one, sizeof one)};
    size_t count = intersect(a, 2, forth);
    cr_assert_eq(intersect(b, 2, back), count);
    cr_assert_eq(memcmp(forth, back, count * sizeof *forth), 0);
}

Test(baseline, again_with_itself_it_stays)
{
    entry once[32], twice[32];
    struct baseline_cpu cpus[] = {cpu_of(one, sizeof one), cpu_of(other, sizeof other)};
    size_t count = intersect(cpus, 2, once);
    struct baseline_cpu again[] = {cpu_of(once, count * sizeof *once), cpus[0], cpus[1]};
    cr_assert_eq(intersect(again, 3, twice), count);
    for (size_t i = 0; i < count; i++) {
        entry same = get(twice, count, once[i].function, once[i].index);
        cr_assert_eq(same.ecx, once[i].ecx);
        cr_assert_eq(same.edx, once[i].edx);
    }
}

Test(baseline, different_vendors_have_none)
{
    struct error err = ERROR_INIT;
    uint8_t out[BASELINE_BYTES_MAX];
    size_t size = 1;
    static const entry intel[] = {
        {.function = 0, .eax = 1, .ebx = 0x756e6547, .ecx = 0x6c65746e, .edx = 0x49656e69}};
    struct baseline_cpu cpus[] = {cpu_of(one, sizeof one), cpu_of(intel, sizeof intel)};
    cr_assert_eq(baseline_intersect(cpus, 2, out, &size, &err), -1);
    cr_assert_eq(err.kind, ERROR_CONFLICT);
    cr_assert_eq(size, 0);
}

Test(baseline, damaged_descriptions_are_refused)
{
    struct error err = ERROR_INIT;
    static uint8_t zeroes[(BASELINE_ENTRIES_MAX + 1) * sizeof(entry)];
    struct baseline_cpu bad[] = {cpu_of(one, sizeof one - 1),
                                 cpu_of(one, 0),
                                 cpu_of(one + 1, sizeof one - sizeof *one),
                                 {zeroes, sizeof zeroes}};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_eq(baseline_check(&bad[i], &err), -1, "%u", i);
    struct baseline_cpu good = cpu_of(one, sizeof one);
    cr_assert_eq(baseline_check(&good, &err), 0);
}

Test(baseline, of_no_cpu_is_empty)
{
    entry out[1];
    cr_assert_eq(intersect(NULL, 0, out), 0);
}

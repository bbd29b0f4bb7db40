#include "node-agent/vmm/cpuid.h"

#include <criterion/criterion.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct kvm_cpuid2 *table(const struct kvm_cpuid_entry2 *entries, uint32_t count)
{
    struct kvm_cpuid2 *cpuid =
        calloc(1, sizeof *cpuid + CPUID_ENTRIES_MAX * sizeof(struct kvm_cpuid_entry2));
    cpuid->nent = count;
    memcpy(cpuid->entries, entries, count * sizeof *entries);
    return cpuid;
}

static const struct kvm_cpuid_entry2 *find(const struct kvm_cpuid2 *cpuid, uint32_t function,
                                           uint32_t index)
{
    for (uint32_t i = 0; i < cpuid->nent; i++)
        if (cpuid->entries[i].function == function && cpuid->entries[i].index == index)
            return &cpuid->entries[i];
    static const struct kvm_cpuid_entry2 none;
    cr_expect_fail("no CPUID leaf 0x%x.%u", function, index);
    return &none;
}

static const struct kvm_cpuid_entry2 host[] = {
    {.function = 0, .eax = 0xd, .ebx = 1, .ecx = 2, .edx = 3},
    {.function = 1, .eax = 0x1234, .ebx = 0x00080800, .ecx = 0xff, .edx = 0xf0},
    {.function = 4, .index = 0, .eax = 0x121},
    {.function = 4, .index = 3, .eax = 0x163},
    {.function = 7, .index = 0, .ebx = 0xffff},
    {.function = 0x80000001, .ecx = 0xff, .edx = 1},
    {.function = 0x80000008, .eax = 0x3030, .ebx = 5, .ecx = 0x7007},
};
#define HOST_ENTRIES (sizeof host / sizeof host[0])

Test(cpuid, the_baseline_takes_features_away_and_adds_none)
{
    struct error err = ERROR_INIT;
    const struct kvm_cpuid_entry2 base[] = {
        {.function = 0, .eax = 0xff, .ebx = 1, .ecx = 2, .edx = 3},
        {.function = 1, .eax = 0x1111, .ebx = 77, .ecx = 0xf00f, .edx = 0xff},
        {.function = 0x80000001, .ecx = 0x0f, .edx = 0xffffffff},
    };
    struct kvm_cpuid2 *ours = table(host, HOST_ENTRIES);
    struct kvm_cpuid2 *baseline = table(base, 3);
    cr_assert_eq(cpuid_apply_baseline(ours, baseline, &err), 0, "%s", err.text);
    cr_expect_eq(find(ours, 1, 0)->ecx, 0x0f);
    cr_expect_eq(find(ours, 1, 0)->edx, 0xf0);
    cr_expect_eq(find(ours, 1, 0)->eax, 0x1111, "the model is the baseline's");
    cr_expect_eq(find(ours, 0, 0)->eax, 0xd, "the highest leaf is the host's");
    cr_expect_eq(find(ours, 7, 0)->ebx, 0, "a leaf the baseline lacks has no features");
    cr_expect_eq(find(ours, 0x80000001, 0)->edx, 1);
    cr_expect_eq(find(ours, 0x80000008, 0)->eax, 0x3030, "address sizes are not features");

    baseline->entries[0].ebx = 9;
    cr_expect_eq(cpuid_apply_baseline(ours, baseline, &err), -1, "another vendor was taken");
    cr_expect_eq(err.kind, ERROR_CONFLICT);
    free(ours);
    free(baseline);
}

Test(cpuid, what_a_guest_was_shown_must_be_there)
{
    struct error err = ERROR_INIT;
    struct kvm_cpuid2 *here = table(host, HOST_ENTRIES);
    struct kvm_cpuid2 *wanted = table(host, HOST_ENTRIES);
    cr_expect_eq(cpuid_check_offered(here, wanted, &err), 0, "%s", err.text);
    wanted->entries[1].ecx = 0x0f;
    cr_expect_eq(cpuid_check_offered(here, wanted, &err), 0, "less than there is");
    wanted->entries[1].ecx = 0x1ff;
    cr_expect_eq(cpuid_check_offered(here, wanted, &err), -1);
    cr_expect_not_null(strstr(err.text, "leaf 0x1, bits 0x100"), "%s", err.text);
    wanted->entries[1].ecx = 0;
    wanted->entries[4].function = 0x80000021;
    wanted->entries[4].eax = 1;
    cr_expect_eq(cpuid_check_offered(here, wanted, &err), -1, "a leaf this host has not got");
    free(here);
    free(wanted);
}

Test(cpuid, topology_is_one_package_with_a_core_a_vcpu)
{
    for (unsigned count = 1; count <= 16; count++) {
        for (unsigned index = 0; index < count; index++) {
            struct kvm_cpuid2 *cpuid = table(host, HOST_ENTRIES);
            cpuid_set_topology(cpuid, index, count);
            cr_expect_eq(find(cpuid, 1, 0)->ebx >> 24, index);
            cr_expect_eq(find(cpuid, 1, 0)->ebx >> 16 & 0xff, count);
            const struct kvm_cpuid_entry2 *core = find(cpuid, 0xb, 1);
            cr_expect_eq(core->ebx, count);
            cr_expect_eq(core->edx, index);
            cr_expect_eq(index >> core->eax, 0, "all in one package");
            cr_expect_eq(find(cpuid, 0xb, 0)->eax, 0, "one thread a core");
            cr_expect_eq(find(cpuid, 4, 0)->eax >> 14 & 0xfff, 0, "L1 is the core's own");
            cr_expect_eq(find(cpuid, 4, 3)->eax >> 14 & 0xfff, count - 1, "L3 is shared");
            cr_expect_eq(find(cpuid, 0x80000008, 0)->ecx & 0xff, count - 1);
            free(cpuid);
        }
    }
}

Test(cpuid, nothing_that_can_t_move_is_shown)
{
    const struct kvm_cpuid_entry2 entries[] = {
        {.function = 1, .ecx = ~0u},
        {.function = 0xa, .eax = 0x07300404, .ebx = 1, .edx = 3},
        {.function = 0x80000001, .ecx = ~0u},
    };
    struct kvm_cpuid2 *cpuid = table(entries, 3);
    cpuid_set_machine(cpuid, false);
    cr_expect_eq(find(cpuid, 1, 0)->ecx & 1u << 5, 0, "VMX");
    cr_expect_eq(find(cpuid, 0x80000001, 0)->ecx & 1u << 2, 0, "SVM");
    cr_expect_eq(find(cpuid, 0xa, 0)->eax, 0, "counters");
    cr_expect_neq(find(cpuid, 1, 0)->ecx & 1u << 31, 0, "the hypervisor bit");
    free(cpuid);
}

Test(cpuid, baseline_files)
{
    struct error err = ERROR_INIT;
    int fd = memfd_create("cpuid", 0);
    cr_assert_eq(write(fd, host, sizeof host), (ssize_t)sizeof host);
    lseek(fd, 0, SEEK_SET);
    struct kvm_cpuid2 *cpuid = cpuid_read(fd, &err);
    cr_assert_not_null(cpuid, "%s", err.text);
    cr_expect_eq(cpuid->nent, HOST_ENTRIES);
    free(cpuid);
    cr_assert_eq(ftruncate(fd, sizeof host - 1), 0);
    lseek(fd, 0, SEEK_SET);
    cr_expect_null(cpuid_read(fd, &err), "a cut one was taken");
    cr_expect_eq(err.kind, ERROR_USAGE);
    cr_assert_eq(ftruncate(fd, 1 << 20), 0);
    lseek(fd, 0, SEEK_SET);
    cr_expect_null(cpuid_read(fd, &err), "a huge one was taken");
    cr_assert_eq(ftruncate(fd, 0), 0);
    lseek(fd, 0, SEEK_SET);
    cr_expect_null(cpuid_read(fd, &err), "an empty one was taken");
    close(fd);
}

#include "node-agent/vmm/cpuid.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/cleanup.h"

#define LEAF1_ECX_TSC_DEADLINE (1u << 24)
#define LEAF1_ECX_HYPERVISOR   (1u << 31)
#define LEAF1_ECX_VMX          (1u << 5)
#define AMD_ECX_SVM            (1u << 2)
#define LEAF1_ECX_PDCM         (1u << 15)
#define LEAF1_EDX_HTT          (1u << 28)
#define AMD_ECX_PERFCTR        ((1u << 23) | (1u << 24) | (1u << 28))
#define ANY_INDEX              UINT32_MAX

/* The registers whose bits are features, so that "both have it" is an AND. A leaf that is not here
 * describes sizes or topology and is taken from KVM or set by us. */
struct feature_leaf {
    uint32_t function;
    uint32_t index; /* ANY_INDEX: the leaf has no subleaves */
    uint32_t eax, ebx, ecx, edx;
};
static const struct feature_leaf feature_leaves[] = {
    {0x00000001, ANY_INDEX, 0, 0, ~0u, ~0u}, {0x00000006, ANY_INDEX, ~0u, 0, 0, 0},
    {0x00000007, 0, 0, ~0u, ~0u, ~0u},       {0x00000007, 1, ~0u, ~0u, ~0u, ~0u},
    {0x00000007, 2, 0, 0, 0, ~0u},           {0x0000000d, 0, ~0u, 0, 0, ~0u},
    {0x0000000d, 1, ~0u, 0, ~0u, ~0u},       {0x40000001, ANY_INDEX, ~0u, 0, 0, 0},
    {0x80000001, ANY_INDEX, 0, 0, ~0u, ~0u}, {0x80000007, ANY_INDEX, 0, 0, 0, ~0u},
    {0x80000008, ANY_INDEX, 0, ~0u, 0, 0},   {0x8000000a, ANY_INDEX, 0, 0, 0, ~0u},
    {0x80000021, ANY_INDEX, ~0u, 0, 0, 0},
};

static struct kvm_cpuid2 *allocate(struct error *err)
{
    struct kvm_cpuid2 *cpuid =
        calloc(1, sizeof *cpuid + CPUID_ENTRIES_MAX * sizeof(struct kvm_cpuid_entry2));
    if (!cpuid)
        (void)error_errno(err, ENOMEM, "CPUID table");
    return cpuid;
}

struct kvm_cpuid2 *cpuid_supported(int kvm_fd, struct error *err)
{
    struct kvm_cpuid2 *cpuid = allocate(err);
    if (!cpuid)
        return NULL;
    cpuid->nent = CPUID_ENTRIES_MAX;
    if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid) < 0) {
        (void)error_errno(err, errno, "KVM_GET_SUPPORTED_CPUID");
        free(cpuid);
        return NULL;
    }
    return cpuid;
}

struct kvm_cpuid2 *cpuid_copy(const struct kvm_cpuid2 *cpuid, struct error *err)
{
    struct kvm_cpuid2 *copy = allocate(err);
    if (copy)
        memcpy(copy, cpuid, sizeof *cpuid + cpuid->nent * sizeof(struct kvm_cpuid_entry2));
    return copy;
}

struct kvm_cpuid2 *cpuid_read(int fd, struct error *err)
{
    struct kvm_cpuid2 *cpuid = allocate(err);
    if (!cpuid)
        return NULL;
    char *at = (char *)cpuid->entries;
    size_t capacity = CPUID_ENTRIES_MAX * sizeof(struct kvm_cpuid_entry2);
    size_t used = 0;
    ssize_t got = 0;
    do {
        got = read(fd, at + used, capacity - used);
        used += got > 0 ? (size_t)got : 0;
    } while ((got > 0 && used < capacity) || (got < 0 && errno == EINTR));
    char more = 0;
    if (got < 0)
        (void)error_errno(err, errno, "cannot read the CPU baseline");
    else if (used == 0 || used % sizeof(struct kvm_cpuid_entry2) != 0 ||
             (used == capacity && read(fd, &more, 1) > 0))
        (void)error_set(err, ERROR_USAGE,
                        "the CPU baseline file is not a list of at most %u "
                        "struct kvm_cpuid_entry2",
                        CPUID_ENTRIES_MAX);
    else
        cpuid->nent = (uint32_t)(used / sizeof(struct kvm_cpuid_entry2));
    if (cpuid->nent == 0) {
        free(cpuid);
        return NULL;
    }
    return cpuid;
}

static const struct kvm_cpuid_entry2 *find(const struct kvm_cpuid2 *cpuid, uint32_t function,
                                           uint32_t index)
{
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        const struct kvm_cpuid_entry2 *entry = &cpuid->entries[i];
        if (entry->function == function && (index == ANY_INDEX || entry->index == index))
            return entry;
    }
    return NULL;
}

static struct kvm_cpuid_entry2 *find_mutable(struct kvm_cpuid2 *cpuid, uint32_t function,
                                             uint32_t index)
{
    const struct kvm_cpuid_entry2 *entry = find(cpuid, function, index);
    return entry ? &cpuid->entries[entry - cpuid->entries] : NULL;
}

static int check_vendor(const struct kvm_cpuid2 *here, const struct kvm_cpuid2 *there,
                        struct error *err)
{
    const struct kvm_cpuid_entry2 *ours = find(here, 0, ANY_INDEX);
    const struct kvm_cpuid_entry2 *theirs = find(there, 0, ANY_INDEX);
    if (!ours || !theirs || ours->ebx != theirs->ebx || ours->ecx != theirs->ecx ||
        ours->edx != theirs->edx)
        return error_set(err, ERROR_CONFLICT,
                         "the CPU baseline is of another vendor's processor than this host's");
    return 0;
}

int cpuid_apply_baseline(struct kvm_cpuid2 *supported, const struct kvm_cpuid2 *baseline,
                         struct error *err)
{
    if (check_vendor(supported, baseline, err) < 0)
        return -1;
    for (size_t i = 0; i < sizeof feature_leaves / sizeof feature_leaves[0]; i++) {
        const struct feature_leaf *leaf = &feature_leaves[i];
        struct kvm_cpuid_entry2 *ours = find_mutable(supported, leaf->function, leaf->index);
        if (!ours)
            continue;
        const struct kvm_cpuid_entry2 none = {0};
        const struct kvm_cpuid_entry2 *base = find(baseline, leaf->function, leaf->index);
        if (!base)
            base = &none;
        ours->eax &= base->eax | ~leaf->eax;
        ours->ebx &= base->ebx | ~leaf->ebx;
        ours->ecx &= base->ecx | ~leaf->ecx;
        ours->edx &= base->edx | ~leaf->edx;
    }
    /* Family, model and stepping too, or a guest would see another processor after each move. */
    struct kvm_cpuid_entry2 *ours = find_mutable(supported, 1, ANY_INDEX);
    const struct kvm_cpuid_entry2 *base = find(baseline, 1, ANY_INDEX);
    if (ours && base)
        ours->eax = base->eax;
    return 0;
}

void cpuid_set_machine(struct kvm_cpuid2 *cpuid, bool tsc_deadline)
{
    struct kvm_cpuid_entry2 *leaf = find_mutable(cpuid, 1, ANY_INDEX);
    if (leaf) {
        leaf->ecx |= LEAF1_ECX_HYPERVISOR | (tsc_deadline ? LEAF1_ECX_TSC_DEADLINE : 0);
        leaf->ecx &= ~LEAF1_ECX_PDCM;
    }
    /* A guest's own guests would not survive a move: their state is not carried. */
    if (leaf)
        leaf->ecx &= ~LEAF1_ECX_VMX;
    /* Counters count on one host only: a guest that was moved would read nonsense. */
    leaf = find_mutable(cpuid, 0xa, ANY_INDEX);
    if (leaf)
        leaf->eax = leaf->ebx = leaf->ecx = leaf->edx = 0;
    leaf = find_mutable(cpuid, 0x80000001, ANY_INDEX);
    if (leaf)
        leaf->ecx &= ~(AMD_ECX_PERFCTR | AMD_ECX_SVM);
    leaf = find_mutable(cpuid, 0x80000022, ANY_INDEX);
    if (leaf)
        leaf->eax = leaf->ebx = 0;
}

static struct kvm_cpuid_entry2 *find_or_add(struct kvm_cpuid2 *cpuid, uint32_t function,
                                            uint32_t index)
{
    struct kvm_cpuid_entry2 *entry = find_mutable(cpuid, function, index);
    if (entry || cpuid->nent == CPUID_ENTRIES_MAX)
        return entry;
    entry = &cpuid->entries[cpuid->nent++];
    *entry = (struct kvm_cpuid_entry2){
        .function = function, .index = index, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX};
    return entry;
}

/* Bits an APIC id needs for @count vCPUs. */
static uint32_t id_bits(unsigned count)
{
    uint32_t bits = 0;
    while ((1u << bits) < count)
        bits++;
    return bits;
}

/* Leaves 0xb and 0x1f: level 0 threads (one), level 1 cores, level 2 the end. */
static void set_extended_topology(struct kvm_cpuid2 *cpuid, uint32_t function, unsigned index,
                                  unsigned count)
{
    const struct {
        uint32_t eax, ebx, ecx;
    } levels[3] = {{0, 1, 0x100}, {id_bits(count), count, 0x201}, {0, 0, 2}};
    for (uint32_t level = 0; level < 3; level++) {
        struct kvm_cpuid_entry2 *entry = find_or_add(cpuid, function, level);
        if (!entry)
            return;
        entry->eax = levels[level].eax;
        entry->ebx = levels[level].ebx;
        entry->ecx = levels[level].ecx;
        entry->edx = index;
    }
}

void cpuid_set_topology(struct kvm_cpuid2 *cpuid, unsigned index, unsigned count)
{
    struct kvm_cpuid_entry2 *leaf = find_mutable(cpuid, 1, ANY_INDEX);
    if (leaf) {
        leaf->ebx = (leaf->ebx & 0xffff) | (index << 24) | (count << 16);
        leaf->edx = count > 1 ? leaf->edx | LEAF1_EDX_HTT : leaf->edx & ~LEAF1_EDX_HTT;
    }
    const struct kvm_cpuid_entry2 *basic = find(cpuid, 0, ANY_INDEX);
    if (basic && basic->eax >= 0xb)
        set_extended_topology(cpuid, 0xb, index, count);
    if (basic && basic->eax >= 0x1f)
        set_extended_topology(cpuid, 0x1f, index, count);
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        struct kvm_cpuid_entry2 *entry = &cpuid->entries[i];
        uint32_t level = (entry->eax >> 5) & 7;
        /* Caches, Intel and AMD: ids sharing the cache, and (Intel) cores in the package. The last
         * level is shared by all, the others by nobody. */
        if (entry->function == 4 && (entry->eax & 0x1f) != 0)
            entry->eax =
                (entry->eax & 0x3fff) | ((count - 1) << 26) | (level >= 3 ? (count - 1) << 14 : 0);
        if (entry->function == 0x8000001d && (entry->eax & 0x1f) != 0)
            entry->eax = (entry->eax & 0x3fff) | (level >= 3 ? (count - 1) << 14 : 0);
    }
    leaf = find_mutable(cpuid, 0x80000008, ANY_INDEX);
    if (leaf)
        leaf->ecx = (leaf->ecx & ~0xf0ffu) | (id_bits(count) << 12) | (count - 1);
    leaf = find_mutable(cpuid, 0x8000001e, ANY_INDEX);
    if (leaf) {
        leaf->eax = index;
        leaf->ebx = index; /* core id; one thread a core */
        leaf->ecx = 0;     /* node 0 of 1 */
    }
}

int cpuid_check_offered(const struct kvm_cpuid2 *supported, const struct kvm_cpuid2 *wanted,
                        struct error *err)
{
    if (check_vendor(supported, wanted, err) < 0)
        return -1;
    for (size_t i = 0; i < sizeof feature_leaves / sizeof feature_leaves[0]; i++) {
        const struct feature_leaf *leaf = &feature_leaves[i];
        const struct kvm_cpuid_entry2 none = {0};
        const struct kvm_cpuid_entry2 *want = find(wanted, leaf->function, leaf->index);
        const struct kvm_cpuid_entry2 *have = find(supported, leaf->function, leaf->index);
        if (!want)
            continue;
        if (!have)
            have = &none;
        uint32_t missing =
            (want->eax & ~have->eax & leaf->eax) | (want->ebx & ~have->ebx & leaf->ebx) |
            (want->ecx & ~have->ecx & leaf->ecx) | (want->edx & ~have->edx & leaf->edx);
        /* HTT follows the topology, OSXSAVE and OSPKE what the guest's kernel switched on. */
        if (leaf->function == 1)
            missing &= ~(LEAF1_EDX_HTT | (1u << 27));
        if (leaf->function == 7 && leaf->index == 0)
            missing &= ~(1u << 4);
        if (missing)
            return error_set(err, ERROR_CONFLICT,
                             "this host's processor lacks features the guest uses (CPUID leaf "
                             "0x%x, bits 0x%x): give both hosts one CPU baseline",
                             leaf->function, missing);
    }
    return 0;
}

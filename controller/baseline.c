/*
 * Which register of which leaf says what is Intel's SDM, volume 2A, CPUID, and AMD's APM, volume 3,
 * appendix E; the 0x4000.... leaves are KVM's (Documentation/virt/kvm/x86/cpuid.rst).
 */
#include "controller/baseline.h"

#include <linux/kvm.h>
#include <string.h>

_Static_assert(sizeof(struct kvm_cpuid_entry2) == 40, "BASELINE_BYTES_MAX counts on this");

/* How a register of several CPUs becomes one. */
enum merge {
    DROP, /* equal in all, or the whole leaf is left out */
    KEEP, /* the first's: says nothing about features, such as a core's number */
    AND,  /* feature bits */
    MIN,  /* a limit, such as the highest leaf */
    ZERO, /* equal in all, or unknown: 0 */
};

struct rule {
    uint32_t function;
    uint32_t index; /* ANY: all */
    enum merge eax, ebx, ecx, edx;
};
#define ANY UINT32_MAX

static const struct rule rules[] = {
    {0x00000000, ANY, MIN, DROP, DROP, DROP},  /* highest leaf, vendor */
    {0x00000001, ANY, MIN, KEEP, AND, AND},    /* family and model, APIC id, features */
    {0x00000002, ANY, KEEP, KEEP, KEEP, KEEP}, /* caches */
    {0x00000004, ANY, KEEP, KEEP, KEEP, KEEP}, /* caches */
    {0x00000005, ANY, KEEP, KEEP, KEEP, KEEP}, /* MWAIT */
    {0x00000006, ANY, AND, ZERO, AND, ZERO},   /* thermal */
    {0x00000007, 0, MIN, AND, AND, AND},       /* highest index, features */
    {0x00000007, ANY, AND, AND, AND, AND},
    {0x0000000a, ANY, ZERO, ZERO, ZERO, ZERO}, /* performance counters */
    {0x0000000b, ANY, KEEP, KEEP, KEEP, KEEP}, /* topology */
    {0x0000000d, 0, AND, MIN, MIN, AND},       /* XCR0's bits, sizes of the save area */
    {0x0000000d, 1, AND, MIN, AND, AND},       /* XSAVE's variants, XSS's bits */
    {0x0000000d, ANY, DROP, DROP, DROP, DROP}, /* one component: equal or gone */
    {0x0000001f, ANY, KEEP, KEEP, KEEP, KEEP}, /* topology */
    {0x40000000, ANY, MIN, DROP, DROP, DROP},
    {0x40000001, ANY, AND, AND, AND, AND},
    {0x80000000, ANY, MIN, DROP, DROP, DROP},
    {0x80000001, ANY, MIN, KEEP, AND, AND},
    {0x80000002, ANY, KEEP, KEEP, KEEP, KEEP}, /* the model's name */
    {0x80000003, ANY, KEEP, KEEP, KEEP, KEEP},
    {0x80000004, ANY, KEEP, KEEP, KEEP, KEEP},
    {0x80000005, ANY, KEEP, KEEP, KEEP, KEEP}, /* caches */
    {0x80000006, ANY, KEEP, KEEP, KEEP, KEEP},
    {0x80000007, ANY, ZERO, AND, ZERO, AND},
    {0x80000008, ANY, MIN, AND, KEEP, ZERO},   /* address bits, features, core count */
    {0x8000000a, ANY, ZERO, ZERO, ZERO, AND},  /* SVM */
    {0x8000001d, ANY, KEEP, KEEP, KEEP, KEEP}, /* topology */
    {0x8000001e, ANY, KEEP, KEEP, KEEP, KEEP},
    {0x80000021, ANY, AND, ZERO, ZERO, ZERO},
};

static const struct rule equal_or_gone = {0, ANY, DROP, DROP, DROP, DROP};

static const struct rule *find_rule(uint32_t function, uint32_t index)
{
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (rules[i].function == function && (rules[i].index == index || rules[i].index == ANY))
            return &rules[i];
    return &equal_or_gone;
}

static size_t entry_count(const struct baseline_cpu *cpu)
{
    return cpu->size / sizeof(struct kvm_cpuid_entry2);
}

static struct kvm_cpuid_entry2 read_entry(const struct baseline_cpu *cpu, size_t at)
{
    struct kvm_cpuid_entry2 entry; /* the bytes may be unaligned */
    memcpy(&entry, cpu->data + at * sizeof entry, sizeof entry);
    return entry;
}

static int find_entry(const struct baseline_cpu *cpu, uint32_t function, uint32_t index,
                      struct kvm_cpuid_entry2 *out)
{
    for (size_t i = 0; i < entry_count(cpu); i++) {
        *out = read_entry(cpu, i);
        if (out->function == function && out->index == index)
            return 0;
    }
    return -1;
}

int baseline_check(const struct baseline_cpu *cpu, struct error *err)
{
    struct kvm_cpuid_entry2 entry;
    if (cpu->size == 0 || cpu->size % sizeof entry || entry_count(cpu) > BASELINE_ENTRIES_MAX ||
        find_entry(cpu, 0, 0, &entry) < 0)
        return error_set(err, ERROR_USAGE, "its CPU description is damaged");
    return 0;
}

/* Merges @b into @a; -1 where the leaf must go. */
static int merge_register(enum merge merge, uint32_t *a, uint32_t b)
{
    switch (merge) {
    case KEEP:
        return 0;
    case AND:
        *a &= b;
        return 0;
    case MIN:
        *a = b < *a ? b : *a;
        return 0;
    case ZERO:
        *a = *a == b ? b : 0;
        return 0;
    case DROP:
        break;
    }
    return *a == b ? 0 : -1;
}

static int merge_entry(struct kvm_cpuid_entry2 *a, const struct kvm_cpuid_entry2 *b)
{
    const struct rule *rule = find_rule(a->function, a->index);
    return merge_register(rule->eax, &a->eax, b->eax) < 0 ||
                   merge_register(rule->ebx, &a->ebx, b->ebx) < 0 ||
                   merge_register(rule->ecx, &a->ecx, b->ecx) < 0 ||
                   merge_register(rule->edx, &a->edx, b->edx) < 0
               ? -1
               : 0;
}

/* KEEP takes the values of one CPU: the one with the smallest description, byte by byte, so that
 * the order in which nodes joined means nothing. */
static size_t canonical(const struct baseline_cpu *cpus, size_t count)
{
    size_t best = 0;
    for (size_t i = 1; i < count; i++) {
        size_t size = cpus[i].size < cpus[best].size ? cpus[i].size : cpus[best].size;
        int order = memcmp(cpus[i].data, cpus[best].data, size);
        if (order < 0 || (order == 0 && cpus[i].size < cpus[best].size))
            best = i;
    }
    return best;
}

/* Leaves above the lowered limits of leaf 0 and its like are not there for a guest. */
static size_t cut(struct kvm_cpuid_entry2 *entries, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t limit = UINT32_MAX;
        for (size_t j = 0; j < count; j++)
            if (entries[j].function == (entries[i].function & 0xf0000000u))
                limit = entries[j].eax;
        if (entries[i].function <= limit || (entries[i].function & 0xf0000000u) == 0x40000000u)
            entries[kept++] = entries[i];
    }
    return kept;
}

int baseline_intersect(const struct baseline_cpu *cpus, size_t count, uint8_t *out,
                       size_t *out_size, struct error *err)
{
    struct kvm_cpuid_entry2 merged[BASELINE_ENTRIES_MAX], other;
    size_t used = 0;
    *out_size = 0;
    if (count == 0)
        return 0;
    size_t first = canonical(cpus, count);
    for (size_t i = 0; i < entry_count(&cpus[first]); i++) {
        struct kvm_cpuid_entry2 entry = read_entry(&cpus[first], i);
        int gone = 0;
        for (size_t j = 0; j < count && !gone; j++)
            gone = find_entry(&cpus[j], entry.function, entry.index, &other) < 0 ||
                   merge_entry(&entry, &other) < 0;
        if (gone && entry.function == 0)
            return error_set(err, ERROR_CONFLICT,
                             "CPUs of different vendors: a VM could never move between them; make "
                             "a pool of each");
        if (!gone)
            merged[used++] = entry;
    }
    used = cut(merged, used);
    memcpy(out, merged, used * sizeof *merged);
    *out_size = used * sizeof *merged;
    return 0;
}

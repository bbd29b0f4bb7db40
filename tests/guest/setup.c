/*
 * setup.c: what must be known before ring 3: RAM and command line from the PVH start info, and
 * kvmclock (Documentation/virt/kvm/x86/msr.rst, MSR_KVM_SYSTEM_TIME_NEW).
 */
#include "guest.h"

#define START_MAGIC        0x336ec578u
#define MEMORY_TYPE_RAM    1u
#define MSR_KVM_TIME       0x4b564d01u
#define KVM_CPUID_BASE     0x40000000u
#define KVM_CPUID_END      0x40001000u
#define KVM_FEATURE_CLOCK2 (1u << 3)

struct start_info { /* hvm_start_info, version 1 */
    u32 magic, version, flags, modules;
    u64 module_list, cmdline, rsdp, memory_map;
    u32 memory_entries, reserved;
};
struct memory_entry {
    u64 address, size;
    u32 type, reserved;
};
struct kvm_time { /* pvclock_vcpu_time_info */
    u32 version, pad;
    u64 tsc, system_ns;
    u32 multiplier;
    int8_t shift;
    u8 flags, pad2[2];
};

struct guest_machine guest_machine;
static volatile struct kvm_time kvm_time __attribute__((aligned(64)));
static bool have_kvm_time;

static void cpuid(u32 leaf, u32 *a, u32 *b, u32 *c, u32 *d)
{
    __asm__ volatile("cpuid" : "=a"(*a), "=b"(*b), "=c"(*c), "=d"(*d) : "a"(leaf), "c"(0));
}

static u64 tsc(void)
{
    u32 low, high;
    __asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (u64)high << 32 | low;
}

static bool has_kvm_clock(void)
{
    u32 a, b, c, d;
    cpuid(1, &a, &b, &c, &d);
    if (!(c >> 31)) /* no hypervisor */
        return false;
    for (u32 base = KVM_CPUID_BASE; base < KVM_CPUID_END; base += 0x100) {
        cpuid(base, &a, &b, &c, &d);
        if (b == 0x4b4d564b && c == 0x564b4d56 && d == 0x4d) { /* "KVMKVMKVM" */
            cpuid(base + 1, &a, &b, &c, &d);
            return (a & KVM_FEATURE_CLOCK2) != 0;
        }
    }
    return false;
}

void guest_setup(const void *start)
{
    const struct start_info *info = start;
    struct guest_machine *machine = &guest_machine;
    if (info->magic != START_MAGIC)
        return;
    if (info->cmdline) {
        const char *from = (const char *)info->cmdline;
        for (u32 i = 0; i + 1 < sizeof(machine->cmdline) && from[i]; i++)
            machine->cmdline[i] = from[i];
    }
    const struct memory_entry *entry = (const struct memory_entry *)info->memory_map;
    for (u32 i = 0; i < info->memory_entries; i++) {
        if (entry[i].type != MEMORY_TYPE_RAM)
            continue;
        if (entry[i].address <= 1u << 20 && entry[i].address + entry[i].size > 1u << 20)
            machine->low_bytes = entry[i].address + entry[i].size;
        if (entry[i].address == 4ull << 30)
            machine->high_bytes = entry[i].size;
    }
    have_kvm_time = has_kvm_clock();
    if (have_kvm_time) {
        u64 value = (u64)&kvm_time | 1;
        __asm__ volatile("wrmsr" : : "c"(MSR_KVM_TIME), "a"((u32)value), "d"((u32)(value >> 32)));
    }
}

static u64 scale(u64 cycles, u32 multiplier, int shift)
{
    cycles = shift < 0 ? cycles >> -shift : cycles << shift;
    return (u64)(((unsigned __int128)cycles * multiplier) >> 32);
}

u64 clock_tsc_us(void)
{
    if (!have_kvm_time)
        return tsc() / 1000;
    return scale(tsc(), kvm_time.multiplier, kvm_time.shift) / 1000;
}

u64 clock_kvm_us(void)
{
    if (!have_kvm_time)
        return tsc() / 1000;
    for (;;) {
        u32 version = kvm_time.version;
        __asm__ volatile("" : : : "memory");
        u64 ns =
            kvm_time.system_ns + scale(tsc() - kvm_time.tsc, kvm_time.multiplier, kvm_time.shift);
        __asm__ volatile("" : : : "memory");
        if (!(version & 1) && version == kvm_time.version)
            return ns / 1000;
    }
}

#include "node-agent/vmm/probe.h"

#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/error.h"
#include "node-agent/vmm/cpuid.h"
#include "node-agent/vmm/kvm.h"

/* probe_payload.S */
extern const uint8_t probe_payload[];
extern const uint8_t probe_payload_end[];
extern const uint8_t probe_payload_int3[];
extern const uint8_t probe_payload_ud2[];

#define MEMORY_SIZE  (2u << 20)
#define PAGE_TABLES  0x1000u /* PML4, PDPT, PD */
#define IDT          0x4000u
#define GDT          0x5000u
#define CODE         0x10000u
#define SCRATCH      0x20000u /* the payload's page; its stack ends where the page after it does */
#define STACK_TOP    0x22000u
#define PORT_STEP    0x10u
#define PORT_DONE    0x11u
#define CODE_SEGMENT 0x10u
#define DATA_SEGMENT 0x18u
#define LIMIT_S      10 /* the payload takes milliseconds; a KVM that loops must not hang us */

static const char *const steps[] = {
    "rdmsr, wrmsr, swapgs",
    "mov to control registers, invlpg",
    "lgdt, lidt, lldt, verw",
    "cmpxchg16b",
    "locked arithmetic",
    "rep movs, rep stos",
    "int3, iretq",
    "ud2, iretq",
    "fxsave, fxrstor, SSE moves",
    "xsetbv, xsave, xrstor",
    "rdtsc, clflush, wbinvd",
    "stac, clac",
};
#define STEPS (sizeof steps / sizeof steps[0])

struct probe {
    int kvm_fd;
    int vm_fd;
    int vcpu_fd;
    uint8_t *memory;
    struct kvm_run *run;
    size_t run_size;
    unsigned step; /* the last one begun; STEPS: all are done */
    uint32_t features;
};

static void put_64(struct probe *probe, uint64_t address, uint64_t value)
{
    memcpy(probe->memory + address, &value, sizeof value);
}

/* A 64-bit interrupt gate to @handler of the payload. */
static void put_gate(struct probe *probe, unsigned vector, const uint8_t *handler)
{
    uint64_t address = CODE + (uint64_t)(handler - probe_payload);
    put_64(probe, IDT + vector * 16ull,
           (address & 0xffff) | (uint64_t)CODE_SEGMENT << 16 | 0x8e00ull << 32 |
               (address >> 16 & 0xffff) << 48);
    put_64(probe, IDT + vector * 16ull + 8, address >> 32);
}

static void fill_memory(struct probe *probe)
{
    put_64(probe, PAGE_TABLES, (PAGE_TABLES + 0x1000) | 3);
    put_64(probe, PAGE_TABLES + 0x1000, (PAGE_TABLES + 0x2000) | 3);
    put_64(probe, PAGE_TABLES + 0x2000, 0x83); /* the first 2 MiB, identity */
    put_64(probe, GDT + CODE_SEGMENT, 0x00af9b000000ffff);
    put_64(probe, GDT + DATA_SEGMENT, 0x00cf93000000ffff);
    put_gate(probe, 3, probe_payload_int3);
    put_gate(probe, 6, probe_payload_ud2);
    memcpy(probe->memory + CODE, probe_payload, (size_t)(probe_payload_end - probe_payload));
}

static int set_cpuid(struct probe *probe, struct error *err)
{
    auto_free struct kvm_cpuid2 *cpuid = cpuid_supported(probe->kvm_fd, err);
    if (!cpuid)
        return -1;
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        const struct kvm_cpuid_entry2 *entry = &cpuid->entries[i];
        if (entry->function == 1 && (entry->ecx & 1u << 26))
            probe->features |= 1; /* XSAVE */
        if (entry->function == 7 && entry->index == 0 && (entry->ebx & 1u << 20))
            probe->features |= 2; /* SMAP */
    }
    if (ioctl(probe->vcpu_fd, KVM_SET_CPUID2, cpuid) < 0)
        return error_errno(err, errno, "KVM_SET_CPUID2");
    return 0;
}

static int set_registers(struct probe *probe, struct error *err)
{
    struct kvm_sregs sregs;
    if (ioctl(probe->vcpu_fd, KVM_GET_SREGS, &sregs) < 0)
        return error_errno(err, errno, "KVM_GET_SREGS");
    const struct kvm_segment code = {.limit = 0xffffffff,
                                     .selector = CODE_SEGMENT,
                                     .type = 0xb,
                                     .present = 1,
                                     .s = 1,
                                     .g = 1,
                                     .l = 1};
    struct kvm_segment data = code;
    data.selector = DATA_SEGMENT;
    data.type = 3;
    data.l = 0;
    data.db = 1;
    sregs.cs = code;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.gdt.base = GDT;
    sregs.gdt.limit = 0x1f;
    sregs.idt.base = IDT;
    sregs.idt.limit = 0xfff;
    sregs.cr3 = PAGE_TABLES;
    sregs.cr4 = 1u << 5 | 1u << 9 | 1u << 10; /* PAE, OSFXSR, OSXMMEXCPT */
    if (probe->features & 1)
        sregs.cr4 |= 1u << 18; /* OSXSAVE */
    if (probe->features & 2)
        sregs.cr4 |= 1u << 21; /* SMAP */
    sregs.cr0 = 0x80010033;    /* PG, WP, NE, ET, MP, PE */
    sregs.efer = 0x500;        /* LMA, LME */
    const struct kvm_regs regs = {
        .rip = CODE, .rflags = 2, .rbx = SCRATCH, .rsp = STACK_TOP, .r15 = probe->features};
    if (ioctl(probe->vcpu_fd, KVM_SET_SREGS, &sregs) < 0)
        return error_errno(err, errno, "KVM_SET_SREGS");
    if (ioctl(probe->vcpu_fd, KVM_SET_REGS, &regs) < 0)
        return error_errno(err, errno, "KVM_SET_REGS");
    return 0;
}

static int build(struct probe *probe, struct error *err)
{
    probe->kvm_fd = kvm_open(err);
    if (probe->kvm_fd < 0 || kvm_check(probe->kvm_fd, err) < 0)
        return -1;
    probe->vm_fd = ioctl(probe->kvm_fd, KVM_CREATE_VM, 0);
    if (probe->vm_fd < 0)
        return error_errno(err, errno, "KVM_CREATE_VM");
    /* Intel without unrestricted guest needs the place of a TSS. */
    (void)ioctl(probe->vm_fd, KVM_SET_TSS_ADDR, 0xfffbd000);
    probe->memory =
        mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (probe->memory == MAP_FAILED)
        return error_errno(err, errno, "mmap");
    fill_memory(probe);
    struct kvm_userspace_memory_region slot = {.memory_size = MEMORY_SIZE,
                                               .userspace_addr = (uintptr_t)probe->memory};
    if (ioctl(probe->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
        return error_errno(err, errno, "KVM_SET_USER_MEMORY_REGION");
    probe->vcpu_fd = ioctl(probe->vm_fd, KVM_CREATE_VCPU, 0);
    int size = ioctl(probe->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (probe->vcpu_fd < 0 || size < (int)sizeof(struct kvm_run))
        return error_errno(err, errno, "KVM_CREATE_VCPU");
    probe->run_size = (size_t)size;
    probe->run = mmap(NULL, probe->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, probe->vcpu_fd, 0);
    if (probe->run == MAP_FAILED)
        return error_errno(err, errno, "mmap");
    return set_cpuid(probe, err) < 0 ? -1 : set_registers(probe, err);
}

/* One exit. Returns 1 when the payload has come to its end, 0 to go on. */
static int handle_exit(struct probe *probe, struct error *err)
{
    const struct kvm_run *run = probe->run;
    if (run->exit_reason == KVM_EXIT_IO && run->io.direction == KVM_EXIT_IO_OUT) {
        if (run->io.port == PORT_DONE)
            return 1;
        uint8_t step = *((const uint8_t *)run + run->io.data_offset);
        if (run->io.port == PORT_STEP && step < STEPS)
            probe->step = step;
        return 0;
    }
    return error_set(err, ERROR_FAILED,
                     "this host's KVM is too limited for Linux: it cannot execute '%s' in kernel "
                     "mode (exit %u, suberror %u)",
                     steps[probe->step], run->exit_reason,
                     run->exit_reason == KVM_EXIT_INTERNAL_ERROR ? run->internal.suberror : 0);
}

static void on_alarm(int signal_number)
{
    (void)signal_number; /* interrupting KVM_RUN is all */
}

static int run_payload(struct probe *probe, struct error *err)
{
    const struct sigaction action = {.sa_handler = on_alarm};
    const struct itimerval limit = {.it_value.tv_sec = LIMIT_S};
    (void)sigaction(SIGALRM, &action, NULL);
    (void)setitimer(ITIMER_REAL, &limit, NULL);
    int status = 0;
    while (status == 0) {
        if (ioctl(probe->vcpu_fd, KVM_RUN, 0) == 0)
            status = handle_exit(probe, err);
        else if (errno == EINTR)
            status = error_set(err, ERROR_FAILED,
                               "this host's KVM is too limited for Linux: it did not get past '%s' "
                               "within %d s",
                               steps[probe->step], LIMIT_S);
        else if (errno != EAGAIN)
            status = error_errno(err, errno, "KVM_RUN");
    }
    return status < 0 ? -1 : 0;
}

int probe_run(void)
{
    struct error err = ERROR_INIT;
    struct probe probe = {
        .kvm_fd = -1, .vm_fd = -1, .vcpu_fd = -1, .memory = MAP_FAILED, .run = MAP_FAILED};
    int status = build(&probe, &err);
    if (status == 0)
        status = run_payload(&probe, &err);
    if (probe.run != MAP_FAILED)
        (void)munmap(probe.run, probe.run_size);
    if (probe.memory != MAP_FAILED)
        (void)munmap(probe.memory, MEMORY_SIZE);
    close_fd(&probe.vcpu_fd);
    close_fd(&probe.vm_fd);
    close_fd(&probe.kvm_fd);
    if (status < 0)
        (void)printf("no: %s\n", err.text);
    else
        (void)printf("yes: this host's KVM can boot Linux\n");
    return status < 0 ? 1 : 0;
}

/* The kernel's part of a virtio device: kicks by ioeventfd, interrupts by irqfd. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/virtio_blk.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "node-agent/vmm/devices/devices.h"
#include "tests/unit/vmm/virtio_driver.h"

#define CODE    0x1000u
#define HEADER  0x300000u
#define DATA    0x301000u
#define STATUS  0x302000u
#define TABLE   0x4000u
#define PENDING 0x5000u
#define VECTOR  0x41u /* as driver_start() gives queue 0 */
#define SVR     0x0f0u
#define IRR     0x200u

struct guest {
    struct machine machine;
    struct driver driver;
    int kvm_fd;
    int vm_fd;
    int vcpu_fd;
    struct kvm_run *run;
    size_t run_size;
};

/* Flat 32-bit protected mode without paging, and a local APIC that takes interrupts. */
static void set_registers(struct guest *guest)
{
    struct kvm_sregs sregs;
    struct kvm_lapic_state lapic;
    const struct kvm_segment code = {
        .limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .db = 1, .s = 1, .g = 1};
    struct kvm_segment data = code;
    data.type = 3;
    data.selector = 16;
    cr_assert_eq(ioctl(guest->vcpu_fd, KVM_GET_SREGS, &sregs), 0);
    sregs.cs = code;
    sregs.ds = sregs.es = sregs.ss = data;
    sregs.cr0 |= 1;
    cr_assert_eq(ioctl(guest->vcpu_fd, KVM_SET_SREGS, &sregs), 0);
    cr_assert_eq(ioctl(guest->vcpu_fd, KVM_GET_LAPIC, &lapic), 0);
    lapic.regs[SVR + 1] |= 1; /* software enabled */
    cr_assert_eq(ioctl(guest->vcpu_fd, KVM_SET_LAPIC, &lapic), 0);
}

static struct guest *guest_new(void)
{
    struct guest *guest = calloc(1, sizeof *guest);
    struct error err = ERROR_INIT;
    guest->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (guest->kvm_fd < 0)
        cr_skip_test("no usable /dev/kvm");
    guest->vm_fd = ioctl(guest->kvm_fd, KVM_CREATE_VM, 0);
    cr_assert_geq(guest->vm_fd, 0);
    cr_assert_eq(ioctl(guest->vm_fd, KVM_SET_TSS_ADDR, 0xfeffd000), 0);
    cr_assert_eq(ioctl(guest->vm_fd, KVM_CREATE_IRQCHIP, 0), 0);
    machine_init_kvm(&guest->machine, guest->vm_fd);
    guest->vcpu_fd = ioctl(guest->vm_fd, KVM_CREATE_VCPU, 0);
    cr_assert_geq(guest->vcpu_fd, 0);
    guest->run_size = (size_t)ioctl(guest->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    guest->run = mmap(NULL, guest->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, guest->vcpu_fd, 0);
    set_registers(guest);
    int disk = memfd_create("disk", MFD_CLOEXEC);
    cr_assert_eq(ftruncate(disk, 65536), 0);
    cr_assert_not_null(virtio_blk_new(guest->machine.pci, disk, false, "by-kvm", &err));
    driver_start(&guest->driver, &guest->machine, 1, 0, 1, 8);
    return guest;
}

static void guest_free(struct guest *guest)
{
    machine_destroy(&guest->machine);
    (void)munmap(guest->run, guest->run_size);
    (void)close(guest->vcpu_fd);
    (void)close(guest->vm_fd);
    (void)close(guest->kvm_fd);
    free(guest);
}

/* Asks for the disk's serial; the vCPU itself kicks, and comes back by port 0x80. */
static void request_by_vcpu(struct guest *guest)
{
    uint8_t *ram = guest->machine.memory.base;
    struct virtio_blk_outhdr header = {.type = VIRTIO_BLK_T_GET_ID};
    memcpy(ram + HEADER, &header, sizeof header);
    memset(ram + DATA, 0, 20);
    const struct segment chain[] = {{HEADER, 16, false}, {DATA, 20, true}, {STATUS, 1, true}};
    (void)driver_add(&guest->driver, 0, chain, 3);
    const uint32_t notify = (uint32_t)guest->driver.bar + 0x3000;
    uint8_t code[] = {0x31, 0xc0,             /* xor eax, eax */
                      0x66, 0xa3, 0, 0, 0, 0, /* mov [notify], ax */
                      0xe6, 0x80};            /* out 0x80, al */
    memcpy(code + 4, &notify, 4);
    memcpy(ram + CODE, code, sizeof code);
    struct kvm_regs regs = {.rip = CODE, .rflags = 2};
    cr_assert_eq(ioctl(guest->vcpu_fd, KVM_SET_REGS, &regs), 0);
    cr_assert_eq(ioctl(guest->vcpu_fd, KVM_RUN, 0), 0);
    cr_assert_eq(guest->run->exit_reason, KVM_EXIT_IO, "the kick itself must not exit: %u",
                 guest->run->exit_reason);
    uint32_t head, length;
    cr_assert(driver_used(&guest->driver, 0, &head, &length));
    cr_assert_str_eq((char *)ram + DATA, "by-kvm");
}

/* Whether the interrupt waits in the local APIC; waits up to 2 s for it where it is @expected. */
static bool interrupt_requested(struct guest *guest, bool expected)
{
    struct kvm_lapic_state lapic;
    for (unsigned tries = 0; tries < (expected ? 200 : 1); tries++) {
        cr_assert_eq(ioctl(guest->vcpu_fd, KVM_GET_LAPIC, &lapic), 0);
        if (lapic.regs[IRR + VECTOR / 32 * 16 + VECTOR % 32 / 8] & (1 << VECTOR % 8))
            return true;
        if (expected)
            (void)poll(NULL, 0, 10);
    }
    return false;
}

static void acknowledge_interrupt(struct guest *guest)
{
    struct kvm_lapic_state lapic;
    cr_assert_eq(ioctl(guest->vcpu_fd, KVM_GET_LAPIC, &lapic), 0);
    memset(lapic.regs + IRR, 0, 0x80);
    cr_assert_eq(ioctl(guest->vcpu_fd, KVM_SET_LAPIC, &lapic), 0);
}

Test(virtio_kvm, a_kick_costs_no_exit_and_its_interrupt_arrives)
{
    struct guest *guest = guest_new();
    cr_assert_not(interrupt_requested(guest, false));
    request_by_vcpu(guest);
    cr_assert(interrupt_requested(guest, true));
    guest_free(guest);
}

Test(virtio_kvm, a_masked_interrupt_arrives_on_unmask)
{
    struct guest *guest = guest_new();
    driver_write(&guest->driver, TABLE + 16 + 12, 1, 4);
    request_by_vcpu(guest);
    for (unsigned tries = 0; tries < 200 && driver_read(&guest->driver, PENDING, 4) == 0; tries++)
        (void)poll(NULL, 0, 10);
    cr_assert_eq(driver_read(&guest->driver, PENDING, 4), 2);
    cr_assert_not(interrupt_requested(guest, false));
    driver_write(&guest->driver, TABLE + 16 + 12, 0, 4);
    cr_assert(interrupt_requested(guest, true));
    guest_free(guest);
}

Test(virtio_kvm, kicks_follow_a_moved_bar)
{
    struct guest *guest = guest_new();
    request_by_vcpu(guest);
    cr_assert(interrupt_requested(guest, true));
    acknowledge_interrupt(guest);
    guest->driver.bar += 0x300000;
    config_set(&guest->machine, 1, 0x10, (uint32_t)guest->driver.bar, 4);
    request_by_vcpu(guest);
    cr_assert(interrupt_requested(guest, true));
    guest_free(guest);
}

#include "node-agent/vmm/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "node-agent/vmm/boot/acpi.h"
#include "node-agent/vmm/cpuid.h"
#include "node-agent/vmm/device_thread.h"
#include "node-agent/vmm/kvm.h"
#include "node-agent/vmm/layout.h"
#include "node-agent/vmm/legacy/cmos.h"
#include "node-agent/vmm/machine_internal.h"
#include "node-agent/vmm/throttle.h"

#define MSR_MTRR_DEF_TYPE 0x2ffu
#define MTRR_ENABLE_WB    0x806ull /* enabled, everything is write-back */
#define MSR_MISC_ENABLE   0x1a0u
#define MISC_FAST_STRINGS 1ull

/* ---- KVM's side ---- */

static int create_vm(struct machine *machine, struct error *err)
{
    machine->vm_fd = ioctl(machine->config.kvm_fd, KVM_CREATE_VM, 0);
    if (machine->vm_fd < 0)
        return error_errno(err, errno, "KVM_CREATE_VM");
    uint64_t identity_map = LAYOUT_IDENTITY_MAP;
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    if (ioctl(machine->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0)
        return error_errno(err, errno, "KVM_SET_IDENTITY_MAP_ADDR");
    if (ioctl(machine->vm_fd, KVM_SET_TSS_ADDR, LAYOUT_TSS) < 0)
        return error_errno(err, errno, "KVM_SET_TSS_ADDR");
    if (ioctl(machine->vm_fd, KVM_CREATE_IRQCHIP, 0) < 0)
        return error_errno(err, errno, "KVM_CREATE_IRQCHIP");
    if (ioctl(machine->vm_fd, KVM_CREATE_PIT2, &pit) < 0)
        return error_errno(err, errno, "KVM_CREATE_PIT2");
    return 0;
}

/* Switches on what helps and is not everywhere. */
static void enable_capabilities(struct machine *machine)
{
    struct kvm_enable_cap no_pmu = {.cap = KVM_CAP_PMU_CAPABILITY, .args = {KVM_PMU_CAP_DISABLE}};
    if (kvm_capability(machine->vm_fd, KVM_CAP_PMU_CAPABILITY) & KVM_PMU_CAP_DISABLE)
        (void)ioctl(machine->vm_fd, KVM_ENABLE_CAP, &no_pmu);
    int manual = kvm_capability(machine->vm_fd, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2);
    struct kvm_enable_cap protect = {.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
                                     .args = {(unsigned)manual}};
    machine->manual_protect = manual > 0 && ioctl(machine->vm_fd, KVM_ENABLE_CAP, &protect) == 0;
}

int machine_set_slots(struct machine *machine, bool log, struct error *err)
{
    const struct guest_memory *memory = &machine->memory;
    uint64_t low = guest_memory_low_size(memory);
    uint64_t high = guest_memory_high_size(memory);
    struct kvm_userspace_memory_region slots[2] = {
        {.slot = 0, .guest_phys_addr = 0, .memory_size = low},
        {.slot = 1, .guest_phys_addr = LAYOUT_HIGH_RAM_START, .memory_size = high},
    };
    slots[0].userspace_addr = (uintptr_t)memory->base;
    slots[1].userspace_addr = (uintptr_t)(memory->base + low);
    for (unsigned i = 0; i < (high > 0 ? 2u : 1u); i++) {
        slots[i].flags = log ? KVM_MEM_LOG_DIRTY_PAGES : 0;
        if (ioctl(machine->vm_fd, KVM_SET_USER_MEMORY_REGION, &slots[i]) < 0)
            return error_errno(err, errno, "KVM_SET_USER_MEMORY_REGION %u", i);
    }
    return 0;
}

static int prepare_cpuid(struct machine *machine, struct error *err)
{
    machine->cpuid = cpuid_supported(machine->config.kvm_fd, err);
    if (!machine->cpuid)
        return -1;
    if (machine->config.baseline &&
        cpuid_apply_baseline(machine->cpuid, machine->config.baseline, err) < 0)
        return -1;
    cpuid_set_machine(machine->cpuid,
                      kvm_capability(machine->vm_fd, KVM_CAP_TSC_DEADLINE_TIMER) > 0);
    return 0;
}

/* What firmware would have set. KVM that knows one of them not at all is no reason to stop. */
static void set_initial_msrs(int vcpu_fd)
{
    (void)vcpu_state_set_msr(vcpu_fd, MSR_MTRR_DEF_TYPE, MTRR_ENABLE_WB);
    (void)vcpu_state_set_msr(vcpu_fd, MSR_MISC_ENABLE, MISC_FAST_STRINGS);
}

static int prepare_vcpus(struct machine *machine, struct error *err)
{
    unsigned count = vcpus_count(machine->vcpus);
    for (unsigned i = 0; i < count; i++) {
        int fd = vcpus_fd(machine->vcpus, i);
        machine->shown[i] = cpuid_copy(machine->cpuid, err);
        if (!machine->shown[i])
            return -1;
        cpuid_set_topology(machine->shown[i], i, count);
        if (ioctl(fd, KVM_SET_CPUID2, machine->shown[i]) < 0)
            return error_errno(err, errno, "KVM_SET_CPUID2");
        set_initial_msrs(fd);
    }
    return 0;
}

/* ---- how the guest ends ---- */

/* From vCPU threads. The first end counts: a guest that is off can't also crash. */
static void note_end(void *context, enum guest_end end, const char *text)
{
    struct machine *machine = context;
    (void)pthread_mutex_lock(&machine->end_lock);
    bool first = machine->end == GUEST_RUNS;
    if (first) {
        machine->end = end;
        (void)snprintf(machine->end_text, sizeof machine->end_text, "%s", text);
    }
    (void)pthread_mutex_unlock(&machine->end_lock);
    if (!first)
        return;
    vcpus_stop_soon(machine->vcpus);
    (void)!write(machine->end_fd, &(uint64_t){1}, sizeof(uint64_t));
}

static void on_end(void *context, int fd, uint32_t events)
{
    (void)events;
    struct machine *machine = context;
    uint64_t count = 0;
    if (read(fd, &count, sizeof count) < 0)
        return;
    if (machine_ended(machine))
        machine->events.ended(machine->events.context, machine->end, machine->end_text);
}

bool machine_ended(struct machine *machine)
{
    (void)pthread_mutex_lock(&machine->end_lock);
    bool ended = machine->end != GUEST_RUNS;
    (void)pthread_mutex_unlock(&machine->end_lock);
    return ended;
}

static int watch_end(struct machine *machine, struct error *err)
{
    machine->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (machine->end_fd < 0)
        return error_errno(err, errno, "eventfd");
    machine->end_source =
        loop_add_fd(machine->loop, machine->end_fd, EPOLLIN, on_end, machine, err);
    return machine->end_source ? 0 : -1;
}

/* ---- devices ---- */

static int add_board(struct machine *machine, struct error *err)
{
    const struct uart_events uart_events = {.output = machine->events.output,
                                            .room = machine->events.room,
                                            .context = machine->events.context};
    const struct power_events power_events = {.ended = note_end, .context = machine};
    struct device *board = machine->board;
    machine->uart = uart_new(machine->ports, machine->irqs, &uart_events, &board[0], err);
    if (!machine->uart)
        return -1;
    machine->board_count = 1;
    if (cmos_new(machine->ports, &board[1], err) < 0)
        return -1;
    machine->board_count = 2;
    machine->power = power_new(machine->ports, machine->irqs, &power_events, &board[2], err);
    if (!machine->power)
        return -1;
    machine->board_count = 3;
    return 0;
}

bool machine_device(const struct machine *machine, unsigned index, const struct device **device)
{
    if (index < machine->board_count) {
        *device = &machine->board[index];
        return true;
    }
    const struct device *on_bus = NULL;
    unsigned count = machine->pci ? pci_bus_devices(machine->pci, &on_bus) : 0;
    index -= machine->board_count;
    if (index < count)
        *device = &on_bus[index];
    return index < count;
}

/* Duplicates @fd for a device that will close it. */
static int duplicate(int fd, struct error *err)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return copy >= 0 ? copy : error_errno(err, errno, "cannot duplicate a descriptor");
}

static int add_disks(struct machine *machine, struct error *err)
{
    for (unsigned i = 0; i < machine->config.disk_count; i++) {
        const struct machine_disk *disk = &machine->config.disks[i];
        char serial[16];
        (void)snprintf(serial, sizeof serial, "disk-%u", i);
        int fd = duplicate(disk->fd, err);
        if (fd < 0)
            return -1;
        machine->blks[i] = virtio_blk_new(machine->pci, fd, disk->read_only, serial, err);
        if (!machine->blks[i])
            return error_wrap(err, "disk %u", i);
    }
    return 0;
}

static int add_net(struct machine *machine, struct error *err)
{
    int fd = duplicate(machine->config.tap_fd, err);
    if (fd < 0)
        return -1;
    machine->net = virtio_net_new(machine->pci, device_thread_loop(machine->device_thread), fd,
                                  machine->config.mac, err);
    return machine->net ? 0 : error_wrap(err, "--tap");
}

static int add_balloon(struct machine *machine, struct error *err)
{
    machine->balloon =
        virtio_balloon_new(machine->pci, device_thread_loop(machine->device_thread), err);
    return machine->balloon ? 0 : -1;
}

/* The order gives the slots, so it is the same on every host. */
static int add_pci(struct machine *machine, struct error *err)
{
    const struct pci_host host = {.memory = &machine->memory,
                                  .ports = machine->ports,
                                  .mmio = machine->mmio,
                                  .irqs = machine->irqs,
                                  .vm_fd = machine->vm_fd};
    machine->pci = pci_bus_new(&host, err);
    machine->device_thread = machine->pci ? device_thread_new(err) : NULL;
    if (!machine->device_thread || add_disks(machine, err) < 0)
        return -1;
    if (machine->config.tap_fd >= 0 && add_net(machine, err) < 0)
        return -1;
    if (machine->config.rng &&
        virtio_rng_new(machine->pci, device_thread_loop(machine->device_thread), err) < 0)
        return -1;
    if (machine->config.balloon && add_balloon(machine, err) < 0)
        return -1;
    return device_thread_start(machine->device_thread, err);
}

/* ---- life ---- */

static int build(struct machine *machine, struct error *err)
{
    if (create_vm(machine, err) < 0)
        return -1;
    enable_capabilities(machine);
    if (guest_memory_create(&machine->memory, machine->config.memory_bytes,
                            machine->config.huge_pages, err) < 0 ||
        machine_set_slots(machine, false, err) < 0)
        return -1;
    machine->irqs = irq_chip_new(machine->vm_fd, err);
    machine->ports = machine->irqs ? bus_new(err) : NULL;
    machine->mmio = machine->ports ? bus_new(err) : NULL;
    if (!machine->mmio)
        return -1;
    if (watch_end(machine, err) < 0 || add_board(machine, err) < 0 || add_pci(machine, err) < 0 ||
        prepare_cpuid(machine, err) < 0 ||
        vcpu_state_format_init(&machine->vcpu_format, machine->config.kvm_fd, machine->vm_fd, err) <
            0)
        return -1;
    const struct vcpu_host host = {.kvm_fd = machine->config.kvm_fd,
                                   .vm_fd = machine->vm_fd,
                                   .ports = machine->ports,
                                   .mmio = machine->mmio,
                                   .ended = note_end,
                                   .context = machine};
    machine->vcpus = vcpus_new(&host, machine->config.cpus, err);
    machine->throttle = machine->vcpus ? throttle_new(machine->vcpus, err) : NULL;
    return machine->throttle ? prepare_vcpus(machine, err) : -1;
}

struct machine *machine_new(const struct machine_config *config,
                            const struct machine_events *events, struct loop *loop,
                            struct error *err)
{
    struct machine *machine = calloc(1, sizeof *machine);
    if (!machine) {
        (void)error_errno(err, ENOMEM, "machine");
        return NULL;
    }
    machine->config = *config;
    machine->events = *events;
    machine->loop = loop;
    machine->vm_fd = -1;
    machine->end_fd = -1;
    machine->memory.pagemap_fd = -1;
    (void)pthread_mutex_init(&machine->end_lock, NULL);
    if (build(machine, err) < 0) {
        machine_free(machine);
        return NULL;
    }
    return machine;
}

void machine_free(struct machine *machine)
{
    if (!machine)
        return;
    /* Threads first, then what they use. */
    throttle_free(machine->throttle);
    vcpus_free(machine->vcpus);
    device_thread_stop(machine->device_thread);
    pci_bus_free(machine->pci);
    device_thread_free(machine->device_thread);
    for (unsigned i = 0; i < machine->board_count; i++)
        machine->board[i].ops->free(machine->board[i].self);
    loop_remove(machine->end_source);
    close_fd(&machine->end_fd);
    bus_free(machine->mmio);
    bus_free(machine->ports);
    irq_chip_free(machine->irqs);
    close_fd(&machine->vm_fd);
    guest_memory_destroy(&machine->memory);
    vcpu_state_format_free(&machine->vcpu_format);
    for (unsigned i = 0; i < LAYOUT_VCPUS_MAX; i++)
        free(machine->shown[i]);
    free(machine->cpuid);
    (void)pthread_mutex_destroy(&machine->end_lock);
    free(machine);
}

int machine_boot(struct machine *machine, struct error *err)
{
    struct boot_entry entry;
    int64_t begun_ms = clock_monotonic_ms();
    if (boot_load(&machine->memory, &machine->config.boot, &entry, err) < 0 ||
        acpi_write(&machine->memory, machine->config.cpus, err) < 0)
        return -1;
    log_info("kernel loaded in %lld ms, entered %s", (long long)(clock_monotonic_ms() - begun_ms),
             entry.protocol == BOOT_PVH ? "by PVH" : "at its 64-bit entry");
    return boot_set_registers(vcpus_fd(machine->vcpus, 0), &entry, err);
}

int machine_resume(struct machine *machine, bool moved, struct error *err)
{
    const struct device *device = NULL;
    if (machine->running)
        return 0;
    if (machine_ended(machine))
        return error_set(err, ERROR_CONFLICT, "the guest has ended and can't run on");
    for (unsigned i = 0; machine_device(machine, i, &device); i++)
        if (device->ops->resume)
            device->ops->resume(device->self, moved);
    /* Tells the guest's watchdogs that it was stopped. A guest without kvmclock has none to tell.
     */
    for (unsigned i = 0; i < vcpus_count(machine->vcpus); i++)
        (void)ioctl(vcpus_fd(machine->vcpus, i), KVM_KVMCLOCK_CTRL, 0);
    machine->running = true;
    vcpus_resume(machine->vcpus);
    return 0;
}

void machine_settle(const struct machine *machine)
{
    const struct device *device = NULL;
    for (unsigned i = 0; machine_device(machine, i, &device); i++)
        if (device->ops->settle)
            device->ops->settle(device->self);
}

int machine_pause(struct machine *machine, struct error *err)
{
    const struct device *device = NULL;
    vcpus_pause(machine->vcpus);
    if (!machine->running)
        return 0;
    machine->running = false;
    for (unsigned i = 0; machine_device(machine, i, &device); i++)
        if (device->ops->pause && device->ops->pause(device->self, err) < 0)
            return error_wrap(err, "cannot quiet %s", device->name);
    return 0;
}

void machine_hold(struct machine *machine, bool held)
{
    vcpus_hold(machine->vcpus, held);
}

void machine_press_power_button(struct machine *machine)
{
    power_press_button(machine->power);
}

size_t machine_console_input(struct machine *machine, const uint8_t *data, size_t size)
{
    return uart_receive(machine->uart, data, size);
}

int machine_set_balloon(struct machine *machine, uint64_t keep_mib, struct error *err)
{
    if (!machine->balloon)
        return error_set(err, ERROR_NOT_FOUND, "this VM has no balloon");
    virtio_balloon_set(machine->balloon, keep_mib);
    return 0;
}

uint64_t machine_balloon_kept_mib(const struct machine *machine)
{
    return machine->balloon ? virtio_balloon_kept(machine->balloon) : 0;
}

void machine_usage(const struct machine *machine, struct machine_usage *usage)
{
    *usage = (struct machine_usage){0};
    usage->memory_bytes = guest_memory_resident(&machine->memory);
    for (unsigned i = 0; i < machine->config.disk_count; i++) {
        struct device_counters counters = {0};
        virtio_blk_counters(machine->blks[i], &counters);
        usage->disk_read_bytes += counters.in_bytes;
        usage->disk_write_bytes += counters.out_bytes;
    }
    if (machine->net) {
        struct device_counters counters = {0};
        virtio_net_counters(machine->net, &counters);
        usage->net_rx_bytes = counters.in_bytes;
        usage->net_tx_bytes = counters.out_bytes;
    }
}

struct guest_memory *machine_memory(struct machine *machine)
{
    return &machine->memory;
}

const struct vcpus *machine_vcpus(const struct machine *machine)
{
    return machine->vcpus;
}

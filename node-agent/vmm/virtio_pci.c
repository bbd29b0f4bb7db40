#include "node-agent/vmm/virtio_pci.h"

#include <errno.h>
#include <linux/kvm.h>
#include <linux/pci_regs.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "common/log.h"
#include "node-agent/vmm/virtio_pci_private.h"

#define BAR_SIZE       0x8000u
#define REGION_SIZE    0x1000u
#define REGION_COMMON  0x0000u
#define REGION_ISR     0x1000u
#define REGION_DEVICE  0x2000u
#define REGION_NOTIFY  0x3000u
#define REGION_TABLE   0x4000u
#define REGION_PENDING 0x5000u
#define NOTIFY_STRIDE  4u

static const struct pci_function_ops function_ops;
static const struct device_ops device_ops;

static uint32_t class_of(uint16_t type)
{
    switch (type) {
    case VIRTIO_ID_NET:
        return 0x020000;
    case VIRTIO_ID_BLOCK:
        return 0x018000; /* other mass storage */
    default:
        return 0x00ff00; /* fits no class */
    }
}

/* ---- capabilities ---- */

static uint8_t add_region(struct pci_config *config, uint8_t type, uint32_t offset, uint32_t size)
{
    struct virtio_pci_cap cap = {
        .cap_len = sizeof cap, .cfg_type = type, .bar = 0, .offset = offset, .length = size};
    return pci_config_add_capability(config, PCI_CAP_ID_VNDR, &cap.cap_len,
                                     sizeof cap - PCI_CAP_FLAGS);
}

static void add_notify_region(struct pci_config *config)
{
    struct virtio_pci_notify_cap cap = {
        .cap = {.cap_len = sizeof cap,
                .cfg_type = VIRTIO_PCI_CAP_NOTIFY_CFG,
                .offset = REGION_NOTIFY,
                .length = REGION_SIZE},
        .notify_off_multiplier = NOTIFY_STRIDE,
    };
    (void)pci_config_add_capability(config, PCI_CAP_ID_VNDR, &cap.cap.cap_len,
                                    sizeof cap - PCI_CAP_FLAGS);
}

/* The window through configuration space, for those who cannot map the BAR yet. */
static uint8_t add_window(struct pci_config *config)
{
    struct virtio_pci_cfg_cap cap = {
        .cap = {.cap_len = sizeof cap, .cfg_type = VIRTIO_PCI_CAP_PCI_CFG}};
    uint8_t at = pci_config_add_capability(config, PCI_CAP_ID_VNDR, &cap.cap.cap_len,
                                           sizeof cap - PCI_CAP_FLAGS);
    config->writable[at + VIRTIO_PCI_CAP_BAR] = 0xff;
    memset(config->writable + at + VIRTIO_PCI_CAP_OFFSET, 0xff, 4);
    memset(config->writable + at + VIRTIO_PCI_CAP_LENGTH, 0xff, 4);
    memset(config->writable + at + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data), 0xff, 4);
    return at;
}

static uint8_t add_msix(struct pci_config *config, unsigned vectors)
{
    struct {
        uint16_t control;
        uint32_t table;
        uint32_t pending;
    } __attribute__((packed))
    cap = {.control = (uint16_t)(vectors - 1), .table = REGION_TABLE, .pending = REGION_PENDING};
    uint8_t at = pci_config_add_capability(config, PCI_CAP_ID_MSIX, &cap, sizeof cap);
    pci_config_allow16(config, (uint8_t)(at + PCI_MSIX_FLAGS),
                       PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    return at;
}

static void build_config(struct virtio_pci *pci)
{
    struct pci_config *config = &pci->function.config;
    const uint16_t type = pci->device->ops->type;
    const struct pci_identity identity = {
        .vendor = 0x1af4,
        .device = (uint16_t)(0x1040 + type),
        .revision = 1,
        .class_code = class_of(type),
        .subsystem_vendor = 0x1af4,
        .subsystem = (uint16_t)(0x1040 + type),
    };
    pci_config_init(config, &identity);
    pci_config_set_bar(config, 0, BAR_SIZE);
    (void)add_region(config, VIRTIO_PCI_CAP_COMMON_CFG, REGION_COMMON, REGION_SIZE);
    (void)add_region(config, VIRTIO_PCI_CAP_ISR_CFG, REGION_ISR, REGION_SIZE);
    if (pci->device->config_size > 0)
        (void)add_region(config, VIRTIO_PCI_CAP_DEVICE_CFG, REGION_DEVICE, REGION_SIZE);
    add_notify_region(config);
    pci->window_capability = add_window(config);
    pci->msix_capability = add_msix(config, pci->msix.count);
}

/* ---- the BAR ---- */

static void isr_read(struct virtio_pci *pci, void *data, unsigned length)
{
    memset(data, 0, length);
    (void)pthread_mutex_lock(&pci->device->lock);
    *(uint8_t *)data = pci->device->isr;
    pci->device->isr = 0;
    (void)pthread_mutex_unlock(&pci->device->lock);
}

static void bar_read_once(void *self, uint32_t at, void *data, unsigned length)
{
    struct virtio_pci *pci = self;
    uint32_t offset = at % REGION_SIZE;
    switch (at - offset) {
    case REGION_COMMON:
        virtio_pci_common_read(pci, offset, data, length);
        break;
    case REGION_ISR:
        isr_read(pci, data, length);
        break;
    case REGION_DEVICE:
        virtio_config_read(pci->device, offset, data, length);
        break;
    case REGION_TABLE:
        pci_msix_table_read(&pci->msix, offset, data, length);
        break;
    case REGION_PENDING:
        pci_msix_pending_read(&pci->msix, offset, data, length);
        break;
    default:
        memset(data, 0, length);
    }
}

static void bar_write_once(void *self, uint32_t at, const void *data, unsigned length)
{
    struct virtio_pci *pci = self;
    uint32_t offset = at % REGION_SIZE;
    switch (at - offset) {
    case REGION_COMMON:
        virtio_pci_common_write(pci, offset, data, length);
        break;
    case REGION_DEVICE:
        virtio_config_write(pci->device, offset, data, length);
        break;
    case REGION_NOTIFY:
        /* Only without ioeventfds, or through the window in configuration space. */
        if (offset / NOTIFY_STRIDE < pci->device->queue_count)
            virtio_kick(pci->device, offset / NOTIFY_STRIDE);
        break;
    case REGION_TABLE:
        pci_msix_table_write(&pci->msix, offset, data, length);
        break;
    default:
        break;
    }
}

/* 64-bit registers of the common configuration are pairs of 32-bit ones. */
static bool is_pair(uint64_t at, unsigned length)
{
    return length == 8 && at < REGION_COMMON + REGION_SIZE;
}

static void bar_read(void *self, uint64_t at, void *data, unsigned length)
{
    if (is_pair(at, length)) {
        bar_read_once(self, (uint32_t)at, data, 4);
        bar_read_once(self, (uint32_t)at + 4, (uint8_t *)data + 4, 4);
    } else {
        bar_read_once(self, (uint32_t)at, data, length);
    }
}

static void bar_write(void *self, uint64_t at, const void *data, unsigned length)
{
    if (is_pair(at, length)) {
        bar_write_once(self, (uint32_t)at, data, 4);
        bar_write_once(self, (uint32_t)at + 4, (const uint8_t *)data + 4, 4);
    } else {
        bar_write_once(self, (uint32_t)at, data, length);
    }
}

/* ---- what the bus tells us ---- */

static void set_ioeventfds(const struct virtio_pci *pci, uint64_t gpa, uint32_t flags)
{
    int vm_fd = pci_bus_host(pci->bus)->vm_fd;
    for (unsigned i = 0; vm_fd >= 0 && i < pci->device->queue_count; i++) {
        /* Length 0 matches any width, and spares the kernel decoding the instruction. */
        struct kvm_ioeventfd ioeventfd = {
            .addr = gpa + (uint64_t)i * NOTIFY_STRIDE,
            .fd = pci->device->queues[i].kick_fd,
            .flags = flags,
        };
        /* Without one a kick still arrives, by an exit and bar_write(). */
        if (ioctl(vm_fd, KVM_IOEVENTFD, &ioeventfd) < 0)
            log_warn("%s: KVM_IOEVENTFD: %s", pci->device->ops->name, strerror(errno));
    }
}

static void moved(void *self, uint64_t gpa)
{
    struct virtio_pci *pci = self;
    if (pci->notify_gpa)
        set_ioeventfds(pci, pci->notify_gpa, KVM_IOEVENTFD_FLAG_DEASSIGN);
    pci->notify_gpa = gpa ? gpa + REGION_NOTIFY : 0;
    if (pci->notify_gpa)
        set_ioeventfds(pci, pci->notify_gpa, 0);
}

static bool touches(uint32_t offset, unsigned length, uint32_t start, uint32_t size)
{
    return offset < start + size && start < offset + length;
}

/* The window's registers say which 1, 2 or 4 bytes of BAR 0; false where they say nonsense. */
static bool window(const struct virtio_pci *pci, uint32_t *at, unsigned *length, uint8_t *data)
{
    const struct pci_config *config = &pci->function.config;
    uint8_t cap = pci->window_capability;
    *at = pci_config_get32(config, (uint8_t)(cap + VIRTIO_PCI_CAP_OFFSET));
    *length = pci_config_get32(config, (uint8_t)(cap + VIRTIO_PCI_CAP_LENGTH));
    *data = (uint8_t)(cap + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data));
    return config->bytes[cap + VIRTIO_PCI_CAP_BAR] == 0 &&
           (*length == 1 || *length == 2 || *length == 4) && *at < BAR_SIZE && *at % *length == 0;
}

static void config_reading(void *self, uint32_t offset, unsigned length)
{
    struct virtio_pci *pci = self;
    uint32_t at;
    unsigned size;
    uint8_t data;
    if (window(pci, &at, &size, &data) && touches(offset, length, data, 4))
        bar_read(pci, at, pci->function.config.bytes + data, size);
}

static void config_written(void *self, uint32_t offset, unsigned length)
{
    struct virtio_pci *pci = self;
    uint8_t control = (uint8_t)(pci->msix_capability + PCI_MSIX_FLAGS);
    if (touches(offset, length, control, 2))
        pci_msix_set_control(&pci->msix, pci_config_get16(&pci->function.config, control));
    uint32_t at;
    unsigned size;
    uint8_t data;
    if (window(pci, &at, &size, &data) && touches(offset, length, data, 4))
        bar_write(pci, at, pci->function.config.bytes + data, size);
}

static const struct pci_function_ops function_ops = {
    .bar = {.read = bar_read, .write = bar_write},
    .moved = moved,
    .config_reading = config_reading,
    .config_written = config_written,
};

/* ---- what the machine asks ---- */

static void pci_settle(void *self)
{
    struct virtio_pci *pci = self;
    virtio_settle(pci->device);
}

static int pci_pause(void *self, struct error *err)
{
    struct virtio_pci *pci = self;
    return virtio_pause(pci->device, err);
}

static void pci_resume(void *self, bool has_moved)
{
    struct virtio_pci *pci = self;
    virtio_resume(pci->device, has_moved);
}

static void pci_free(void *self)
{
    struct virtio_pci *pci = self;
    moved(pci, 0);
    pci->device->ops->free(pci->device);
    pci_msix_destroy(&pci->msix);
    free(pci);
}

static const struct device_ops device_ops = {
    .settle = pci_settle,
    .pause = pci_pause,
    .save = virtio_pci_save,
    .load = virtio_pci_load,
    .resume = pci_resume,
    .free = pci_free,
};

static void signal_vector(void *transport, uint16_t vector)
{
    const struct virtio_pci *pci = transport;
    pci_msix_signal(&pci->msix, vector);
}

int virtio_pci_add(struct pci_bus *bus, struct virtio_device *device, struct error *err)
{
    struct virtio_pci *pci = calloc(1, sizeof *pci);
    if (!pci)
        return error_errno(err, ENOMEM, "%s", device->ops->name);
    pci->bus = bus;
    pci->device = device;
    pci->function.ops = &function_ops;
    if (pci_msix_init(&pci->msix, pci_bus_host(bus)->irqs, device->queue_count + 1, err) < 0) {
        free(pci);
        return error_wrap(err, "%s", device->ops->name);
    }
    build_config(pci);
    device->signal = signal_vector;
    device->transport = pci;
    if (pci_bus_add(bus, &pci->function, device->ops->name, &device_ops, pci, err) < 0) {
        pci_msix_destroy(&pci->msix);
        free(pci);
        return -1;
    }
    return 0;
}

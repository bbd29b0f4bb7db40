#include "node-agent/vmm/pci.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "node-agent/vmm/layout.h"
#include "node-agent/vmm/pci_function.h"
#include "proto/devices.pb-c.h"

#define PCI_SLOTS      32u
#define PORT_ADDRESS   0xcf8u
#define PORT_DATA      0xcfcu
#define ADDRESS_ENABLE 0x80000000u
#define BRIDGE_VERSION 1u

struct pci_bus {
    struct pci_host host;
    pthread_mutex_t lock; /* guards all below */
    uint32_t address;     /* the register at 0xcf8 */
    uint64_t next_bar;    /* first free address of the window */
    unsigned count;
    struct pci_function *functions[PCI_SLOTS];
    struct device devices[PCI_SLOTS];
    struct pci_function bridge;
};

static const struct bus_ops ecam_ops;
static const struct bus_ops address_ops;
static const struct bus_ops data_ops;
static const struct pci_function_ops bridge_ops;
static const struct device_ops bridge_device_ops;

/* The generic PCIe host bridge of QEMU's vendor id: guests need no driver for it. */
static const struct pci_identity bridge_identity = {
    .vendor = 0x1b36,
    .device = 0x0008,
    .class_code = 0x060000,
    .subsystem_vendor = 0x1af4,
    .subsystem = 0x1100,
};

struct pci_bus *pci_bus_new(const struct pci_host *host, struct error *err)
{
    struct pci_bus *bus = calloc(1, sizeof *bus);
    if (!bus) {
        (void)error_errno(err, ENOMEM, "PCI bus");
        return NULL;
    }
    bus->host = *host;
    bus->next_bar = LAYOUT_PCI_MMIO_START;
    (void)pthread_mutex_init(&bus->lock, NULL);
    pci_config_init(&bus->bridge.config, &bridge_identity);
    bus->bridge.ops = &bridge_ops;
    if (pci_bus_add(bus, &bus->bridge, "host-bridge", &bridge_device_ops, bus, err) < 0 ||
        bus_add(host->mmio, LAYOUT_ECAM_START, LAYOUT_ECAM_SIZE, &ecam_ops, bus, err) < 0 ||
        bus_add(host->ports, PORT_ADDRESS, 4, &address_ops, bus, err) < 0 ||
        bus_add(host->ports, PORT_DATA, 4, &data_ops, bus, err) < 0) {
        (void)error_wrap(err, "PCI bus");
        pci_bus_free(bus);
        return NULL;
    }
    return bus;
}

void pci_bus_free(struct pci_bus *bus)
{
    if (!bus)
        return;
    bus_remove(bus->host.mmio, LAYOUT_ECAM_START);
    bus_remove(bus->host.ports, PORT_ADDRESS);
    bus_remove(bus->host.ports, PORT_DATA);
    for (unsigned slot = 0; slot < bus->count; slot++) {
        struct pci_function *function = bus->functions[slot];
        if (function->mapped) {
            bus_remove(bus->host.mmio, function->mapped);
            function->mapped = 0;
        }
        bus->devices[slot].ops->free(bus->devices[slot].self);
    }
    (void)pthread_mutex_destroy(&bus->lock);
    free(bus);
}

const struct pci_host *pci_bus_host(const struct pci_bus *bus)
{
    return &bus->host;
}

unsigned pci_bus_devices(const struct pci_bus *bus, const struct device **devices)
{
    *devices = bus->devices;
    return bus->count;
}

/* ---- BARs ---- */

static int place_bar(struct pci_bus *bus, struct pci_function *function, struct error *err)
{
    uint64_t size = function->config.bar_size[0];
    if (size == 0)
        return 0;
    uint64_t start = (bus->next_bar + size - 1) & ~(size - 1);
    if (start + size > LAYOUT_PCI_MMIO_START + LAYOUT_PCI_MMIO_SIZE)
        return error_set(err, ERROR_NO_CAPACITY, "the PCI window is full");
    bus->next_bar = start + size;
    pci_config_set32(&function->config, PCI_BASE_ADDRESS_0, (uint32_t)start);
    return 0;
}

/* Where the guest wants BAR 0; 0 where it decodes nothing or points outside the PCI window, where
 * nothing of ours may be laid over. */
static uint64_t wanted_place(const struct pci_config *config)
{
    uint64_t start = pci_config_get32(config, PCI_BASE_ADDRESS_0) & PCI_BASE_ADDRESS_MEM_MASK;
    uint64_t size = config->bar_size[0];
    bool decodes = pci_config_get16(config, PCI_COMMAND) & PCI_COMMAND_MEMORY;
    if (size == 0 || !decodes || start < LAYOUT_PCI_MMIO_START ||
        start + size > LAYOUT_PCI_MMIO_START + LAYOUT_PCI_MMIO_SIZE)
        return 0;
    return start;
}

static void unmap(struct pci_bus *bus, struct pci_function *function)
{
    bus_remove(bus->host.mmio, function->mapped);
    function->mapped = 0;
    if (function->ops->moved)
        function->ops->moved(function->self, 0);
}

static void map(struct pci_bus *bus, struct pci_function *function, uint64_t place)
{
    struct error err = ERROR_INIT;
    if (bus_add(bus->host.mmio, place, function->config.bar_size[0], &function->ops->bar,
                function->self, &err) < 0) {
        /* On top of another BAR; it is mapped once that one has gone. */
        log_debug("PCI BAR not mapped: %s", err.text);
        return;
    }
    function->mapped = place;
    if (function->ops->moved)
        function->ops->moved(function->self, place);
}

/* Brings the memory map in line with all BARs: first away with what left its place, then in. */
static void map_bars(struct pci_bus *bus)
{
    for (unsigned slot = 0; slot < bus->count; slot++) {
        struct pci_function *function = bus->functions[slot];
        if (function->mapped && function->mapped != wanted_place(&function->config))
            unmap(bus, function);
    }
    for (unsigned slot = 0; slot < bus->count; slot++) {
        struct pci_function *function = bus->functions[slot];
        uint64_t place = wanted_place(&function->config);
        if (!function->mapped && place)
            map(bus, function, place);
    }
}

int pci_bus_add(struct pci_bus *bus, struct pci_function *function, const char *type,
                const struct device_ops *device_ops, void *self, struct error *err)
{
    if (bus->count == PCI_SLOTS)
        return error_set(err, ERROR_NO_CAPACITY, "no PCI slot is left for a %s: %u at most", type,
                         PCI_SLOTS - 1);
    if (place_bar(bus, function, err) < 0)
        return error_wrap(err, "%s", type);
    unsigned slot = bus->count;
    struct device *device = &bus->devices[slot];
    function->self = self;
    device->ops = device_ops;
    device->self = self;
    (void)snprintf(device->name, sizeof device->name, "pci-%02u %s", slot, type);
    bus->functions[slot] = function;
    bus->count = slot + 1;
    return 0;
}

int pci_bus_load_config(struct pci_bus *bus, struct pci_function *function, const uint8_t *bytes,
                        size_t size, struct error *err)
{
    struct pci_config *config = &function->config;
    if (size != PCI_CONFIG_SIZE)
        return error_set(err, ERROR_FAILED, "PCI configuration of %zu bytes, not %u", size,
                         PCI_CONFIG_SIZE);
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++)
        if ((bytes[i] ^ config->bytes[i]) & ~config->writable[i])
            return error_set(err, ERROR_CONFLICT,
                             "PCI configuration differs at byte 0x%02x: another kind of device", i);
    (void)pthread_mutex_lock(&bus->lock);
    pci_config_write(config, 0, bytes, PCI_CONFIG_SIZE);
    map_bars(bus);
    (void)pthread_mutex_unlock(&bus->lock);
    return 0;
}

/* ---- configuration accesses: @slot.@offset, from either door ---- */

static void config_read(struct pci_bus *bus, unsigned slot, uint32_t offset, void *data,
                        unsigned length)
{
    memset(data, 0xff, length); /* nobody there */
    (void)pthread_mutex_lock(&bus->lock);
    if (slot < bus->count) {
        struct pci_function *function = bus->functions[slot];
        if (function->ops->config_reading)
            function->ops->config_reading(function->self, offset, length);
        pci_config_read(&function->config, offset, data, length);
    }
    (void)pthread_mutex_unlock(&bus->lock);
}

static void config_write(struct pci_bus *bus, unsigned slot, uint32_t offset, const void *data,
                         unsigned length)
{
    (void)pthread_mutex_lock(&bus->lock);
    if (slot < bus->count) {
        struct pci_function *function = bus->functions[slot];
        pci_config_write(&function->config, offset, data, length);
        if (offset < PCI_BASE_ADDRESS_0 + 4)
            map_bars(bus);
        if (function->ops->config_written)
            function->ops->config_written(function->self, offset, length);
    }
    (void)pthread_mutex_unlock(&bus->lock);
}

/* ECAM: bits 15..19 the slot, 12..14 the function, 0..11 the register. */
static void ecam_read(void *self, uint64_t offset, void *data, unsigned length)
{
    if ((offset >> 12) & 7)
        memset(data, 0xff, length);
    else
        config_read(self, (unsigned)(offset >> 15), (uint32_t)offset & 0xfff, data, length);
}

static void ecam_write(void *self, uint64_t offset, const void *data, unsigned length)
{
    if (((offset >> 12) & 7) == 0)
        config_write(self, (unsigned)(offset >> 15), (uint32_t)offset & 0xfff, data, length);
}

static const struct bus_ops ecam_ops = {.read = ecam_read, .write = ecam_write};

/* 0xcf8 is a register only to 4-byte accesses. */
static void address_read(void *self, uint64_t offset, void *data, unsigned length)
{
    struct pci_bus *bus = self;
    memset(data, 0xff, length);
    if (offset != 0 || length != 4)
        return;
    (void)pthread_mutex_lock(&bus->lock);
    memcpy(data, &bus->address, 4);
    (void)pthread_mutex_unlock(&bus->lock);
}

static void address_write(void *self, uint64_t offset, const void *data, unsigned length)
{
    struct pci_bus *bus = self;
    if (offset != 0 || length != 4)
        return;
    (void)pthread_mutex_lock(&bus->lock);
    memcpy(&bus->address, data, 4);
    (void)pthread_mutex_unlock(&bus->lock);
}

static const struct bus_ops address_ops = {.read = address_read, .write = address_write};

/* Splits the address register; false where it selects nothing on this bus. */
static bool selected(struct pci_bus *bus, unsigned *slot, uint32_t *offset)
{
    (void)pthread_mutex_lock(&bus->lock);
    uint32_t address = bus->address;
    (void)pthread_mutex_unlock(&bus->lock);
    *slot = (address >> 11) & 31;
    *offset = address & 0xfc;
    return (address & ADDRESS_ENABLE) && (address & 0x00ff0700) == 0;
}

static void data_read(void *self, uint64_t offset, void *data, unsigned length)
{
    unsigned slot;
    uint32_t base;
    if (selected(self, &slot, &base))
        config_read(self, slot, base + (uint32_t)offset, data, length);
    else
        memset(data, 0xff, length);
}

static void data_write(void *self, uint64_t offset, const void *data, unsigned length)
{
    unsigned slot;
    uint32_t base;
    if (selected(self, &slot, &base))
        config_write(self, slot, base + (uint32_t)offset, data, length);
}

static const struct bus_ops data_ops = {.read = data_read, .write = data_write};

/* ---- the host bridge, whose state is the bus's own ---- */

static int bridge_save(void *self, struct device_state *state, struct error *err)
{
    struct pci_bus *bus = self;
    Vmpool__Device__HostBridge message = VMPOOL__DEVICE__HOST_BRIDGE__INIT;
    (void)pthread_mutex_lock(&bus->lock);
    message.address = bus->address;
    message.config =
        (ProtobufCBinaryData){.len = PCI_CONFIG_SIZE, .data = bus->bridge.config.bytes};
    state->version = BRIDGE_VERSION;
    state->size = vmpool__device__host_bridge__get_packed_size(&message);
    state->data = malloc(state->size);
    if (state->data)
        (void)vmpool__device__host_bridge__pack(&message, state->data);
    (void)pthread_mutex_unlock(&bus->lock);
    return state->data ? 0 : error_errno(err, ENOMEM, "state of the PCI host bridge");
}

static int bridge_load(void *self, const struct device_state *state, struct error *err)
{
    struct pci_bus *bus = self;
    if (state->version != BRIDGE_VERSION)
        return error_set(err, ERROR_CONFLICT, "state format %u of the PCI host bridge, not %u",
                         state->version, BRIDGE_VERSION);
    Vmpool__Device__HostBridge *message =
        vmpool__device__host_bridge__unpack(NULL, state->size, state->data);
    if (!message)
        return error_set(err, ERROR_FAILED, "the state of the PCI host bridge is garbled");
    int status =
        pci_bus_load_config(bus, &bus->bridge, message->config.data, message->config.len, err);
    if (status == 0)
        bus->address = message->address;
    vmpool__device__host_bridge__free_unpacked(message, NULL);
    return status;
}

static int bridge_pause(void *self, struct error *err)
{
    (void)self;
    (void)err;
    return 0;
}

static void bridge_resume(void *self, bool moved)
{
    (void)self;
    (void)moved;
}

/* Lives in struct pci_bus. */
static void bridge_free(void *self)
{
    (void)self;
}

static const struct pci_function_ops bridge_ops = {0};
static const struct device_ops bridge_device_ops = {
    .pause = bridge_pause,
    .save = bridge_save,
    .load = bridge_load,
    .resume = bridge_resume,
    .free = bridge_free,
};

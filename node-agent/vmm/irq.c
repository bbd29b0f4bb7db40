#include "node-agent/vmm/irq.h"

#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "node-agent/vmm/layout.h"

#define ROUTES_MAX   256u
#define PIC_PINS     8u
#define IOAPIC_PINS  24u
#define FIXED_ROUTES (2 * PIC_PINS + IOAPIC_PINS)

struct irq_route {
    struct irq_chip *chip;
    unsigned gsi;
    int fd;
    bool attached; /* the kernel listens to fd and the route is in the table */
    struct irq_message message;
};

struct irq_chip {
    int vm_fd;
    pthread_mutex_t lock; /* guards the routes and the kernel's table */
    struct irq_route *routes[ROUTES_MAX];
};

struct irq_chip *irq_chip_new(int vm_fd, struct error *err)
{
    struct irq_chip *chip = calloc(1, sizeof *chip);
    if (!chip) {
        (void)error_errno(err, ENOMEM, "interrupt controller");
        return NULL;
    }
    chip->vm_fd = vm_fd;
    (void)pthread_mutex_init(&chip->lock, NULL);
    return chip;
}

void irq_chip_free(struct irq_chip *chip)
{
    if (!chip)
        return;
    (void)pthread_mutex_destroy(&chip->lock);
    free(chip);
}

int irq_set_line(struct irq_chip *chip, unsigned gsi, bool high, struct error *err)
{
    struct kvm_irq_level level = {.irq = gsi, .level = high};
    if (ioctl(chip->vm_fd, KVM_IRQ_LINE, &level) < 0)
        return error_errno(err, errno, "KVM_IRQ_LINE %u", gsi);
    return 0;
}

int irq_send_message(struct irq_chip *chip, struct irq_message message, struct error *err)
{
    struct kvm_msi msi = {
        .address_lo = (uint32_t)message.address,
        .address_hi = (uint32_t)(message.address >> 32),
        .data = message.data,
    };
    /* 0 means that no local APIC took it, which is the guest's affair. */
    if (ioctl(chip->vm_fd, KVM_SIGNAL_MSI, &msi) < 0)
        return error_errno(err, errno, "KVM_SIGNAL_MSI to 0x%llx",
                           (unsigned long long)message.address);
    return 0;
}

static struct kvm_irq_routing_entry pin_route(unsigned gsi, unsigned irqchip, unsigned pin)
{
    return (struct kvm_irq_routing_entry){
        .gsi = gsi,
        .type = KVM_IRQ_ROUTING_IRQCHIP,
        .u.irqchip = {.irqchip = irqchip, .pin = pin},
    };
}

/* KVM_SET_GSI_ROUTING replaces the whole table, so the pins KVM_CREATE_IRQCHIP had put there are
 * given again each time. */
static unsigned fill_pins(struct kvm_irq_routing_entry *entries)
{
    unsigned count = 0;
    for (unsigned pin = 0; pin < PIC_PINS; pin++) {
        entries[count++] = pin_route(pin, KVM_IRQCHIP_PIC_MASTER, pin);
        entries[count++] = pin_route(PIC_PINS + pin, KVM_IRQCHIP_PIC_SLAVE, pin);
    }
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        entries[count++] = pin_route(pin, KVM_IRQCHIP_IOAPIC, pin);
    return count;
}

/* The lock is held. Gives the kernel the table of all attached routes, and @extra's if not NULL. */
static int write_table(struct irq_chip *chip, const struct irq_route *extra, struct error *err)
{
    auto_free struct kvm_irq_routing *table = calloc(
        1, sizeof *table + (FIXED_ROUTES + ROUTES_MAX) * sizeof(struct kvm_irq_routing_entry));
    if (!table)
        return error_errno(err, ENOMEM, "interrupt routing table");
    table->nr = fill_pins(table->entries);
    for (unsigned i = 0; i < ROUTES_MAX; i++) {
        const struct irq_route *route = chip->routes[i];
        if (!route || (!route->attached && route != extra))
            continue;
        table->entries[table->nr++] = (struct kvm_irq_routing_entry){
            .gsi = route->gsi,
            .type = KVM_IRQ_ROUTING_MSI,
            .u.msi = {.address_lo = (uint32_t)route->message.address,
                      .address_hi = (uint32_t)(route->message.address >> 32),
                      .data = route->message.data},
        };
    }
    if (ioctl(chip->vm_fd, KVM_SET_GSI_ROUTING, table) < 0)
        return error_errno(err, errno, "KVM_SET_GSI_ROUTING");
    return 0;
}

static int set_irqfd(const struct irq_route *route, bool attach, struct error *err)
{
    struct kvm_irqfd irqfd = {
        .fd = (uint32_t)route->fd,
        .gsi = route->gsi,
        .flags = attach ? 0 : KVM_IRQFD_FLAG_DEASSIGN,
    };
    if (ioctl(route->chip->vm_fd, KVM_IRQFD, &irqfd) < 0)
        return error_errno(err, errno, "KVM_IRQFD for GSI %u", route->gsi);
    return 0;
}

int irq_chip_drain(struct irq_chip *chip, struct error *err)
{
    int status = 0;
    (void)pthread_mutex_lock(&chip->lock);
    for (unsigned i = 0; i < ROUTES_MAX && status == 0; i++) {
        struct irq_route *route = chip->routes[i];
        if (!route || !route->attached)
            continue;
        /* Detaching waits for an injection under way; there is no call that only waits. */
        status = set_irqfd(route, false, err);
        if (status == 0)
            status = set_irqfd(route, true, err);
    }
    (void)pthread_mutex_unlock(&chip->lock);
    return status;
}

struct irq_route *irq_route_new(struct irq_chip *chip, struct error *err)
{
    struct irq_route *route = calloc(1, sizeof *route);
    if (!route) {
        (void)error_errno(err, ENOMEM, "interrupt route");
        return NULL;
    }
    route->chip = chip;
    route->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (route->fd < 0) {
        (void)error_errno(err, errno, "eventfd for an interrupt");
        free(route);
        return NULL;
    }
    (void)pthread_mutex_lock(&chip->lock);
    unsigned place = 0;
    while (place < ROUTES_MAX && chip->routes[place])
        place++;
    if (place < ROUTES_MAX) {
        route->gsi = LAYOUT_GSI_MSI_FIRST + place;
        chip->routes[place] = route;
    }
    (void)pthread_mutex_unlock(&chip->lock);
    if (place == ROUTES_MAX) {
        (void)error_set(err, ERROR_NO_CAPACITY, "a machine has at most %u interrupt routes",
                        ROUTES_MAX);
        close_fd(&route->fd);
        free(route);
        return NULL;
    }
    return route;
}

/* The lock is held. */
static int attach(struct irq_route *route, struct error *err)
{
    if (write_table(route->chip, route, err) < 0)
        return -1;
    /* The kernel looks at the eventfd as it attaches, so what arrived while masked is delivered. */
    if (!route->attached && set_irqfd(route, true, err) < 0)
        return -1;
    route->attached = true;
    return 0;
}

/* The lock is held. */
static int detach(struct irq_route *route, struct error *err)
{
    if (!route->attached)
        return 0;
    if (set_irqfd(route, false, err) < 0)
        return -1;
    route->attached = false;
    return write_table(route->chip, NULL, err);
}

int irq_route_set(struct irq_route *route, const struct irq_message *message, struct error *err)
{
    (void)pthread_mutex_lock(&route->chip->lock);
    int status = 0;
    if (!message) {
        status = detach(route, err);
    } else if (!route->attached || route->message.address != message->address ||
               route->message.data != message->data) {
        route->message = *message;
        status = attach(route, err);
    }
    (void)pthread_mutex_unlock(&route->chip->lock);
    return status;
}

int irq_route_fd(const struct irq_route *route)
{
    return route->fd;
}

bool irq_route_take_pending(struct irq_route *route)
{
    uint64_t count = 0;
    (void)pthread_mutex_lock(&route->chip->lock);
    bool pending = !route->attached && read(route->fd, &count, sizeof count) > 0;
    (void)pthread_mutex_unlock(&route->chip->lock);
    return pending;
}

void irq_route_free(struct irq_route *route)
{
    if (!route)
        return;
    struct irq_chip *chip = route->chip;
    struct error ignored = ERROR_INIT; /* closing the eventfd detaches it as well */
    (void)pthread_mutex_lock(&chip->lock);
    (void)detach(route, &ignored);
    chip->routes[route->gsi - LAYOUT_GSI_MSI_FIRST] = NULL;
    (void)pthread_mutex_unlock(&chip->lock);
    close_fd(&route->fd);
    free(route);
}

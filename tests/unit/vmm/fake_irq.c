/* irq.h without KVM: an unmasked route leaves what was signalled in its eventfd, for the test. */
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/unit/vmm/virtio_driver.h"

struct irq_route {
    struct irq_chip *chip;
    unsigned index;
    int fd;
    bool attached;
};

struct irq_chip {
    struct irq_route *routes[256];
};

struct irq_chip *irq_chip_new(int vm_fd, struct error *err)
{
    (void)vm_fd;
    (void)err;
    return calloc(1, sizeof(struct irq_chip));
}

void irq_chip_free(struct irq_chip *chip)
{
    free(chip);
}

struct irq_route *irq_route_new(struct irq_chip *chip, struct error *err)
{
    (void)err;
    struct irq_route *route = calloc(1, sizeof *route);
    route->chip = chip;
    route->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    while (chip->routes[route->index])
        route->index++;
    chip->routes[route->index] = route;
    return route;
}

int irq_route_set(struct irq_route *route, const struct irq_message *message, struct error *err)
{
    (void)err;
    route->attached = message != NULL;
    return 0;
}

int irq_route_fd(const struct irq_route *route)
{
    return route->fd;
}

bool irq_route_take_pending(struct irq_route *route)
{
    uint64_t count;
    return !route->attached && read(route->fd, &count, sizeof count) > 0;
}

void irq_route_free(struct irq_route *route)
{
    route->chip->routes[route->index] = NULL;
    (void)close(route->fd);
    free(route);
}

unsigned fake_irq_take(const struct irq_chip *chip, unsigned index)
{
    uint64_t count = 0;
    const struct irq_route *route = chip->routes[index];
    if (!route || !route->attached || read(route->fd, &count, sizeof count) < 0)
        return 0;
    return (unsigned)count;
}

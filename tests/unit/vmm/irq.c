#include "node-agent/vmm/irq.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* A VM with an irqchip and no vCPU: routes can be set, nothing is ever delivered. */
struct vm {
    int kvm_fd;
    int vm_fd;
};

static struct vm open_vm(void)
{
    struct vm vm = {.kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), .vm_fd = -1};
    if (vm.kvm_fd < 0)
        cr_skip_test("no usable /dev/kvm");
    vm.vm_fd = ioctl(vm.kvm_fd, KVM_CREATE_VM, 0);
    cr_assert_geq(vm.vm_fd, 0);
    cr_assert_eq(ioctl(vm.vm_fd, KVM_CREATE_IRQCHIP, 0), 0);
    return vm;
}

static void close_vm(struct vm vm)
{
    close(vm.vm_fd);
    close(vm.kvm_fd);
}

static void signal_route(struct irq_route *route)
{
    cr_assert_eq(write(irq_route_fd(route), &(uint64_t){1}, 8), 8);
}

Test(irq, a_masked_route_keeps_what_arrives)
{
    struct error err = ERROR_INIT;
    struct vm vm = open_vm();
    struct irq_chip *chip = irq_chip_new(vm.vm_fd, &err);
    struct irq_route *route = irq_route_new(chip, &err);
    cr_assert_not_null(route, "%s", err.text);
    cr_expect_not(irq_route_take_pending(route));
    signal_route(route);
    cr_expect(irq_route_take_pending(route));
    cr_expect_not(irq_route_take_pending(route), "pending twice");

    struct irq_message message = {.address = 0xfee00000, .data = 0x41};
    cr_assert_eq(irq_route_set(route, &message, &err), 0, "%s", err.text);
    signal_route(route);
    cr_assert_eq(irq_chip_drain(chip, &err), 0, "%s", err.text);
    cr_assert_eq(irq_route_set(route, NULL, &err), 0, "%s", err.text);
    cr_expect_not(irq_route_take_pending(route), "the kernel had taken it already");
    signal_route(route);
    cr_assert_eq(irq_route_set(route, &message, &err), 0, "%s", err.text);
    cr_expect_not(irq_route_take_pending(route), "an attached route is the kernel's");
    cr_assert_eq(irq_set_line(chip, 4, true, &err), 0, "%s", err.text);
    cr_assert_eq(irq_set_line(chip, 4, false, &err), 0, "%s", err.text);
    irq_route_free(route);
    irq_chip_free(chip);
    close_vm(vm);
}

Test(irq, routes_are_bounded_and_reused)
{
    struct error err = ERROR_INIT;
    struct vm vm = open_vm();
    struct irq_chip *chip = irq_chip_new(vm.vm_fd, &err);
    struct irq_route *routes[256];
    struct irq_message message = {.address = 0xfee00000, .data = 0x41};
    for (unsigned i = 0; i < 256; i++) {
        routes[i] = irq_route_new(chip, &err);
        cr_assert_not_null(routes[i]);
        cr_assert_eq(irq_route_set(routes[i], &message, &err), 0, "%u: %s", i, err.text);
    }
    cr_expect_null(irq_route_new(chip, &err));
    cr_expect_eq(err.kind, ERROR_NO_CAPACITY);
    irq_route_free(routes[7]);
    routes[7] = irq_route_new(chip, &err);
    cr_expect_not_null(routes[7]);
    for (unsigned i = 0; i < 256; i++)
        irq_route_free(routes[i]);
    irq_chip_free(chip);
    close_vm(vm);
}

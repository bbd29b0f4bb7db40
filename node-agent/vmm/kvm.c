#include "node-agent/vmm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

int kvm_open(struct error *err)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd >= 0)
        return fd;
    if (errno == ENOENT)
        return error_set(err, ERROR_NOT_FOUND,
                         "there is no /dev/kvm: enable virtualisation in the firmware (or nested "
                         "virtualisation in the host above) and load kvm_intel or kvm_amd");
    if (errno == EACCES || errno == EPERM)
        return error_set(err, ERROR_FAILED,
                         "/dev/kvm may not be opened: run as root or join the group kvm");
    return error_errno(err, errno, "cannot open /dev/kvm");
}

int kvm_capability(int fd, long capability)
{
    int value = ioctl(fd, KVM_CHECK_EXTENSION, capability);
    return value < 0 ? 0 : value;
}

int kvm_check(int kvm_fd, struct error *err)
{
    static const struct {
        long capability;
        const char *name;
    } needed[] = {
        {KVM_CAP_IRQCHIP, "IRQCHIP"},
        {KVM_CAP_PIT2, "PIT2"},
        {KVM_CAP_USER_MEMORY, "USER_MEMORY"},
        {KVM_CAP_IMMEDIATE_EXIT, "IMMEDIATE_EXIT"},
        {KVM_CAP_IRQFD, "IRQFD"},
        {KVM_CAP_IOEVENTFD, "IOEVENTFD"},
        {KVM_CAP_SIGNAL_MSI, "SIGNAL_MSI"},
        {KVM_CAP_IRQ_ROUTING, "IRQ_ROUTING"},
        {KVM_CAP_EXT_CPUID, "EXT_CPUID"},
        {KVM_CAP_MP_STATE, "MP_STATE"},
        {KVM_CAP_VCPU_EVENTS, "VCPU_EVENTS"},
        {KVM_CAP_DEBUGREGS, "DEBUGREGS"},
        {KVM_CAP_XCRS, "XCRS"},
        {KVM_CAP_XSAVE, "XSAVE"},
        {KVM_CAP_ADJUST_CLOCK, "ADJUST_CLOCK"},
        {KVM_CAP_SET_TSS_ADDR, "SET_TSS_ADDR"},
    };
    int version = ioctl(kvm_fd, KVM_GET_API_VERSION, 0);
    if (version < 0)
        return error_errno(err, errno, "this descriptor is not /dev/kvm");
    if (version != KVM_API_VERSION)
        return error_set(err, ERROR_FAILED, "KVM speaks API version %d, %d is needed", version,
                         KVM_API_VERSION);
    for (unsigned i = 0; i < sizeof needed / sizeof needed[0]; i++)
        if (kvm_capability(kvm_fd, needed[i].capability) == 0)
            return error_set(err, ERROR_FAILED,
                             "this host's KVM lacks KVM_CAP_%s: a newer kernel is needed",
                             needed[i].name);
    return 0;
}

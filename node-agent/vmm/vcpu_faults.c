/*
 * What KVM_GET_STATS_FD gives (Documentation/virt/kvm/api.rst, 4.133):
 *
 *   +--------+ 0         +----------------------------+ desc_offset    +-------------+ data_offset
 *   | header |           | descriptors, each with a   |                | values, u64 |
 *   +--------+           | name of name_size bytes    |                +-------------+
 *                        +----------------------------+
 */
#include "node-agent/vmm/vcpu_faults.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "node-agent/vmm/layout.h"

#define DESCRIPTORS_MAX 512u
#define NAME_MAX_BYTES  128u
#define COUNTERS        2u

/* Mended by making a page writable again, and by mapping one. */
static const char *const names[COUNTERS] = {"pf_fast", "pf_fixed"};

struct vcpu_faults {
    unsigned count;
    int fd[LAYOUT_VCPUS_MAX]; /* -1: no statistics */
    off_t at[COUNTERS];       /* the same in all; 0: not there */
};

static void find_counters(struct vcpu_faults *faults, int fd)
{
    struct kvm_stats_header header;
    if (pread(fd, &header, sizeof header, 0) != (ssize_t)sizeof header ||
        header.name_size > NAME_MAX_BYTES || header.num_desc > DESCRIPTORS_MAX)
        return;
    size_t size = sizeof(struct kvm_stats_desc) + header.name_size;
    for (uint32_t i = 0; i < header.num_desc; i++) {
        char descriptor[sizeof(struct kvm_stats_desc) + NAME_MAX_BYTES + 1] = {0};
        struct kvm_stats_desc fixed; /* without its name, which follows it */
        off_t at = (off_t)header.desc_offset + (off_t)(i * size);
        if (pread(fd, descriptor, size, at) != (ssize_t)size)
            return;
        memcpy(&fixed, descriptor, sizeof fixed);
        for (unsigned c = 0; c < COUNTERS; c++)
            if (strcmp(descriptor + sizeof fixed, names[c]) == 0)
                faults->at[c] = (off_t)header.data_offset + (off_t)fixed.offset;
    }
}

struct vcpu_faults *vcpu_faults_new(const struct vcpus *vcpus, struct error *err)
{
    struct vcpu_faults *faults = calloc(1, sizeof *faults);
    if (!faults) {
        (void)error_errno(err, ENOMEM, "vCPU statistics");
        return NULL;
    }
    faults->count = vcpus_count(vcpus);
    for (unsigned i = 0; i < faults->count; i++)
        faults->fd[i] = ioctl(vcpus_fd(vcpus, i), KVM_GET_STATS_FD, NULL);
    if (faults->fd[0] >= 0)
        find_counters(faults, faults->fd[0]);
    return faults;
}

void vcpu_faults_free(struct vcpu_faults *faults)
{
    if (!faults)
        return;
    for (unsigned i = 0; i < faults->count; i++)
        close_fd(&faults->fd[i]);
    free(faults);
}

uint64_t vcpu_faults_read(const struct vcpu_faults *faults, unsigned vcpu)
{
    uint64_t sum = 0;
    for (unsigned c = 0; c < COUNTERS; c++) {
        uint64_t value = 0;
        if (faults->at[c] != 0 &&
            pread(faults->fd[vcpu], &value, sizeof value, faults->at[c]) == (ssize_t)sizeof value)
            sum += value;
    }
    return sum;
}

/*
 * cgroup.h: one cgroup v2 group a VM: its share of the CPU, its limit, and what it used.
 *
 * /sys/fs/cgroup/NAME/VM_ID, with the controllers cpu and memory where the host has them.
 * cpu.weight goes with the number of vCPUs, so that VMs share a busy host by their size; cpu.max
 * leaves half a CPU beyond the vCPUs for the VMM's own threads, and none is set while the VM
 * migrates, as its streams should use the processors that others leave idle. Memory is counted, not
 * limited: the guest's RAM is bounded by what it was given, and a limit would kill it instead of
 * its host's caches.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

struct cgroup {
    int root_fd; /* /sys/fs/cgroup/NAME; -1: this host has no usable cgroup v2 */
};

/* Makes the group @name below the cgroup v2 mount and turns its controllers on. -1 says what is
 * missing, in words for the operator; @cgroup can be used all the same and does nothing. */
int cgroup_open(struct cgroup *cgroup, const char *name, struct error *err);
void cgroup_close(struct cgroup *cgroup);

/* Makes the VM's group. @procs_fd: its cgroup.procs, to start the VMM in; -1 where there is none.
 */
int cgroup_add(struct cgroup *cgroup, const char *vm_id, unsigned vcpus, int *procs_fd,
               struct error *err);
/* Sets the limit of a group that exists, @moving: to none. Fine where this host has no cgroup v2.
 */
int cgroup_limit(const struct cgroup *cgroup, const char *vm_id, unsigned vcpus, bool moving,
                 struct error *err);
/* Removes the VM's group once its last process is gone; fine where there is none. */
void cgroup_remove(struct cgroup *cgroup, const char *vm_id);
/* Memory charged to the group, in bytes; false where it is not known. */
bool cgroup_memory(const struct cgroup *cgroup, const char *vm_id, uint64_t *bytes);

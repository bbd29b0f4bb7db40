/*
 * vm_launch.h: starts a VM's VMM: its tap, sockets and cgroup, its command line, its descriptors.
 */
#pragma once

#include "node-agent/agent/spec.h"
#include "node-agent/agent/vm.h"

#define LAUNCH_DISKS_MAX SPEC_DISKS_MAX

/* Descriptors are the caller's; the VMM gets copies. */
struct launch {
    int kernel_fd, initrd_fd; /* -1: none */
    int disk_fds[LAUNCH_DISKS_MAX];
    bool disk_read_only[LAUNCH_DISKS_MAX];
    size_t disk_count;
    int incoming_fd; /* listening socket of a migration; -1: an ordinary start */
};

/* Starts the VMM paused (or waiting for its migration), notes it in the record, watches it, and
 * connects to it. Where this fails the process may exist: end the VM. */
int vm_launch(struct vm *vm, const struct launch *launch, struct error *err);

/* A listening TCP socket at @address on the first free port of the range. @port: which it is. */
int launch_listen(const char *address, uint16_t first, uint16_t last, uint16_t *port,
                  struct error *err);

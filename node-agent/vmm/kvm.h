/* kvm.h: the kernel's virtualisation interface: is it there, and is it enough? */
#pragma once

#include <stddef.h>

#include "common/error.h"

/* Opens /dev/kvm, with a sentence that says what to do where it can't be used. -1 on failure. */
int kvm_open(struct error *err);

/* Checks that @kvm_fd is KVM of API version 12 with every capability the VMM builds on. */
int kvm_check(int kvm_fd, struct error *err);

/* KVM_CHECK_EXTENSION of a VM or of /dev/kvm; 0 where it is unknown. */
int kvm_capability(int fd, long capability);

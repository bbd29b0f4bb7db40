/*
 * uffd.h: userfaultfd(2) over the guest's RAM: who touches a page that is not there waits until we
 * put it there (Linux Documentation/admin-guide/mm/userfaultfd.rst, MISSING mode).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/* Opens one for this process, non-blocking. Faults inside the kernel (KVM on behalf of a vCPU,
 * read() into the guest's RAM) need CAP_SYS_PTRACE or vm.unprivileged_userfaultfd as it is opened,
 * and not any more after that; @user_only asks for less, and kernel faults then fail. Returns the
 * descriptor or -1. */
int uffd_open(bool user_only, struct error *err);

/* Begins and ends watching [@start, @start + @size), whole pages. The end wakes all who wait: they
 * find zeros where nothing was put. */
int uffd_watch(int fd, const void *start, size_t size, struct error *err);
int uffd_unwatch(int fd, const void *start, size_t size, struct error *err);

/* The address of one more fault (of a page's first byte): 1, or 0 where there is none now. */
int uffd_next(int fd, uint64_t *address, struct error *err);

/* Puts @pages pages to @to, copied from @from or, NULL, zeros, each in one step, and wakes who
 * waits for them. A page that is there already is left as it is. */
int uffd_put(int fd, void *to, const void *from, size_t pages, struct error *err);

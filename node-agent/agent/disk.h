/*
 * disk.h: opens a VM's disks that lie in the host's file system, as only the agent may.
 *
 * A path from outside is resolved by openat2(2) below one of the allowed folders: no symbolic link
 * and no ".." leads out. Only regular files and, below folders in /dev, block devices are opened.
 *
 * The lock says which *VM* uses a disk; which *host* runs that VM is the epoch's business. It is
 * made of OFD read locks (fcntl(2)) far beyond any data: a VM that writes holds one on a byte made
 * of its id, a reader one on the readers' byte. Whoever opens takes its own lock first and then
 * looks for others' (F_OFD_GETLK): so the two ends of a migration agree, as they are one VM, and
 * two VMs never do. There is nothing to hand over inside a migration's pause, and two who try at
 * once both see each other and refuse. The lock belongs to the descriptor the VMM inherits: it ends
 * with the VMM, however that ends. It reaches as far as the file system carries locks (local ones
 * and NFS do).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"

/* Opens shared disk @path for VM @vm_id. @allowed: the folders it may lie in; @storage is among
 * them or not, its own subfolders of images and other VMs' disks never qualify. Where the VM may
 * have run on this host before, stale cached pages are dropped. */
int disk_open_shared(const char *path, bool read_only, const char *vm_id,
                     const char *const *allowed, unsigned allowed_count, const char *storage,
                     struct error *err);

/* Takes the lock described above on an open disk. */
int disk_lock(int fd, bool read_only, const char *vm_id, struct error *err);

/*
 * local_disk.h: disks that exist on one node only: STORAGE/VM_ID/disk-N.raw, blank or a copy of an
 * image.
 *
 * A disk is made under a name ending in ".part" and renamed when it is whole, so what has its real
 * name is complete. One that is there already, of the right size, is used again: a VM that is
 * started once more finds its data. Space is taken when the disk is made, so that a full host is
 * found out then and not by the guest.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/loop.h"

struct local_disk;

/* @fd is the disk, open for reading and writing, locked for the VM; the callee's. @created: it was
 * made now, not used again. -1 with @err. */
typedef void (*local_disk_fn)(void *context, int fd, bool created, const struct error *err);

/* Makes disk @name of @bytes for @vm_id below folder @storage, filled from @image_fd (kept by the
 * caller until the call of @done; -1: blank). Copies in portions on the loop; @done is called from
 * the loop. NULL where it cannot even begin. */
struct local_disk *local_disk_make(struct loop *loop, const char *storage, const char *vm_id,
                                   const char *name, uint64_t bytes, int image_fd,
                                   local_disk_fn done, void *context, struct error *err);
/* Ends it without a call; what was made of it is removed. Not after @done was called. */
void local_disk_cancel(struct local_disk *disk);

/* Removes the VM's folder with all its disks; fine where there is none. */
int local_disk_remove_all(const char *storage, const char *vm_id, struct error *err);
/* Removes one disk that a start made which then failed. */
void local_disk_remove(const char *storage, const char *vm_id, const char *name);
/* Removes what a failed start left of the VM: half-made disks, and the folder if it is empty then.
 */
void local_disk_tidy(const char *storage, const char *vm_id);

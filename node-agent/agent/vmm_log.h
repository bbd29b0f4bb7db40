/*
 * vmm_log.h: RUN_DIR/vms/VM_ID/vmm.log: what a VMM writes to its stderr.
 *
 * It is a plain file, so that the VMM can write while no agent runs. The agent keeps it bounded:
 * when it grows beyond VMM_LOG_MAX_BYTES it becomes vmm.log.1 and starts anew.
 */
#pragma once

#include <stddef.h>

#include "common/error.h"

#define VMM_LOG_MAX_BYTES (256u << 10)

/* Opens it for the VMM to append to. */
int vmm_log_open(int dir_fd, struct error *err);
/* Cuts it where it has grown too long. */
void vmm_log_bound(int dir_fd);
/* Copies its last @size - 1 bytes into @out, whole lines, terminated. Returns the length. */
size_t vmm_log_tail(int dir_fd, char *out, size_t size);
/* Its last line without time and level, such as the reason a VMM gave for ending. Empty where there
 * is none. */
void vmm_log_last_line(int dir_fd, char *out, size_t size);

/*
 * vm_console.h: one VM's console as the agent sees it: a connection to console.sock, the last
 * CONSOLE_TAIL_BYTES of output, and who listens.
 *
 * The agent keeps one connection for all sessions, so the output of a VM that dies is still there
 * to be read. Reading is paced (CONSOLE_PORTION_BYTES every CONSOLE_PACE_MS): a guest that floods
 * its console is slowed by its own socket, not relayed at full speed.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/loop.h"

#define CONSOLE_TAIL_BYTES    (64u << 10)
#define CONSOLE_PORTION_BYTES (16u << 10)
#define CONSOLE_PACE_MS       10
#define CONSOLE_INPUT_MAX     (64u << 10) /* input the VMM has not taken yet */

struct vm_console;

/* New output; called from the loop. */
typedef void (*vm_console_output_fn)(void *context, const uint8_t *data, size_t size);

/* Connects to @dir_fd/console.sock. */
struct vm_console *vm_console_open(struct loop *loop, int dir_fd, vm_console_output_fn output,
                                   void *context, struct error *err);
void vm_console_close(struct vm_console *console);

/* Sends input to the guest. ERROR_FAILED where the guest has not taken CONSOLE_INPUT_MAX bytes yet
 * or the console is gone: nothing of it was taken then. */
int vm_console_input(struct vm_console *console, const uint8_t *data, size_t size,
                     struct error *err);

/* Copies the last output into @out, at most CONSOLE_TAIL_BYTES; its length. Reads first what has
 * already arrived. */
size_t vm_console_tail(struct vm_console *console, uint8_t out[CONSOLE_TAIL_BYTES]);

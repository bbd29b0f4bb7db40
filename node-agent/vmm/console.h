/*
 * console.h: the guest's serial console for those who attach to it.
 *
 * What the guest writes goes into one ring. Everybody attached has a place in it: who attaches gets
 * the last 64 KiB first, who falls behind by more than the ring holds is dropped (the terminal of a
 * VMM run by hand loses the bytes instead, and is told so). So memory is bounded whatever the guest
 * and the attached do. What they type goes to the guest in the order it comes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/loop.h"

#define CONSOLE_SCROLLBACK 65536u
#define CONSOLE_RING       262144u
#define CONSOLE_ATTACHED   16u /* at a time */

struct console;

struct console_events {
    /* Gives the guest input; returns how much it took. On the loop. */
    size_t (*input)(void *context, const uint8_t *data, size_t size);
    /* Ctrl-A x was typed at the terminal. On the loop. */
    void (*leave)(void *context);
    void *context;
};

/* @listen_fd: a listening Unix stream socket, taken over; -1: none. @stdio: standard input and
 * output are attached; a terminal becomes raw until console_free(). */
struct console *console_new(struct loop *loop, int listen_fd, bool stdio,
                            const struct console_events *events, struct error *err);
/* Sends what is still waiting, without blocking, and closes everything. */
void console_free(struct console *console);

/* The guest wrote @data. Any thread; never blocks on those attached. */
void console_write(struct console *console, const uint8_t *data, size_t size);

/* The guest may take input again. Any thread. */
void console_room(struct console *console);

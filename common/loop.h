/*
 * loop.h: the event loop of every daemon: descriptors, timers and signals, one thread.
 *
 * Level-triggered epoll. Callbacks run from loop_run() only, one at a time, and may add, change and
 * remove sources freely, their own included. Timers are kept in a sorted list: adding costs O(N) of
 * the timers that exist, which here are tens.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

struct loop;
struct loop_source; /* a watched descriptor or a timer; owned by the loop */

/* @events: EPOLLIN and so on, as epoll(7) reports them. */
typedef void (*loop_fd_fn)(void *context, int fd, uint32_t events);
typedef void (*loop_timer_fn)(void *context);
typedef void (*loop_signal_fn)(void *context, int signal_number);

struct loop *loop_new(struct error *err);
/* Frees the loop and its sources; watched descriptors stay open. NULL is fine. */
void loop_free(struct loop *loop);

/* Watches @fd, which stays the caller's and must stay open until removed. NULL on failure. */
struct loop_source *loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn call,
                                void *context, struct error *err);
/* Changes what is waited for; 0 keeps the source but hears nothing except errors. */
void loop_set_events(struct loop_source *source, uint32_t events);

/* Calls @call once after @delay_ms, then every @interval_ms where that is not 0. A one-shot timer
 * frees itself after its call: forget the pointer then. NULL where memory ran out. */
struct loop_source *loop_add_timer(struct loop *loop, uint64_t delay_ms, uint64_t interval_ms,
                                   loop_timer_fn call, void *context);

/* Blocks the signal for normal delivery in this thread and calls @call from the loop instead. */
int loop_add_signal(struct loop *loop, int signal_number, loop_signal_fn call, void *context,
                    struct error *err);

/* Removes a source; it will not be called again, not even for events already collected. */
void loop_remove(struct loop_source *source);

/* Runs until loop_stop(). */
int loop_run(struct loop *loop, struct error *err);
/* Waits at most @timeout_ms (-1: no limit) and handles what is there; not from inside a callback.
 */
int loop_run_once(struct loop *loop, int timeout_ms, struct error *err);
void loop_stop(struct loop *loop);

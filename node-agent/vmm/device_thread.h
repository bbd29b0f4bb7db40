/*
 * device_thread.h: the thread on whose loop devices serve their queues (virtio-net, rng, balloon).
 *
 * Guest RAM may make who touches it wait: in post-copy a page comes when the source sends it, which
 * it cannot while the link is lost. The control socket must answer all the same, so nothing that
 * touches RAM by itself runs on the process's main loop. Devices are locked (virtio.h): their
 * handlers run here, their configuration, pause and state on other threads.
 */
#pragma once

#include "common/error.h"
#include "common/loop.h"

struct device_thread;

/* Made stopped; sources are added to its loop before start and removed after stop. */
struct device_thread *device_thread_new(struct error *err);
struct loop *device_thread_loop(struct device_thread *thread);
int device_thread_start(struct device_thread *thread, struct error *err);
/* Waits until no handler runs. Harmless where it was not started; NULL is fine. */
void device_thread_stop(struct device_thread *thread);
/* Stops it, and frees the loop and what is left in it. NULL is fine. */
void device_thread_free(struct device_thread *thread);

/*
 * gate.h: lets another thread have something done by the event loop's thread, and waits for it.
 *
 * The machine belongs to the loop's thread; the migration engine has threads of its own. What one
 * of them asks of the machine passes here. Once closed nothing passes any more: that is how a VMM
 * that ends makes sure that no engine starts a guest behind its back.
 */
#pragma once

#include "common/error.h"
#include "common/loop.h"

struct gate;

typedef int (*gate_call)(void *context, void *argument, struct error *err);

/* @context is given to each call. */
struct gate *gate_new(struct loop *loop, void *context, struct error *err);
void gate_free(struct gate *gate);

/* From any thread but the loop's: returns what @call returned there; ERROR_CONFLICT, @call not
 * called, where the gate is or gets closed before. */
int gate_pass(struct gate *gate, gate_call call, void *argument, struct error *err);

/* On the loop's thread, for good. */
void gate_close(struct gate *gate);

/*
 * fake_controller.h: a controller for poolctl's tests: a real link server that speaks admin.proto
 * on a free port of loopback, in a thread of its own, and knows a small pool by heart.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "poolctl/invocation.h"
#include "proto/admin.pb-c.h"

/* The wall clock of the small pool; ages are counted from here. */
#define FAKE_NOW_MS 1767225600000 /* 2026-01-01 00:00:00 UTC */

struct fake;

/* Answers one request: fill @reply and return true, or false to give the usual answer. Called in
 * the server's thread. */
typedef bool (*fake_answer_fn)(struct fake *fake, const Vmpool__AdminRequest *request,
                               Vmpool__AdminReply *reply);

/* Starts it and points VMPOOL_CONTEXT at it. Ends the test where that fails. */
struct fake *fake_start(fake_answer_fn answer);
void fake_stop(struct fake *fake);
/* Stops answering, and begins again at the same address. */
void fake_go_away(struct fake *fake);
void fake_come_back(struct fake *fake);

/* What came so far, of all requests or of one kind. */
size_t fake_count(struct fake *fake, Vmpool__AdminRequest__BodyCase kind);
/* A copy of the last request of that kind, owned by the fake; NULL where none came. */
const Vmpool__AdminRequest *fake_last(struct fake *fake, Vmpool__AdminRequest__BodyCase kind);
/* Bytes of image pieces that came. */
size_t fake_piece_bytes(struct fake *fake);

/* Another reply to the request being answered, before the one that is returned. */
void fake_send(struct fake *fake, const Vmpool__AdminReply *reply);

/* The pool it knows. */
Vmpool__Job *fake_job(void);

/* One run of poolctl: what was printed, and the exit status. */
struct run {
    int status;
    char *out;
    char *err;
};
/* Runs a command line (split at spaces, 'quoted' words kept) as without a terminal. */
struct run run_poolctl(const char *line);
/* The same with stdin. */
struct run run_poolctl_with_input(const char *line, int in_fd);
void run_free(struct run *run);

/* Compares with tests/unit/poolctl/golden/NAME; writes it instead where VMPOOL_GOLDEN_UPDATE is
 * set. */
void expect_golden(const char *name, const char *text);

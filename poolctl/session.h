/*
 * session.h: a conversation with the controller.
 *
 * Each request carries a UUID. Where the connection is lost before the answer came, the same
 * request is sent again once it is back, and the controller answers as it did the first time:
 * nothing is done twice. A connection that is not made, or stays lost, for longer than a bound ends
 * in ERROR_UNREACHABLE with the address and the context in the text.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/loop.h"
#include "poolctl/invocation.h"
#include "proto/admin.pb-c.h"

#define SESSION_CONNECT_MS 5000  /* default of --connect-timeout */
#define SESSION_ANSWER_MS  30000 /* one request that starts or asks something */
#define SESSION_RETRY_MS   60000 /* a lost connection, while waiting for a job */

struct session;
struct session_request;

/* Connects to the controller @call's context names, within --connect-timeout. */
struct session *session_open(const struct invocation *call, struct error *err);
void session_close(struct session *session);

/* Lower bounds than the defaults, for completion; call before anything else is sent. */
struct session *session_open_within(const struct invocation *call, uint64_t connect_ms,
                                    uint64_t answer_ms, struct error *err);

/* Sends @request (its version and id are filled in) and waits for its one answer, which the caller
 * frees with vmpool__admin_reply__free_unpacked(). A failure in the answer becomes @err. */
int session_call(struct session *session, Vmpool__AdminRequest *request, Vmpool__AdminReply **reply,
                 struct error *err);

/* Sends a request that many answers come for. Ended by session_end() in every case. */
struct session_request *session_begin(struct session *session, Vmpool__AdminRequest *request,
                                      struct error *err);
/* Takes the next answer: 1 and *reply set, 0 where none came within @timeout_ms or something else
 * happened on the loop (a signal, a key), -1 on failure. */
int session_next(struct session *session, struct session_request *request, int timeout_ms,
                 Vmpool__AdminReply **reply, struct error *err);
/* session_next() that waits for as long as a request may take; never 0. */
int session_await(struct session *session, struct session_request *request,
                  Vmpool__AdminReply **reply, struct error *err);
void session_end(struct session *session, struct session_request *request);
/* The answer that carried the last failure, which may say more than its text, such as a placement;
 * valid until the next call. NULL where there is none. */
const Vmpool__AdminReply *session_failed(const struct session *session);
const char *session_request_id(const struct session_request *request);

/* Sends a request that has no answer; dropped where the connection is lost. */
int session_post(struct session *session, Vmpool__AdminRequest *request, struct error *err);

/* From now on SIGINT and SIGTERM don't end the process but make session_interrupted() true. */
int session_catch_interrupts(struct session *session, struct error *err);
bool session_interrupted(const struct session *session);

/* Whether the connection is up, and for how long a lost one may stay lost from now on. */
bool session_connected(const struct session *session);
void session_set_patience(struct session *session, uint64_t patience_ms);

struct loop *session_loop(struct session *session);
const char *session_address(const struct session *session);

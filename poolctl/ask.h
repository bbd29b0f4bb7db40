/*
 * ask.h: one question to the controller, for commands that need no more.
 */
#pragma once

#include <jansson.h>

#include "common/error.h"
#include "poolctl/invocation.h"
#include "poolctl/session.h"
#include "poolctl/view.h"

/* Declares @name, an AdminRequest that carries @body (a pointer) as its member @field. */
#define ADMIN_REQUEST(name, CASE, field_, body_)                                                   \
    Vmpool__AdminRequest name = {.base =                                                           \
                                     PROTOBUF_C_MESSAGE_INIT(&vmpool__admin_request__descriptor),  \
                                 .body_case = VMPOOL__ADMIN_REQUEST__BODY_##CASE,                  \
                                 .field_ = (body_)}

#define ASK_WRONG_ANSWER                                                                           \
    "the controller's answer makes no sense here: is it of another version? (poolctl version "     \
    "--controller)"

/* A text as a message's field takes it, NULL as the empty one; protobuf-c asks for a char * but
 * only reads it. */
char *ask_text(const char *text);

/* session_call() that also takes no other answer than @expected. */
int ask_session(struct session *session, Vmpool__AdminRequest *request,
                Vmpool__AdminReply__BodyCase expected, Vmpool__AdminReply **reply,
                struct error *err);

/* The same with a connection of its own. */
int ask(const struct invocation *call, Vmpool__AdminRequest *request,
        Vmpool__AdminReply__BodyCase expected, Vmpool__AdminReply **reply, struct error *err);

/* The list an answer holds, as JSON; a new reference, NULL on failure. */
json_t *ask_list(struct session *session, Vmpool__AdminRequest *request,
                 Vmpool__AdminReply__BodyCase expected, const struct view *view, struct error *err);

/* Asks and prints the list. */
int ask_and_print(const struct invocation *call, Vmpool__AdminRequest *request,
                  Vmpool__AdminReply__BodyCase expected, const struct view *view,
                  struct error *err);

/* The first thing of the list; an empty one is ERROR_NOT_FOUND, which says that there is no @what
 * @name. */
json_t *ask_one(struct session *session, Vmpool__AdminRequest *request,
                Vmpool__AdminReply__BodyCase expected, const struct view *view, const char *what,
                const char *name, struct error *err);

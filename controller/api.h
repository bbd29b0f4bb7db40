/*
 * api.h: what admins ask, answered. Each request is validated whole before anything changes.
 *
 * A request that changes something and its answer are kept (in memory and in the store, with the
 * change itself) for REPLIES_KEPT_MS, so that a repeat gets the same answer and does nothing.
 */
#pragma once

#include "common/link.h"
#include "controller/controller.h"
#include "proto/admin.pb-c.h"

#define REPLIES_KEPT_MS (10ull * 60 * 1000)
#define REPLIES_MAX     20000
/* Tables longer than this come in several replies. */
#define TABLE_ROWS_MAX 2000

struct api *api_new(void);
void api_free(struct api *api);
int api_load(struct controller *controller, struct error *err);
/* Forgets old answers. Called by the tick. */
void api_prune(struct controller *controller);

/* A message from an admin's key. */
void api_message(struct controller *controller, const struct link_peer *peer, const char *admin,
                 const uint8_t *data, size_t size);

/* One request at work. A handler fills @reply, or answers by itself later and says so. */
struct api_call {
    const struct link_peer *peer;
    const char *admin;
    const Vmpool__AdminRequest *request;
    Vmpool__AdminReply reply; /* what it points to is freed with it */
    bool later;
};

/* Handlers: -1 with @err set answers with the failure. */
typedef int (*api_handler)(struct controller *controller, struct api_call *call, struct error *err);
int api_status(struct controller *, struct api_call *, struct error *);
int api_token_create(struct controller *, struct api_call *, struct error *);
int api_node_list(struct controller *, struct api_call *, struct error *);
int api_node_change(struct controller *, struct api_call *, struct error *);
int api_vm_create(struct controller *, struct api_call *, struct error *);
int api_vm_list(struct controller *, struct api_call *, struct error *);
int api_vm_change(struct controller *, struct api_call *, struct error *);
int api_vm_migrate(struct controller *, struct api_call *, struct error *);
int api_vm_explain(struct controller *, struct api_call *, struct error *);
int api_vm_log(struct controller *, struct api_call *, struct error *);
int api_console_open(struct controller *, struct api_call *, struct error *);
int api_console_input(struct controller *, struct api_call *, struct error *);
int api_image_put(struct controller *, struct api_call *, struct error *);
int api_image_piece(struct controller *, struct api_call *, struct error *);
int api_image_list(struct controller *, struct api_call *, struct error *);
int api_image_remove(struct controller *, struct api_call *, struct error *);
int api_job_list(struct controller *, struct api_call *, struct error *);
int api_job_watch(struct controller *, struct api_call *, struct error *);
int api_job_cancel(struct controller *, struct api_call *, struct error *);
int api_plan_get(struct controller *, struct api_call *, struct error *);
int api_plan_apply(struct controller *, struct api_call *, struct error *);
int api_capacity_get(struct controller *, struct api_call *, struct error *);
int api_rebalance_set(struct controller *, struct api_call *, struct error *);
int api_event_watch(struct controller *, struct api_call *, struct error *);

struct vm;
struct node;
struct job;
/* NULL with ERROR_NOT_FOUND and the way to find it. */
struct vm *api_find_vm(const struct controller *controller, const char *name, struct error *err);
struct node *api_find_node(const struct controller *controller, const char *name,
                           struct error *err);
/* Sends what the table of the reply holds so far, as one reply of several, and empties it. */
void api_send_part(struct controller *controller, struct api_call *call);
void api_reply_job(struct api_call *call, const struct job *job);

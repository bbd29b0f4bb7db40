#include "controller/api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "controller/jobs.h"
#include "controller/outbox.h"
#include "controller/pb.h"

#define REQUEST_ID_MAX 64

/* ---- answers kept for repeats ---- */

struct kept {
    struct kept *next; /* older ones first */
    char *key;         /* ADMIN/REQUEST_ID */
    Vmpool__Store__Reply *stored;
};

struct api {
    struct kept *first, **last;
    struct name_map by_key;
};

struct api *api_new(void)
{
    struct api *api = mem_new(sizeof *api);
    api->last = &api->first;
    return api;
}

static void free_kept(struct kept *kept)
{
    free(kept->key);
    pb_free(kept->stored);
    free(kept);
}

void api_free(struct api *api)
{
    if (!api)
        return;
    while (api->first) {
        struct kept *kept = api->first;
        api->first = kept->next;
        free_kept(kept);
    }
    name_map_free(&api->by_key);
    free(api);
}

static void add_kept(struct api *api, const char *key, Vmpool__Store__Reply *stored)
{
    struct error err = ERROR_INIT;
    struct kept *kept = mem_new(sizeof *kept);
    kept->key = text_copy(key);
    kept->stored = stored;
    *api->last = kept;
    api->last = &kept->next;
    if (name_map_add(&api->by_key, kept->key, kept, &err) < 0)
        abort();
}

static int load_kept(void *context, const char *key, const uint8_t *data, size_t size,
                     struct error *err)
{
    struct controller *controller = context;
    Vmpool__Store__Reply *stored = pb_unpack(&vmpool__store__reply__descriptor, data, size, err);
    if (!stored)
        return -1;
    add_kept(controller->api, key, stored);
    return 0;
}

int api_load(struct controller *controller, struct error *err)
{
    return store_read(controller->store, STORE_REPLY, "", 0, load_kept, controller, err);
}

void api_prune(struct controller *controller)
{
    struct api *api = controller->api;
    uint64_t now_ms = (uint64_t)clock_wall_ms();
    /* After a restart they are in the order of their keys; then those behind a younger one wait. */
    while (api->first && (api->first->stored->wall_ms + REPLIES_KEPT_MS < now_ms ||
                          api->by_key.count > REPLIES_MAX)) {
        struct kept *kept = api->first;
        api->first = kept->next;
        if (!api->first)
            api->last = &api->first;
        name_map_remove(&api->by_key, kept->key);
        store_delete(controller->store, STORE_REPLY, kept->key);
        controller_touch(controller);
        free_kept(kept);
    }
}

static void keep(struct controller *controller, const char *key, const Vmpool__AdminReply *reply,
                 bool durable)
{
    size_t size = 0;
    auto_free uint8_t *data = pb_pack(&reply->base, &size);
    Vmpool__Store__Reply *stored = mem_new(sizeof *stored);
    vmpool__store__reply__init(stored);
    stored->wall_ms = (uint64_t)clock_wall_ms();
    pb_set_bytes(&stored->reply, data, size);
    if (durable)
        store_put(controller->store, STORE_REPLY, key, &stored->base);
    add_kept(controller->api, key, stored);
}

/* True where the request was answered before and is answered so again. */
static bool answer_again(struct controller *controller, const struct link_peer *peer,
                         const char *key)
{
    struct error err = ERROR_INIT;
    const struct kept *kept = name_map_get(&controller->api->by_key, key);
    if (!kept)
        return false;
    Vmpool__AdminReply *reply = pb_unpack(&vmpool__admin_reply__descriptor,
                                          kept->stored->reply.data, kept->stored->reply.len, &err);
    if (reply)
        outbox_admin(controller, peer, reply);
    pb_free(reply);
    return true;
}

/* ---- requests ---- */

enum keeping {
    NOT_KEPT,   /* repeating the request changes nothing */
    KEPT,       /* for repeats, also after a restart */
    KEPT_BY_US, /* in memory only: the answer holds a secret */
};

struct route {
    api_handler handle;
    enum keeping keeping;
};

#define BODY(name) VMPOOL__ADMIN_REQUEST__BODY_##name

static const struct route routes[] = {
    [BODY(STATUS)] = {api_status, NOT_KEPT},
    [BODY(TOKEN_CREATE)] = {api_token_create, KEPT_BY_US},
    [BODY(NODE_LIST)] = {api_node_list, NOT_KEPT},
    [BODY(NODE_CHANGE)] = {api_node_change, KEPT},
    [BODY(VM_CREATE)] = {api_vm_create, KEPT},
    [BODY(VM_LIST)] = {api_vm_list, NOT_KEPT},
    [BODY(VM_CHANGE)] = {api_vm_change, KEPT},
    [BODY(VM_MIGRATE)] = {api_vm_migrate, KEPT},
    [BODY(VM_EXPLAIN)] = {api_vm_explain, NOT_KEPT},
    [BODY(VM_LOG)] = {api_vm_log, NOT_KEPT},
    [BODY(CONSOLE_OPEN)] = {api_console_open, NOT_KEPT},
    [BODY(CONSOLE_INPUT)] = {api_console_input, NOT_KEPT},
    [BODY(IMAGE_PUT)] = {api_image_put, NOT_KEPT},
    [BODY(IMAGE_PIECE)] = {api_image_piece, NOT_KEPT},
    [BODY(IMAGE_LIST)] = {api_image_list, NOT_KEPT},
    [BODY(IMAGE_REMOVE)] = {api_image_remove, KEPT},
    [BODY(JOB_LIST)] = {api_job_list, NOT_KEPT},
    [BODY(JOB_WATCH)] = {api_job_watch, NOT_KEPT},
    [BODY(JOB_CANCEL)] = {api_job_cancel, KEPT},
    [BODY(EVENT_WATCH)] = {api_event_watch, NOT_KEPT},
    [BODY(PLAN_GET)] = {api_plan_get, NOT_KEPT},
    [BODY(PLAN_APPLY)] = {api_plan_apply, KEPT},
    [BODY(CAPACITY_GET)] = {api_capacity_get, NOT_KEPT},
    [BODY(REBALANCE_SET)] = {api_rebalance_set, KEPT},
};

static int refuse_unknown(struct controller *controller, struct api_call *call, struct error *err)
{
    (void)controller;
    (void)call;
    return error_set(err, ERROR_USAGE,
                     "the controller does not know this request: upgrade it first");
}

static int check(const Vmpool__AdminRequest *request, const struct route **route, struct error *err)
{
    size_t body = (size_t)request->body_case;
    if (request->protocol_version != VMPOOL__PROTOCOL_VERSION__PROTOCOL_CURRENT)
        return error_set(err, ERROR_CONFLICT,
                         "this poolctl speaks protocol %u, the controller %d: use the poolctl of "
                         "the controller's version",
                         request->protocol_version, VMPOOL__PROTOCOL_VERSION__PROTOCOL_CURRENT);
    if (!request->request_id[0] || strlen(request->request_id) > REQUEST_ID_MAX)
        return error_set(err, ERROR_USAGE, "a request has an id of 1 to %d characters",
                         REQUEST_ID_MAX);
    if (body < sizeof routes / sizeof *routes && routes[body].handle)
        *route = &routes[body];
    return 0;
}

/* What the reply points to was made for it, but for the id. */
static void free_reply(struct api_call *call)
{
    Vmpool__AdminReply *copy = mem_new(sizeof *copy);
    call->reply.request_id = NULL;
    *copy = call->reply;
    pb_free(copy);
}

static void serve(struct controller *controller, struct api_call *call)
{
    struct error err = ERROR_INIT;
    static const struct route none = {refuse_unknown, NOT_KEPT};
    const struct route *route = &none;
    char key[REQUEST_ID_MAX + LINK_USER_MAX + 2] = "";
    int status = check(call->request, &route, &err);
    if (status == 0 && route->keeping != NOT_KEPT) {
        (void)snprintf(key, sizeof key, "%s/%s", call->admin, call->request->request_id);
        if (answer_again(controller, call->peer, key))
            return;
    }
    if (status == 0)
        status = route->handle(controller, call, &err);
    if (status < 0)
        call->reply.failure = pb_failure(&err);
    if (status == 0 && call->later)
        return;
    call->reply.request_id = call->request->request_id;
    call->reply.done = true;
    if (key[0])
        keep(controller, key, &call->reply, route->keeping == KEPT);
    outbox_admin(controller, call->peer, &call->reply);
}

void api_message(struct controller *controller, const struct link_peer *peer, const char *admin,
                 const uint8_t *data, size_t size)
{
    struct error err = ERROR_INIT;
    Vmpool__AdminRequest *request = pb_unpack(&vmpool__admin_request__descriptor, data, size, &err);
    if (!request) {
        controller_complain(controller, peer, err.text);
        return;
    }
    struct api_call call = {
        .peer = peer, .admin = admin, .request = request, .reply = VMPOOL__ADMIN_REPLY__INIT};
    serve(controller, &call);
    free_reply(&call);
    pb_free(request);
}

/* ---- for the handlers ---- */

struct vm *api_find_vm(const struct controller *controller, const char *name, struct error *err)
{
    struct vm *vm = vm_by_name(controller, name);
    if (!vm)
        (void)error_set(err, ERROR_NOT_FOUND, "there is no VM %.80s: \"poolctl vm ls\" shows them",
                        name);
    return vm;
}

struct node *api_find_node(const struct controller *controller, const char *name, struct error *err)
{
    struct node *node = node_by_name(controller, name);
    if (!node)
        (void)error_set(err, ERROR_NOT_FOUND,
                        "there is no node %.80s: \"poolctl node ls\" shows them", name);
    return node;
}

void api_reply_job(struct api_call *call, const struct job *job)
{
    call->reply.body_case = VMPOOL__ADMIN_REPLY__BODY_JOB;
    call->reply.job = job_describe(job);
}

static void empty(void *array, size_t *count)
{
    void **items = array;
    for (size_t i = 0; i < *count; i++)
        pb_free(items[i]);
    *count = 0;
}

void api_send_part(struct controller *controller, struct api_call *call)
{
    call->reply.request_id = call->request->request_id;
    call->reply.done = false;
    outbox_admin(controller, call->peer, &call->reply);
    call->reply.request_id = NULL;
    switch (call->reply.body_case) {
    case VMPOOL__ADMIN_REPLY__BODY_VMS:
        empty(call->reply.vms->vms, &call->reply.vms->n_vms);
        break;
    case VMPOOL__ADMIN_REPLY__BODY_JOBS:
        empty(call->reply.jobs->jobs, &call->reply.jobs->n_jobs);
        break;
    case VMPOOL__ADMIN_REPLY__BODY_IMAGES:
        empty(call->reply.images->images, &call->reply.images->n_images);
        break;
    default:
        break;
    }
}

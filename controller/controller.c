#include "controller/controller.h"
#include "controller/departures.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "controller/admin_context.h"
#include "controller/api.h"
#include "controller/console.h"
#include "controller/events.h"
#include "controller/faults.h"
#include "controller/images.h"
#include "controller/jobs.h"
#include "controller/keys.h"
#include "controller/metrics.h"
#include "controller/metrics_http.h"
#include "controller/migrate_queue.h"
#include "controller/node_link.h"
#include "controller/nodes.h"
#include "controller/outbox.h"
#include "controller/pb.h"
#include "controller/planner.h"
#include "controller/pool_cpu.h"
#include "controller/rebalance.h"
#include "controller/requests.h"
#include "controller/streams.h"
#include "controller/tallies.h"
#include "controller/vms.h"

#define TICK_MS     100
#define COMPLAINTS  32
#define COMPLAIN_MS 10000
#define PATH_SIZE   4096

/* ---- the turn ---- */

static void admin_gone(struct controller *controller, const struct link_peer *peer)
{
    streams_drop_peer(controller, peer);
    consoles_drop_peer(controller, peer);
}

static void end_turn(void *context)
{
    struct controller *controller = context;
    struct error err = ERROR_INIT;
    do
        jobs_enter(controller);
    while (migrate_queue_advance(controller));
    controller->turn_end = NULL; /* what comes from here on needs a turn of its own */
    faults_act(controller, "entering");
    if (store_commit(controller->store, &err) < 0) {
        log_error("%s", err.text);
        outbox_fail(controller, &err);
        controller->store_failed = true;
        return;
    }
    faults_act(controller, "journalled");
    images_committed(controller);
    outbox_send(controller, admin_gone);
    faults_act(controller, "sent");
}

void controller_touch(struct controller *controller)
{
    if (!controller->turn_end)
        controller->turn_end = loop_add_timer(controller->loop, 0, 0, end_turn, controller);
    if (!controller->turn_end)
        abort(); /* out of memory */
}

static void on_tick(void *context)
{
    struct controller *controller = context;
    nodes_check(controller);
    jobs_check(controller);
    requests_check(controller);
    api_prune(controller);
    keys_prune(controller, (uint64_t)clock_wall_ms());
    rebalance_check(controller);
    scheduler_set_time(controller->scheduler, (uint64_t)clock_wall_ms() / 1000);
}

/* ---- the link ---- */

struct complaint {
    char user[LINK_USER_MAX];
    int64_t at_ms;
};

void controller_complain(struct controller *controller, const struct link_peer *peer,
                         const char *text)
{
    int64_t now_ms = clock_monotonic_ms();
    struct complaint *place = NULL;
    for (unsigned i = 0; i < COMPLAINTS; i++) {
        struct complaint *old = &controller->complaints[i];
        bool fresh = old->at_ms != 0 && now_ms - old->at_ms < COMPLAIN_MS;
        if (fresh && strcmp(old->user, peer->user) == 0)
            return;
        if (!fresh)
            place = old;
    }
    if (!place)
        return;
    memcpy(place->user, peer->user, sizeof place->user);
    place->at_ms = now_ms;
    log_warn("%s at %s sends %s", peer->user, peer->address, text);
}

static bool on_authorise(void *context, const uint8_t key[32], const char *address, char *user)
{
    struct controller *controller = context;
    (void)address;
    return keys_name(controller->keys, key, user, LINK_USER_MAX);
}

static void on_message(void *context, const struct link_peer *peer, const uint8_t *data,
                       size_t size)
{
    struct controller *controller = context;
    const char *id = "";
    switch (keys_class(peer->user, &id)) {
    case KEY_NODE:
        node_link_message(controller, peer, id, data, size);
        break;
    case KEY_TOKEN:
        node_link_join(controller, peer, id, data, size);
        break;
    case KEY_ADMIN:
        api_message(controller, peer, id, data, size);
        break;
    case KEY_NONE:
        break;
    }
}

static void on_refused(void *context, const char *address, const char *reason)
{
    struct controller *controller = context;
    event_add(controller, "warning", "auth.refused", address, 0, "%s", reason);
}

/* ---- opening ---- */

static int open_state_dir(const struct config *config, struct error *err)
{
    /* Its parents too, as /var/lib/vmpool may be new. */
    char path[PATH_SIZE];
    int length = snprintf(path, sizeof path, "%s", config->state_dir);
    if (length <= 0 || (size_t)length > sizeof path - 64)
        return error_set(err, ERROR_USAGE, "--state-dir needs a folder");
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(path, 0755);
        *slash = '/';
    }
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return error_errno(err, errno, "cannot make %s", path);
    if (access(path, W_OK | X_OK) < 0)
        return error_errno(err, errno, "cannot write to %s: choose another --state-dir", path);
    return 0;
}

static int load_node(void *context, const char *key, const uint8_t *data, size_t size,
                     struct error *err)
{
    struct controller *controller = context;
    Vmpool__Store__Node *stored = pb_unpack(&vmpool__store__node__descriptor, data, size, err);
    (void)key;
    if (!stored || stored->public_key.len != 32) {
        pb_free(stored);
        return error_set(err, ERROR_FAILED, "the store is damaged");
    }
    if (keys_add(controller->keys, KEY_NODE, stored->id, stored->public_key.data, err) < 0) {
        pb_free(stored);
        return -1;
    }
    (void)node_add(controller, stored);
    return 0;
}

static int load_token(void *context, const char *key, const uint8_t *data, size_t size,
                      struct error *err)
{
    struct controller *controller = context;
    Vmpool__Store__Token *stored = pb_unpack(&vmpool__store__token__descriptor, data, size, err);
    (void)key;
    if (!stored || stored->public_key.len != 32) {
        pb_free(stored);
        return error_set(err, ERROR_FAILED, "the store is damaged");
    }
    return keys_add_token(controller->keys, stored, err);
}

static int load_admin(void *context, const char *key, const uint8_t *data, size_t size,
                      struct error *err)
{
    struct controller *controller = context;
    Vmpool__Store__Admin *stored = pb_unpack(&vmpool__store__admin__descriptor, data, size, err);
    (void)key;
    int status = -1;
    if (stored && stored->public_key.len == 32)
        status = keys_add(controller->keys, KEY_ADMIN, stored->name, stored->public_key.data, err);
    pb_free(stored);
    return status;
}

static int load_image(void *context, const char *key, const uint8_t *data, size_t size,
                      struct error *err)
{
    struct controller *controller = context;
    Vmpool__Store__Image *stored = pb_unpack(&vmpool__store__image__descriptor, data, size, err);
    (void)key;
    if (!stored || !stored->spec) {
        pb_free(stored);
        return error_set(err, ERROR_FAILED, "the store is damaged");
    }
    image_add(controller, stored);
    return 0;
}

static int load_vm(void *context, const char *key, const uint8_t *data, size_t size,
                   struct error *err)
{
    struct controller *controller = context;
    Vmpool__Store__Vm *stored = pb_unpack(&vmpool__store__vm__descriptor, data, size, err);
    (void)key;
    if (!stored || !stored->spec) {
        pb_free(stored);
        return error_set(err, ERROR_FAILED, "the store is damaged");
    }
    (void)vm_add(controller, stored);
    return 0;
}

static int load(struct controller *controller, struct error *err)
{
    struct store *store = controller->store;
    char last[STORE_NUMBER_SIZE + 1];
    if (store_last_key(store, STORE_EVENT, last, sizeof last, err) < 0)
        return -1;
    controller->next_event = strtoull(last, NULL, 10) + 1;
    scheduler_set_time(controller->scheduler, (uint64_t)clock_wall_ms() / 1000);
    if (departures_load(controller, err) < 0 ||
        store_read(store, STORE_NODE, "", 0, load_node, controller, err) < 0 ||
        store_read(store, STORE_TOKEN, "", 0, load_token, controller, err) < 0 ||
        store_read(store, STORE_ADMIN, "", 0, load_admin, controller, err) < 0 ||
        store_read(store, STORE_IMAGE, "", 0, load_image, controller, err) < 0 ||
        store_read(store, STORE_VM, "", 0, load_vm, controller, err) < 0 ||
        jobs_load(controller, err) < 0 || api_load(controller, err) < 0 ||
        rebalance_load(controller, err) < 0)
        return error_wrap(err, "cannot load %s/store.db", controller->config.state_dir);
    return 0;
}

static void on_scrape(const void *context, struct metric_text *text)
{
    metrics_write(context, text);
}

static int serve_metrics(struct controller *controller, struct error *err)
{
    const char *address = controller->config.metrics;
    if (!address)
        return 0;
    controller->metrics = metrics_http_open(controller->loop, address, on_scrape, controller, err);
    return controller->metrics ? 0 : -1;
}

static const struct link_server_events link_events = {on_authorise, on_message, on_refused};

static int start(struct controller *controller, struct error *err)
{
    const struct config *config = &controller->config;
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof path, "%s/controller.key", config->state_dir);
    if (link_keys_load_or_create(path, &controller->own_keys, err) < 0)
        return -1;
    (void)snprintf(path, sizeof path, "%s/store.db", config->state_dir);
    if (!(controller->store = store_open(path, err)) ||
        !(controller->scheduler = scheduler_new(&config->scheduler, err)) ||
        !(controller->planner = planner_open(controller, err)) ||
        !(controller->images = images_open(controller, err)) || load(controller, err) < 0)
        return -1;
    controller->link = link_server_open(controller->loop, config->listen, &controller->own_keys,
                                        &link_events, controller, err);
    if (!controller->link || serve_metrics(controller, err) < 0)
        return -1;
    if (admin_context_address(config, link_server_address(controller->link), controller->address,
                              sizeof controller->address, err) < 0 ||
        admin_context_ensure(controller, err) < 0)
        return -1;
    jobs_resume(controller);
    /* What opening wrote is in the store before the first message is read. */
    if (store_commit(controller->store, err) < 0)
        return -1;
    controller->tick = loop_add_timer(controller->loop, TICK_MS, TICK_MS, on_tick, controller);
    return controller->tick ? 0 : error_errno(err, ENOMEM, "event loop");
}

struct controller *controller_open(const struct config *config, struct loop *loop,
                                   struct error *err)
{
    struct controller *controller = mem_new(sizeof *controller);
    controller->config = *config;
    controller->loop = loop;
    controller->next_job = 1;
    controller->started_wall_ms = clock_wall_ms();
    /* Above all ids of jobs' commands, and other ones after each restart. */
    controller->next_request = 1ull << 63 | (uint64_t)controller->started_wall_ms << 16;
    controller->outbox = outbox_new();
    controller->keys = keys_new();
    controller->cpu = pool_cpu_new();
    controller->api = api_new();
    controller->tallies = tallies_new();
    controller->rebalance = rebalance_new(config);
    controller->complaints = mem_new(COMPLAINTS * sizeof *controller->complaints);
    if (open_state_dir(config, err) < 0 || start(controller, err) < 0) {
        controller_close(controller);
        return NULL;
    }
    log_info("pool %s: listening on %s, reached at %s", config->pool_name,
             link_server_address(controller->link), controller->address);
    if (controller->metrics)
        log_info("metrics at http://%s/metrics", config->metrics);
    return controller;
}

void controller_close(struct controller *controller)
{
    if (!controller)
        return;
    loop_remove(controller->tick);
    loop_remove(controller->turn_end);
    metrics_http_close(controller->metrics);
    link_server_close(controller->link);
    planner_close(controller->planner);
    jobs_free(controller);
    streams_free(controller);
    requests_free(controller);
    consoles_free(controller);
    vms_free(controller);
    nodes_free(controller);
    images_close(controller->images);
    api_free(controller->api);
    keys_free(controller->keys);
    pool_cpu_free(controller->cpu);
    outbox_free(controller->outbox);
    scheduler_free(controller->scheduler);
    store_close(controller->store);
    free(controller->complaints);
    tallies_free(controller->tallies);
    rebalance_free(controller->rebalance);
    free(controller);
}

#include "pool.h"

#include <criterion/criterion.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

#define WAIT_MS 20000

void pool_run(struct pool *pool, int ms)
{
    struct error err = ERROR_INIT;
    int64_t end_ms = clock_monotonic_ms() + ms;
    while (clock_monotonic_ms() < end_ms)
        cr_assert_eq(loop_run_once(pool->loop, 10, &err), 0);
}

bool pool_until(struct pool *pool, pool_done_fn done, const void *what)
{
    struct error err = ERROR_INIT;
    int64_t end_ms = clock_monotonic_ms() + WAIT_MS;
    while (!done(pool, what) && clock_monotonic_ms() < end_ms)
        cr_assert_eq(loop_run_once(pool->loop, 50, &err), 0);
    return done(pool, what);
}

/* ---- the admin ---- */

static void on_connected(void *context)
{
    ((struct pool *)context)->admin_connected = true;
}

static void on_disconnected(void *context)
{
    ((struct pool *)context)->admin_connected = false;
}

static void on_message(void *context, const uint8_t *data, size_t size)
{
    struct pool *pool = context;
    Vmpool__AdminReply *reply = vmpool__admin_reply__unpack(NULL, size, data);
    cr_assert(reply);
    cr_assert_lt(pool->reply_count, 4096);
    pool->replies[pool->reply_count++] = reply;
}

static const struct link_client_events admin_events = {on_connected, on_disconnected, on_message,
                                                       NULL};

static bool is_admin_connected(struct pool *pool, const void *what)
{
    (void)what;
    return pool->admin_connected;
}

static void open_admin(struct pool *pool)
{
    struct error err = ERROR_INIT;
    struct link_keys keys;
    uint8_t server_key[32];
    char path[128], address[256], server[65], public[65], secret[65];
    (void)snprintf(path, sizeof path, "%s/admin.context", pool->state_dir);
    FILE *file = fopen(path, "re");
    cr_assert(file);
    cr_assert_eq(fscanf(file, "address %255s\nserver %64s\npublic %64s\nsecret %64s", address,
                        server, public, secret),
                 4);
    (void)fclose(file);
    cr_assert_eq(link_key_parse(server, "server", server_key, &err), 0);
    cr_assert_eq(link_key_parse(public, "public", keys.public_key, &err), 0);
    cr_assert_eq(link_key_parse(secret, "secret", keys.secret_key, &err), 0);
    pool->admin =
        link_client_open(pool->loop, address, server_key, &keys, &admin_events, pool, &err);
    cr_assert(pool->admin, "%s", err.text);
    cr_assert(pool_until(pool, is_admin_connected, NULL));
}

const char *pool_send(struct pool *pool, Vmpool__AdminRequest *request)
{
    static char id[64];
    struct error err = ERROR_INIT;
    uint8_t data[65536 + 4096];
    cr_assert(pool_until(pool, is_admin_connected, NULL));
    if (!request->protocol_version)
        request->protocol_version = VMPOOL__PROTOCOL_VERSION__PROTOCOL_CURRENT;
    if (!request->request_id[0]) {
        (void)snprintf(id, sizeof id, "%d-%u", getpid(), ++pool->requests);
        request->request_id = id;
    }
    cr_assert_leq(vmpool__admin_request__get_packed_size(request), sizeof data);
    size_t size = vmpool__admin_request__pack(request, data);
    cr_assert_eq(link_client_send(pool->admin, data, size, &err), 0, "%s", err.text);
    return request->request_id;
}

const Vmpool__AdminReply *pool_reply(const struct pool *pool, const char *request_id)
{
    for (unsigned i = pool->reply_count; i > 0; i--)
        if (strcmp(pool->replies[i - 1]->request_id, request_id) == 0)
            return pool->replies[i - 1];
    return NULL;
}

static bool is_answered(struct pool *pool, const void *what)
{
    const Vmpool__AdminReply *reply = pool_reply(pool, what);
    return reply && reply->done;
}

const Vmpool__AdminReply *pool_ask(struct pool *pool, Vmpool__AdminRequest *request)
{
    char id[64];
    unsigned before = pool->reply_count;
    (void)snprintf(id, sizeof id, "%s", pool_send(pool, request));
    /* A repeated id has an older reply already. */
    int64_t end_ms = clock_monotonic_ms() + WAIT_MS;
    while (pool->reply_count == before) {
        struct error err = ERROR_INIT;
        cr_assert(clock_monotonic_ms() < end_ms, "no answer to %s", id);
        cr_assert_eq(loop_run_once(pool->loop, 50, &err), 0);
    }
    cr_assert(pool_until(pool, is_answered, id), "no answer to %s", id);
    return pool_reply(pool, id);
}

/* ---- the pool ---- */

void pool_start_controller(struct pool *pool)
{
    struct error err = ERROR_INIT;
    pool->controller = controller_open(&pool->config, pool->loop, &err);
    cr_assert(pool->controller, "%s", err.text);
    (void)snprintf(pool->listen, sizeof pool->listen, "%s",
                   link_server_address(pool->controller->link));
}

void pool_kill_controller(struct pool *pool)
{
    controller_close(pool->controller);
    pool->controller = NULL;
}

char *pool_token(struct pool *pool)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__TokenCreate create = VMPOOL__TOKEN_CREATE__INIT;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_TOKEN_CREATE;
    request.token_create = &create;
    const Vmpool__AdminReply *reply = pool_ask(pool, &request);
    cr_assert_null(reply->failure);
    cr_assert(reply->token);
    return reply->token->token;
}

static bool is_welcome(struct pool *pool, const void *what)
{
    const struct sim_agent *agent = what;
    const struct node *node = pool->controller ? node_by_name(pool->controller, agent->name) : NULL;
    return agent->welcomed && (!pool->controller || (node && node->report));
}

struct sim_agent *pool_join(struct pool *pool, const char *name)
{
    struct sim_agent *agent = sim_agent_new(&pool->net, name, pool_token(pool));
    cr_assert(agent);
    cr_assert(pool_until(pool, is_welcome, agent), "%s did not join: %s", name, agent->refused);
    return agent;
}

void pool_open(struct pool *pool, unsigned agents)
{
    struct error err = ERROR_INIT;
    memset(pool, 0, sizeof *pool);
    log_init("test", LOG_LEVEL_ERROR);
    pool->loop = loop_new(&err);
    (void)snprintf(pool->state_dir, sizeof pool->state_dir, "/tmp/vmpool-test-XXXXXX");
    cr_assert(mkdtemp(pool->state_dir));
    struct config config = CONFIG_DEFAULTS;
    pool->config = config;
    (void)snprintf(pool->listen, sizeof pool->listen, "127.0.0.1:0");
    pool->config.state_dir = pool->state_dir;
    pool->config.listen = pool->listen;
    pool->config.report_interval_ms = 50;
    pool->config.lost_after_ms = 1000;
    pool->config.handover_grace_ms = 100;
    pool->config.command_timeout_ms = 3000;
    sim_net_init(&pool->net, pool->loop);
    pool_start_controller(pool);
    open_admin(pool);
    for (unsigned i = 1; i <= agents; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "n%u", i);
        (void)pool_join(pool, name);
    }
}

void pool_close(struct pool *pool)
{
    char command[128];
    cr_assert_eq(pool->net.twice, 0, "a VM ran twice");
    sim_net_free(&pool->net);
    link_client_close(pool->admin);
    controller_close(pool->controller);
    for (unsigned i = 0; i < pool->reply_count; i++)
        vmpool__admin_reply__free_unpacked(pool->replies[i], NULL);
    loop_free(pool->loop);
    (void)snprintf(command, sizeof command, "rm -r %s", pool->state_dir);
    cr_assert_eq(system(command), 0);
}

struct sim_agent *pool_agent(struct pool *pool, const char *name)
{
    struct sim_agent *agent = pool->net.agents;
    while (agent && strcmp(agent->name, name) != 0)
        agent = agent->next;
    cr_assert(agent, "no agent %s", name);
    return agent;
}

/* ---- images ---- */

void pool_import_image(struct pool *pool)
{
    static char kernel[] = "\177ELF that is not really one, but is not looked at closer here";
    char name[] = "debian", no_id[] = "", hex[65];
    uint8_t hash[32];
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__ImagePut put = VMPOOL__IMAGE_PUT__INIT;
    Vmpool__ImageSpec spec = VMPOOL__IMAGE_SPEC__INIT;
    Vmpool__ImagePiece piece = VMPOOL__IMAGE_PIECE__INIT;
    (void)crypto_hash_sha256(hash, (const uint8_t *)kernel, sizeof kernel);
    (void)sodium_bin2hex(hex, sizeof hex, hash, sizeof hash);
    spec.name = name;
    spec.kernel_sha256 = hex;
    spec.kernel_bytes = sizeof kernel;
    put.image = &spec;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_IMAGE_PUT;
    request.image_put = &put;
    const Vmpool__AdminReply *reply = pool_ask(pool, &request);
    cr_assert_null(reply->failure);
    cr_assert_eq(reply->image_accepted->n_missing_sha256, 1);
    Vmpool__AdminRequest send = VMPOOL__ADMIN_REQUEST__INIT;
    piece.sha256 = hex;
    piece.total_bytes = sizeof kernel;
    piece.data = (ProtobufCBinaryData){sizeof kernel, (uint8_t *)kernel};
    send.body_case = VMPOOL__ADMIN_REQUEST__BODY_IMAGE_PIECE;
    send.image_piece = &piece;
    reply = pool_ask(pool, &send);
    cr_assert_null(reply->failure);
    request.request_id = no_id;
    reply = pool_ask(pool, &request);
    cr_assert_null(reply->failure);
    cr_assert_eq(reply->image_accepted->n_missing_sha256, 0);
}

/* ---- VMs and jobs ---- */

/* protobuf-c has no const strings. */
static char *copy(const char *text, char out[64])
{
    (void)snprintf(out, 64, "%s", text);
    return out;
}

struct job *pool_job_end(struct pool *pool, uint64_t id)
{
    struct error err = ERROR_INIT;
    int64_t end_ms = clock_monotonic_ms() + WAIT_MS;
    cr_assert(id != 0, "no job");
    for (;;) {
        struct job *job = pool->controller ? job_by_id(pool->controller, id) : NULL;
        cr_assert(job || !pool->controller, "no job %llu", (unsigned long long)id);
        if (job && !job_running(job))
            return job;
        cr_assert(clock_monotonic_ms() < end_ms, "job %llu still in %s: %s", (unsigned long long)id,
                  job ? job->stored->step : "", job ? job->stored->text : "");
        cr_assert_eq(loop_run_once(pool->loop, 50, &err), 0);
    }
}

static const Vmpool__AdminReply *end_of(struct pool *pool, const Vmpool__AdminReply *reply)
{
    if (reply->job)
        (void)pool_job_end(pool, reply->job->id);
    return reply;
}

const Vmpool__AdminReply *pool_create(struct pool *pool, const char *name, const char *on_node)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__VmCreate create = VMPOOL__VM_CREATE__INIT;
    char image[] = "debian", name_copy[64], node_copy[64];
    create.name = copy(name, name_copy);
    create.vcpus = 2;
    create.memory_mib = 512;
    create.image = image;
    create.on_node = copy(on_node, node_copy);
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_VM_CREATE;
    request.vm_create = &create;
    return end_of(pool, pool_ask(pool, &request));
}

const Vmpool__AdminReply *pool_change(struct pool *pool, const char *name,
                                      Vmpool__VmChange__Action action, bool force)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__VmChange change = VMPOOL__VM_CHANGE__INIT;
    char name_copy[64];
    change.name = copy(name, name_copy);
    change.action = action;
    change.force = force;
    change.timeout_ms = 400;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_VM_CHANGE;
    request.vm_change = &change;
    return end_of(pool, pool_ask(pool, &request));
}

uint64_t pool_migrate(struct pool *pool, const char *name, const char *to)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__VmMigrate migrate = VMPOOL__VM_MIGRATE__INIT;
    char name_copy[64], node_copy[64];
    migrate.name = copy(name, name_copy);
    migrate.to_node = copy(to, node_copy);
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_VM_MIGRATE;
    request.vm_migrate = &migrate;
    const Vmpool__AdminReply *reply = pool_ask(pool, &request);
    cr_assert_null(reply->failure, "%s", reply->failure ? reply->failure->text : "");
    return reply->job ? reply->job->id : 0;
}

const struct vm *pool_vm(struct pool *pool, const char *name)
{
    const struct vm *vm = vm_by_name(pool->controller, name);
    cr_assert(vm, "no VM %s", name);
    return vm;
}

struct wanted {
    const char *name;
    int phase;
};

static bool vm_is_in(struct pool *pool, const void *what)
{
    const struct wanted *wanted = what;
    const struct vm *vm = pool->controller ? vm_by_name(pool->controller, wanted->name) : NULL;
    return vm && (int)vm->stored->phase == wanted->phase;
}

bool pool_await_phase(struct pool *pool, const char *name, Vmpool__VmPhase phase)
{
    struct wanted wanted = {name, (int)phase};
    return pool_until(pool, vm_is_in, &wanted);
}

static bool node_is_in(struct pool *pool, const void *what)
{
    const struct wanted *wanted = what;
    const struct node *node =
        pool->controller ? node_by_name(pool->controller, wanted->name) : NULL;
    return node && (int)node->phase == wanted->phase;
}

bool pool_await_node_phase(struct pool *pool, const char *name, Vmpool__NodePhase phase)
{
    struct wanted wanted = {name, (int)phase};
    return pool_until(pool, node_is_in, &wanted);
}

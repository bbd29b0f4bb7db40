/*
 * control-bench: a real pool-controller, its store on disk and durable before each answer, with
 * simulated agents on loopback: what a heartbeat costs it, and how many placements a second it
 * makes.
 *
 * For each size: a state folder is made in which the nodes have joined already; the controller runs
 * as a process of its own, the agents in others of up to 1,000 each, all in this machine, so they
 * take from the same processors. First only heartbeats pass for a while; then VMs are created, a
 * fixed number of requests under way at a time, until all run; at last a plan of each kind is asked
 * for, and the status right after it, which tells for how long others had to wait, and the metrics
 * are read. All processes and files are gone at the end, also where it fails.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/process.h"
#include "bench/sim-agent.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/units.h"
#include "controller/pb.h"
#include "controller/store.h"
#include "controller/uuid.h"
#include "proto/admin.pb-c.h"
#include "proto/store.pb-c.h"

#define WORKER_AGENTS  1000
#define WORKERS_MAX    16
#define STARTING_MAX   40 /* agents of a worker that connect at a time */
#define UNDER_WAY      64 /* create requests */
#define REPORT_MS      5000
#define PHASE_LIMIT_MS 300000
#define NODES_MAX      (WORKER_AGENTS * WORKERS_MAX)
#define SCRAPES        5
#define PATH_SIZE      512

struct bench {
    unsigned nodes, vms, idle_s;
    char folder[128], context[PATH_SIZE], address[64], metrics[64];
    struct link_keys server_keys;
    struct link_keys *node_keys;
    pid_t controller, workers[WORKERS_MAX];
    unsigned worker_count;

    struct loop *loop;
    struct link_client *admin;
    bool connected;
    Vmpool__PoolStatus *status; /* the newest; NULL: asked for */
    bool image_ready;
    unsigned asked, sent, answered, refused;
    char first_refusal[200];
    int64_t *sent_ns, *took_ns;
    int64_t planned_ns, plan_status_ns; /* when the newest answers came; 0: asked for */
    char plan_refusal[200];
};

struct figures {
    double empty_cpu, empty_us; /* heartbeats of nodes without VMs */
    double idle_cpu, idle_us;   /* and with */
    double peak_mib;
    double placements_per_s, busy_cpu, p50_ms, p99_ms;
    double connect_s;
    double plan_ms, wait_ms; /* the longest plan, and wait behind one */
    double scrape_ms, scrape_cpu_ms, scrape_mib;
};

/* ---- processes and files ---- */

static int remove_entry(const char *path, const struct stat *stat, int kind, struct FTW *at)
{
    (void)stat;
    (void)kind;
    (void)at;
    return remove(path);
}

static void end_process(pid_t pid, int signal_number)
{
    int status = 0;
    if (pid <= 0)
        return;
    (void)kill(pid, signal_number);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
}

static void clean_up(struct bench *bench)
{
    if (bench->status)
        vmpool__pool_status__free_unpacked(bench->status, NULL);
    link_client_close(bench->admin);
    loop_free(bench->loop);
    for (unsigned i = 0; i < bench->worker_count; i++)
        end_process(bench->workers[i], SIGKILL);
    end_process(bench->controller, SIGTERM);
    if (bench->folder[0])
        (void)nftw(bench->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(bench->node_keys);
    free(bench->sent_ns);
    free(bench->took_ns);
}

/* A port of loopback that is free now. */
static int find_address(char *out, size_t size, struct error *err)
{
    auto_fd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        return error_errno(err, errno, "no free port of loopback");
    (void)snprintf(out, size, "127.0.0.1:%u", ntohs(address.sin_port));
    return 0;
}

static void start_controller(struct bench *bench)
{
    char path[PATH_SIZE] = "", log[PATH_SIZE];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 32);
    char *slash = length > 0 ? strrchr(path, '/') : NULL;
    (void)snprintf(slash ? slash + 1 : path, 32, "pool-controller");
    (void)snprintf(log, sizeof log, "%s/log", bench->folder);
    bench->controller = fork();
    if (bench->controller != 0)
        return;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    int fd = open(log, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0) {
        (void)dup2(fd, 1);
        (void)dup2(fd, 2);
    }
    (void)execl(path, path, "--state-dir", bench->folder, "--listen", bench->address, "--advertise",
                bench->address, "--report-interval", "5s", "--lost-after", "60s", "--rebalance",
                "off", "--metrics", bench->metrics, "--log-level", "warn", (char *)NULL);
    _exit(127);
}

/* ---- nodes that have joined ---- */

static int write_nodes(struct bench *bench, struct error *err)
{
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof path, "%s/controller.key", bench->folder);
    if (link_keys_load_or_create(path, &bench->server_keys, err) < 0)
        return -1;
    (void)snprintf(path, sizeof path, "%s/store.db", bench->folder);
    struct store *store = store_open(path, err);
    if (!store)
        return -1;
    int status = 0;
    struct sim_net net;
    Vmpool__NodeFacts facts;
    sim_net_init(&net, NULL);
    struct sim_agent *example = sim_agent_known(&net, "example", bench->address,
                                                bench->server_keys.public_key, &bench->server_keys);
    if (!example)
        abort();
    sim_agent_facts(example, &facts);
    for (unsigned i = 0; status == 0 && i < bench->nodes; i++) {
        char id[SHORT_ID_SIZE], name[24];
        Vmpool__Store__Node node = VMPOOL__STORE__NODE__INIT;
        status = link_keys_generate(&bench->node_keys[i], err);
        (void)snprintf(name, sizeof name, "n%u", i + 1);
        node.id = (char *)(uintptr_t)short_id_make(id);
        node.name = name;
        node.facts = &facts;
        node.public_key = (ProtobufCBinaryData){32, bench->node_keys[i].public_key};
        store_put(store, STORE_NODE, id, &node.base);
    }
    if (status == 0)
        status = store_commit(store, err);
    store_close(store);
    sim_net_free(&net);
    return status;
}

/* ---- agents, in a process of their own ---- */

struct worker {
    struct sim_net net;
    struct sim_agent *next; /* to be started */
    unsigned started;
};

static void start_more(void *context)
{
    struct worker *worker = context;
    unsigned waiting = 0;
    for (const struct sim_agent *agent = worker->net.agents; agent; agent = agent->next)
        waiting += agent->link && !agent->welcomed;
    for (; worker->next && waiting < STARTING_MAX; worker->next = worker->next->next, waiting++)
        sim_agent_start(worker->next);
}

static void run_worker(const struct bench *bench, unsigned first, unsigned count)
{
    struct error err = ERROR_INIT;
    struct worker worker = {0};
    struct loop *loop = loop_new(&err);
    if (!loop)
        _exit(1);
    sim_net_init(&worker.net, loop);
    worker.net.link_context = link_context_new();
    for (unsigned i = first; i < first + count; i++) {
        char name[24];
        (void)snprintf(name, sizeof name, "n%u", i + 1);
        if (!sim_agent_known(&worker.net, name, bench->address, bench->server_keys.public_key,
                             &bench->node_keys[i]))
            _exit(1);
    }
    worker.next = worker.net.agents;
    (void)loop_add_timer(loop, 0, 50, start_more, &worker);
    (void)loop_run(loop, &err);
    _exit(0); /* ends by a signal */
}

static int start_workers(struct bench *bench, struct error *err)
{
    for (unsigned first = 0; first < bench->nodes; first += WORKER_AGENTS) {
        unsigned count = bench->nodes - first;
        pid_t pid = fork();
        if (pid < 0)
            return error_errno(err, errno, "cannot start a process of agents");
        if (pid == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            run_worker(bench, first, count < WORKER_AGENTS ? count : WORKER_AGENTS);
        }
        bench->workers[bench->worker_count++] = pid;
    }
    return 0;
}

/* ---- the admin ---- */

static int send_request(struct bench *bench, Vmpool__AdminRequest *request, const char *id,
                        struct error *err)
{
    char copy[32];
    size_t size = 0;
    (void)snprintf(copy, sizeof copy, "%s", id);
    request->protocol_version = VMPOOL__PROTOCOL_VERSION__PROTOCOL_CURRENT;
    request->request_id = copy;
    auto_free uint8_t *data = pb_pack(&request->base, &size);
    return link_client_send(bench->admin, data, size, err);
}

static void on_create(struct bench *bench, unsigned number, const Vmpool__AdminReply *reply)
{
    if (number >= bench->vms || bench->took_ns[number])
        return;
    bench->took_ns[number] = clock_monotonic_ns() - bench->sent_ns[number];
    bench->answered++;
    if (!reply->failure)
        return;
    if (bench->refused++ == 0)
        (void)snprintf(bench->first_refusal, sizeof bench->first_refusal, "%.190s",
                       reply->failure->text);
}

static void on_message(void *context, const uint8_t *data, size_t size)
{
    struct bench *bench = context;
    Vmpool__AdminReply *reply = vmpool__admin_reply__unpack(NULL, size, data);
    if (!reply)
        return;
    if (reply->request_id[0] == 'w') {
        bench->plan_status_ns = clock_monotonic_ns();
    } else if (reply->request_id[0] == 'p') {
        bench->planned_ns = clock_monotonic_ns();
        if (reply->failure)
            (void)snprintf(bench->plan_refusal, sizeof bench->plan_refusal, "%.190s",
                           reply->failure->text);
    } else if (reply->body_case == VMPOOL__ADMIN_REPLY__BODY_STATUS) {
        if (bench->status)
            vmpool__pool_status__free_unpacked(bench->status, NULL);
        bench->status = reply->status;
        reply->body_case = VMPOOL__ADMIN_REPLY__BODY__NOT_SET;
    } else if (reply->request_id[0] == 'c') {
        on_create(bench, (unsigned)strtoul(reply->request_id + 1, NULL, 10), reply);
    } else if (reply->body_case == VMPOOL__ADMIN_REPLY__BODY_IMAGE_ACCEPTED) {
        bench->image_ready = strcmp(reply->request_id, "i3") == 0 && !reply->failure &&
                             reply->image_accepted->n_missing_sha256 == 0;
    }
    vmpool__admin_reply__free_unpacked(reply, NULL);
}

static void on_connected(void *context)
{
    ((struct bench *)context)->connected = true;
}

static void on_disconnected(void *context)
{
    ((struct bench *)context)->connected = false;
}

static const struct link_client_events admin_events = {on_connected, on_disconnected, on_message,
                                                       NULL};

/* Runs the loop until @done, at most @limit_ms. */
static int await(struct bench *bench, bool (*done)(struct bench *bench), int64_t limit_ms,
                 const char *what, struct error *err)
{
    int64_t end_ms = clock_monotonic_ms() + limit_ms;
    while (!done(bench)) {
        if (clock_monotonic_ms() > end_ms)
            return error_set(err, ERROR_TIMEOUT, "%u nodes: no %s within %" PRId64 " s",
                             bench->nodes, what, limit_ms / 1000);
        if (loop_run_once(bench->loop, 20, err) < 0)
            return -1;
    }
    return 0;
}

static bool has_context(struct bench *bench)
{
    return access(bench->context, R_OK) == 0;
}

static bool is_connected(struct bench *bench)
{
    return bench->connected;
}

static int open_admin(struct bench *bench, struct error *err)
{
    char address[256], server[65], public_key[65], secret[65];
    uint8_t server_key[32];
    struct link_keys keys;
    (void)snprintf(bench->context, sizeof bench->context, "%s/admin.context", bench->folder);
    if (await(bench, has_context, 20000, "start of pool-controller", err) < 0)
        return -1;
    auto_file FILE *file = fopen(bench->context, "re");
    if (!file || fscanf(file, "address %255s\nserver %64s\npublic %64s\nsecret %64s", address,
                        server, public_key, secret) != 4)
        return error_set(err, ERROR_FAILED, "cannot read %s", bench->context);
    if (link_key_parse(server, "server", server_key, err) < 0 ||
        link_key_parse(public_key, "public", keys.public_key, err) < 0 ||
        link_key_parse(secret, "secret", keys.secret_key, err) < 0)
        return -1;
    bench->admin =
        link_client_open(bench->loop, address, server_key, &keys, &admin_events, bench, err);
    return bench->admin ? await(bench, is_connected, 20000, "connection", err) : -1;
}

/* Asks again once the last answer is there; true where it satisfies @enough. */
static bool status_says(struct bench *bench, bool (*enough)(const struct bench *bench))
{
    struct error ignored = ERROR_INIT;
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__StatusGet get = VMPOOL__STATUS_GET__INIT;
    char id[32];
    if (bench->status && enough(bench))
        return true;
    if (bench->status || bench->asked == 0) {
        if (bench->status)
            vmpool__pool_status__free_unpacked(bench->status, NULL);
        bench->status = NULL;
        (void)snprintf(id, sizeof id, "s%u", ++bench->asked);
        request.body_case = VMPOOL__ADMIN_REQUEST__BODY_STATUS;
        request.status = &get;
        (void)send_request(bench, &request, id, &ignored);
    }
    return false;
}

static bool enough_nodes(const struct bench *bench)
{
    return bench->status->nodes_up == bench->nodes;
}

static bool all_up(struct bench *bench)
{
    return status_says(bench, enough_nodes);
}

static bool enough_vms(const struct bench *bench)
{
    return bench->status->vms_running == bench->vms - bench->refused &&
           bench->status->jobs_running == 0;
}

/* ---- an image of nothing ---- */

static bool has_image(struct bench *bench)
{
    return bench->image_ready;
}

static int import_image(struct bench *bench, struct error *err)
{
    /* SHA-256 of the five bytes here. */
    static char kernel[] = "\177ELF";
    static char hash[] = "8d70ec3a2f3f83952913d20234644bbdec61f9b66c24f94ceed7940252bf2cb4";
    Vmpool__AdminRequest put = VMPOOL__ADMIN_REQUEST__INIT, send = put, again = put;
    Vmpool__ImagePut image = VMPOOL__IMAGE_PUT__INIT;
    Vmpool__ImageSpec spec = VMPOOL__IMAGE_SPEC__INIT;
    Vmpool__ImagePiece piece = VMPOOL__IMAGE_PIECE__INIT;
    char name[] = "bench";
    spec.name = name;
    spec.kernel_sha256 = hash;
    spec.kernel_bytes = sizeof kernel;
    image.image = &spec;
    piece.sha256 = hash;
    piece.total_bytes = sizeof kernel;
    piece.data = (ProtobufCBinaryData){sizeof kernel, (uint8_t *)kernel};
    put.body_case = again.body_case = VMPOOL__ADMIN_REQUEST__BODY_IMAGE_PUT;
    put.image_put = again.image_put = &image;
    send.body_case = VMPOOL__ADMIN_REQUEST__BODY_IMAGE_PIECE;
    send.image_piece = &piece;
    if (send_request(bench, &put, "i1", err) < 0 || send_request(bench, &send, "i2", err) < 0 ||
        send_request(bench, &again, "i3", err) < 0)
        return -1;
    return await(bench, has_image, 10000, "image", err);
}

/* ---- measuring ---- */

/* Nothing but heartbeats; returns what one costs in CPU, in microseconds. */
static int measure_idle(struct bench *bench, double *cpu_share, double *heartbeat_us,
                        struct error *err)
{
    int64_t start_ns = clock_monotonic_ns();
    double before = process_cpu_s(bench->controller);
    int64_t end_ns = start_ns + (int64_t)bench->idle_s * 1000000000;
    while (clock_monotonic_ns() < end_ns)
        if (loop_run_once(bench->loop, 50, err) < 0)
            return -1;
    double seconds = (double)(clock_monotonic_ns() - start_ns) / 1e9;
    double cpu = process_cpu_s(bench->controller) - before;
    *cpu_share = cpu / seconds;
    *heartbeat_us = 1e6 * cpu / (seconds * bench->nodes * 1000 / REPORT_MS);
    return 0;
}

static int send_create(struct bench *bench, struct error *err)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__VmCreate create = VMPOOL__VM_CREATE__INIT;
    char name[24], id[32], image[] = "bench";
    (void)snprintf(name, sizeof name, "vm%u", bench->sent);
    (void)snprintf(id, sizeof id, "c%u", bench->sent);
    create.name = name;
    create.image = image;
    create.vcpus = 1;
    create.memory_mib = 256;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_VM_CREATE;
    request.vm_create = &create;
    bench->sent_ns[bench->sent++] = clock_monotonic_ns();
    return send_request(bench, &request, id, err);
}

static bool all_run(struct bench *bench)
{
    struct error ignored = ERROR_INIT;
    while (bench->sent < bench->vms && bench->sent - bench->answered < UNDER_WAY)
        if (send_create(bench, &ignored) < 0)
            break;
    return bench->answered == bench->vms && status_says(bench, enough_vms);
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int measure_placements(struct bench *bench, struct figures *figures, struct error *err)
{
    double before = process_cpu_s(bench->controller);
    int64_t start_ns = clock_monotonic_ns();
    if (await(bench, all_run, PHASE_LIMIT_MS, "end of the placements", err) < 0)
        return -1;
    double seconds = (double)(clock_monotonic_ns() - start_ns) / 1e9;
    if (bench->refused)
        return error_set(err, ERROR_FAILED, "%u of %u VMs were refused: %s", bench->refused,
                         bench->vms, bench->first_refusal);
    qsort(bench->took_ns, bench->vms, sizeof *bench->took_ns, by_size);
    figures->placements_per_s = bench->vms / seconds;
    figures->busy_cpu = (process_cpu_s(bench->controller) - before) / seconds;
    figures->p50_ms = (double)bench->took_ns[bench->vms / 2] / 1e6;
    figures->p99_ms = (double)bench->took_ns[bench->vms * 99 / 100] / 1e6;
    return 0;
}

static bool is_planned(struct bench *bench)
{
    return bench->planned_ns && bench->plan_status_ns;
}

static double at_least(double a, double b)
{
    return a > b ? a : b;
}

static int measure_plan(struct bench *bench, const char *kind, struct figures *figures,
                        struct error *err)
{
    Vmpool__AdminRequest plan = VMPOOL__ADMIN_REQUEST__INIT, status = plan;
    Vmpool__PlanGet get = VMPOOL__PLAN_GET__INIT;
    Vmpool__StatusGet status_get = VMPOOL__STATUS_GET__INIT;
    char kind_copy[24], node[] = "n1";
    (void)snprintf(kind_copy, sizeof kind_copy, "%s", kind);
    get.kind = kind_copy;
    if (strcmp(kind, "drain") == 0 || strcmp(kind, "lose") == 0)
        get.node = node;
    plan.body_case = VMPOOL__ADMIN_REQUEST__BODY_PLAN_GET;
    plan.plan_get = &get;
    status.body_case = VMPOOL__ADMIN_REQUEST__BODY_STATUS;
    status.status = &status_get;
    bench->planned_ns = bench->plan_status_ns = 0;
    int64_t start_ns = clock_monotonic_ns();
    if (send_request(bench, &plan, "p", err) < 0 || send_request(bench, &status, "w", err) < 0 ||
        await(bench, is_planned, PHASE_LIMIT_MS, "plan", err) < 0)
        return -1;
    if (bench->plan_refusal[0])
        return error_set(err, ERROR_FAILED, "no %s plan: %s", kind, bench->plan_refusal);
    double plan_ms = (double)(bench->planned_ns - start_ns) / 1e6;
    double wait_ms = (double)(bench->plan_status_ns - start_ns) / 1e6;
    (void)fprintf(stderr, "%s: %.1f ms, others waited %.1f ms\n", kind, plan_ms, wait_ms);
    figures->plan_ms = at_least(figures->plan_ms, plan_ms);
    figures->wait_ms = at_least(figures->wait_ms, wait_ms);
    return 0;
}

static int measure_plans(struct bench *bench, struct figures *figures, struct error *err)
{
    static const char *const kinds[] = {"rebalance", "drain", "lose", "consolidate"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (measure_plan(bench, kinds[i], figures, err) < 0)
            return -1;
    return 0;
}

/* The metrics of all nodes and VMs, some times over: how long one answer takes, in which the
 * controller does nothing else, and what it costs. */
static int measure_scrapes(struct bench *bench, struct figures *figures, struct error *err)
{
    size_t bytes = 0;
    double before = process_cpu_s(bench->controller);
    int64_t start_ns = clock_monotonic_ns();
    for (unsigned i = 0; i < SCRAPES; i++)
        if (process_scrape(bench->metrics, &bytes, err) < 0)
            return -1;
    figures->scrape_ms = (double)(clock_monotonic_ns() - start_ns) / 1e6 / SCRAPES;
    figures->scrape_cpu_ms = 1e3 * (process_cpu_s(bench->controller) - before) / SCRAPES;
    figures->scrape_mib = (double)bytes / (1 << 20);
    return 0;
}

static int run(struct bench *bench, struct figures *figures, struct error *err)
{
    bench->node_keys = calloc(bench->nodes, sizeof *bench->node_keys);
    bench->sent_ns = calloc(bench->vms, sizeof *bench->sent_ns);
    bench->took_ns = calloc(bench->vms, sizeof *bench->took_ns);
    bench->loop = loop_new(err);
    if (!bench->node_keys || !bench->sent_ns || !bench->took_ns || !bench->loop)
        return error_set(err, ERROR_FAILED, "out of memory");
    (void)snprintf(bench->folder, sizeof bench->folder, "/var/tmp/vmpool-control-bench-XXXXXX");
    if (!mkdtemp(bench->folder)) {
        bench->folder[0] = '\0';
        return error_errno(err, errno, "cannot make a folder in /var/tmp");
    }
    if (find_address(bench->address, sizeof bench->address, err) < 0 ||
        find_address(bench->metrics, sizeof bench->metrics, err) < 0 || write_nodes(bench, err) < 0)
        return -1;
    start_controller(bench);
    if (open_admin(bench, err) < 0 || import_image(bench, err) < 0)
        return -1;
    int64_t start_ns = clock_monotonic_ns();
    if (start_workers(bench, err) < 0 ||
        await(bench, all_up, PHASE_LIMIT_MS, "report of all nodes", err) < 0)
        return -1;
    figures->connect_s = (double)(clock_monotonic_ns() - start_ns) / 1e9;
    if (measure_idle(bench, &figures->empty_cpu, &figures->empty_us, err) < 0 ||
        measure_placements(bench, figures, err) < 0 ||
        measure_idle(bench, &figures->idle_cpu, &figures->idle_us, err) < 0 ||
        measure_plans(bench, figures, err) < 0 || measure_scrapes(bench, figures, err) < 0)
        return -1;
    figures->peak_mib = process_memory_mib(bench->controller, "VmHWM:");
    return 0;
}

static int bench_size(unsigned nodes, unsigned vms, unsigned idle_s, struct error *err)
{
    struct bench bench = {.nodes = nodes, .vms = vms, .idle_s = idle_s};
    struct figures figures = {0};
    int status = run(&bench, &figures, err);
    clean_up(&bench);
    if (status < 0)
        return -1;
    (void)printf("%6u %9.1f %9.1f %9.0f %7u %12.0f %9.1f %7.1f %7.1f %9.1f %9.0f %8.1f %8.0f %8.0f "
                 "%9.1f %9.1f %9.2f\n",
                 nodes, figures.connect_s, 100 * figures.empty_cpu, figures.empty_us, vms,
                 figures.placements_per_s, 100 * figures.busy_cpu, figures.p50_ms, figures.p99_ms,
                 100 * figures.idle_cpu, figures.idle_us, figures.peak_mib, figures.plan_ms,
                 figures.wait_ms, figures.scrape_ms, figures.scrape_cpu_ms, figures.scrape_mib);
    (void)fflush(stdout);
    return 0;
}

int main(int argc, char **argv)
{
    static const unsigned sizes[] = {100, 1000, 5000};
    struct error err = ERROR_INIT;
    struct rlimit limit;
    uint64_t vms = 4, idle_s = 30, nodes = 0;
    log_init("control-bench", LOG_LEVEL_ERROR);
    if (argc > 4 || (argc > 1 && units_parse_number(argv[1], "VMS", 1, 30, &vms, &err) < 0) ||
        (argc > 2 && units_parse_number(argv[2], "SECONDS", 1, 3600, &idle_s, &err) < 0) ||
        (argc > 3 && units_parse_number(argv[3], "NODES", 1, NODES_MAX, &nodes, &err) < 0)) {
        (void)fprintf(stderr, "usage: control-bench [VMS-PER-NODE [SECONDS [NODES]]]: %s\n",
                      err.text);
        return ERROR_USAGE;
    }
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    (void)printf("CPU in percent of one processor, beats in us of CPU per heartbeat\n"
                 "%6s %9s %9s %9s %7s %12s %9s %7s %7s %9s %9s %8s %8s %8s %9s %9s %9s\n",
                 "agents", "connect s", "empty CPU", "beat us", "VMs", "placements/s", "busy CPU",
                 "p50 ms", "p99 ms", "VMs' CPU", "beat us", "peak MiB", "plan ms", "wait ms",
                 "scrape ms", "its CPU", "its MiB");
    for (size_t i = 0; i < (nodes ? 1 : sizeof sizes / sizeof *sizes); i++) {
        unsigned size = nodes ? (unsigned)nodes : sizes[i];
        if (bench_size(size, size * (unsigned)vms, (unsigned)idle_s, &err) < 0) {
            (void)fprintf(stderr, "control-bench: %s\n", err.text);
            return (int)err.kind;
        }
    }
    return 0;
}

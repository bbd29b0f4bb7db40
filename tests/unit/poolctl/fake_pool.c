/* fake_pool.c: the pool the fake controller knows by heart, and its usual answers. */
#include "fake_pool.h"

#include <stdlib.h>
#include <string.h>

#define TEXT(literal) ((char *)(uintptr_t)(literal))
#define HOUR_MS       3600000ull

static Vmpool__Label label_rack = VMPOOL__LABEL__INIT;
static Vmpool__Label *node_labels[] = {&label_rack};
static Vmpool__Node node_list[2];
static Vmpool__Node *nodes[] = {&node_list[0], &node_list[1]};
static char *node_warnings[] = {TEXT("no cgroup v2: CPU limits are not enforced")};
static Vmpool__NodeTable node_table = VMPOOL__NODE_TABLE__INIT;

static Vmpool__ImageSpec image_spec = VMPOOL__IMAGE_SPEC__INIT;
static Vmpool__Image image = VMPOOL__IMAGE__INIT;
static Vmpool__Image *images[] = {&image};
static Vmpool__ImageTable image_table = VMPOOL__IMAGE_TABLE__INIT;

static Vmpool__DiskSpec disk = VMPOOL__DISK_SPEC__INIT;
static Vmpool__DiskSpec *disks[] = {&disk};
static Vmpool__Label label_app = VMPOOL__LABEL__INIT;
static Vmpool__Label *vm_labels[] = {&label_app};
static Vmpool__VmSpec vm_specs[2];
static Vmpool__VmUsage usage = VMPOOL__VM_USAGE__INIT;
static Vmpool__Vm vm_list[2];
static Vmpool__Vm *vms[] = {&vm_list[0], &vm_list[1]};
static Vmpool__VmTable vm_table = VMPOOL__VM_TABLE__INIT;

static Vmpool__MigrationPause pause_items = VMPOOL__MIGRATION_PAUSE__INIT;
static Vmpool__MigrationRound round_list[2];
static Vmpool__MigrationRound *rounds[] = {&round_list[0], &round_list[1]};
static Vmpool__MigrationProgress migration = VMPOOL__MIGRATION_PROGRESS__INIT;
static Vmpool__MigrationForecast forecast = VMPOOL__MIGRATION_FORECAST__INIT;
static Vmpool__MigrationReview review = VMPOOL__MIGRATION_REVIEW__INIT;
static Vmpool__HostVerdict verdict_list[2];
static Vmpool__HostVerdict *verdicts[] = {&verdict_list[0], &verdict_list[1]};
static Vmpool__Placement placement = VMPOOL__PLACEMENT__INIT;
static Vmpool__Job job = VMPOOL__JOB__INIT;
static Vmpool__Job *jobs[] = {&job};
static Vmpool__JobTable job_table = VMPOOL__JOB_TABLE__INIT;

static Vmpool__Event event_list[2];
static Vmpool__Event *events[] = {&event_list[0], &event_list[1]};
static Vmpool__EventBatch event_batch = VMPOOL__EVENT_BATCH__INIT;
static Vmpool__PoolStatus status = VMPOOL__POOL_STATUS__INIT;
static char *status_warnings[] = {TEXT("node n2 is drained")};
static Vmpool__RebalanceMode rebalance = VMPOOL__REBALANCE_MODE__INIT;
static Vmpool__Token token = VMPOOL__TOKEN__INIT;
static Vmpool__Text text = VMPOOL__TEXT__INIT;
static Vmpool__ImageAccepted accepted = VMPOOL__IMAGE_ACCEPTED__INIT;

static void make_nodes(void)
{
    label_rack.key = TEXT("rack");
    label_rack.value = TEXT("a");
    for (int i = 0; i < 2; i++) {
        Vmpool__Node *node = nodes[i];
        vmpool__node__init(node);
        node->id = TEXT(i ? "7d2c1f00-0000-4000-8000-000000000002"
                          : "7d2c1f00-0000-4000-8000-000000000001");
        node->name = TEXT(i ? "n2" : "n1");
        node->phase = i ? VMPOOL__NODE_PHASE__NODE_DRAINED : VMPOOL__NODE_PHASE__NODE_UP;
        node->cpus = 16;
        node->memory_mib = 65536;
        node->bandwidth_bps = 10000000000;
        node->vcpus_reserved = i ? 0 : 6;
        node->memory_reserved_mib = i ? 0 : 2560;
        node->bandwidth_reserved_bps = i ? 0 : 200000000;
        node->cpu_permille = i ? 3 : 125;
        node->cpu_guest_permille = i ? 0 : 110;
        node->cpu_user_permille = i ? 2 : 10;
        node->cpu_system_permille = i ? 1 : 5;
        node->memory_used_mib = i ? 700 : 2900;
        node->net_rx_bps = i ? 1200 : 35000000;
        node->net_tx_bps = i ? 800 : 120500000;
        node->storage_total_mib = 1048576;
        node->storage_free_mib = i ? 1048576 : 524288;
        node->vms = i ? 0 : 2;
        node->version = TEXT("0.1.0");
        node->kernel = TEXT("6.1.0-18-amd64");
        node->cpu_model = TEXT("AMD EPYC 7002");
        node->address = TEXT(i ? "10.0.0.12" : "10.0.0.11");
        node->last_report_wall_ms = FAKE_NOW_MS - 2000;
        node->reserved_memory_mib = 1024;
        node->draining = i;
    }
    node_list[0].n_labels = 1;
    node_list[0].labels = node_labels;
    node_list[1].n_warnings = 1;
    node_list[1].warnings = node_warnings;
    node_table.n_nodes = 2;
    node_table.nodes = nodes;
}

static void make_image(void)
{
    image_spec.name = TEXT("debian");
    image_spec.kernel_sha256 =
        TEXT("1111111111111111111111111111111111111111111111111111111111111111");
    image_spec.initrd_sha256 =
        TEXT("2222222222222222222222222222222222222222222222222222222222222222");
    image_spec.cmdline = TEXT("console=ttyS0 root=LABEL=\"r,1\" quiet");
    image_spec.kernel_bytes = 8101824;
    image_spec.initrd_bytes = 31457280;
    image.spec = &image_spec;
    image.created_wall_ms = FAKE_NOW_MS - 50 * HOUR_MS;
    image.vms = 2;
    image_table.n_images = 1;
    image_table.images = images;
}

static void make_migration(void)
{
    pause_items = (Vmpool__MigrationPause)VMPOOL__MIGRATION_PAUSE__INIT;
    pause_items.total_us = 23100;
    pause_items.stop_us = 300;
    pause_items.last_pages_us = 12000;
    pause_items.device_state_us = 4100;
    pause_items.verify_us = 4000;
    pause_items.handover_us = 1500;
    pause_items.activate_us = 1200;
    pause_items.announce_us = 900;
    for (int i = 0; i < 2; i++) {
        vmpool__migration_round__init(rounds[i]);
        rounds[i]->number = (uint32_t)i + 1;
        rounds[i]->pages_sent = i ? 900 : 24576;
        rounds[i]->pages_zero = i ? 0 : 40960;
        rounds[i]->pages_delta = i ? 700 : 0;
        rounds[i]->page_bytes = rounds[i]->pages_sent * 4096;
        rounds[i]->codec =
            i ? VMPOOL__MIGRATION_CODEC__CODEC_DELTA : VMPOOL__MIGRATION_CODEC__CODEC_LZ4;
        rounds[i]->wire_bytes = i ? 700000 : 44000000;
        rounds[i]->duration_us = i ? 41000 : 1210000;
        rounds[i]->dirtied_pages = i ? 64 : 900;
    }
    migration = (Vmpool__MigrationProgress)VMPOOL__MIGRATION_PROGRESS__INIT;
    migration.phase = VMPOOL__MIGRATION_PHASE__MIGRATION_COMPLETED;
    migration.round = 2;
    migration.ram_bytes = 256ull << 20;
    migration.wire_bytes = 44700000;
    migration.page_bytes = 25476ull * 4096;
    migration.pages_sent = 25476;
    migration.pages_zero = 40960;
    migration.elapsed_us = 1390000;
    migration.pause = &pause_items;
    migration.n_rounds = 2;
    migration.rounds = rounds;
    migration.verified = true;
    migration.streams = 2;
    migration.encrypted = true;
    forecast.bytes = 50000000;
    forecast.duration_us = 1500000;
    forecast.pause_us = 20000;
    review.predicted = &forecast;
    review.bytes = migration.wire_bytes;
    review.bytes_error_permille = 119;
    review.duration_us = 1620000;
    review.duration_error_permille = -74;
    review.pause_us = 19100;
    review.pause_error_permille = 47;
    review.engine_pause_us = 18500;
    review.engine_pause_error_permille = -31;
}

static void make_vms(void)
{
    label_app.key = TEXT("app");
    label_app.value = TEXT("web");
    disk.path = TEXT("/srv/pool/web.img");
    usage.memory_mib = 210;
    for (int i = 0; i < 2; i++) {
        Vmpool__VmSpec *spec = &vm_specs[i];
        vmpool__vm_spec__init(spec);
        vmpool__vm__init(vms[i]);
        spec->id = vms[i]->id = TEXT(i ? "c0ffee00-0000-4000-8000-000000000002"
                                       : "c0ffee00-0000-4000-8000-000000000001");
        spec->name = vms[i]->name = TEXT(i ? "zürich" : "web");
        spec->vcpus = i ? 4 : 2;
        spec->memory_mib = i ? 2048 : 512;
        spec->bandwidth_bps = i ? 0 : 200000000;
        spec->image = &image_spec;
        spec->mac = TEXT(i ? "52:54:00:00:00:02" : "52:54:00:00:00:01");
        vms[i]->spec = spec;
        vms[i]->phase = i ? VMPOOL__VM_PHASE__PHASE_FAILED : VMPOOL__VM_PHASE__PHASE_RUNNING;
        vms[i]->node = TEXT("n1");
        vms[i]->epoch = i ? 1 : 4;
        vms[i]->created_wall_ms = FAKE_NOW_MS - 49 * HOUR_MS;
        vms[i]->started_wall_ms = i ? 0 : FAKE_NOW_MS - 2 * HOUR_MS;
    }
    vm_list[1].text = TEXT("the guest panicked");
    vm_list[0].usage = &usage;
    vm_list[0].cpu_permille = 850;
    vm_list[0].net_rx_bps = 1500000;
    vm_list[0].net_tx_bps = 42000000;
    vm_list[0].last_migration = &migration;
    vm_list[0].last_review = &review;
    vm_specs[0].n_disks = 1;
    vm_specs[0].disks = disks;
    vm_specs[0].n_labels = 1;
    vm_specs[0].labels = vm_labels;
    vm_specs[0].anti_affinity_group = TEXT("front");
    vm_table.n_vms = 2;
    vm_table.vms = vms;
}

static void make_job(void)
{
    for (int i = 0; i < 2; i++) {
        vmpool__host_verdict__init(verdicts[i]);
        verdicts[i]->node = TEXT(i ? "n2" : "n1");
        verdicts[i]->fits = !i;
        verdicts[i]->score = i ? 0 : 0.8125;
        verdicts[i]->reason =
            TEXT(i ? "drained" : "cpu 0.90, memory 0.75, bandwidth 0.79, \"spread\"");
        verdicts[i]->filter = TEXT(i ? "drained" : "");
    }
    placement.node = TEXT("n1");
    placement.n_verdicts = 2;
    placement.verdicts = verdicts;
    placement.summary = TEXT("n1 has the best score, 0.81; 1 node is drained");
    job.id = 42;
    job.kind = TEXT("vm-migrate");
    job.subject = TEXT("web");
    job.phase = VMPOOL__JOB_PHASE__JOB_DONE;
    job.created_wall_ms = FAKE_NOW_MS - 90000;
    job.ended_wall_ms = FAKE_NOW_MS - 88000;
    job.migration = &migration;
    job.review = &review;
    job.placement = &placement;
    job.steps_done = 5;
    job.steps_total = 5;
    job.admin = TEXT("admin");
    job.from_node = TEXT("n2");
    job.to_node = TEXT("n1");
    job_table.n_jobs = 1;
    job_table.jobs = jobs;
}

static void make_rest(void)
{
    for (int i = 0; i < 2; i++) {
        vmpool__event__init(events[i]);
        events[i]->id = (uint64_t)i + 1;
        events[i]->wall_ms = FAKE_NOW_MS - (i ? 1000 : 60000);
        events[i]->severity = TEXT(i ? "warning" : "info");
        events[i]->kind = TEXT(i ? "auth.refused" : "vm.started");
        events[i]->subject = TEXT(i ? "203.0.113.9" : "web");
        events[i]->text = TEXT(i ? "unknown key, from \"203.0.113.9\", port 1" : "on n1");
        events[i]->job = i ? 0 : 41;
    }
    event_batch.n_events = 2;
    event_batch.events = events;
    status.version = TEXT("0.1.0");
    status.pool_name = TEXT("lab");
    status.address = TEXT("10.0.0.1:7400");
    status.started_wall_ms = FAKE_NOW_MS - 5 * HOUR_MS;
    status.nodes_up = 1;
    status.nodes_total = 2;
    status.vms_running = 1;
    status.vms_total = 2;
    status.migrations_streaming = 2;
    status.migrations_waiting = 5;
    status.migrations_pool_max = 16;
    status.migrations_out_max = status.migrations_in_max = 1;
    status.rebalance = rebalance.mode = TEXT("on");
    rebalance.started_with = TEXT("recommend");
    rebalance.set_by = TEXT("admin");
    rebalance.set_wall_ms = FAKE_NOW_MS - HOUR_MS;
    rebalance.job = 42;
    status.vcpus_total = 32;
    status.vcpus_reserved = 6;
    status.memory_total_mib = 131072;
    status.memory_reserved_mib = 2560;
    status.memory_used_mib = 3600;
    status.bandwidth_total_bps = 20000000000;
    status.bandwidth_reserved_bps = 200000000;
    status.bandwidth_used_bps = 121000000;
    status.cpu_permille = 64;
    status.n_warnings = 1;
    status.warnings = status_warnings;
    token.token = TEXT("vmpool1.AAAA");
    token.expires_wall_ms = FAKE_NOW_MS + HOUR_MS;
    text.text = TEXT("[    0.000000] Linux version 6.1.0\nlogin: ");
}

void fake_pool_make(void)
{
    make_nodes();
    make_image();
    make_migration();
    make_vms();
    make_job();
    make_rest();
}

/* A reply that is the last, with one member set. */
#define REPLY(CASE, member, value)                                                                 \
    do {                                                                                           \
        reply->body_case = VMPOOL__ADMIN_REPLY__BODY_##CASE;                                       \
        reply->member = (value);                                                                   \
    } while (0)

static void answer_nodes(const char *name, Vmpool__AdminReply *reply)
{
    node_table.nodes = nodes;
    node_table.n_nodes = 2;
    for (size_t i = 0; name[0] && i < 2; i++)
        if (strcmp(nodes[i]->name, name) == 0) {
            node_table.nodes = &nodes[i];
            node_table.n_nodes = 1;
            break;
        } else if (i == 1) {
            node_table.n_nodes = 0;
        }
    REPLY(NODES, nodes, &node_table);
}

static void answer_vms(const char *name, Vmpool__AdminReply *reply)
{
    vm_table.vms = vms;
    vm_table.n_vms = 2;
    for (size_t i = 0; name[0] && i < 2; i++)
        if (strcmp(vms[i]->name, name) == 0) {
            vm_table.vms = &vms[i];
            vm_table.n_vms = 1;
            break;
        } else if (i == 1) {
            vm_table.n_vms = 0;
        }
    REPLY(VMS, vms, &vm_table);
}

void fake_pool_answer(const Vmpool__AdminRequest *request, Vmpool__AdminReply *reply)
{
    switch (request->body_case) {
    case VMPOOL__ADMIN_REQUEST__BODY_STATUS:
        REPLY(STATUS, status, &status);
        break;
    case VMPOOL__ADMIN_REQUEST__BODY_REBALANCE_SET:
        REPLY(REBALANCE, rebalance, &rebalance);
        break;
    case VMPOOL__ADMIN_REQUEST__BODY_TOKEN_CREATE:
        REPLY(TOKEN, token, &token);
        break;
    case VMPOOL__ADMIN_REQUEST__BODY_NODE_LIST:
        answer_nodes(request->node_list->name, reply);
        break;
    case VMPOOL__ADMIN_REQUEST__BODY_VM_LIST:
        answer_vms(request->vm_list->name, reply);
        break;
    case VMPOOL__ADMIN_REQUEST__BODY_VM_EXPLAIN:
        REPLY(PLACEMENT, placement, &placement);
        break;
    case VMPOOL__ADMIN_REQUEST__BODY_VM_LOG:
        REPLY(TEXT, text, &text);
        break;
    case VMPOOL__ADMIN_REQUEST__BODY_IMAGE_LIST:
        REPLY(IMAGES, images, &image_table);
        break;
    case VMPOOL__ADMIN_REQUEST__BODY_IMAGE_PUT:
    case VMPOOL__ADMIN_REQUEST__BODY_IMAGE_PIECE:
    case VMPOOL__ADMIN_REQUEST__BODY_IMAGE_REMOVE:
        REPLY(IMAGE_ACCEPTED, image_accepted, &accepted);
        break;
    case VMPOOL__ADMIN_REQUEST__BODY_JOB_LIST:
        REPLY(JOBS, jobs, &job_table);
        break;
    case VMPOOL__ADMIN_REQUEST__BODY_EVENT_WATCH:
        REPLY(EVENTS, events, &event_batch);
        break;
    default:
        REPLY(JOB, job, &job);
        break;
    }
}

Vmpool__Job *fake_job(void)
{
    return &job;
}

/* What admins ask: each field validated, nothing changed by what is refused, nothing done twice. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "controller/images.h"
#include "pool.h"

static struct pool pool;

static void start(void)
{
    pool_open(&pool, 2);
    pool_import_image(&pool);
}

static void finish(void)
{
    pool_close(&pool);
}

TestSuite(api, .init = start, .fini = finish, .timeout = 60);

static char a[] = "a", debian[] = "debian", empty[] = "";

static Vmpool__VmCreate good_create(void)
{
    Vmpool__VmCreate create = VMPOOL__VM_CREATE__INIT;
    create.name = a;
    create.image = debian;
    create.vcpus = 1;
    create.memory_mib = 256;
    return create;
}

static const Vmpool__AdminReply *ask_create(Vmpool__VmCreate *create)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_VM_CREATE;
    request.vm_create = create;
    return pool_ask(&pool, &request);
}

static void assert_refused(const Vmpool__AdminReply *reply, uint32_t kind, const char *text)
{
    cr_assert(reply->failure, "it was not refused");
    cr_assert_eq(reply->failure->kind, kind, "kind %u: %s", reply->failure->kind,
                 reply->failure->text);
    cr_assert(strstr(reply->failure->text, text), "%s", reply->failure->text);
    cr_assert_null(pool.controller->vms);
    cr_assert_null(pool.controller->jobs);
}

Test(api, names_that_are_none)
{
    static const char *const bad[] = {
        "",
        "-a",
        "A",
        "a_b",
        "a b",
        "a/b",
        "\xff\xfe",
        ("a23456789012345678901234567890123456789012345678901234567890"
         "1234")};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        Vmpool__VmCreate create = good_create();
        char name[80];
        (void)snprintf(name, sizeof name, "%s", bad[i]);
        create.name = name;
        assert_refused(ask_create(&create), ERROR_USAGE, "the VM's name");
    }
}

Test(api, sizes_that_can_not_be)
{
    static const struct {
        uint32_t vcpus;
        uint64_t memory_mib, bandwidth_bps;
        const char *text;
    } bad[] = {
        {0, 256, 0, "1 to 16 vCPUs"},
        {17, 256, 0, "1 to 16 vCPUs"},
        {UINT32_MAX, 256, 0, "vCPUs"},
        {1, 0, 0, "memory"},
        {1, 63, 0, "64M"},
        {1, UINT64_MAX, 0, "memory"},
        {1, 256, UINT64_MAX, "bandwidth"},
    };
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        Vmpool__VmCreate create = good_create();
        create.vcpus = bad[i].vcpus;
        create.memory_mib = bad[i].memory_mib;
        create.bandwidth_bps = bad[i].bandwidth_bps;
        assert_refused(ask_create(&create), ERROR_USAGE, bad[i].text);
    }
}

Test(api, more_than_any_host_has_is_refused_with_what_is_closest)
{
    Vmpool__VmCreate create = good_create();
    create.memory_mib = 17 * 1024;
    const Vmpool__AdminReply *reply = ask_create(&create);
    assert_refused(reply, ERROR_NO_CAPACITY, "lack memory");
    cr_assert(strstr(reply->failure->text, "closest"), "%s", reply->failure->text);
    cr_assert_eq(reply->placement->n_verdicts, 2);
    cr_assert_str_eq(reply->placement->verdicts[0]->filter, "memory");
}

Test(api, what_is_not_there_is_not_found)
{
    char nothing[] = "nothing";
    Vmpool__VmCreate create = good_create();
    create.image = nothing;
    assert_refused(ask_create(&create), ERROR_NOT_FOUND, "poolctl image ls");
    create = good_create();
    create.on_node = nothing;
    assert_refused(ask_create(&create), ERROR_NOT_FOUND, "poolctl node ls");
    const Vmpool__AdminReply *reply =
        pool_change(&pool, "nothing", VMPOOL__VM_CHANGE__ACTION__STOP, false);
    assert_refused(reply, ERROR_NOT_FOUND, "poolctl vm ls");
}

Test(api, disks_labels_and_command_lines)
{
    Vmpool__VmCreate create = good_create();
    Vmpool__DiskSpec disk = VMPOOL__DISK_SPEC__INIT, *disks[] = {&disk};
    Vmpool__Label label = VMPOOL__LABEL__INIT, *labels[] = {&label, &label};
    char relative[] = "disk.img", up[] = "/srv/../etc/shadow", key[] = "k", spaced[] = "a b";
    char newline[] = "quiet\nroot=/dev/sda";
    create.disks = disks;
    create.n_disks = 1;
    assert_refused(ask_create(&create), ERROR_USAGE, "a disk is either");
    disk.path = relative;
    assert_refused(ask_create(&create), ERROR_USAGE, "must be absolute");
    disk.path = up;
    assert_refused(ask_create(&create), ERROR_USAGE, "\"..\"");
    disk.size_mib = 5;
    assert_refused(ask_create(&create), ERROR_USAGE, "a disk is either");
    create = good_create();
    create.labels = labels;
    create.n_labels = 1;
    assert_refused(ask_create(&create), ERROR_USAGE, "the key of a label");
    label.key = key;
    label.value = spaced;
    assert_refused(ask_create(&create), ERROR_USAGE, "the value of a label");
    label.value = key;
    create.n_labels = 2;
    assert_refused(ask_create(&create), ERROR_USAGE, "given twice");
    create = good_create();
    create.cmdline_extra = newline;
    assert_refused(ask_create(&create), ERROR_USAGE, "one line");
}

Test(api, a_dry_run_says_where_and_changes_nothing)
{
    Vmpool__VmCreate create = good_create();
    create.dry_run = true;
    const Vmpool__AdminReply *reply = ask_create(&create);
    cr_assert_null(reply->failure);
    cr_assert(reply->placement);
    cr_assert_str_neq(reply->placement->node, "");
    cr_assert_eq(reply->placement->n_verdicts, 2);
    cr_assert_null(pool.controller->vms);
    char where[64];
    (void)snprintf(where, sizeof where, "%s", reply->placement->node);
    (void)pool_create(&pool, "a", "");
    cr_assert_str_eq(node_name_of(pool.controller, pool_vm(&pool, "a")->stored->node_id), where);
}

Test(api, a_name_in_use_is_a_conflict)
{
    (void)pool_create(&pool, "a", "");
    Vmpool__VmCreate create = good_create();
    const Vmpool__AdminReply *reply = ask_create(&create);
    cr_assert(reply->failure);
    cr_assert_eq(reply->failure->kind, ERROR_CONFLICT);
    cr_assert(strstr(reply->failure->text, "a VM named a exists"));
}

Test(api, a_repeated_request_gets_its_answer_and_does_nothing)
{
    Vmpool__VmCreate create = good_create();
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    char id[] = "the-same";
    request.request_id = id;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_VM_CREATE;
    request.vm_create = &create;
    uint64_t job = pool_ask(&pool, &request)->job->id;
    (void)pool_job_end(&pool, job);
    const Vmpool__AdminReply *again = pool_ask(&pool, &request);
    cr_assert_null(again->failure);
    cr_assert_eq(again->job->id, job);
    /* After a restart too. */
    pool_kill_controller(&pool);
    pool_run(&pool, 50);
    pool_start_controller(&pool);
    pool_run(&pool, 500);
    again = pool_ask(&pool, &request);
    cr_assert_null(again->failure);
    cr_assert_eq(again->job->id, job);
    cr_assert_eq(pool_agent(&pool, "n1")->starts + pool_agent(&pool, "n2")->starts, 1);
}

Test(api, a_vm_with_a_job_is_busy)
{
    (void)pool_create(&pool, "a", "n1");
    pool_agent(&pool, "n1")->stop_at = SIM_PRECOPY;
    uint64_t job = pool_migrate(&pool, "a", "n2");
    const Vmpool__AdminReply *reply =
        pool_change(&pool, "a", VMPOOL__VM_CHANGE__ACTION__STOP, false);
    cr_assert(reply->failure);
    cr_assert_eq(reply->failure->kind, ERROR_CONFLICT);
    cr_assert(strstr(reply->failure->text, "poolctl job cancel"), "%s", reply->failure->text);
    cr_assert(job_running(job_by_id(pool.controller, job)));
}

Test(api, a_watched_job_is_told_to_its_end)
{
    (void)pool_create(&pool, "a", "n1");
    uint64_t id = pool_migrate(&pool, "a", "n2");
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__JobWatch watch = VMPOOL__JOB_WATCH__INIT;
    watch.id = id;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_JOB_WATCH;
    request.job_watch = &watch;
    unsigned before = pool.reply_count;
    const Vmpool__AdminReply *last = pool_ask(&pool, &request);
    cr_assert_eq(last->job->phase, VMPOOL__JOB_PHASE__JOB_DONE);
    cr_assert_str_eq(last->job->from_node, "n1");
    cr_assert_str_eq(last->job->to_node, "n2");
    cr_assert_geq(pool.reply_count - before, 2);
    cr_assert_null(pool.controller->streams);
}

Test(api, events_are_kept_and_followed)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__EventWatch watch = VMPOOL__EVENT_WATCH__INIT;
    watch.last = 2;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_EVENT_WATCH;
    request.event_watch = &watch;
    const Vmpool__AdminReply *reply = pool_ask(&pool, &request);
    cr_assert_eq(reply->events->n_events, 2);
    cr_assert_str_eq(reply->events->events[1]->kind, "image.imported");
    Vmpool__AdminRequest follow = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__EventWatch on = VMPOOL__EVENT_WATCH__INIT;
    on.follow = true;
    on.since_id = reply->events->events[1]->id;
    follow.body_case = VMPOOL__ADMIN_REQUEST__BODY_EVENT_WATCH;
    follow.event_watch = &on;
    char id[64];
    (void)snprintf(id, sizeof id, "%s", pool_send(&pool, &follow));
    (void)pool_create(&pool, "a", "n1");
    pool_run(&pool, 50);
    bool created = false, started = false;
    for (unsigned i = 0; i < pool.reply_count; i++) {
        const Vmpool__EventBatch *batch = pool.replies[i]->events;
        if (strcmp(pool.replies[i]->request_id, id) != 0 || !batch)
            continue;
        for (size_t j = 0; j < batch->n_events; j++) {
            created = created || strcmp(batch->events[j]->kind, "vm.created") == 0;
            started = started || strcmp(batch->events[j]->kind, "vm.started") == 0;
        }
    }
    cr_assert(created && started);
}

/* ---- images ---- */

static const Vmpool__AdminReply *put(Vmpool__ImageSpec *spec)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__ImagePut body = VMPOOL__IMAGE_PUT__INIT;
    body.image = spec;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_IMAGE_PUT;
    request.image_put = &body;
    return pool_ask(&pool, &request);
}

static const Vmpool__AdminReply *send_piece(char *hash, uint64_t offset, uint64_t total,
                                            const char *data, size_t size)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__ImagePiece piece = VMPOOL__IMAGE_PIECE__INIT;
    static uint8_t copy[4096];
    memcpy(copy, data, size);
    piece.sha256 = hash;
    piece.offset = offset;
    piece.total_bytes = total;
    piece.data = (ProtobufCBinaryData){size, copy};
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_IMAGE_PIECE;
    request.image_piece = &piece;
    return pool_ask(&pool, &request);
}

/* SHA-256 of "hello world\n". */
static char hello_hash[] = "a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447";

static Vmpool__ImageSpec hello_spec(void)
{
    static char name[] = "hello";
    Vmpool__ImageSpec spec = VMPOOL__IMAGE_SPEC__INIT;
    spec.name = name;
    spec.kernel_sha256 = hello_hash;
    spec.kernel_bytes = 12;
    return spec;
}

Test(api, a_kernel_that_is_none_is_refused)
{
    Vmpool__ImageSpec spec = hello_spec();
    cr_assert_eq(put(&spec)->image_accepted->n_missing_sha256, 1);
    cr_assert_null(send_piece(hello_hash, 0, 12, "hello world\n", 12)->failure);
    assert_refused(put(&spec), ERROR_USAGE, "neither a bzImage nor an ELF");
    cr_assert_null(image_by_name(pool.controller, "hello"));
}

Test(api, a_file_that_changed_on_its_way_is_refused)
{
    Vmpool__ImageSpec spec = hello_spec();
    (void)put(&spec);
    cr_assert_null(send_piece(hello_hash, 0, 12, "hello ", 6)->failure);
    cr_assert_null(send_piece(hello_hash, 0 + 0, 12, "hello ", 6)->failure); /* begins anew */
    assert_refused(send_piece(hello_hash, 6, 12, "WORLD\n", 6), ERROR_USAGE, "hash");
    cr_assert_eq(put(&spec)->image_accepted->n_missing_sha256, 1);
}

Test(api, pieces_out_of_order_unannounced_or_too_long_are_refused)
{
    assert_refused(send_piece(hello_hash, 0, 12, "hello ", 6), ERROR_NOT_FOUND, "not announced");
    Vmpool__ImageSpec spec = hello_spec();
    (void)put(&spec);
    assert_refused(send_piece(hello_hash, 6, 12, "world\n", 6), ERROR_CONFLICT, "begins at 0");
    cr_assert_null(send_piece(hello_hash, 0, 12, "hello ", 6)->failure);
    assert_refused(send_piece(hello_hash, 9, 12, "ld\n", 3), ERROR_CONFLICT, "begins at 6");
    assert_refused(send_piece(hello_hash, 6, 12, "world\nand more", 14), ERROR_CONFLICT, "");
    assert_refused(send_piece(hello_hash, 6, 99, "world\n", 6), ERROR_NOT_FOUND, "");
    cr_assert_null(send_piece(hello_hash, 6, 12, "world\n", 6)->failure);
    cr_assert_null(send_piece(hello_hash, 6, 12, "world\n", 6)->failure); /* again: it is here */
    static char path[] = "../../../etc/passwd";
    assert_refused(send_piece(path, 0, 12, "hello ", 6), ERROR_USAGE, "64 hex digits");
}

Test(api, an_image_in_use_is_not_removed)
{
    (void)pool_create(&pool, "a", "n1");
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__ImageRemove remove = VMPOOL__IMAGE_REMOVE__INIT;
    remove.name = debian;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_IMAGE_REMOVE;
    request.image_remove = &remove;
    const Vmpool__AdminReply *reply = pool_ask(&pool, &request);
    cr_assert(reply->failure);
    cr_assert(strstr(reply->failure->text, "used by 1 VM"), "%s", reply->failure->text);
    (void)pool_change(&pool, "a", VMPOOL__VM_CHANGE__ACTION__REMOVE, true);
    request.request_id = empty;
    cr_assert_null(pool_ask(&pool, &request)->failure);
    cr_assert_null(image_by_name(pool.controller, "debian"));
}

/* ---- the rest ---- */

Test(api, requests_nobody_knows_are_refused)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    const Vmpool__AdminReply *reply = pool_ask(&pool, &request);
    assert_refused(reply, ERROR_USAGE, "does not know this request");
    Vmpool__StatusGet status = VMPOOL__STATUS_GET__INIT;
    request.request_id = empty;
    request.protocol_version = 9;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_STATUS;
    request.status = &status;
    assert_refused(pool_ask(&pool, &request), ERROR_CONFLICT, "protocol 9");
}

Test(api, limits_of_a_migration)
{
    (void)pool_create(&pool, "a", "n1");
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__VmMigrate migrate = VMPOOL__VM_MIGRATE__INIT;
    Vmpool__MigrationLimits limits = VMPOOL__MIGRATION_LIMITS__INIT;
    char n1[] = "n1";
    migrate.name = a;
    migrate.limits = &limits;
    limits.unencrypted = true;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_VM_MIGRATE;
    request.vm_migrate = &migrate;
    const Vmpool__AdminReply *reply = pool_ask(&pool, &request);
    cr_assert(reply->failure);
    cr_assert(strstr(reply->failure->text, "always encrypted"));
    limits.unencrypted = false;
    migrate.to_node = n1;
    request.request_id = empty;
    reply = pool_ask(&pool, &request);
    cr_assert(reply->failure);
    cr_assert(strstr(reply->failure->text, "runs on n1 already"), "%s", reply->failure->text);
    migrate.to_node = empty;
    migrate.dry_run = true;
    request.request_id = empty;
    reply = pool_ask(&pool, &request);
    cr_assert_null(reply->failure);
    cr_assert_str_eq(reply->placement->node, "n2");
    const Vmpool__MigrationForecast *forecast = reply->placement->forecast;
    cr_assert_not_null(forecast);
    cr_assert_gt(forecast->bytes, 0);
    cr_assert_gt(forecast->duration_us, forecast->pause_us);
    cr_assert_gt(forecast->pause_us, 0);
    cr_assert_not(forecast->dirty_rate_known, "it has never moved");
}

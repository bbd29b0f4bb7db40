#include "node-agent/agent/bringup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "node-agent/agent/disk.h"
#include "node-agent/agent/image_cache.h"
#include "node-agent/agent/local_disk.h"
#include "node-agent/agent/vm_launch.h"
#include "node-agent/agent/vm_report.h"
#include "node-agent/agent/vmm_log.h"

#define VMM_ANSWER_MS 15000 /* a VMM that builds a large machine needs a while */
#define KEY_BYTES     32

enum { FILE_KERNEL, FILE_INITRD, FILE_DISK, FILES };

struct wanted_file {
    struct bringup *bringup;
    struct image_want *want;
    int fd;
};

struct bringup {
    struct vm *vm;
    uint64_t request_id;
    bool failed; /* being undone */
    struct error reason;
    struct wanted_file files[FILES];
    unsigned files_missing;
    struct local_disk *making;
    struct launch launch;
    char created[LAUNCH_DISKS_MAX][16]; /* names of disks made now */
    size_t created_count;

    char migration_id[64]; /* empty: a start */
    uint8_t key[KEY_BYTES];
    Vmpool__MigrationLimits limits;
    bool has_limits;
};

static void next_disk(struct bringup *bringup);

static void release(struct bringup *bringup)
{
    vmm_control_forget(bringup->vm->control, bringup);
    for (size_t i = 0; i < FILES; i++) {
        image_cache_cancel(bringup->files[i].want);
        close_fd(&bringup->files[i].fd);
    }
    local_disk_cancel(bringup->making);
    for (size_t i = 0; i < bringup->launch.disk_count; i++)
        close_fd(&bringup->launch.disk_fds[i]);
    close_fd(&bringup->launch.incoming_fd);
    explicit_bzero(bringup->key, sizeof bringup->key);
    bringup->vm->bringup = NULL;
    free(bringup);
}

/* ---- failing --------------------------------------------------------------------------------- */

/* A lost connection only says that the VMM died; its log says why. */
static void find_reason(struct bringup *bringup)
{
    char line[300];
    vmm_log_last_line(bringup->vm->dir_fd, line, sizeof line);
    if (bringup->reason.kind == ERROR_UNREACHABLE && line[0])
        (void)error_set(&bringup->reason, ERROR_FAILED, "the VMM ended: %s", line);
}

static void on_undone(void *context, const struct error *ignored)
{
    struct bringup *bringup = context;
    struct vm *vm = bringup->vm;
    struct agent *agent = vm->agent;
    uint64_t request_id = bringup->request_id;
    (void)ignored;
    find_reason(bringup);
    struct error reason = bringup->reason;
    for (size_t i = 0; i < bringup->created_count; i++)
        local_disk_remove(agent->options->storage, vm->id, bringup->created[i]);
    release(bringup);
    local_disk_tidy(agent->options->storage, vm->id);
    log_warn("VM %s (%s) was not brought up: %s", vm->spec->name, vm->id, reason.text);
    vm_forget(vm);
    agent_answer_error(agent, request_id, &reason);
}

static void fail(struct bringup *bringup, const struct error *err)
{
    if (bringup->failed)
        return;
    bringup->failed = true;
    vmm_control_forget(bringup->vm->control, bringup);
    bringup->reason = *err;
    vm_end(bringup->vm, 0, true, on_undone, bringup);
}

void bringup_vmm_died(struct bringup *bringup)
{
    struct error err;
    (void)error_set(&err, ERROR_UNREACHABLE, "the VMM ended: %s", bringup->vm->text);
    fail(bringup, &err);
}

void bringup_cancel(struct bringup *bringup)
{
    struct error err;
    if (!bringup || bringup->failed)
        return;
    struct agent *agent = bringup->vm->agent;
    uint64_t request_id = bringup->request_id;
    (void)error_set(&err, ERROR_CONFLICT, "cancelled: the VM was told to end");
    release(bringup);
    agent_answer_error(agent, request_id, &err);
}

void bringup_abandon(struct bringup *bringup)
{
    if (bringup)
        release(bringup);
}

/* ---- the VMM --------------------------------------------------------------------------------- */

static void answer_prepared(struct bringup *bringup)
{
    struct vm *vm = bringup->vm;
    struct agent *agent = vm->agent;
    uint64_t request_id = bringup->request_id;
    Vmpool__NodeAnswer answer = VMPOOL__NODE_ANSWER__INIT;
    struct vm_description description;
    release(bringup);
    vm_describe(vm, false, &description);
    answer.vm = &description.message;
    answer.address = agent->migration_address;
    answer.port = vm->record.port;
    agent_answer(agent, request_id, &answer);
}

static void on_under_way(void *context, const Vmpool__VmmReply *reply, const struct error *err)
{
    struct bringup *bringup = context;
    struct vm *vm = bringup->vm;
    struct agent *agent = vm->agent;
    uint64_t request_id = bringup->request_id;
    if (err) {
        fail(bringup, err);
        return;
    }
    if (vm->record.incoming) {
        answer_prepared(bringup);
        return;
    }
    release(bringup);
    vm_take_status(vm, reply->status); /* once more: it is no longer "preparing" */
    log_info("VM %s (%s) runs at epoch %llu", vm->spec->name, vm->id,
             (unsigned long long)vm->record.epoch);
    vm_answer(agent, request_id, vm);
}

static int send_run(struct bringup *bringup, struct error *err)
{
    Vmpool__VmmRequest request = VMPOOL__VMM_REQUEST__INIT;
    Vmpool__VmmRun run = VMPOOL__VMM_RUN__INIT;
    run.epoch = bringup->vm->record.epoch;
    request.body_case = VMPOOL__VMM_REQUEST__BODY_RUN;
    request.run = &run;
    return vmm_control_send(bringup->vm->control, &request, VMM_ANSWER_MS, on_under_way, bringup,
                            err);
}

static int send_migrate_in(struct bringup *bringup, struct error *err)
{
    Vmpool__VmmRequest request = VMPOOL__VMM_REQUEST__INIT;
    Vmpool__VmmMigrateIn in = VMPOOL__VMM_MIGRATE_IN__INIT;
    in.migration_id = bringup->migration_id;
    in.key.data = bringup->key;
    in.key.len = sizeof bringup->key;
    in.next_epoch = bringup->vm->record.epoch;
    in.limits = bringup->has_limits ? &bringup->limits : NULL;
    request.body_case = VMPOOL__VMM_REQUEST__BODY_MIGRATE_IN;
    request.migrate_in = &in;
    return vmm_control_send(bringup->vm->control, &request, VMM_ANSWER_MS, on_under_way, bringup,
                            err);
}

static void launch(struct bringup *bringup)
{
    struct vm *vm = bringup->vm;
    struct error err = ERROR_INIT;
    bringup->launch.kernel_fd = bringup->files[FILE_KERNEL].fd;
    bringup->launch.initrd_fd = bringup->files[FILE_INITRD].fd;
    int status = vm_launch(vm, &bringup->launch, &err);
    if (status == 0)
        status = vm->record.incoming ? send_migrate_in(bringup, &err) : send_run(bringup, &err);
    if (status < 0)
        fail(bringup, &err);
}

/* ---- disks ----------------------------------------------------------------------------------- */

static void add_disk(struct bringup *bringup, int fd, bool read_only)
{
    struct launch *to = &bringup->launch;
    to->disk_fds[to->disk_count] = fd;
    to->disk_read_only[to->disk_count++] = read_only;
}

static void on_local_disk(void *context, int fd, bool created, const struct error *err)
{
    struct bringup *bringup = context;
    bringup->making = NULL;
    if (err) {
        fail(bringup, err);
        return;
    }
    bool image = bringup->files[FILE_DISK].fd >= 0;
    size_t index = bringup->launch.disk_count;
    if (created && image && index == 0)
        (void)snprintf(bringup->created[bringup->created_count++], 16, "image.raw");
    else if (created)
        (void)snprintf(bringup->created[bringup->created_count++], 16, "disk-%zu.raw",
                       index - (image ? 1 : 0));
    add_disk(bringup, fd, false);
    next_disk(bringup);
}

static int make_local(struct bringup *bringup, const char *name, uint64_t bytes, int image_fd,
                      struct error *err)
{
    struct agent *agent = bringup->vm->agent;
    bringup->making = local_disk_make(agent->loop, agent->options->storage, bringup->vm->id, name,
                                      bytes, image_fd, on_local_disk, bringup, err);
    return bringup->making ? 0 : -1;
}

/* Opens shared disks until one must be made, which goes on by itself; launches after the last. */
static void next_disk(struct bringup *bringup)
{
    struct vm *vm = bringup->vm;
    const struct agent_options *options = vm->agent->options;
    const Vmpool__VmSpec *spec = vm->spec;
    struct error err = ERROR_INIT;
    int image_fd = bringup->files[FILE_DISK].fd;
    size_t before = image_fd >= 0 ? 1 : 0; /* the image's disk comes first */
    int status = 0;
    while (status == 0 && bringup->launch.disk_count < spec->n_disks + before) {
        size_t index = bringup->launch.disk_count;
        const Vmpool__DiskSpec *disk = index < before ? NULL : spec->disks[index - before];
        char name[32];
        if (disk && disk->path[0]) {
            int fd = disk_open_shared(disk->path, disk->read_only, vm->id, options->disk_dirs,
                                      options->disk_dir_count, options->storage, &err);
            status = fd < 0 ? -1 : 0;
            if (fd >= 0)
                add_disk(bringup, fd, disk->read_only);
            continue;
        }
        (void)snprintf(name, sizeof name, "disk-%zu.raw", index - before);
        status = disk ? make_local(bringup, name, disk->size_mib << 20, -1, &err)
                      : make_local(bringup, "image.raw", spec->image->disk_bytes, image_fd, &err);
        if (status == 0)
            return;
    }
    if (status < 0)
        fail(bringup, &err);
    else
        launch(bringup);
}

/* ---- images ---------------------------------------------------------------------------------- */

static void on_file(void *context, int fd, const struct error *err)
{
    struct wanted_file *file = context;
    struct bringup *bringup = file->bringup;
    file->want = NULL;
    if (err) {
        fail(bringup, err);
        return;
    }
    file->fd = fd;
    if (--bringup->files_missing == 0)
        next_disk(bringup);
}

static int want_file(struct bringup *bringup, unsigned which, const char *sha256, uint64_t bytes,
                     struct error *err)
{
    struct wanted_file *file = &bringup->files[which];
    if (sha256[0] == '\0')
        return 0;
    file->want = image_cache_get(bringup->vm->agent->images, sha256, bytes, on_file, file, err);
    if (!file->want)
        return -1;
    bringup->files_missing++;
    return 0;
}

static void begin(struct bringup *bringup)
{
    const Vmpool__ImageSpec *image = bringup->vm->spec->image;
    struct error err = ERROR_INIT;
    if (want_file(bringup, FILE_KERNEL, image->kernel_sha256, image->kernel_bytes, &err) < 0 ||
        want_file(bringup, FILE_INITRD, image->initrd_sha256, image->initrd_bytes, &err) < 0 ||
        want_file(bringup, FILE_DISK, image->disk_sha256, image->disk_bytes, &err) < 0)
        fail(bringup, &err);
}

static struct bringup *make(struct vm *vm, uint64_t request_id)
{
    struct bringup *bringup = calloc(1, sizeof *bringup);
    struct agent *agent = vm->agent;
    struct error err;
    if (!bringup) {
        (void)error_errno(&err, ENOMEM, "bringing up a VM");
        vm_forget(vm);
        agent_answer_error(agent, request_id, &err);
        return NULL;
    }
    bringup->vm = vm;
    bringup->request_id = request_id;
    bringup->launch.incoming_fd = -1;
    for (size_t i = 0; i < FILES; i++)
        bringup->files[i] = (struct wanted_file){.bringup = bringup, .fd = -1};
    vm->bringup = bringup;
    return bringup;
}

void bringup_start(struct vm *vm, uint64_t request_id)
{
    struct bringup *bringup = make(vm, request_id);
    if (bringup)
        begin(bringup);
}

static int take_migration(struct bringup *bringup, const Vmpool__NodeMigratePrepare *prepare,
                          struct error *err)
{
    struct vm *vm = bringup->vm;
    const struct agent *agent = vm->agent;
    if (prepare->key.len != KEY_BYTES)
        return error_set(err, ERROR_USAGE, "the migration's key has %zu bytes, not %d",
                         prepare->key.len, KEY_BYTES);
    memcpy(bringup->key, prepare->key.data, KEY_BYTES);
    (void)snprintf(bringup->migration_id, sizeof bringup->migration_id, "%s",
                   prepare->migration_id);
    if (prepare->limits) {
        bringup->limits = *prepare->limits;
        bringup->has_limits = true;
    }
    if (!agent->migration_address[0])
        return error_set(err, ERROR_FAILED,
                         "this node knows no address for migrations: use --migration-address");
    bringup->launch.incoming_fd =
        launch_listen(agent->migration_address, agent->options->port_first,
                      agent->options->port_last, &vm->record.port, err);
    return bringup->launch.incoming_fd < 0 ? -1 : 0;
}

void bringup_prepare(struct vm *vm, uint64_t request_id, const Vmpool__NodeMigratePrepare *prepare)
{
    struct bringup *bringup = make(vm, request_id);
    struct error err = ERROR_INIT;
    if (!bringup)
        return;
    if (take_migration(bringup, prepare, &err) < 0)
        fail(bringup, &err);
    else
        begin(bringup);
}

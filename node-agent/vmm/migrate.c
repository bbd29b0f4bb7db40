#include "node-agent/vmm/migrate.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "node-agent/migration/migration.h"
#include "node-agent/vmm/migrate_guest.h"
#include "node-agent/vmm/migrate_progress.h"

#define SAMPLE_MAX_MS 10000u

/* Something that blocks, on a thread of its own: one at a time. */
struct errand {
    bool active;
    pthread_t thread;
    int done_fd; /* eventfd, written last by the thread */
    struct loop_source *done_source;
    struct control_ticket ticket;
    bool is_sample;
    uint64_t value; /* epoch, or milliseconds */
    int status;
    struct error err;
    struct migration_dirty_sample sample;
};

struct migrate {
    struct vmm *vmm;
    int listen_fd;
    struct migrate_guest guest_self;
    struct migration_guest guest;
    struct migration_source *source;
    struct migration_target *target;
    struct loop_source *event_source;
    bool has_progress;
    bool outgoing; /* whose progress it is */
    struct migration_progress progress;
    struct progress_message message;
    struct errand errand;
};

/* ---- events ---- */

static void drop_source(struct migrate *migrate)
{
    loop_remove(migrate->event_source);
    migrate->event_source = NULL;
    migration_source_free(migrate->source);
    migrate->source = NULL;
}

static void on_source_event(void *context, int fd, uint32_t events)
{
    (void)events;
    struct migrate *migrate = context;
    struct vmm *vmm = migrate->vmm;
    uint64_t count = 0;
    (void)!read(fd, &count, sizeof count);
    migration_source_progress(migrate->source, &migrate->progress);
    bool over = migrate->progress.outcome != MIGRATION_OUTCOME_PENDING;
    if (over) {
        drop_source(migrate);
        if (migrate->progress.outcome == MIGRATION_OUTCOME_SOURCE_RUNS)
            lifecycle_migrate_failed(&vmm->life);
        log_info("%s: migration %s: %s %s", vmm->options->name, migrate->progress.migration_id,
                 migration_phase_name(migrate->progress.phase), migrate->progress.text);
    }
    vmm_announce(vmm);
    if (over)
        vmm_migration_over(vmm);
}

static void on_target_event(void *context, int fd, uint32_t events)
{
    (void)events;
    struct migrate *migrate = context;
    struct vmm *vmm = migrate->vmm;
    uint64_t count = 0;
    (void)!read(fd, &count, sizeof count);
    switch (migration_target_progress(migrate->target, &migrate->progress, NULL)) {
    case MIGRATION_TARGET_READY:
        lifecycle_ready(&vmm->life);
        break;
    case MIGRATION_TARGET_FAILED:
        if (vmm->life.state != VMPOOL__VM_STATE__VM_FAILED)
            log_warn("%s: migration %s: %s", vmm->options->name, migrate->progress.migration_id,
                     migrate->progress.text);
        lifecycle_end(&vmm->life, VMPOOL__VM_STATE__VM_FAILED, migrate->progress.text);
        break;
    case MIGRATION_TARGET_INCOMING:
        lifecycle_unready(&vmm->life);
        break;
    case MIGRATION_TARGET_POSTCOPY:
        lifecycle_hold(&vmm->life, migrate->progress.postcopy.held, migrate->progress.text);
        break;
    case MIGRATION_TARGET_RUNNING:
        /* The link may have come back and the last page with it before we looked. */
        lifecycle_hold(&vmm->life, false, "");
        guest_memory_wish_huge(machine_memory(vmm->machine), true);
        vmm_migration_over(vmm);
        break;
    default:
        break;
    }
    vmm_announce(vmm);
}

static bool has_pages_to_come(const struct migrate *migrate)
{
    struct migration_progress ignored;
    return migrate->target &&
           migration_target_progress(migrate->target, &ignored, NULL) == MIGRATION_TARGET_POSTCOPY;
}

/* ---- requests ---- */

static bool same_id(const struct migrate *migrate, const char *id, bool outgoing)
{
    return migrate->has_progress && migrate->outgoing == outgoing &&
           strcmp(migrate->progress.migration_id, id) == 0;
}

static void begin(struct migrate *migrate, const char *id, bool outgoing)
{
    migrate->has_progress = true;
    migrate->outgoing = outgoing;
    migrate->progress = (struct migration_progress){.phase = MIGRATION_PHASE_CONNECTING};
    (void)snprintf(migrate->progress.migration_id, sizeof migrate->progress.migration_id, "%s", id);
    migrate_guest_init(&migrate->guest, &migrate->guest_self);
}

static int check_request(const char *id, const ProtobufCBinaryData *key, struct error *err)
{
    if (!id || id[0] == '\0' || strlen(id) >= MIGRATION_ID_MAX)
        return error_set(err, ERROR_USAGE, "a migration's id has 1 to %d bytes",
                         MIGRATION_ID_MAX - 1);
    if (key->len != MIGRATION_KEY_BYTES)
        return error_set(err, ERROR_USAGE, "a migration's key has %d bytes", MIGRATION_KEY_BYTES);
    return 0;
}

int migrate_out(struct migrate *migrate, const Vmpool__VmmMigrateOut *request, struct error *err)
{
    struct vmm *vmm = migrate->vmm;
    if (check_request(request->migration_id, &request->key, err) < 0)
        return -1;
    if (same_id(migrate, request->migration_id, true))
        return 0; /* a repeat */
    if (migrate->errand.active)
        return error_set(err, ERROR_CONFLICT, "the dirty rate is being sampled: try again");
    if (has_pages_to_come(migrate))
        return error_set(err, ERROR_CONFLICT,
                         "the VM is still arriving by post-copy: try again once it is over");
    struct migration_source_options options = {.epoch = request->epoch,
                                               .next_epoch = request->next_epoch,
                                               .port = (uint16_t)request->port,
                                               .limits = migrate_limits(request->limits)};
    if (request->port == 0 || request->port > UINT16_MAX ||
        strlen(request->host) >= sizeof options.host)
        return error_set(err, ERROR_USAGE, "a migration needs a numeric address and a port");
    (void)snprintf(options.host, sizeof options.host, "%s", request->host);
    (void)snprintf(options.migration_id, sizeof options.migration_id, "%s", request->migration_id);
    memcpy(options.key, request->key.data, sizeof options.key);
    const struct lifecycle before = vmm->life;
    if (lifecycle_migrate(&vmm->life, request->epoch, request->next_epoch, err) < 0)
        return -1;
    options.epoch = vmm->life.epoch;
    migrate->guest_self.next_epoch = request->next_epoch;
    begin(migrate, request->migration_id, true);
    migrate->source = migration_source_start(&migrate->guest, &options, err);
    if (migrate->source)
        migrate->event_source = loop_add_fd(vmm->loop, migration_source_event_fd(migrate->source),
                                            EPOLLIN, on_source_event, migrate, err);
    if (!migrate->event_source) {
        migration_source_free(migrate->source);
        migrate->source = NULL;
        migrate->has_progress = false;
        vmm->life = before;
        return -1;
    }
    return 0;
}

int migrate_in(struct migrate *migrate, const Vmpool__VmmMigrateIn *request, struct error *err)
{
    struct vmm *vmm = migrate->vmm;
    if (check_request(request->migration_id, &request->key, err) < 0)
        return -1;
    if (same_id(migrate, request->migration_id, false))
        return 0; /* a repeat */
    if (migrate->listen_fd < 0 || vmm->life.state != VMPOOL__VM_STATE__VM_INCOMING ||
        migrate->target)
        return error_set(err, ERROR_CONFLICT,
                         "this VMM is %s and expects no migration: start one with --incoming",
                         lifecycle_name(vmm->life.state));
    if (request->next_epoch < vmm->life.seen)
        return error_set(err, ERROR_CONFLICT, "stale epoch %llu: this VM has seen %llu",
                         (unsigned long long)request->next_epoch,
                         (unsigned long long)vmm->life.seen);
    struct migration_target_options options = {.next_epoch = request->next_epoch,
                                               .limits = migrate_limits(request->limits)};
    (void)snprintf(options.migration_id, sizeof options.migration_id, "%s", request->migration_id);
    memcpy(options.key, request->key.data, sizeof options.key);
    begin(migrate, request->migration_id, false);
    migrate->target = migration_target_start(&migrate->guest, migrate->listen_fd, &options, err);
    if (migrate->target)
        migrate->event_source = loop_add_fd(vmm->loop, migration_target_event_fd(migrate->target),
                                            EPOLLIN, on_target_event, migrate, err);
    if (!migrate->event_source) {
        migration_target_free(migrate->target);
        migrate->target = NULL;
        migrate->has_progress = false;
        return -1;
    }
    return 0;
}

int migrate_take_back(struct migrate *migrate, uint64_t epoch, struct error *err)
{
    if (migrate->outgoing && migrate->progress.phase == MIGRATION_PHASE_POSTCOPY)
        return error_set(
            err, ERROR_CONFLICT,
            "the guest ran at the target since: what is here is older, and never runs");
    if (!migrate->source || epoch <= migrate->vmm->life.seen)
        return 0; /* nothing serves, or it is going to be refused */
    drop_source(migrate);
    return 0;
}

int migrate_cancel(struct migrate *migrate, const Vmpool__VmmMigrateCancel *request,
                   struct error *err)
{
    if (!same_id(migrate, request->migration_id, true))
        return error_set(err, ERROR_NOT_FOUND, "no migration %s", request->migration_id);
    if (!migrate->source && migrate->progress.phase == MIGRATION_PHASE_CANCELLED)
        return 0; /* a repeat */
    if (!migrate->source)
        return error_set(err, ERROR_CONFLICT, "migration %s is over", request->migration_id);
    return migration_source_cancel(migrate->source, err);
}

/* ---- what blocks ---- */

static void *run_errand(void *context)
{
    struct migrate *migrate = context;
    struct errand *errand = &migrate->errand;
    if (errand->is_sample)
        errand->status =
            migration_sample_dirty(&migrate->guest, errand->value, &errand->sample, &errand->err);
    else
        errand->status = migration_target_run(migrate->target, errand->value, &errand->err);
    (void)!write(errand->done_fd, &(uint64_t){1}, sizeof(uint64_t));
    return NULL;
}

static void end_errand(struct errand *errand)
{
    (void)pthread_join(errand->thread, NULL);
    loop_remove(errand->done_source);
    close_fd(&errand->done_fd);
    errand->active = false;
}

static void on_errand_done(void *context, int fd, uint32_t events)
{
    (void)fd, (void)events;
    struct migrate *migrate = context;
    struct errand *errand = &migrate->errand;
    Vmpool__VmmReply reply = VMPOOL__VMM_REPLY__INIT;
    Vmpool__Failure failure = VMPOOL__FAILURE__INIT;
    end_errand(errand);
    if (errand->status < 0) {
        failure.kind = (uint32_t)errand->err.kind;
        failure.text = errand->err.text;
        reply.failure = &failure;
    }
    reply.dirty_pages_per_second = errand->sample.pages_per_second;
    reply.dirty_set_pages = errand->sample.set_pages;
    vmm_send(migrate->vmm, &errand->ticket, &reply);
    if (errand->is_sample)
        vmm_migration_over(migrate->vmm);
}

static int start_errand(struct migrate *migrate, bool is_sample, uint64_t value,
                        const struct control_ticket *ticket, struct error *err)
{
    struct errand *errand = &migrate->errand;
    if (errand->active)
        return error_set(err, ERROR_CONFLICT, "the VM is busy with such a request: try again");
    *errand = (struct errand){.is_sample = is_sample, .value = value, .ticket = *ticket};
    errand->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (errand->done_fd < 0)
        return error_errno(err, errno, "eventfd");
    errand->done_source =
        loop_add_fd(migrate->vmm->loop, errand->done_fd, EPOLLIN, on_errand_done, migrate, err);
    int status =
        errand->done_source ? pthread_create(&errand->thread, NULL, run_errand, migrate) : ENOMEM;
    if (status != 0) {
        loop_remove(errand->done_source);
        close_fd(&errand->done_fd);
        return error_errno(err, status, "cannot start a thread");
    }
    errand->active = true;
    return 0;
}

int migrate_run(struct migrate *migrate, uint64_t epoch, const struct control_ticket *ticket,
                struct error *err)
{
    if (!migrate->target)
        return error_set(err, ERROR_CONFLICT, "no migration has arrived here");
    return start_errand(migrate, false, epoch, ticket, err);
}

int migrate_sample(struct migrate *migrate, uint64_t duration_ms,
                   const struct control_ticket *ticket, struct error *err)
{
    if (migrate->vmm->life.state != VMPOOL__VM_STATE__VM_RUNNING)
        return error_set(err, ERROR_CONFLICT, "a VM that is %s has no dirty rate",
                         lifecycle_name(migrate->vmm->life.state));
    if (duration_ms == 0 || duration_ms > SAMPLE_MAX_MS)
        return error_set(err, ERROR_USAGE, "the dirty rate is sampled for 1 to %u ms",
                         SAMPLE_MAX_MS);
    migrate_guest_init(&migrate->guest, &migrate->guest_self);
    return start_errand(migrate, true, duration_ms, ticket, err);
}

/* ---- life ---- */

bool migrate_busy(struct migrate *migrate)
{
    struct error ignored = ERROR_INIT; /* too late to cancel: then it is over soon by itself */
    if (has_pages_to_come(migrate))
        return true;
    if (!migrate->source && !(migrate->errand.active && migrate->errand.is_sample)) {
        atomic_store(&migrate->guest_self.ended, false);
        return false;
    }
    atomic_store(&migrate->guest_self.ended, true);
    if (migrate->source)
        (void)migration_source_cancel(migrate->source, &ignored);
    return true;
}

bool migrate_progress(struct migrate *migrate, Vmpool__MigrationProgress **progress)
{
    if (!migrate->has_progress)
        return false;
    migrate_progress_fill(&migrate->message, &migrate->progress);
    *progress = &migrate->message.progress;
    return true;
}

struct migrate *migrate_new(struct vmm *vmm, int listen_fd, struct error *err)
{
    struct migrate *migrate = calloc(1, sizeof *migrate);
    if (!migrate) {
        (void)error_errno(err, ENOMEM, "migration");
        close_fd(&listen_fd);
        return NULL;
    }
    migrate->vmm = vmm;
    migrate->listen_fd = listen_fd;
    migrate->guest_self.vmm = vmm;
    migrate->guest_self.gate = gate_new(vmm->loop, &migrate->guest_self, err);
    if (!migrate->guest_self.gate) {
        migrate_free(migrate);
        return NULL;
    }
    return migrate;
}

void migrate_close(struct migrate *migrate)
{
    if (!migrate)
        return;
    atomic_store(&migrate->guest_self.ended, true);
    gate_close(migrate->guest_self.gate);
}

void migrate_free(struct migrate *migrate)
{
    if (!migrate)
        return;
    migrate_close(migrate);
    if (migrate->errand.active)
        end_errand(&migrate->errand);
    loop_remove(migrate->event_source);
    migration_source_free(migrate->source);
    /* Pages that never come turn to zeros for whoever waits: nobody may run on with that. */
    if (has_pages_to_come(migrate)) {
        struct error err = ERROR_INIT;
        if (machine_pause(migrate->vmm->machine, &err) < 0)
            log_warn("%s: %s", migrate->vmm->options->name, err.text);
    }
    migration_target_free(migrate->target);
    gate_free(migrate->guest_self.gate);
    close_fd(&migrate->listen_fd);
    free(migrate);
}

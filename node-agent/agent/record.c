#include "node-agent/agent/record.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "node-agent/agent/files.h"
#include "node-agent/agent/spec.h"

#define SPEC_BYTES_MAX (256u << 10)

int record_save(int dir_fd, const struct vm_record *record, struct error *err)
{
    char text[1024], reason[sizeof record->text];
    (void)snprintf(reason, sizeof reason, "%s", record->text);
    for (char *c = reason; *c; c++)
        if (*c == '\n')
            *c = ' ';
    int length = snprintf(text, sizeof text,
                          "request %" PRIu64 "\nepoch %" PRIu64 "\nincoming %d\nmigration %s\n"
                          "port %u\npid %d\nstart %" PRIu64 "\nboot %s\nended %d\ntext %s\n",
                          record->request_id, record->epoch, record->incoming ? 1 : 0,
                          record->migration_id, record->port, (int)record->pid, record->start_ticks,
                          record->boot_id, (int)record->ended, reason);
    return files_write(dir_fd, "record", text, (size_t)length, 0600, err);
}

static void read_line(struct vm_record *record, const char *key, const char *value)
{
    if (strcmp(key, "request") == 0)
        record->request_id = strtoull(value, NULL, 10);
    else if (strcmp(key, "epoch") == 0)
        record->epoch = strtoull(value, NULL, 10);
    else if (strcmp(key, "incoming") == 0)
        record->incoming = value[0] == '1';
    else if (strcmp(key, "migration") == 0)
        (void)snprintf(record->migration_id, sizeof record->migration_id, "%s", value);
    else if (strcmp(key, "port") == 0)
        record->port = (uint16_t)strtoul(value, NULL, 10);
    else if (strcmp(key, "pid") == 0)
        record->pid = (pid_t)strtol(value, NULL, 10);
    else if (strcmp(key, "start") == 0)
        record->start_ticks = strtoull(value, NULL, 10);
    else if (strcmp(key, "boot") == 0)
        (void)snprintf(record->boot_id, sizeof record->boot_id, "%s", value);
    else if (strcmp(key, "ended") == 0)
        record->ended = (Vmpool__VmState)strtol(value, NULL, 10);
    else if (strcmp(key, "text") == 0)
        (void)snprintf(record->text, sizeof record->text, "%s", value);
}

int record_load(int dir_fd, struct vm_record *record, struct error *err)
{
    auto_free char *text = NULL;
    size_t size;
    *record = (struct vm_record){0};
    if (files_read(dir_fd, "record", 4096, &text, &size, err) < 0)
        return -1;
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n"));) {
        char *space = strchr(line, ' ');
        if (!space)
            continue;
        *space = '\0';
        read_line(record, line, space + 1);
    }
    if (record->epoch == 0 || record->pid < 0 || record->ended < 0 ||
        record->ended > VMPOOL__VM_STATE__VM_FAILED)
        return error_set(err, ERROR_FAILED, "the VM's record is damaged");
    return 0;
}

int record_open_state(int dir_fd, struct error *err)
{
    int fd = openat(dir_fd, "status", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd >= 0 ? fd : error_errno(err, errno, "cannot create the VM's status file");
}

int record_load_state(int dir_fd, struct last_state *state)
{
    auto_fd int fd = openat(dir_fd, "status", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || last_state_read(fd, state) < 0 || state->state > VMPOOL__VM_STATE__VM_FAILED)
        return -1;
    return 0;
}

int record_save_spec(int dir_fd, const Vmpool__VmSpec *spec, struct error *err)
{
    size_t size = vmpool__vm_spec__get_packed_size(spec);
    auto_free uint8_t *packed = malloc(size + 1);
    if (!packed)
        return error_errno(err, ENOMEM, "spec.pb");
    (void)vmpool__vm_spec__pack(spec, packed);
    return files_write(dir_fd, "spec.pb", packed, size, 0600, err);
}

Vmpool__VmSpec *record_load_spec(int dir_fd, struct error *err)
{
    auto_free char *data = NULL;
    size_t size;
    if (files_read(dir_fd, "spec.pb", SPEC_BYTES_MAX, &data, &size, err) < 0)
        return NULL;
    Vmpool__VmSpec *spec = vmpool__vm_spec__unpack(NULL, size, (const uint8_t *)data);
    if (!spec) {
        (void)error_set(err, ERROR_FAILED, "the VM's spec.pb is damaged");
        return NULL;
    }
    if (spec_check(spec, err) < 0) {
        vmpool__vm_spec__free_unpacked(spec, NULL);
        return NULL;
    }
    return spec;
}

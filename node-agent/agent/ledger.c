#include "node-agent/agent/ledger.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "node-agent/agent/files.h"
#include "node-agent/agent/names.h"

int ledger_read(int dir_fd, const char *vm_id, struct ledger_entry *entry, struct error *err)
{
    auto_free char *text = NULL;
    size_t size;
    *entry = (struct ledger_entry){0};
    if (files_read(dir_fd, vm_id, 64, &text, &size, err) < 0) {
        if (err->kind != ERROR_NOT_FOUND)
            return error_wrap(err, "the epoch of VM %s", vm_id);
        error_clear(err);
        return 0;
    }
    char end;
    if (sscanf(text, "%" SCNu64 " %" SCNu64 "%c", &entry->seen, &entry->discarded, &end) != 3 ||
        end != '\n')
        return error_set(err, ERROR_FAILED, "the noted epoch of VM %s is damaged", vm_id);
    return 0;
}

int ledger_raise(int dir_fd, const char *vm_id, uint64_t seen, uint64_t discarded,
                 struct error *err)
{
    struct ledger_entry entry;
    char text[64];
    if (ledger_read(dir_fd, vm_id, &entry, err) < 0)
        return -1;
    if (seen <= entry.seen && discarded <= entry.discarded)
        return 0;
    if (seen < entry.seen)
        seen = entry.seen;
    if (discarded < entry.discarded)
        discarded = entry.discarded;
    int length = snprintf(text, sizeof text, "%" PRIu64 " %" PRIu64 "\n", seen, discarded);
    if (files_write(dir_fd, vm_id, text, (size_t)length, 0600, err) < 0)
        return error_wrap(err, "noting the epoch of VM %s", vm_id);
    return 0;
}

int ledger_check(int dir_fd, const char *vm_id, uint64_t epoch, int new_copy, struct error *err)
{
    struct ledger_entry entry;
    if (ledger_read(dir_fd, vm_id, &entry, err) < 0)
        return -1;
    if (epoch < entry.seen)
        return error_set(err, ERROR_CONFLICT,
                         "epoch %" PRIu64 " of VM %s is stale: this node has seen %" PRIu64, epoch,
                         vm_id, entry.seen);
    if (new_copy && entry.discarded && epoch <= entry.discarded)
        return error_set(err, ERROR_CONFLICT,
                         "epoch %" PRIu64 " of VM %s was thrown away on this node", epoch, vm_id);
    return 0;
}

void ledger_prune(int dir_fd, int64_t age_s, int (*keep)(void *context, const char *vm_id),
                  void *context)
{
    struct error err = ERROR_INIT;
    int copy = files_open_dir(dir_fd, ".", &err);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    if (!dir) {
        close_fd(&copy);
        return;
    }
    time_t limit = time(NULL) - (time_t)age_s;
    for (struct dirent *entry; (entry = readdir(dir));) {
        struct stat info;
        if (entry->d_name[0] == '.' ||
            fstatat(dir_fd, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        if (info.st_mtime < limit && !(name_is_uuid(entry->d_name) && keep(context, entry->d_name)))
            (void)unlinkat(dir_fd, entry->d_name, 0);
    }
    (void)closedir(dir);
}

#include "node-agent/agent/image_store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "node-agent/agent/files.h"
#include "node-agent/agent/image_cache.h"
#include "node-agent/agent/names.h"

#define SPARE_BYTES (64ull << 20) /* left free for the host */

int image_store_open(const char *storage, struct error *err)
{
    auto_fd int storage_fd = files_open_dir(AT_FDCWD, storage, err);
    if (storage_fd < 0)
        return -1;
    if (mkdirat(storage_fd, IMAGE_CACHE_FOLDER, 0700) < 0 && errno != EEXIST)
        return error_errno(err, errno, "cannot create %s/" IMAGE_CACHE_FOLDER, storage);
    return files_open_dir(storage_fd, IMAGE_CACHE_FOLDER, err);
}

struct walk {
    bool (*spared)(void *context, const char *sha256);
    void *context;
    uint64_t total_bytes;
    char oldest[IMAGE_NAME_SIZE]; /* that may go; empty: none */
    struct timespec oldest_used;
    bool prune;
};

static bool is_older(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec < b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec < b->tv_nsec);
}

static void visit(int dir_fd, const char *name, struct walk *walk)
{
    struct stat info;
    char sha256[SHA256_HEX_LENGTH + 1];
    if (name[0] == '.' || fstatat(dir_fd, name, &info, AT_SYMLINK_NOFOLLOW) < 0)
        return;
    (void)snprintf(sha256, sizeof sha256, "%.*s", SHA256_HEX_LENGTH, name);
    bool whole = name_is_sha256(name);
    bool may_go = !walk->spared(walk->context, sha256);
    if (walk->prune) {
        if (whole && may_go && unlinkat(dir_fd, name, 0) == 0)
            log_info("removed image file %s", name);
        return;
    }
    walk->total_bytes += (uint64_t)info.st_size;
    if (may_go && strlen(name) < sizeof walk->oldest &&
        (!walk->oldest[0] || is_older(&info.st_mtim, &walk->oldest_used))) {
        memcpy(walk->oldest, name, strlen(name) + 1);
        walk->oldest_used = info.st_mtim;
    }
}

static int walk_folder(int dir_fd, struct walk *walk, struct error *err)
{
    int copy = files_open_dir(dir_fd, ".", err);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    if (!dir) {
        close_fd(&copy);
        return error_errno(err, errno, "cannot list the image cache");
    }
    for (struct dirent *entry; (entry = readdir(dir));)
        visit(dir_fd, entry->d_name, walk);
    (void)closedir(dir);
    return 0;
}

static bool has_space(int dir_fd, uint64_t bytes)
{
    struct statvfs space;
    return fstatvfs(dir_fd, &space) < 0 ||
           (uint64_t)space.f_bavail * space.f_frsize >= bytes + SPARE_BYTES;
}

int image_store_make_room(int dir_fd, uint64_t bytes, uint64_t limit_bytes,
                          bool (*wanted)(void *context, const char *sha256), void *context,
                          struct error *err)
{
    for (;;) {
        struct walk walk = {.spared = wanted, .context = context};
        if (walk_folder(dir_fd, &walk, err) < 0)
            return -1;
        bool fits = bytes <= limit_bytes && walk.total_bytes <= limit_bytes - bytes;
        if (fits && has_space(dir_fd, bytes))
            return 0;
        if (!walk.oldest[0])
            return fits ? error_set(err, ERROR_NO_CAPACITY,
                                    "no space for an image file of %" PRIu64
                                    " MiB: free some below --storage",
                                    bytes >> 20)
                        : error_set(err, ERROR_NO_CAPACITY,
                                    "an image file of %" PRIu64
                                    " MiB does not fit the image cache: raise --image-cache",
                                    bytes >> 20);
        if (unlinkat(dir_fd, walk.oldest, 0) < 0)
            return error_errno(err, errno, "cannot remove image file %s", walk.oldest);
        log_info("removed image file %s to make room", walk.oldest);
    }
}

void image_store_prune(int dir_fd, bool (*keep)(void *context, const char *sha256), void *context)
{
    struct walk walk = {.spared = keep, .context = context, .prune = true};
    struct error err = ERROR_INIT;
    if (walk_folder(dir_fd, &walk, &err) < 0)
        log_warn("%s", err.text);
}

struct image_verified {
    struct image_verified *next;
    char sha256[SHA256_HEX_LENGTH + 1];
    ino_t inode;
    off_t bytes;
    struct timespec changed;
};

void image_verified_note(struct image_verified **list, const char *sha256, int fd)
{
    struct stat info;
    (void)futimens(fd, NULL);
    struct image_verified *known = *list;
    while (known && strcmp(known->sha256, sha256) != 0)
        known = known->next;
    if (!known) {
        known = calloc(1, sizeof *known);
        if (!known)
            return; /* it is only hashed once more then */
        (void)snprintf(known->sha256, sizeof known->sha256, "%s", sha256);
        known->next = *list;
        *list = known;
    }
    if (fstat(fd, &info) == 0) {
        known->inode = info.st_ino;
        known->bytes = info.st_size;
        known->changed = info.st_mtim;
    }
}

bool image_verified_has(const struct image_verified *list, const char *sha256, int fd)
{
    struct stat info;
    if (fstat(fd, &info) < 0)
        return false;
    for (const struct image_verified *known = list; known; known = known->next)
        if (strcmp(known->sha256, sha256) == 0)
            return known->inode == info.st_ino && known->bytes == info.st_size &&
                   known->changed.tv_sec == info.st_mtim.tv_sec &&
                   known->changed.tv_nsec == info.st_mtim.tv_nsec;
    return false;
}

void image_verified_free(struct image_verified **list)
{
    while (*list) {
        struct image_verified *known = *list;
        *list = known->next;
        free(known);
    }
}

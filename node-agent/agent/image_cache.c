#include "node-agent/agent/image_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "node-agent/agent/hash.h"
#include "node-agent/agent/image_store.h"
#include "node-agent/agent/names.h"

#define HASH_PORTION_BYTES (4u << 20)
#define CHECK_INTERVAL_MS  1000
#define ASK_AGAIN_MS       10000 /* a piece that has not come by then is asked for once more */
#define GIVE_UP_MS         60000 /* without any piece, once the controller is connected */

enum image_phase {
    IMAGE_LOOKING,  /* is the file there? */
    IMAGE_HASHING,  /* reading what is there */
    IMAGE_FETCHING, /* pieces come */
};

/* A file somebody wants. */
struct image {
    struct image *next;
    struct image_cache *cache;
    char sha256[SHA256_HEX_LENGTH + 1];
    uint64_t bytes;
    enum image_phase phase;
    bool partial; /* fd is the .part file */
    bool resumed; /* its beginning was there before this fetch */
    int fd;
    uint64_t length; /* of the file, all of it hashed (while hashing: the part hashed so far) */
    uint64_t to_hash;
    struct hash *hash;
    struct image_window window;
    int64_t progress_ms;
    struct loop_source *step, *check;
    struct image_want *wants;
};

struct image_want {
    struct image_want *next;
    struct image *image;
    image_done_fn done;
    void *context;
};

struct image_cache {
    struct loop *loop;
    int dir_fd;
    uint64_t limit_bytes;
    image_need_fn need;
    void *context;
    struct image *images;
    struct image_verified *verified;
};

static void on_step(void *context);

static void part_name(const struct image *image, char name[IMAGE_NAME_SIZE])
{
    (void)snprintf(name, IMAGE_NAME_SIZE, "%s.part", image->sha256);
}

static void go_on(struct image *image)
{
    if (!image->step)
        image->step = loop_add_timer(image->cache->loop, 1, 0, on_step, image);
}

static void free_image(struct image *image)
{
    loop_remove(image->step);
    loop_remove(image->check);
    image_window_clear(&image->window);
    hash_free(image->hash);
    close_fd(&image->fd);
    free(image);
}

static void drop_image(struct image *image)
{
    struct image **place = &image->cache->images;
    while (*place != image)
        place = &(*place)->next;
    *place = image->next;
    free_image(image);
}

/* Ends the work on @image: each who wants it gets the file, or @err. One who is called may take
 * other wants back, so those still waiting hang on a stand-in meanwhile. */
static void settle(struct image *image, const struct error *err)
{
    struct image_cache *cache = image->cache;
    struct image waiting = {.wants = image->wants};
    char sha256[SHA256_HEX_LENGTH + 1];
    memcpy(sha256, image->sha256, sizeof sha256);
    image->wants = NULL;
    drop_image(image);
    for (struct image_want *want = waiting.wants; want; want = want->next)
        want->image = &waiting;
    while (waiting.wants) {
        struct image_want want = *waiting.wants;
        struct error failure = ERROR_INIT;
        int fd = err ? -1 : openat(cache->dir_fd, sha256, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (err)
            failure = *err;
        else if (fd < 0)
            (void)error_errno(&failure, errno, "cannot open image file %s", sha256);
        free(waiting.wants);
        waiting.wants = want.next;
        want.done(want.context, fd, fd < 0 ? &failure : NULL);
    }
}

static void fail(struct image *image, struct error *err)
{
    (void)error_wrap(err, "image file %.12s", image->sha256);
    settle(image, err);
}

/* ---- fetching -------------------------------------------------------------------------------- */

static bool ask_for(void *context, uint64_t offset, uint32_t length)
{
    const struct image *image = context;
    return image->cache->need(image->cache->context, image->sha256, offset, length) == 0;
}

static void ask_for_pieces(struct image *image, int64_t again_ms)
{
    image_window_ask(&image->window, clock_monotonic_ms(), again_ms, ask_for, image);
}

static void on_check(void *context)
{
    struct image *image = context;
    int64_t now_ms = clock_monotonic_ms();
    if (now_ms - image->progress_ms > GIVE_UP_MS) {
        struct error err;
        (void)error_set(&err, ERROR_TIMEOUT, "the controller sends nothing of it");
        fail(image, &err);
        return;
    }
    ask_for_pieces(image, ASK_AGAIN_MS);
}

static void start_fetching(struct image *image)
{
    image->phase = IMAGE_FETCHING;
    image->progress_ms = clock_monotonic_ms();
    image->check =
        loop_add_timer(image->cache->loop, CHECK_INTERVAL_MS, CHECK_INTERVAL_MS, on_check, image);
    image_window_start(&image->window, image->bytes, image->length);
    ask_for_pieces(image, ASK_AGAIN_MS);
}

static bool wanted_now(void *context, const char *sha256)
{
    const struct image_cache *cache = context;
    for (const struct image *image = cache->images; image; image = image->next)
        if (strcmp(image->sha256, sha256) == 0)
            return true;
    return false;
}

/* Opens the .part file; what it holds already is hashed first. The beginning must end at a piece's
 * border, so the rest behind the last one is cut off. */
static int open_part(struct image *image, struct error *err)
{
    struct image_cache *cache = image->cache;
    char name[IMAGE_NAME_SIZE];
    struct stat info;
    part_name(image, name);
    close_fd(&image->fd);
    image->fd = openat(cache->dir_fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (image->fd < 0 || fstat(image->fd, &info) < 0)
        return error_errno(err, errno, "cannot create it");
    uint64_t there = (uint64_t)info.st_size;
    there = there > image->bytes ? 0 : there - there % IMAGE_PIECE_BYTES;
    if (ftruncate(image->fd, (off_t)there) < 0)
        return error_errno(err, errno, "cannot set its length");
    if (image_store_make_room(cache->dir_fd, image->bytes - there, cache->limit_bytes, wanted_now,
                              cache, err) < 0)
        return -1;
    hash_restart(image->hash);
    image->partial = true;
    image->resumed = there > 0;
    image->length = 0;
    image->to_hash = there;
    image->phase = IMAGE_HASHING;
    return 0;
}

static void throw_away(struct image *image)
{
    char name[IMAGE_NAME_SIZE];
    part_name(image, name);
    (void)unlinkat(image->cache->dir_fd, image->partial ? name : image->sha256, 0);
    loop_remove(image->check);
    image->check = NULL;
    image_window_clear(&image->window);
}

/* The part file has all its bytes and they are hashed. */
static void finish_part(struct image *image)
{
    struct image_cache *cache = image->cache;
    struct error err = ERROR_INIT;
    char name[IMAGE_NAME_SIZE];
    part_name(image, name);
    if (!hash_matches(image->hash, image->sha256)) {
        bool again = image->resumed;
        throw_away(image);
        if (again && open_part(image, &err) == 0) {
            log_warn("image file %.12s does not match its hash; fetching it anew", image->sha256);
            go_on(image);
            return;
        }
        if (!again)
            (void)error_set(&err, ERROR_FAILED, "what the controller sent does not match its hash");
        fail(image, &err);
        return;
    }
    if (fsync(image->fd) < 0 || fchmod(image->fd, 0400) < 0 ||
        renameat(cache->dir_fd, name, cache->dir_fd, image->sha256) < 0 ||
        fsync(cache->dir_fd) < 0) {
        (void)error_errno(&err, errno, "cannot store it");
        throw_away(image);
        fail(image, &err);
        return;
    }
    image_verified_note(&cache->verified, image->sha256, image->fd);
    settle(image, NULL);
}

/* Appends arrived pieces as long as they continue the file. */
static int append_arrived(struct image *image, struct error *err)
{
    for (const struct image_slot *slot; (slot = image_window_peek(&image->window)) != NULL;) {
        ssize_t count = pwrite(image->fd, slot->data, slot->length, (off_t)image->length);
        if (count != (ssize_t)slot->length)
            return error_errno(err, count < 0 ? errno : ENOSPC, "cannot write it");
        hash_add(image->hash, slot->data, slot->length);
        (void)sync_file_range(image->fd, (off_t)image->length, slot->length, SYNC_FILE_RANGE_WRITE);
        image_window_pop(&image->window);
        image->length = image->window.length;
        image->progress_ms = clock_monotonic_ms();
    }
    return 0;
}

static int take_piece(struct image *image, const Vmpool__NodeImagePiece *piece, struct error *err)
{
    if (piece->failure)
        return error_set(err, ERROR_FAILED, "the controller says: %.200s", piece->failure->text);
    if (piece->total_bytes != image->bytes)
        return error_set(err, ERROR_FAILED,
                         "the controller says it has %" PRIu64 " bytes, not %" PRIu64,
                         piece->total_bytes, image->bytes);
    if (image_window_put(&image->window, piece->offset, piece->data.data, piece->data.len, err) < 0)
        return -1;
    return append_arrived(image, err);
}

void image_cache_piece(struct image_cache *cache, const Vmpool__NodeImagePiece *piece)
{
    struct error err = ERROR_INIT;
    struct image *image = cache->images;
    while (image && strcmp(image->sha256, piece->sha256) != 0)
        image = image->next;
    if (!image || image->phase != IMAGE_FETCHING)
        return;
    if (take_piece(image, piece, &err) < 0)
        fail(image, &err);
    else if (image->length == image->bytes)
        finish_part(image);
    else
        ask_for_pieces(image, ASK_AGAIN_MS);
}

void image_cache_connected(struct image_cache *cache)
{
    for (struct image *image = cache->images; image; image = image->next) {
        image->progress_ms = clock_monotonic_ms();
        if (image->phase == IMAGE_FETCHING)
            ask_for_pieces(image, 0);
    }
}

/* ---- what is there --------------------------------------------------------------------------- */

/* Looks for the whole file; settles where it is known to be good. */
static int look(struct image *image, struct error *err)
{
    struct image_cache *cache = image->cache;
    struct stat info;
    image->fd = openat(cache->dir_fd, image->sha256, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (image->fd < 0)
        return errno == ENOENT ? open_part(image, err) : error_errno(err, errno, "cannot open it");
    if (image_verified_has(cache->verified, image->sha256, image->fd)) {
        image->phase = IMAGE_HASHING;
        image->length = image->to_hash = image->bytes;
        return 0;
    }
    if (fstat(image->fd, &info) < 0 || (uint64_t)info.st_size != image->bytes) {
        throw_away(image);
        return open_part(image, err);
    }
    image->phase = IMAGE_HASHING;
    image->to_hash = image->bytes;
    return 0;
}

static int hash_portion(struct image *image, struct error *err)
{
    auto_free uint8_t *portion = malloc(HASH_PORTION_BYTES);
    uint64_t left = image->to_hash - image->length;
    if (!portion)
        return error_errno(err, ENOMEM, "reading it");
    ssize_t count = pread(image->fd, portion, left < HASH_PORTION_BYTES ? left : HASH_PORTION_BYTES,
                          (off_t)image->length);
    if (count <= 0)
        return error_errno(err, count < 0 ? errno : EIO, "cannot read it");
    hash_add(image->hash, portion, (size_t)count);
    image->length += (uint64_t)count;
    return 0;
}

/* All that was there has been read. */
static int judge(struct image *image, struct error *err)
{
    if (image->partial) {
        if (image->length < image->bytes)
            start_fetching(image);
        else
            finish_part(image);
        return 0;
    }
    bool known = image_verified_has(image->cache->verified, image->sha256, image->fd);
    if (known || hash_matches(image->hash, image->sha256)) {
        image_verified_note(&image->cache->verified, image->sha256, image->fd);
        settle(image, NULL);
        return 0;
    }
    log_warn("image file %.12s has changed on disk; fetching it anew", image->sha256);
    throw_away(image);
    if (open_part(image, err) < 0)
        return -1;
    go_on(image);
    return 0;
}

static void on_step(void *context)
{
    struct image *image = context;
    struct error err = ERROR_INIT;
    int status;
    image->step = NULL;
    if (image->phase == IMAGE_HASHING && image->length == image->to_hash) {
        if (judge(image, &err) < 0)
            fail(image, &err);
        return;
    }
    status = image->phase == IMAGE_LOOKING ? look(image, &err) : hash_portion(image, &err);
    if (status < 0)
        fail(image, &err);
    else
        go_on(image);
}

static struct image *find_or_make(struct image_cache *cache, const char *sha256, uint64_t bytes,
                                  struct error *err)
{
    for (struct image *image = cache->images; image; image = image->next) {
        if (strcmp(image->sha256, sha256) != 0)
            continue;
        if (image->bytes == bytes)
            return image;
        (void)error_set(err, ERROR_CONFLICT, "image file %.12s is being fetched with another size",
                        sha256);
        return NULL;
    }
    struct image *image = calloc(1, sizeof *image);
    if (image)
        image->hash = hash_new();
    if (!image || !image->hash) {
        free(image);
        (void)error_errno(err, ENOMEM, "image cache");
        return NULL;
    }
    image->cache = cache;
    image->fd = -1;
    image->bytes = bytes;
    (void)snprintf(image->sha256, sizeof image->sha256, "%s", sha256);
    image->next = cache->images;
    cache->images = image;
    go_on(image);
    return image;
}

struct image_want *image_cache_get(struct image_cache *cache, const char *sha256, uint64_t bytes,
                                   image_done_fn done, void *context, struct error *err)
{
    struct image *image = find_or_make(cache, sha256, bytes, err);
    struct image_want *want = image ? calloc(1, sizeof *want) : NULL;
    if (!want) {
        if (image)
            (void)error_errno(err, ENOMEM, "image cache");
        return NULL;
    }
    *want =
        (struct image_want){.next = image->wants, .image = image, .done = done, .context = context};
    image->wants = want;
    return want;
}

void image_cache_cancel(struct image_want *want)
{
    if (!want)
        return;
    struct image_want **place = &want->image->wants;
    while (*place != want)
        place = &(*place)->next;
    *place = want->next;
    if (!want->image->wants && want->image->cache)
        drop_image(want->image); /* its beginning stays, for who wants it next */
    free(want);
}

struct keep_list {
    const struct image_cache *cache;
    char *const *keep;
    size_t count;
};

static bool is_kept(void *context, const char *sha256)
{
    struct keep_list *list = context;
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->keep[i], sha256) == 0)
            return true;
    for (const struct image *image = list->cache->images; image; image = image->next)
        if (strcmp(image->sha256, sha256) == 0)
            return true;
    return false;
}

void image_cache_prune(struct image_cache *cache, char *const *keep, size_t keep_count)
{
    struct keep_list list = {.cache = cache, .keep = keep, .count = keep_count};
    image_store_prune(cache->dir_fd, is_kept, &list);
}

struct image_cache *image_cache_open(struct loop *loop, const char *storage, uint64_t limit_bytes,
                                     image_need_fn need, void *context, struct error *err)
{
    struct image_cache *cache = calloc(1, sizeof *cache);
    if (!cache) {
        (void)error_errno(err, ENOMEM, "image cache");
        return NULL;
    }
    *cache = (struct image_cache){
        .loop = loop, .limit_bytes = limit_bytes, .need = need, .context = context};
    cache->dir_fd = image_store_open(storage, err);
    if (cache->dir_fd < 0) {
        free(cache);
        return NULL;
    }
    return cache;
}

void image_cache_close(struct image_cache *cache)
{
    if (!cache)
        return;
    while (cache->images) {
        struct image *image = cache->images;
        cache->images = image->next;
        while (image->wants) {
            struct image_want *want = image->wants;
            image->wants = want->next;
            free(want);
        }
        free_image(image);
    }
    image_verified_free(&cache->verified);
    close_fd(&cache->dir_fd);
    free(cache);
}

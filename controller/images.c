#include "controller/images.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "controller/events.h"
#include "controller/nodes.h"
#include "controller/outbox.h"
#include "controller/pb.h"
#include "controller/validate.h"
#include "controller/vms.h"

#define PART ".part"

/* A file on its way: HASH.part, hashed as it comes. */
struct upload {
    char sha256[65];
    uint64_t total, size;
    int64_t used_ms;
    int fd; /* -1: announced, nothing came yet */
    crypto_hash_sha256_state hash;
};

struct images {
    int dir_fd;
    struct image *all;
    struct name_map by_name;
    struct upload uploads[UPLOADS_MAX];
    char **doomed; /* files of removed images */
    size_t doomed_count;
};

/* ---- the folder ---- */

static bool is_hash(const char *text)
{
    return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

static void remove_parts(int dir_fd)
{
    DIR *folder = fdopendir(dup(dir_fd));
    if (!folder)
        return;
    for (struct dirent *entry; (entry = readdir(folder));) {
        size_t length = strlen(entry->d_name);
        if (length > strlen(PART) && strcmp(entry->d_name + length - strlen(PART), PART) == 0)
            (void)unlinkat(dir_fd, entry->d_name, 0);
    }
    (void)closedir(folder);
}

struct images *images_open(struct controller *controller, struct error *err)
{
    char path[4096];
    int length = snprintf(path, sizeof path, "%s/images", controller->config.state_dir);
    if (length < 0 || (size_t)length >= sizeof path || sodium_init() < 0) {
        (void)error_set(err, ERROR_FAILED, "the state folder's name is too long");
        return NULL;
    }
    if (mkdir(path, 0700) < 0 && errno != EEXIST) {
        (void)error_errno(err, errno, "cannot make %s", path);
        return NULL;
    }
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        (void)error_errno(err, errno, "cannot open %s", path);
        return NULL;
    }
    struct images *images = mem_new(sizeof *images);
    images->dir_fd = fd;
    for (unsigned i = 0; i < UPLOADS_MAX; i++)
        images->uploads[i].fd = -1;
    remove_parts(fd);
    return images;
}

void images_close(struct images *images)
{
    if (!images)
        return;
    for (unsigned i = 0; i < UPLOADS_MAX; i++)
        close_fd(&images->uploads[i].fd);
    while (images->all) {
        struct image *image = images->all;
        images->all = image->next;
        pb_free(image->stored);
        free(image);
    }
    for (size_t i = 0; i < images->doomed_count; i++)
        free(images->doomed[i]);
    free(images->doomed);
    name_map_free(&images->by_name);
    close_fd(&images->dir_fd);
    free(images);
}

void image_add(struct controller *controller, Vmpool__Store__Image *stored)
{
    struct error err = ERROR_INIT;
    struct image *image = mem_new(sizeof *image);
    image->stored = stored;
    image->next = controller->images->all;
    controller->images->all = image;
    if (name_map_add(&controller->images->by_name, stored->spec->name, image, &err) < 0)
        abort();
}

struct image *image_by_name(const struct controller *controller, const char *name)
{
    return name_map_get(&controller->images->by_name, name);
}

const struct image *images_first(const struct controller *controller)
{
    return controller->images->all;
}

static bool uses_hash(const Vmpool__ImageSpec *spec, const char *sha256)
{
    return strcmp(spec->kernel_sha256, sha256) == 0 || strcmp(spec->initrd_sha256, sha256) == 0 ||
           strcmp(spec->disk_sha256, sha256) == 0;
}

unsigned image_users(const struct controller *controller, const struct image *image)
{
    unsigned users = 0;
    for (const struct vm *vm = controller->vms; vm; vm = vm->next)
        users += vm->stored->spec->image &&
                 strcmp(vm->stored->spec->image->name, image->stored->spec->name) == 0;
    return users;
}

/* ---- announcing ---- */

static bool have_file(const struct images *images, const char *sha256, uint64_t bytes)
{
    struct stat info;
    return fstatat(images->dir_fd, sha256, &info, 0) == 0 && S_ISREG(info.st_mode) &&
           (uint64_t)info.st_size == bytes;
}

static struct upload *find_upload(struct images *images, const char *sha256)
{
    for (unsigned i = 0; i < UPLOADS_MAX; i++)
        if (strcmp(images->uploads[i].sha256, sha256) == 0)
            return &images->uploads[i];
    return NULL;
}

static void drop_upload(struct images *images, struct upload *upload)
{
    char name[65 + sizeof PART];
    (void)snprintf(name, sizeof name, "%s" PART, upload->sha256);
    if (upload->fd >= 0)
        (void)unlinkat(images->dir_fd, name, 0);
    close_fd(&upload->fd);
    *upload = (struct upload){.fd = -1};
}

/* Expects the file; the upload that was touched longest ago makes room. */
static void expect(struct images *images, const char *sha256, uint64_t bytes)
{
    struct upload *place = find_upload(images, sha256);
    if (place && place->total == bytes)
        return;
    for (unsigned i = 0; !place && i < UPLOADS_MAX; i++)
        if (!images->uploads[i].sha256[0])
            place = &images->uploads[i];
    if (!place) {
        place = &images->uploads[0];
        for (unsigned i = 1; i < UPLOADS_MAX; i++)
            if (images->uploads[i].used_ms < place->used_ms)
                place = &images->uploads[i];
    }
    drop_upload(images, place);
    (void)snprintf(place->sha256, sizeof place->sha256, "%s", sha256);
    place->total = bytes;
    place->used_ms = clock_monotonic_ms();
}

static void want(struct images *images, const char *sha256, uint64_t bytes,
                 Vmpool__ImageAccepted *missing)
{
    if (!sha256[0] || have_file(images, sha256, bytes))
        return;
    expect(images, sha256, bytes);
    pb_push_text(&missing->missing_sha256, &missing->n_missing_sha256, sha256);
}

/* A bzImage ("HdrS" at 0x202 of its first sector, Documentation/arch/x86/boot.rst) or an ELF file.
 * The VMM looks closer. */
static int check_kernel(const struct images *images, const Vmpool__ImageSpec *spec,
                        struct error *err)
{
    uint8_t head[0x206] = {0};
    auto_fd int fd = openat(images->dir_fd, spec->kernel_sha256, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "the kernel's file");
    ssize_t size = read(fd, head, sizeof head);
    if (size >= 4 && memcmp(head, "\177ELF", 4) == 0)
        return 0;
    if (size == (ssize_t)sizeof head && memcmp(head + 0x202, "HdrS", 4) == 0)
        return 0;
    return error_set(err, ERROR_USAGE,
                     "the kernel of image %s is neither a bzImage nor an ELF file: give the file "
                     "that a Debian package puts into /boot, such as /boot/vmlinuz-...",
                     spec->name);
}

static bool same_spec(const Vmpool__ImageSpec *a, const Vmpool__ImageSpec *b)
{
    return strcmp(a->kernel_sha256, b->kernel_sha256) == 0 &&
           strcmp(a->initrd_sha256, b->initrd_sha256) == 0 &&
           strcmp(a->disk_sha256, b->disk_sha256) == 0 && strcmp(a->cmdline, b->cmdline) == 0;
}

int image_put(struct controller *controller, const Vmpool__ImageSpec *spec,
              Vmpool__ImageAccepted *missing, struct error *err)
{
    struct images *images = controller->images;
    if (validate_image(spec, err) < 0)
        return -1;
    struct image *known = image_by_name(controller, spec->name);
    if (known && same_spec(known->stored->spec, spec))
        return 0;
    if (known)
        return error_set(err, ERROR_CONFLICT,
                         "an image named %s exists: choose another name, or remove it with "
                         "\"poolctl image rm %s\"",
                         spec->name, spec->name);
    if (images->by_name.count >= IMAGES_MAX)
        return error_set(err, ERROR_CONFLICT, "there are %u images: remove some", IMAGES_MAX);
    want(images, spec->kernel_sha256, spec->kernel_bytes, missing);
    want(images, spec->initrd_sha256, spec->initrd_bytes, missing);
    want(images, spec->disk_sha256, spec->disk_bytes, missing);
    if (missing->n_missing_sha256 > 0)
        return 0;
    if (check_kernel(images, spec, err) < 0)
        return -1;
    Vmpool__Store__Image *stored = mem_new(sizeof *stored);
    vmpool__store__image__init(stored);
    stored->spec = pb_copy(&spec->base);
    stored->created_wall_ms = (uint64_t)clock_wall_ms();
    image_add(controller, stored);
    store_put(controller->store, STORE_IMAGE, spec->name, &stored->base);
    event_add(controller, "info", "image.imported", spec->name, 0, "imported");
    return 0;
}

/* ---- pieces from an admin ---- */

static int begin_upload(struct images *images, struct upload *upload, struct error *err)
{
    char name[65 + sizeof PART];
    (void)snprintf(name, sizeof name, "%s" PART, upload->sha256);
    upload->size = 0;
    (void)crypto_hash_sha256_init(&upload->hash);
    close_fd(&upload->fd);
    upload->fd = openat(images->dir_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    return upload->fd < 0 ? error_errno(err, errno, "cannot keep the file") : 0;
}

static int write_all(int fd, const uint8_t *data, size_t size, uint64_t offset, struct error *err)
{
    while (size > 0) {
        ssize_t wrote = pwrite(fd, data, size, (off_t)offset);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return error_errno(err, errno,
                               errno == ENOSPC ? "the controller's disk is full: free space in "
                                                 "its state folder and import again"
                                               : "cannot keep the file");
        data += wrote;
        size -= (size_t)wrote;
        offset += (uint64_t)wrote;
    }
    return 0;
}

static int finish_upload(struct images *images, struct upload *upload, struct error *err)
{
    uint8_t hash[32];
    char hex[65], name[65 + sizeof PART];
    (void)crypto_hash_sha256_final(&upload->hash, hash);
    (void)sodium_bin2hex(hex, sizeof hex, hash, sizeof hash);
    if (strcmp(hex, upload->sha256) != 0) {
        drop_upload(images, upload);
        return error_set(err, ERROR_USAGE,
                         "the file's hash is %s, not the one announced: it changed while it was "
                         "sent; import it again",
                         hex);
    }
    (void)snprintf(name, sizeof name, "%s" PART, upload->sha256);
    if (fsync(upload->fd) < 0 ||
        renameat(images->dir_fd, name, images->dir_fd, upload->sha256) < 0 ||
        fsync(images->dir_fd) < 0) {
        (void)error_errno(err, errno, "cannot keep the file");
        drop_upload(images, upload);
        return -1;
    }
    close_fd(&upload->fd);
    *upload = (struct upload){.fd = -1};
    return 0;
}

int image_take_piece(struct controller *controller, const Vmpool__ImagePiece *piece,
                     struct error *err)
{
    struct images *images = controller->images;
    if (!is_hash(piece->sha256))
        return error_set(err, ERROR_USAGE, "a SHA-256 has 64 hex digits");
    if (piece->data.len > IMAGE_PIECE_MAX || (piece->data.len == 0 && piece->total_bytes > 0))
        return error_set(err, ERROR_USAGE, "a piece has 1 byte to 1 MiB");
    if (have_file(images, piece->sha256, piece->total_bytes))
        return 0;
    struct upload *upload = find_upload(images, piece->sha256);
    if (!upload || upload->total != piece->total_bytes)
        return error_set(err, ERROR_NOT_FOUND,
                         "a file of this hash and size was not announced: import the image again");
    if (piece->offset == 0 && begin_upload(images, upload, err) < 0)
        return -1;
    if (upload->fd >= 0 && piece->offset + piece->data.len == upload->size && upload->size > 0)
        return 0; /* the last piece again */
    if (upload->fd < 0 || piece->offset != upload->size ||
        piece->data.len > upload->total - upload->size)
        return error_set(err, ERROR_CONFLICT,
                         "the next piece begins at %llu, not at %llu: import the image again",
                         (unsigned long long)upload->size, (unsigned long long)piece->offset);
    if (write_all(upload->fd, piece->data.data, piece->data.len, piece->offset, err) < 0) {
        drop_upload(images, upload);
        return -1;
    }
    (void)crypto_hash_sha256_update(&upload->hash, piece->data.data, piece->data.len);
    upload->size += piece->data.len;
    upload->used_ms = clock_monotonic_ms();
    return upload->size == upload->total ? finish_upload(images, upload, err) : 0;
}

/* ---- removing ---- */

static void doom(struct images *images, const char *sha256)
{
    if (sha256[0])
        pb_push_text(&images->doomed, &images->doomed_count, sha256);
}

static void remove_unused(struct images *images, const char *sha256)
{
    for (const struct image *image = images->all; image; image = image->next)
        if (uses_hash(image->stored->spec, sha256))
            return;
    (void)unlinkat(images->dir_fd, sha256, 0);
}

void images_committed(struct controller *controller)
{
    struct images *images = controller->images;
    for (size_t i = 0; i < images->doomed_count; i++) {
        remove_unused(images, images->doomed[i]);
        free(images->doomed[i]);
    }
    free(images->doomed);
    images->doomed = NULL;
    images->doomed_count = 0;
}

/* Agents may drop what no image holds any more. */
static void prune_nodes(struct controller *controller)
{
    Vmpool__ControllerToNode message = VMPOOL__CONTROLLER_TO_NODE__INIT;
    Vmpool__NodeImagePrune prune = VMPOOL__NODE_IMAGE_PRUNE__INIT;
    for (const struct image *image = controller->images->all; image; image = image->next) {
        char *const hashes[] = {image->stored->spec->kernel_sha256,
                                image->stored->spec->initrd_sha256,
                                image->stored->spec->disk_sha256};
        for (unsigned i = 0; i < 3; i++)
            if (hashes[i][0])
                pb_push(&prune.keep_sha256, &prune.n_keep_sha256, hashes[i]);
    }
    message.body_case = VMPOOL__CONTROLLER_TO_NODE__BODY_IMAGE_PRUNE;
    message.image_prune = &prune;
    message.request_id = ++controller->next_request;
    for (const struct node *node = controller->nodes; node; node = node->next)
        (void)node_send(controller, node, &message);
    free(prune.keep_sha256);
}

int image_remove(struct controller *controller, const char *name, struct error *err)
{
    struct image *image = image_by_name(controller, name);
    if (!image)
        return error_set(err, ERROR_NOT_FOUND,
                         "there is no image %s: \"poolctl image ls\" shows them", name);
    unsigned users = image_users(controller, image);
    if (users > 0)
        return error_set(err, ERROR_CONFLICT, "image %s is used by %u VM%s: remove %s first", name,
                         users, users == 1 ? "" : "s", users == 1 ? "it" : "them");
    struct image **at = &controller->images->all;
    while (*at != image)
        at = &(*at)->next;
    *at = image->next;
    name_map_remove(&controller->images->by_name, image->stored->spec->name);
    store_delete(controller->store, STORE_IMAGE, name);
    event_add(controller, "info", "image.removed", name, 0, "removed");
    doom(controller->images, image->stored->spec->kernel_sha256);
    doom(controller->images, image->stored->spec->initrd_sha256);
    doom(controller->images, image->stored->spec->disk_sha256);
    prune_nodes(controller);
    pb_free(image->stored);
    free(image);
    return 0;
}

/* ---- pieces for agents ---- */

static ssize_t read_piece(const struct images *images, const Vmpool__NodeImageNeed *need,
                          uint8_t *data, uint64_t *total, struct error *err)
{
    struct stat info;
    auto_fd int fd =
        is_hash(need->sha256) ? openat(images->dir_fd, need->sha256, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0 || fstat(fd, &info) < 0)
        return error_set(err, ERROR_NOT_FOUND, "the controller has no file %.64s", need->sha256);
    *total = (uint64_t)info.st_size;
    size_t size = need->length < IMAGE_PIECE_MAX ? need->length : IMAGE_PIECE_MAX;
    if (need->offset > *total)
        return error_set(err, ERROR_USAGE, "offset %llu is behind the end of the file",
                         (unsigned long long)need->offset);
    ssize_t got = pread(fd, data, size, (off_t)need->offset);
    return got < 0 ? error_errno(err, errno, "cannot read the file") : got;
}

void images_send_piece(struct controller *controller, const struct link_peer *peer,
                       uint64_t request_id, const Vmpool__NodeImageNeed *need)
{
    struct error err = ERROR_INIT;
    Vmpool__ControllerToNode message = VMPOOL__CONTROLLER_TO_NODE__INIT;
    Vmpool__NodeImagePiece piece = VMPOOL__NODE_IMAGE_PIECE__INIT;
    auto_free uint8_t *data = mem_new(IMAGE_PIECE_MAX);
    ssize_t size = read_piece(controller->images, need, data, &piece.total_bytes, &err);
    piece.sha256 = need->sha256;
    piece.offset = need->offset;
    if (size < 0)
        piece.failure = pb_failure(&err);
    else
        piece.data = (ProtobufCBinaryData){(size_t)size, data};
    message.request_id = request_id;
    message.body_case = VMPOOL__CONTROLLER_TO_NODE__BODY_IMAGE_PIECE;
    message.image_piece = &piece;
    outbox_node(controller, peer, &message);
    pb_free(piece.failure);
}

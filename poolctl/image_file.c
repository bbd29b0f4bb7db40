#include "poolctl/image_file.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"

#define READ_BYTES   (1u << 20)
#define SHA256_BYTES 32

int image_file_open(struct image_file *file, enum image_part part, const char *path,
                    struct error *err)
{
    struct stat status;
    *file = (struct image_file){.part = part, .path = path, .fd = -1};
    /* NONBLOCK: a FIFO must not make us wait; it has no effect on files. */
    auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &status) < 0)
        return error_errno(err, errno, "cannot read %s", path);
    if (!S_ISREG(status.st_mode))
        return error_set(err, ERROR_USAGE, "%s is not a regular file", path);
    if (status.st_size == 0)
        return error_set(err, ERROR_USAGE, "%s is empty", path);
    file->bytes = (uint64_t)status.st_size;
    file->modified = status.st_mtim;
    file->fd = fd;
    if (image_check(file, err) < 0) {
        file->fd = -1;
        return -1;
    }
    (void)take_fd(&fd);
    return 0;
}

void image_file_close(struct image_file *file)
{
    if (file->fd >= 0)
        close_fd(&file->fd);
    file->fd = -1;
}

int image_file_unchanged(const struct image_file *file, struct error *err)
{
    struct stat status;
    if (fstat(file->fd, &status) < 0)
        return error_errno(err, errno, "cannot read %s", file->path);
    if ((uint64_t)status.st_size != file->bytes || status.st_mtim.tv_sec != file->modified.tv_sec ||
        status.st_mtim.tv_nsec != file->modified.tv_nsec)
        return error_set(err, ERROR_CONFLICT, "%s was changed while it was read: try again",
                         file->path);
    return 0;
}

int image_file_read(const struct image_file *file, uint64_t offset, void *data, size_t size,
                    size_t *got, struct error *err)
{
    *got = 0;
    while (*got < size) {
        ssize_t length = pread(file->fd, (char *)data + *got, size - *got, (off_t)(offset + *got));
        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0)
            return error_errno(err, errno, "cannot read %s", file->path);
        if (length == 0)
            break;
        *got += (size_t)length;
    }
    return 0;
}

/* Feeds the whole file into @hash. */
static int hash_all(const struct image_file *file, EVP_MD_CTX *hash, unsigned char *data,
                    image_progress_fn progress, void *context, struct error *err)
{
    for (uint64_t done = 0; done < file->bytes;) {
        size_t got = 0;
        if (image_file_read(file, done, data, READ_BYTES, &got, err) < 0)
            return -1;
        if (got == 0)
            break; /* shorter than it was: found by image_file_unchanged() */
        if (EVP_DigestUpdate(hash, data, got) != 1)
            return error_set(err, ERROR_FAILED, "cannot hash %s", file->path);
        done += got;
        if (!progress(context, done < file->bytes ? done : file->bytes, file->bytes))
            return error_set(err, ERROR_FAILED, "stopped while reading %s", file->path);
    }
    return image_file_unchanged(file, err);
}

int image_file_hash(struct image_file *file, image_progress_fn progress, void *context,
                    struct error *err)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    unsigned char *data = malloc(READ_BYTES);
    int result = -1;
    if (!hash || !data || EVP_DigestInit_ex(hash, EVP_sha256(), NULL) != 1)
        (void)error_set(err, ERROR_FAILED, "out of memory");
    else if (hash_all(file, hash, data, progress, context, err) == 0 &&
             EVP_DigestFinal_ex(hash, digest, &length) == 1)
        result = 0;
    for (unsigned i = 0; result == 0 && i < SHA256_BYTES; i++)
        (void)snprintf(file->sha256 + (size_t)2 * i, 3, "%02x", digest[i]);
    EVP_MD_CTX_free(hash);
    free(data);
    return result;
}

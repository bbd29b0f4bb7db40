/*
 * image_file.h: a file of an image, read safely: checked for what it should be, hashed, and known
 * to be still the same when its pieces are sent.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "common/error.h"

enum image_part { IMAGE_KERNEL, IMAGE_INITRD, IMAGE_DISK };

struct image_file {
    enum image_part part;
    const char *path;
    int fd;
    uint64_t bytes;
    struct timespec modified;
    char sha256[65]; /* lower-case hex; set by image_file_hash() */
};

/* Called as bytes go by, at most every few MiB; returns false to stop. */
typedef bool (*image_progress_fn)(void *context, uint64_t done, uint64_t total);

/* Opens @path, which must be a regular file, not empty, and whole as its format tells:
 *   kernel: a bzImage for the 64-bit boot protocol, or an x86-64 ELF with a PVH note
 *   initrd: a cpio archive, or one compressed with gzip, xz or zstd, which must end properly
 *   disk:   a raw disk of whole sectors, no shorter than its partition table says
 * The text of a failure says what is wrong with which file. */
int image_file_open(struct image_file *file, enum image_part part, const char *path,
                    struct error *err);
void image_file_close(struct image_file *file);

/* Reads all of it once for its SHA-256. */
int image_file_hash(struct image_file *file, image_progress_fn progress, void *context,
                    struct error *err);

/* Reads up to @size bytes at @offset; a file that was changed since it was opened is an error. */
int image_file_read(const struct image_file *file, uint64_t offset, void *data, size_t size,
                    size_t *got, struct error *err);
/* That neither size nor time of the file have changed. */
int image_file_unchanged(const struct image_file *file, struct error *err);

/* For image_file_open(): the checks by format, in image_check.c. */
int image_check(const struct image_file *file, struct error *err);

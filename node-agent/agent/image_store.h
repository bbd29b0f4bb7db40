/*
 * image_store.h: the image cache's folder: which files are there, and room for more.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

#define IMAGE_NAME_SIZE 72 /* hash, ".part" and a zero */

/* Opens STORAGE/images, made where missing. */
int image_store_open(const char *storage, struct error *err);

/* Removes least recently used files until @bytes more fit below @limit_bytes, leaving those for
 * which
 * @wanted is true. ERROR_NO_CAPACITY where that is not enough, or the file system has no room. */
int image_store_make_room(int dir_fd, uint64_t bytes, uint64_t limit_bytes,
                          bool (*wanted)(void *context, const char *sha256), void *context,
                          struct error *err);

/* Removes all whole files for which @keep is false. */
void image_store_prune(int dir_fd, bool (*keep)(void *context, const char *sha256), void *context);

/* Whole files this agent has hashed already, as they were then: those need not be read again. */
struct image_verified;
/* Notes that the file behind @fd has the hash it is named by, and that it was used now. */
void image_verified_note(struct image_verified **list, const char *sha256, int fd);
bool image_verified_has(const struct image_verified *list, const char *sha256, int fd);
void image_verified_free(struct image_verified **list);

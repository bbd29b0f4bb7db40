/*
 * image_cache.h: image files by SHA-256, fetched from the controller in pieces and kept.
 *
 * STORAGE/images/HASH is a whole file whose hash was verified; HASH.part is the beginning of one
 * being fetched, never with a hole, so that its length says where to go on after a restart. A file
 * is hashed before its first use in the agent's life and as it arrives; what does not match is
 * thrown away and, where its beginning was left from before, fetched once more from the start.
 *
 * Pieces of IMAGE_PIECE_BYTES, IMAGE_WINDOW of them asked for at a time. Only pieces that were
 * asked for are taken, of exactly the size asked for. Files least recently used make room when the
 * cache would grow beyond its limit.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/loop.h"
#include "node-agent/agent/image_window.h"
#include "proto/node.pb-c.h"

#define IMAGE_CACHE_FOLDER "images"

struct image_cache;
struct image_want;

/* Asks the controller for a piece; -1 while it is not connected. */
typedef int (*image_need_fn)(void *context, const char *sha256, uint64_t offset, uint32_t length);
/* @fd is the verified file, open for reading, the callee's; -1 with @err. */
typedef void (*image_done_fn)(void *context, int fd, const struct error *err);

struct image_cache *image_cache_open(struct loop *loop, const char *storage, uint64_t limit_bytes,
                                     image_need_fn need, void *context, struct error *err);
void image_cache_close(struct image_cache *cache);

/* Wants file @sha256 of @bytes; @done is called once, from the loop. Several who want one file
 * share its fetch. NULL where it cannot begin. */
struct image_want *image_cache_get(struct image_cache *cache, const char *sha256, uint64_t bytes,
                                   image_done_fn done, void *context, struct error *err);
/* Takes the want back; not after @done was called. */
void image_cache_cancel(struct image_want *want);

/* A piece arrived. */
void image_cache_piece(struct image_cache *cache, const Vmpool__NodeImagePiece *piece);
/* The controller is connected again: asks anew for what was on its way. */
void image_cache_connected(struct image_cache *cache);
/* Removes whole files that are not in the list and not wanted now. */
void image_cache_prune(struct image_cache *cache, char *const *keep, size_t keep_count);

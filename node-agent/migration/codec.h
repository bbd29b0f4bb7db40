/*
 * codec.h: the encodings of the pages of one frame (the codec byte of a PAGES frame). Pure: pages
 * in, bytes out, and back. What the bytes are is drawn at the top of stream.c.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "node-agent/migration/stream.h"

enum codec {
    CODEC_NONE = 0,  /* the pages */
    CODEC_LZ4 = 1,   /* one LZ4 block of all pages */
    CODEC_ZSTD = 2,  /* one zstd frame of all pages */
    CODEC_DELTA = 3, /* what differs from contents sent in an earlier round: delta.h */
    CODEC_FILL = 4,  /* per run, the 8-byte word all its pages are filled with */
    CODECS
};

const char *codec_name(unsigned codec); /* "lz4"; "unknown" beyond the last */

/* Working memory of one thread, made as it is needed. */
struct codec_memory;
struct codec_memory *codec_memory_new(struct error *err);
void codec_memory_free(struct codec_memory *memory);

/* Compresses with LZ4 or ZSTD. Returns the bytes written, 0 where they would be more than @room.
 * @in must not change meanwhile: it is no memory of the guest's. */
size_t codec_compress(struct codec_memory *memory, enum codec codec, const uint8_t *in, size_t size,
                      uint8_t *out, size_t room);

/* Puts what @in encodes into @ram, at @runs, which are within it; @pages is their sum. Refuses what
 * is not exactly that many pages. Nothing but the pages of @runs is ever written to; after a
 * refusal they are worthless. */
int codec_decode(struct codec_memory *memory, const struct frame *frame, const uint8_t *in,
                 size_t size, const struct run *runs, uint64_t pages, uint8_t *ram,
                 struct error *err);

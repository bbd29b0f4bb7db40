#include "node-agent/migration/codec.h"

#include <lz4.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "node-agent/migration/delta.h"

#define ZSTD_LEVEL 1

struct codec_memory {
    ZSTD_CCtx *compress; /* NULL until it is used; so are the others */
    ZSTD_DCtx *decompress;
    void *lz4;
    uint8_t *scratch; /* a whole frame, decompressed, where its runs are several */
};

const char *codec_name(unsigned codec)
{
    static const char *const names[CODECS] = {"none", "lz4", "zstd", "delta", "fill"};
    return codec < CODECS ? names[codec] : "unknown";
}

struct codec_memory *codec_memory_new(struct error *err)
{
    struct codec_memory *memory = calloc(1, sizeof(*memory));
    if (!memory)
        error_set(err, ERROR_FAILED, "out of memory for a page codec");
    return memory;
}

void codec_memory_free(struct codec_memory *memory)
{
    if (!memory)
        return;
    (void)ZSTD_freeCCtx(memory->compress);
    (void)ZSTD_freeDCtx(memory->decompress);
    free(memory->lz4);
    free(memory->scratch);
    free(memory);
}

/* ---------------------------------------------------------------- encoding */

static size_t compress_lz4(struct codec_memory *memory, const uint8_t *in, size_t size,
                           uint8_t *out, size_t room)
{
    if (!memory->lz4)
        memory->lz4 = malloc((size_t)LZ4_sizeofState());
    if (!memory->lz4 || size > LZ4_MAX_INPUT_SIZE || room > LZ4_MAX_INPUT_SIZE)
        return 0;
    int made = LZ4_compress_fast_extState(memory->lz4, (const char *)in, (char *)out, (int)size,
                                          (int)room, 1);
    return made > 0 ? (size_t)made : 0;
}

static size_t compress_zstd(struct codec_memory *memory, const uint8_t *in, size_t size,
                            uint8_t *out, size_t room)
{
    if (!memory->compress)
        memory->compress = ZSTD_createCCtx();
    if (!memory->compress)
        return 0;
    size_t made = ZSTD_compressCCtx(memory->compress, out, room, in, size, ZSTD_LEVEL);
    return ZSTD_isError(made) ? 0 : made;
}

size_t codec_compress(struct codec_memory *memory, enum codec codec, const uint8_t *in, size_t size,
                      uint8_t *out, size_t room)
{
    return codec == CODEC_ZSTD ? compress_zstd(memory, in, size, out, room)
                               : compress_lz4(memory, in, size, out, room);
}

/* ---------------------------------------------------------------- decoding */

static int refuse(enum codec codec, struct error *err)
{
    return error_set(err, ERROR_FAILED, "a frame's %s encoding is not that of its pages",
                     codec_name(codec));
}

static int expand_lz4(const uint8_t *in, size_t size, uint8_t *out, size_t want, struct error *err)
{
    int made = LZ4_decompress_safe((const char *)in, (char *)out, (int)size, (int)want);
    return made >= 0 && (size_t)made == want ? 0 : refuse(CODEC_LZ4, err);
}

static int expand_zstd(struct codec_memory *memory, const uint8_t *in, size_t size, uint8_t *out,
                       size_t want, struct error *err)
{
    if (!memory->decompress)
        memory->decompress = ZSTD_createDCtx();
    if (!memory->decompress)
        return error_set(err, ERROR_FAILED, "out of memory for zstd");
    size_t made = ZSTD_decompressDCtx(memory->decompress, out, want, in, size);
    return made == want ? 0 : refuse(CODEC_ZSTD, err);
}

/* A single run is expanded in its place: both libraries write to [out, out + want) only. */
static int expand(struct codec_memory *memory, const struct frame *frame, const uint8_t *in,
                  size_t size, const struct run *runs, uint64_t pages, uint8_t *ram,
                  struct error *err)
{
    size_t want = pages * STREAM_PAGE_BYTES;
    uint8_t *out = ram + runs[0].first * STREAM_PAGE_BYTES;
    if (frame->runs > 1) {
        if (!memory->scratch)
            memory->scratch = malloc((size_t)STREAM_FRAME_PAGES_MAX * STREAM_PAGE_BYTES);
        if (!memory->scratch)
            return error_set(err, ERROR_FAILED, "out of memory for a frame's pages");
        out = memory->scratch;
    }
    if ((frame->codec == CODEC_ZSTD ? expand_zstd(memory, in, size, out, want, err)
                                    : expand_lz4(in, size, out, want, err)) < 0)
        return -1;
    for (unsigned i = 0; frame->runs > 1 && i < frame->runs; i++) {
        size_t bytes = (size_t)runs[i].count * STREAM_PAGE_BYTES;
        memcpy(ram + runs[i].first * STREAM_PAGE_BYTES, out, bytes);
        out += bytes;
    }
    return 0;
}

static int apply_deltas(const struct frame *frame, const uint8_t *in, size_t size,
                        const struct run *runs, uint8_t *ram, struct error *err)
{
    for (unsigned i = 0; i < frame->runs; i++)
        for (uint64_t page = runs[i].first; page < runs[i].first + runs[i].count; page++) {
            size_t used = delta_decode(in, size, ram + page * STREAM_PAGE_BYTES);
            if (used == 0)
                return refuse(CODEC_DELTA, err);
            in += used;
            size -= used;
        }
    return size == 0 ? 0 : refuse(CODEC_DELTA, err);
}

static int fill(const struct frame *frame, const uint8_t *in, size_t size, const struct run *runs,
                uint8_t *ram, struct error *err)
{
    if (size != frame->runs * sizeof(uint64_t))
        return refuse(CODEC_FILL, err);
    for (unsigned i = 0; i < frame->runs; i++) {
        uint64_t word;
        memcpy(&word, in + i * sizeof(word), sizeof(word));
        uint8_t *at = ram + runs[i].first * STREAM_PAGE_BYTES;
        for (size_t left = (size_t)runs[i].count * STREAM_PAGE_BYTES; left > 0;
             left -= sizeof(word), at += sizeof(word))
            memcpy(at, &word, sizeof(word));
    }
    return 0;
}

int codec_decode(struct codec_memory *memory, const struct frame *frame, const uint8_t *in,
                 size_t size, const struct run *runs, uint64_t pages, uint8_t *ram,
                 struct error *err)
{
    switch (frame->codec) {
    case CODEC_LZ4:
    case CODEC_ZSTD:
        return expand(memory, frame, in, size, runs, pages, ram, err);
    case CODEC_DELTA:
        return apply_deltas(frame, in, size, runs, ram, err);
    case CODEC_FILL:
        return fill(frame, in, size, runs, ram, err);
    default:
        return error_set(err, ERROR_FAILED, "codec %u is not known", frame->codec);
    }
}

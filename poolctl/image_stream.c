#include "poolctl/image_stream.h"

#include <inttypes.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "common/cleanup.h"

#define CPIO_HEADER 110
#define NAME_MAX_   4096
#define CHUNK       (256u << 10)
#define XZ_MEMORY   (256ull << 20)

static int cut_off(const struct image_file *file, const char *what, uint64_t at, struct error *err)
{
    return error_set(err, ERROR_USAGE,
                     "%s is truncated or damaged: the %s data that begins at byte %" PRIu64
                     " does not end properly: copy it again",
                     file->path, what, at);
}

/* ---- cpio ----------------------------------------------------------------------------------- */

/* A field of the newc header: eight hex digits. */
static int hex_field(const unsigned char *header, int field, uint64_t *value)
{
    char digits[9] = "";
    memcpy(digits, header + 6 + (size_t)8 * (size_t)field, 8);
    if (digits[strspn(digits, "0123456789abcdefABCDEF")] || strlen(digits) != 8)
        return -1;
    *value = strtoull(digits, NULL, 16);
    return 0;
}

static uint64_t align4(uint64_t offset)
{
    return (offset + 3) & ~3ull;
}

/* Walks one archive that begins at *@offset, and leaves *@offset behind it. */
static int walk_cpio(const struct image_file *file, uint64_t *offset, struct error *err)
{
    uint64_t begin = *offset;
    for (;;) {
        unsigned char header[CPIO_HEADER];
        char name[16] = "";
        uint64_t name_size = 0;
        uint64_t file_size = 0;
        size_t got = 0;
        if (image_file_read(file, *offset, header, sizeof header, &got, err) < 0)
            return -1;
        if (got < sizeof header || memcmp(header, "07070", 5) != 0 ||
            hex_field(header, 6, &file_size) < 0 || hex_field(header, 11, &name_size) < 0 ||
            name_size == 0 || name_size > NAME_MAX_)
            return cut_off(file, "cpio", begin, err);
        if (image_file_read(file, *offset + CPIO_HEADER, name, sizeof name - 1, &got, err) < 0)
            return -1;
        *offset = align4(align4(*offset + CPIO_HEADER + name_size) + file_size);
        bool last = name_size == 11 && strncmp(name, "TRAILER!!!", 10) == 0;
        if (*offset > file->bytes + 3)
            return cut_off(file, "cpio", begin, err);
        if (last)
            return 0;
    }
}

/* ---- compressed ----------------------------------------------------------------------------- */

/* What the three libraries have in common: eats input, throws the output away. */
struct decoder {
    const char *name;
    z_stream gzip;
    lzma_stream xz;
    ZSTD_DStream *zstd;
    unsigned char *out;
    bool ended;
};

/* Feeds @size bytes; @used says how many were taken. -1 where they are no such data. */
static int feed_gzip(struct decoder *decoder, unsigned char *data, size_t size, size_t *used)
{
    decoder->gzip.next_in = data;
    decoder->gzip.avail_in = (uInt)size;
    while (decoder->gzip.avail_in > 0 && !decoder->ended) {
        decoder->gzip.next_out = decoder->out;
        decoder->gzip.avail_out = CHUNK;
        int result = inflate(&decoder->gzip, Z_NO_FLUSH);
        decoder->ended = result == Z_STREAM_END;
        if (result != Z_OK && result != Z_STREAM_END)
            return -1;
    }
    *used = size - decoder->gzip.avail_in;
    return 0;
}

static int feed_xz(struct decoder *decoder, unsigned char *data, size_t size, size_t *used)
{
    decoder->xz.next_in = data;
    decoder->xz.avail_in = size;
    while (decoder->xz.avail_in > 0 && !decoder->ended) {
        decoder->xz.next_out = decoder->out;
        decoder->xz.avail_out = CHUNK;
        lzma_ret result = lzma_code(&decoder->xz, LZMA_RUN);
        decoder->ended = result == LZMA_STREAM_END;
        if (result != LZMA_OK && result != LZMA_STREAM_END)
            return -1;
    }
    *used = size - decoder->xz.avail_in;
    return 0;
}

static int feed_zstd(struct decoder *decoder, unsigned char *data, size_t size, size_t *used)
{
    ZSTD_inBuffer in = {data, size, 0};
    while (in.pos < in.size && !decoder->ended) {
        ZSTD_outBuffer out = {decoder->out, CHUNK, 0};
        size_t result = ZSTD_decompressStream(decoder->zstd, &out, &in);
        decoder->ended = result == 0;
        if (ZSTD_isError(result))
            return -1;
    }
    *used = in.pos;
    return 0;
}

typedef int (*feed_fn)(struct decoder *decoder, unsigned char *data, size_t size, size_t *used);

/* Runs the decoder from *@offset to the end of its stream. */
static int run_decoder(const struct image_file *file, uint64_t *offset, struct decoder *decoder,
                       feed_fn feed, struct error *err)
{
    uint64_t begin = *offset;
    auto_free unsigned char *data = malloc(CHUNK);
    while (data && !decoder->ended) {
        size_t got = 0;
        size_t used = 0;
        if (image_file_read(file, *offset, data, CHUNK, &got, err) < 0)
            return -1;
        if (got == 0 || feed(decoder, data, got, &used) < 0)
            return cut_off(file, decoder->name, begin, err);
        *offset += used;
    }
    return data ? 0 : error_set(err, ERROR_FAILED, "out of memory");
}

static int check_compressed(const struct image_file *file, const unsigned char *magic,
                            uint64_t *offset, struct error *err)
{
    struct decoder decoder = {.xz = LZMA_STREAM_INIT};
    auto_free unsigned char *out = malloc(CHUNK);
    int result = -1;
    decoder.out = out;
    if (!out)
        return error_set(err, ERROR_FAILED, "out of memory");
    if (memcmp(magic, "\x1f\x8b", 2) == 0) {
        decoder.name = "gzip";
        if (inflateInit2(&decoder.gzip, 15 + 16) != Z_OK) /* 16: with a gzip header */
            return error_set(err, ERROR_FAILED, "out of memory");
        result = run_decoder(file, offset, &decoder, feed_gzip, err);
        (void)inflateEnd(&decoder.gzip);
    } else if (memcmp(magic,
                      "\xfd"
                      "7zXZ",
                      6) == 0) {
        decoder.name = "xz";
        if (lzma_stream_decoder(&decoder.xz, XZ_MEMORY, 0) != LZMA_OK)
            return error_set(err, ERROR_FAILED, "out of memory");
        result = run_decoder(file, offset, &decoder, feed_xz, err);
        lzma_end(&decoder.xz);
    } else {
        decoder.name = "zstd";
        decoder.zstd = ZSTD_createDStream();
        if (!decoder.zstd)
            return error_set(err, ERROR_FAILED, "out of memory");
        result = run_decoder(file, offset, &decoder, feed_zstd, err);
        (void)ZSTD_freeDStream(decoder.zstd);
    }
    return result;
}

/* ---- the row of archives -------------------------------------------------------------------- */

/* Skips zeros, which may stand between archives and behind the last. */
static int skip_padding(const struct image_file *file, uint64_t *offset, struct error *err)
{
    unsigned char data[4096];
    size_t got = 0;
    do {
        if (image_file_read(file, *offset, data, sizeof data, &got, err) < 0)
            return -1;
        for (size_t i = 0; i < got; i++)
            if (data[i]) {
                *offset += i;
                return 0;
            }
        *offset += got;
    } while (got > 0);
    return 0;
}

static bool is_compressed(const unsigned char *magic)
{
    return memcmp(magic, "\x1f\x8b", 2) == 0 || memcmp(magic, "\x28\xb5\x2f\xfd", 4) == 0 ||
           memcmp(magic,
                  "\xfd"
                  "7zXZ",
                  6) == 0;
}

/* Formats the kernel also takes, whose end we don't check. */
static bool is_other_compression(const unsigned char *magic)
{
    return memcmp(magic, "BZh", 3) == 0 || memcmp(magic, "\x5d\x00\x00", 3) == 0 ||
           memcmp(magic, "\x89LZO", 4) == 0 || memcmp(magic, "\x02\x21\x4c\x18", 4) == 0;
}

int image_stream_check(const struct image_file *file, struct error *err)
{
    uint64_t offset = 0;
    while (offset < file->bytes) {
        unsigned char magic[8] = {0};
        size_t got = 0;
        uint64_t begin = offset;
        if (image_file_read(file, offset, magic, sizeof magic, &got, err) < 0)
            return -1;
        int result = 0;
        if (memcmp(magic, "070701", 6) == 0 || memcmp(magic, "070702", 6) == 0)
            result = walk_cpio(file, &offset, err);
        else if (is_compressed(magic))
            result = check_compressed(file, magic, &offset, err);
        else if (is_other_compression(magic))
            return 0;
        else if (begin == 0)
            return error_set(err, ERROR_USAGE,
                             "%s is not an initrd: a cpio archive is needed, plain or compressed",
                             file->path);
        else
            return cut_off(file, "last", begin, err);
        if (result < 0 || skip_padding(file, &offset, err) < 0)
            return -1;
    }
    return 0;
}

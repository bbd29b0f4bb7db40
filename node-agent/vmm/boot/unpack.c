#include "node-agent/vmm/boot/unpack.h"

#include <errno.h>
#include <lz4.h>
#include <lzma.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "common/cleanup.h"
#include "node-agent/vmm/boot/boot.h"

#define PIECE_SIZE    (256u << 10)
#define LZMA_MEMORY   (192ull << 20) /* the kernel's own limit is a 128 MiB dictionary */
#define LZ4_BLOCK_MAX (8u << 20)     /* of the legacy frame */
#define LZ4_MAGIC     0x184c2102u

/* Where the bytes come from and go to, shared by all formats. */
struct stream {
    int fd;
    uint64_t offset;
    uint64_t left;
    unpack_sink sink;
    void *context;
    uint8_t *in;  /* PIECE_SIZE */
    uint8_t *out; /* PIECE_SIZE */
};

static int damaged(struct error *err, const char *format)
{
    return error_set(err, ERROR_USAGE, "the kernel's compressed (%s) image is damaged or truncated",
                     format);
}

/* Reads the next piece into in; *@size is 0 at the end. */
static int next_piece(struct stream *stream, size_t *size, struct error *err)
{
    *size = stream->left < PIECE_SIZE ? (size_t)stream->left : PIECE_SIZE;
    if (boot_read(stream->fd, stream->offset, stream->in, *size, "kernel", err) < 0)
        return -1;
    stream->offset += *size;
    stream->left -= *size;
    return 0;
}

static int unpack_gzip(struct stream *stream, struct error *err)
{
    z_stream z = {0};
    if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK)
        return error_errno(err, ENOMEM, "gzip");
    int status = 0;
    int state = Z_OK;
    while (status == 0 && state != Z_STREAM_END) {
        if (z.avail_in == 0) {
            size_t size = 0;
            status = next_piece(stream, &size, err);
            if (status == 0 && size == 0)
                status = damaged(err, "gzip");
            if (status < 0)
                break;
            z.next_in = stream->in;
            z.avail_in = (uInt)size;
        }
        z.next_out = stream->out;
        z.avail_out = PIECE_SIZE;
        state = inflate(&z, Z_NO_FLUSH);
        if (state != Z_OK && state != Z_STREAM_END)
            status = damaged(err, "gzip");
        else
            status = stream->sink(stream->context, stream->out, PIECE_SIZE - z.avail_out, err);
    }
    (void)inflateEnd(&z);
    return status < 0 ? -1 : 0;
}

/* xz and the older lzma container. */
static int unpack_lzma(struct stream *stream, struct error *err)
{
    lzma_stream lzma = LZMA_STREAM_INIT;
    if (lzma_auto_decoder(&lzma, LZMA_MEMORY, 0) != LZMA_OK)
        return error_errno(err, ENOMEM, "xz");
    int status = 0;
    lzma_ret state = LZMA_OK;
    while (status == 0 && state != LZMA_STREAM_END) {
        if (lzma.avail_in == 0) {
            size_t size = 0;
            status = next_piece(stream, &size, err);
            if (status == 0 && size == 0)
                status = damaged(err, "xz");
            if (status < 0)
                break;
            lzma.next_in = stream->in;
            lzma.avail_in = size;
        }
        lzma.next_out = stream->out;
        lzma.avail_out = PIECE_SIZE;
        state = lzma_code(&lzma, LZMA_RUN);
        if (state != LZMA_OK && state != LZMA_STREAM_END)
            status = damaged(err, "xz");
        else
            status = stream->sink(stream->context, stream->out, PIECE_SIZE - lzma.avail_out, err);
    }
    lzma_end(&lzma);
    return status < 0 ? -1 : 0;
}

static int unpack_zstd(struct stream *stream, struct error *err)
{
    ZSTD_DStream *zstd = ZSTD_createDStream();
    if (!zstd)
        return error_errno(err, ENOMEM, "zstd");
    int status = 0;
    size_t wanted = 1;
    ZSTD_inBuffer in = {.src = stream->in};
    while (status == 0 && wanted != 0) {
        if (in.pos == in.size) {
            size_t size = 0;
            status = next_piece(stream, &size, err);
            if (status == 0 && size == 0)
                status = damaged(err, "zstd");
            if (status < 0)
                break;
            in = (ZSTD_inBuffer){.src = stream->in, .size = size};
        }
        ZSTD_outBuffer out = {.dst = stream->out, .size = PIECE_SIZE};
        wanted = ZSTD_decompressStream(zstd, &out, &in);
        if (ZSTD_isError(wanted))
            status = damaged(err, "zstd");
        else
            status = stream->sink(stream->context, stream->out, out.pos, err);
    }
    (void)ZSTD_freeDStream(zstd);
    return status < 0 ? -1 : 0;
}

/* The legacy frame: a magic number, then blocks of a 32-bit length and that many bytes, each 8 MiB
 * when unpacked except the last. Linux puts the unpacked size, 4 bytes, behind the last. */
static int unpack_lz4(struct stream *stream, struct error *err)
{
    int bound = LZ4_compressBound(LZ4_BLOCK_MAX);
    auto_free char *packed = malloc((size_t)bound);
    auto_free char *unpacked = malloc(LZ4_BLOCK_MAX);
    if (!packed || !unpacked)
        return error_errno(err, ENOMEM, "lz4");
    stream->offset += 4;
    stream->left -= 4;
    int status = 0;
    while (status == 0 && stream->left > 4) {
        uint32_t size = 0;
        if (boot_read(stream->fd, stream->offset, &size, 4, "kernel", err) < 0)
            return -1;
        stream->offset += 4;
        stream->left -= 4;
        if (size == LZ4_MAGIC)
            continue; /* another frame follows */
        if (size == 0 || size > (uint32_t)bound || size > stream->left)
            return damaged(err, "lz4");
        if (boot_read(stream->fd, stream->offset, packed, size, "kernel", err) < 0)
            return -1;
        stream->offset += size;
        stream->left -= size;
        int got = LZ4_decompress_safe(packed, unpacked, (int)size, LZ4_BLOCK_MAX);
        if (got < 0)
            return damaged(err, "lz4");
        status = stream->sink(stream->context, unpacked, (size_t)got, err);
    }
    return status < 0 ? -1 : 0;
}

static int copy_plain(struct stream *stream, struct error *err)
{
    int status = 0;
    while (status == 0 && stream->left > 0) {
        size_t size = 0;
        status = next_piece(stream, &size, err);
        if (status == 0)
            status = stream->sink(stream->context, stream->in, size, err);
    }
    return status < 0 ? -1 : 0;
}

struct format {
    const char *magic;
    size_t length;
    int (*unpack)(struct stream *stream, struct error *err);
};

static const struct format formats[] = {
    {"\x1f\x8b\x08", 3, unpack_gzip},
    {"\xfd"
     "7zXZ",
     6, unpack_lzma},
    {"\x5d\0\0", 3, unpack_lzma},
    {"\x02\x21\x4c\x18", 4, unpack_lz4},
    {"\x28\xb5\x2f\xfd", 4, unpack_zstd},
    {"\x7f"
     "ELF",
     4, copy_plain},
};

int unpack_stream(int fd, uint64_t offset, uint64_t length, unpack_sink sink, void *context,
                  struct error *err)
{
    auto_free uint8_t *in = malloc(PIECE_SIZE);
    auto_free uint8_t *out = malloc(PIECE_SIZE);
    if (!in || !out)
        return error_errno(err, ENOMEM, "kernel");
    uint8_t magic[6];
    if (length < sizeof magic)
        return error_set(err, ERROR_USAGE, "the kernel file is truncated");
    if (boot_read(fd, offset, magic, sizeof magic, "kernel", err) < 0)
        return -1;
    struct stream stream = {.fd = fd,
                            .offset = offset,
                            .left = length,
                            .sink = sink,
                            .context = context,
                            .in = in,
                            .out = out};
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (memcmp(magic, formats[i].magic, formats[i].length) == 0)
            return formats[i].unpack(&stream, err);
    return error_set(err, ERROR_NOT_FOUND, "the kernel's compression is unknown");
}

/*
 * unpack.h: reads the compressed kernel inside a bzImage, piece by piece.
 *
 * The formats are those Linux offers for its own image: gzip, xz, lzma, lz4 (the legacy frame),
 * zstd, or none. (bzip2 and lzo, which no distribution uses, are not read.)
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/* Takes unpacked bytes; returns 1 for "enough", 0 to go on, -1 on error. */
typedef int (*unpack_sink)(void *context, const void *data, size_t size, struct error *err);

/* Unpacks @length bytes of @fd from @offset into @sink. Returns when the sink has enough or the
 * data ends. A format that is not read is ERROR_NOT_FOUND, damaged data ERROR_USAGE. */
int unpack_stream(int fd, uint64_t offset, uint64_t length, unpack_sink sink, void *context,
                  struct error *err);

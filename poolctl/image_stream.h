/*
 * image_stream.h: whether an initrd is whole.
 *
 * An initrd is a row of archives: cpio in the "newc" format
 * (Documentation/driver-api/early-userspace/ buffer-format.rst), plain or compressed, padded with
 * zeros. Each plain one is walked to its "TRAILER!!!", each compressed one is decompressed to its
 * end, without keeping what comes out.
 */
#pragma once

#include "common/error.h"
#include "poolctl/image_file.h"

int image_stream_check(const struct image_file *file, struct error *err);

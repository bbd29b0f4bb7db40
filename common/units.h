/*
 * units.h: sizes, rates and durations as people write them.
 *
 * Sizes: a number with K, M, G or T (powers of 1024; an "i" or "iB" behind is welcome); without a
 * suffix the unit the parameter names. Rates: a number of bits per second with k, M or G (powers of
 * 1000; "bit", "bps" or "bit/s" behind is welcome). Durations: ms, s, m, h, d. Fractions such as
 * 1.5G are read. Anything else, a negative number or an overflow is an error that names the text.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/* Reads a size into bytes; @unit_bytes is what a bare number counts (1 for bytes, 1 MiB for MiB).
 */
int units_parse_bytes(const char *text, uint64_t unit_bytes, uint64_t *bytes, struct error *err);

/* Reads a rate into bits per second; a bare number is bit/s. */
int units_parse_bps(const char *text, uint64_t *bps, struct error *err);

/* Reads a duration into milliseconds; a bare number is seconds. */
int units_parse_ms(const char *text, uint64_t *ms, struct error *err);

/* Reads a whole decimal number within [@min, @max]. @what names it in the error ("--cpus"). */
int units_parse_number(const char *text, const char *what, uint64_t min, uint64_t max,
                       uint64_t *number, struct error *err);

/* "1.5G", "512M", "0": at most one digit after the point. Return @out. */
const char *units_format_bytes(uint64_t bytes, char *out, size_t size);
/* "200 Mbit/s" */
const char *units_format_bps(uint64_t bps, char *out, size_t size);
/* "850 ms", "2.1 s", "3m 05s", "2h 10m", "4d 03h" */
const char *units_format_ms(uint64_t ms, char *out, size_t size);

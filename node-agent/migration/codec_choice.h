/*
 * codec_choice.h: which compression a page stream uses: a pure function of what it measured.
 *
 * A stream asks at the end of each window of its work. What sending one byte of a page costs with a
 * codec is the longer of what the link takes (ratio x the link's time per byte) and what the stream
 * itself takes (encoding + ratio x its own time per byte sent: sealing, the kernel). So on a fast
 * link or with pages that don't get smaller, sending them as they are is predicted to be best; on a
 * slow link, whatever makes them small enough and is not slower than the link.
 *
 * Costs are in picoseconds a byte: 1000 is 1 GB/s.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "node-agent/migration/codec.h"

#define CHOICE_CODECS    3u /* NONE, LZ4, ZSTD */
#define CHOICE_RATIO_ONE 1000u

struct choice_codec {
    uint64_t encode_ps; /* per byte of page; 0: never tried */
    uint32_t ratio;     /* bytes encoded per thousand bytes of page */
};

struct choice_input {
    enum codec now;     /* used in the window */
    uint64_t encode_ns; /* of the window: spent encoding, */
    uint64_t send_ns;   /* spent sending, the waiting for the link included, */
    uint64_t waited_ns; /* and that waiting alone */
    uint64_t page_bytes, wire_bytes;
    struct choice_codec codecs[CHOICE_CODECS]; /* NONE's is not looked at */
};

/* What is known from earlier windows; zeroed at first and kept by the caller. */
struct choice_memory {
    uint64_t link_ps;                    /* per byte sent; 0: it was never waited for */
    uint64_t own_ps;                     /* per byte sent */
    uint64_t measured_ps[CHOICE_CODECS]; /* per byte of page, when it was used last; 0: too old */
    uint32_t age[CHOICE_CODECS];         /* in windows */
    uint32_t hidden;                     /* windows in which encoding was all that was waited for */
    uint32_t probes;                     /* that were made because of it */
};

/* A codec is changed for LZ4 or zstd where that is predicted to be this much better, in per cent.
 */
#define CHOICE_HYSTERESIS 15u
/* One that gains less than this, in per cent, over sending pages as they are isn't worth its CPU.
 */
#define CHOICE_GAIN_MIN 5u
/* What was measured counts more than what is predicted, for so many windows. */
#define CHOICE_MEASURED_WINDOWS 50u
/* After so many windows in which encoding hid the link's speed, one shows it; then twice as many,
 * up to 2^CHOICE_PROBES_SHIFT times. */
#define CHOICE_HIDDEN_WINDOWS 50u
#define CHOICE_PROBES_SHIFT   3u
/* Waiting of less than this share of the time, in per cent, is no sign of a slow link. */
#define CHOICE_WAITED_MIN 10u

enum codec codec_choose(const struct choice_input *input, struct choice_memory *memory);

/* The cost of a byte of page with @codec. UINT64_MAX where it was never tried. */
uint64_t codec_predict_ps(const struct choice_codec codecs[CHOICE_CODECS],
                          const struct choice_memory *memory, enum codec codec);

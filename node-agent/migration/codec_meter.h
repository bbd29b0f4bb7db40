/*
 * codec_meter.h: what the page streams of one migration measure together, and the compression they
 * choose together by codec_choice.h. Streams share a link: what one of them sends, another waits
 * for, so that none could judge by itself. All functions may be called from all streams.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "node-agent/migration/codec_choice.h"
#include "node-agent/migration/migration.h"

struct codec_meter {
    bool fixed;           /* nothing is chosen: the codec was ordered */
    _Atomic unsigned now; /* enum codec */

    pthread_mutex_t lock; /* for the rest */
    struct choice_input window;
    struct choice_memory learnt;
    unsigned streams;
    unsigned frames;              /* of the window */
    unsigned settling;            /* frames that still tell of the codec before */
    enum codec tried;             /* as a sample, last */
    uint64_t busy_ns, sampled_ns; /* of all streams, in all */
};

/* One frame of pages that were compressed or sent as they are. */
struct codec_frame {
    enum codec chosen; /* when it was made; it may have been sent as it is nevertheless */
    uint64_t encode_ns, send_ns, waited_ns; /* as in struct choice_input */
    uint64_t page_bytes, wire_bytes;
};

void codec_meter_init(struct codec_meter *meter);
/* What was ordered, and how many streams there are; before any of them begins. */
void codec_meter_order(struct codec_meter *meter, enum migration_compress compress,
                       unsigned streams);
void codec_meter_destroy(struct codec_meter *meter);

static inline enum codec codec_meter_now(struct codec_meter *meter)
{
    return (enum codec)atomic_load_explicit(&meter->now, memory_order_relaxed);
}

/* Bytes per thousand that pages compress to with @codec; 0: not known. */
uint32_t codec_meter_ratio(struct codec_meter *meter, enum codec codec);
/* @bytes of pages were compressed to @made (0: they got no smaller) in @took_ns. */
void codec_meter_note_encoded(struct codec_meter *meter, enum codec codec, uint64_t bytes,
                              uint64_t made, uint64_t took_ns);
/* A frame went out; chooses anew when enough of them have. */
void codec_meter_note_sent(struct codec_meter *meter, const struct codec_frame *frame);

/* A codec that is to be tried on a few pages now, or CODEC_NONE. At most one hundredth of the
 * streams' time goes into this; codec_meter_note_sample() tells how much it was. */
enum codec codec_meter_sample(struct codec_meter *meter);
void codec_meter_note_sample(struct codec_meter *meter, uint64_t took_ns);

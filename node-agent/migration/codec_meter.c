#include "node-agent/migration/codec_meter.h"

#define WINDOW_NS     20000000 /* of each stream; after it the codec is chosen anew */
#define WINDOW_FRAMES 4u       /* of each stream, at least */
#define SAMPLE_SHARE  100u     /* one part of so many of the time may go into sampling */
#define SAMPLE_NS     50000    /* what one may take */

void codec_meter_init(struct codec_meter *meter)
{
    *meter = (struct codec_meter){.streams = 1};
    (void)pthread_mutex_init(&meter->lock, NULL);
}

void codec_meter_order(struct codec_meter *meter, enum migration_compress compress,
                       unsigned streams)
{
    static const enum codec firsts[] = {[MIGRATION_COMPRESS_AUTO] = CODEC_NONE,
                                        [MIGRATION_COMPRESS_OFF] = CODEC_NONE,
                                        [MIGRATION_COMPRESS_LZ4] = CODEC_LZ4,
                                        [MIGRATION_COMPRESS_ZSTD] = CODEC_ZSTD};
    meter->fixed = compress != MIGRATION_COMPRESS_AUTO;
    meter->streams = streams;
    atomic_store(&meter->now, firsts[compress]);
}

void codec_meter_destroy(struct codec_meter *meter)
{
    (void)pthread_mutex_destroy(&meter->lock);
}

uint32_t codec_meter_ratio(struct codec_meter *meter, enum codec codec)
{
    (void)pthread_mutex_lock(&meter->lock);
    uint32_t ratio = meter->window.codecs[codec].ratio;
    (void)pthread_mutex_unlock(&meter->lock);
    return ratio;
}

static uint64_t average(uint64_t before, uint64_t now)
{
    return before ? (before * 3 + now) / 4 : now;
}

void codec_meter_note_encoded(struct codec_meter *meter, enum codec codec, uint64_t bytes,
                              uint64_t made, uint64_t took_ns)
{
    uint64_t ratio = made ? made * CHOICE_RATIO_ONE / bytes : CHOICE_RATIO_ONE;
    (void)pthread_mutex_lock(&meter->lock);
    struct choice_codec *known = &meter->window.codecs[codec];
    known->encode_ps = average(known->encode_ps, took_ns * 1000 / bytes + 1);
    known->ratio = (uint32_t)average(known->ratio, ratio + 1);
    (void)pthread_mutex_unlock(&meter->lock);
}

static void choose(struct codec_meter *meter)
{
    struct choice_input *window = &meter->window;
    window->now = codec_meter_now(meter);
    enum codec next = codec_choose(window, &meter->learnt);
    if (next != window->now)
        meter->settling = meter->streams;
    atomic_store_explicit(&meter->now, next, memory_order_relaxed);
    window->encode_ns = window->send_ns = window->waited_ns = 0;
    window->page_bytes = window->wire_bytes = 0;
    meter->frames = 0;
}

void codec_meter_note_sent(struct codec_meter *meter, const struct codec_frame *frame)
{
    (void)pthread_mutex_lock(&meter->lock);
    struct choice_input *window = &meter->window;
    meter->busy_ns += frame->encode_ns + frame->send_ns;
    if (frame->chosen != codec_meter_now(meter)) {
        /* made before the last choice */
    } else if (meter->settling > 0) {
        meter->settling--; /* it waited for frames made before */
    } else {
        meter->frames++;
        window->encode_ns += frame->encode_ns;
        window->send_ns += frame->send_ns;
        window->waited_ns += frame->waited_ns;
        window->page_bytes += frame->page_bytes;
        window->wire_bytes += frame->wire_bytes;
    }
    if (!meter->fixed && meter->frames >= WINDOW_FRAMES * meter->streams &&
        window->encode_ns + window->send_ns >= (uint64_t)WINDOW_NS * meter->streams)
        choose(meter);
    (void)pthread_mutex_unlock(&meter->lock);
}

enum codec codec_meter_sample(struct codec_meter *meter)
{
    enum codec codec = CODEC_NONE, now = codec_meter_now(meter);
    (void)pthread_mutex_lock(&meter->lock);
    if (!meter->fixed && (meter->sampled_ns + SAMPLE_NS) * SAMPLE_SHARE <= meter->busy_ns) {
        /* Of those not in use the one that was tried longest ago. */
        enum codec before = now == CODEC_NONE ? meter->tried : now;
        codec = before == CODEC_LZ4 ? CODEC_ZSTD : CODEC_LZ4;
        meter->tried = codec;
        meter->sampled_ns += SAMPLE_NS; /* until it is known */
    }
    (void)pthread_mutex_unlock(&meter->lock);
    return codec;
}

void codec_meter_note_sample(struct codec_meter *meter, uint64_t took_ns)
{
    (void)pthread_mutex_lock(&meter->lock);
    meter->sampled_ns += took_ns - SAMPLE_NS;
    (void)pthread_mutex_unlock(&meter->lock);
}

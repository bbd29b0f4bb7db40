#include "node-agent/migration/codec_choice.h"

static uint64_t per_byte_ps(uint64_t ns, uint64_t bytes)
{
    unsigned __int128 ps = (unsigned __int128)ns * 1000 / bytes;
    return ps > UINT64_MAX ? UINT64_MAX : (uint64_t)ps;
}

static uint64_t max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* While it is waited for, the link is as fast as what went out; while it is not, it is no slower.
 */
static void learn(const struct choice_input *input, struct choice_memory *memory)
{
    uint64_t busy_ns = input->encode_ns + input->send_ns;
    uint64_t wall_ps = per_byte_ps(busy_ns, input->wire_bytes);
    bool waited = input->waited_ns > busy_ns * CHOICE_WAITED_MIN / 100;
    if (waited || wall_ps < memory->link_ps)
        memory->link_ps = wall_ps;
    memory->hidden = waited || input->now == CODEC_NONE ? 0 : memory->hidden + 1;
    uint64_t own_ns = input->send_ns > input->waited_ns ? input->send_ns - input->waited_ns : 0;
    memory->own_ps = per_byte_ps(own_ns, input->wire_bytes);
    for (unsigned codec = 0; codec < CHOICE_CODECS; codec++)
        if (++memory->age[codec] > CHOICE_MEASURED_WINDOWS)
            memory->measured_ps[codec] = 0;
    memory->measured_ps[input->now] = max(per_byte_ps(busy_ns, input->page_bytes), 1);
    memory->age[input->now] = 0;
}

uint64_t codec_predict_ps(const struct choice_codec codecs[CHOICE_CODECS],
                          const struct choice_memory *memory, enum codec codec)
{
    if (memory->measured_ps[codec])
        return memory->measured_ps[codec];
    uint64_t encode_ps = codec == CODEC_NONE ? 0 : codecs[codec].encode_ps;
    uint64_t ratio = codec == CODEC_NONE ? CHOICE_RATIO_ONE : codecs[codec].ratio;
    if (codec != CODEC_NONE && encode_ps == 0)
        return UINT64_MAX;
    uint64_t link_ps = memory->link_ps * ratio / CHOICE_RATIO_ONE;
    uint64_t own_ps = encode_ps + memory->own_ps * ratio / CHOICE_RATIO_ONE;
    return max(link_ps, own_ps);
}

enum codec codec_choose(const struct choice_input *input, struct choice_memory *memory)
{
    if (input->wire_bytes == 0 || input->page_bytes == 0)
        return input->now;
    learn(input, memory);
    if (memory->hidden >= CHOICE_HIDDEN_WINDOWS << memory->probes) {
        memory->hidden = 0;
        memory->probes += memory->probes < CHOICE_PROBES_SHIFT;
        return CODEC_NONE; /* for a window at least: it shows */
    }
    uint64_t now_ps = memory->measured_ps[input->now];
    if (input->now != CODEC_NONE && codec_predict_ps(input->codecs, memory, CODEC_NONE) <
                                        now_ps + now_ps * CHOICE_GAIN_MIN / 100)
        return CODEC_NONE;
    uint64_t best_ps = now_ps - now_ps * CHOICE_HYSTERESIS / 100;
    enum codec best = input->now;
    for (enum codec codec = CODEC_LZ4; codec <= CODEC_ZSTD; codec++) {
        uint64_t ps = codec_predict_ps(input->codecs, memory, codec);
        if (codec != input->now && ps < best_ps) {
            best_ps = ps;
            best = codec;
        }
    }
    return best;
}

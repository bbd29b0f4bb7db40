#include "node-agent/migration/link_model.h"

#define BULK_BYTES    1048576u /* from here on a round tells of the rate, however long it took */
#define RATE_FLOOR    4u       /* at least 1/4 of a round that tells of the rate is its bytes */
#define FIRST_MINIMUM 65536u   /* a smaller first round tells of the latency only */

static uint64_t mean(uint64_t before, uint64_t now)
{
    return before ? (before + now) / 2 : now;
}

void link_model_note(struct link_model *model, uint64_t bytes, uint64_t us)
{
    uint64_t transfer_us = model->rate ? bytes * 1000000 / model->rate : us;
    bool tells_rate = bytes >= BULK_BYTES || (bytes >= FIRST_MINIMUM && transfer_us >= us / 2);
    if (tells_rate) {
        uint64_t floor_us = us / RATE_FLOOR + 1;
        uint64_t left_us = us > model->latency_us ? us - model->latency_us : 0;
        uint64_t rate = bytes * 1000000 / (left_us > floor_us ? left_us : floor_us);
        model->rate = model->rough ? rate : mean(model->rate, rate);
        model->rough = false;
    } else {
        uint64_t rest_us = model->rate && us > transfer_us ? us - transfer_us : us;
        model->latency_us = mean(model->latency_us, rest_us);
        model->latencies++;
    }
}

#include "node-agent/migration/pacer.h"

#define BURST_NS 10000000

void pacer_init(struct pacer *pacer, uint64_t bits_per_second)
{
    *pacer = (struct pacer){.bytes_per_second = bits_per_second / 8};
    (void)pthread_mutex_init(&pacer->lock, NULL);
}

void pacer_destroy(struct pacer *pacer)
{
    (void)pthread_mutex_destroy(&pacer->lock);
}

int64_t pacer_take(struct pacer *pacer, uint64_t bytes, int64_t now_ns)
{
    if (pacer->bytes_per_second == 0)
        return 0;
    int64_t cost_ns = (int64_t)((unsigned __int128)bytes * 1000000000 / pacer->bytes_per_second);
    (void)pthread_mutex_lock(&pacer->lock);
    if (pacer->free_ns < now_ns - BURST_NS)
        pacer->free_ns = now_ns - BURST_NS;
    int64_t wait_ns = pacer->free_ns - now_ns;
    pacer->free_ns += cost_ns;
    (void)pthread_mutex_unlock(&pacer->lock);
    return wait_ns > 0 ? wait_ns : 0;
}

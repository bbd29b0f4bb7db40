/* pacer.h: a bandwidth cap shared by the streams of one migration: a token bucket. */
#pragma once

#include <pthread.h>
#include <stdint.h>

struct pacer {
    pthread_mutex_t lock;
    uint64_t bytes_per_second; /* 0: no cap */
    int64_t free_ns;           /* when what was taken so far has gone out at the capped rate */
};

void pacer_init(struct pacer *pacer, uint64_t bits_per_second);
void pacer_destroy(struct pacer *pacer);

/* Takes @bytes out of the bucket at time @now_ns and returns the nanoseconds to wait before sending
 * them. A sender that was slower than the cap may catch up by at most 10 ms worth of it. */
int64_t pacer_take(struct pacer *pacer, uint64_t bytes, int64_t now_ns);

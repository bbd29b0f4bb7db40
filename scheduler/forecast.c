/* forecast.c: see forecast.h. */
#include "scheduler/forecast.h"

#include <math.h>

#include "scheduler/point.h"

#define PEAK_SHARE 0.95f

static float share_of(uint64_t used, uint64_t most)
{
    return most == 0 ? 0 : used >= most ? 1 : (float)((double)used / (double)most);
}

static size_t bucket_of(float share)
{
    size_t bucket = (size_t)(share * FORECAST_BUCKETS);
    return bucket < FORECAST_BUCKETS ? bucket : FORECAST_BUCKETS - 1;
}

static void add_share(struct forecast *forecast, int d, float share, float fade, float time)
{
    float *weight = forecast->weight[d];
    float total = 0;
    for (size_t i = 0; i < FORECAST_BUCKETS; i++) {
        weight[i] *= fade;
        total += weight[i];
    }
    weight[bucket_of(share)] += time;
    forecast->mean[d] += (share - forecast->mean[d]) * time / (total + time);
}

void forecast_add(struct forecast *forecast, const struct sched_resources *most,
                  const struct sched_resources *used, uint64_t now_ms, uint64_t interval_ms)
{
    uint64_t since = forecast->begun && now_ms > forecast->at_ms ? now_ms - forecast->at_ms : 0;
    uint64_t time = since < interval_ms ? since : interval_ms;
    if (!forecast->begun)
        time = interval_ms ? interval_ms : 1;
    float fade = exp2f(-(float)((double)since / (double)FORECAST_HALF_LIFE_MS));
    for (int d = 0; d < DIMENSIONS && time > 0; d++)
        add_share(forecast, d, share_of(resource(used, d), resource(most, d)), fade, (float)time);
    if (!forecast->begun || now_ms > forecast->at_ms)
        forecast->at_ms = now_ms;
    forecast->begun = true;
}

/* The upper edge of the bucket in which PEAK_SHARE of the time is reached. */
static float peak_of(const float weight[FORECAST_BUCKETS])
{
    float total = 0, below = 0;
    for (size_t i = 0; i < FORECAST_BUCKETS; i++)
        total += weight[i];
    size_t bucket = 0;
    for (; bucket + 1 < FORECAST_BUCKETS; bucket++) {
        below += weight[bucket];
        if (below >= PEAK_SHARE * total)
            break;
    }
    return (float)(bucket + 1) / FORECAST_BUCKETS;
}

static uint64_t of_most(float share, uint64_t most)
{
    double amount = (double)share * (double)most;
    return amount >= (double)most ? most : (uint64_t)amount;
}

void forecast_expect(const struct forecast *forecast, const struct sched_resources *most,
                     struct sched_resources *mean, struct sched_resources *peak)
{
    uint64_t means[DIMENSIONS] = {0}, peaks[DIMENSIONS] = {0};
    for (int d = 0; d < DIMENSIONS && forecast->begun; d++) {
        means[d] = of_most(forecast->mean[d], resource(most, d));
        peaks[d] = of_most(peak_of(forecast->weight[d]), resource(most, d));
        peaks[d] = peaks[d] > means[d] ? peaks[d] : means[d];
    }
    *mean = (struct sched_resources){means[CPU], means[MEMORY], means[BANDWIDTH]};
    *peak = (struct sched_resources){peaks[CPU], peaks[MEMORY], peaks[BANDWIDTH]};
}

void forecast_sum_add(struct forecast_sum *sum, const struct sched_resources *mean,
                      const struct sched_resources *peak)
{
    for (int d = 0; d < DIMENSIONS; d++) {
        double distance = (double)resource(peak, d) - (double)resource(mean, d);
        sum->mean[d] += (double)resource(mean, d);
        sum->squares[d] += distance * distance;
    }
}

void forecast_sum_total(const struct forecast_sum *sum, struct sched_resources *total)
{
    *total = (struct sched_resources){
        (uint64_t)(sum->mean[CPU] + sqrt(sum->squares[CPU])),
        (uint64_t)(sum->mean[MEMORY] + sqrt(sum->squares[MEMORY])),
        (uint64_t)(sum->mean[BANDWIDTH] + sqrt(sum->squares[BANDWIDTH])),
    };
}

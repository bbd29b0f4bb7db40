/* lifetimes.c: see lifetimes.h. */
#include "scheduler/lifetimes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/name_map.h"

/* Kinds that are kept, in sets that one kind can be in: a newcomer takes the place of the one in
 * its set that the fewest VMs were of. */
#define SETS   1024u
#define SET    4u
#define WIDTHS 2 /* a size; a size and a tenant */
/* A mean follows as if the last so many VMs made it. */
#define KIND_REMEMBERS 256
#define ALL_REMEMBER   4096
/* So many VMs of a kind weigh as much as all that the wider kind knows. */
#define DOUBT 4
/* Judged are about the last so many VMs, and no verdict is given on fewer than the least. */
#define JUDGED       4096
#define JUDGED_LEAST 256
/* Forecasts made worse on purpose saved hosts from 0.7 on, and cost some below 0.5
 * (docs/scheduler.md). */
#define TRUST_FROM 0.7
#define TRUST_TO   0.6

struct kind {
    uint64_t key; /* 0: free */
    uint32_t count;
    double mean; /* of the logarithm */
};

struct lifetimes {
    struct kind all;
    struct kind sets[SETS][SET];
    double error_kind, error_all; /* sums of squares times memory, older ones counting less */
    uint64_t judged;
};

struct lifetimes *lifetimes_new(struct error *err)
{
    struct lifetimes *lifetimes = calloc(1, sizeof *lifetimes);
    if (!lifetimes)
        (void)error_set(err, ERROR_FAILED, "out of memory for what is learned of lifetimes");
    return lifetimes;
}

struct lifetimes *lifetimes_copy(const struct lifetimes *lifetimes)
{
    struct lifetimes *copy = malloc(sizeof *copy);
    if (copy)
        *copy = *lifetimes;
    return copy;
}

void lifetimes_free(struct lifetimes *lifetimes)
{
    free(lifetimes);
}

/* ---- kinds ---- */

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ (hash >> 29);
}

/* From the wide to the narrow; returns how many there are. */
static size_t keys_of(const struct sched_resources *need, const char *tenant, uint64_t keys[WIDTHS])
{
    uint64_t size = mix(mix(mix(1, need->cpu_milli), need->memory_mib), need->bandwidth_bps);
    keys[0] = size ? size : 1;
    if (!tenant || !*tenant)
        return 1;
    uint64_t both = mix(size, name_map_hash(tenant));
    keys[1] = both ? both : 1;
    return 2;
}

static const struct kind *find(const struct lifetimes *lifetimes, uint64_t key)
{
    const struct kind *set = lifetimes->sets[key % SETS];
    for (size_t i = 0; i < SET; i++)
        if (set[i].key == key)
            return &set[i];
    return NULL;
}

static struct kind *ensure(struct lifetimes *lifetimes, uint64_t key)
{
    struct kind *set = lifetimes->sets[key % SETS], *least = set;
    for (size_t i = 0; i < SET; i++) {
        if (set[i].key == key)
            return &set[i];
        if (set[i].count < least->count)
            least = &set[i];
    }
    *least = (struct kind){.key = key};
    return least;
}

static void learn(struct kind *kind, double value, uint32_t remembered)
{
    if (kind->count < remembered)
        kind->count++;
    kind->mean += (value - kind->mean) / kind->count;
}

/* ---- what is said, and how good it was ---- */

struct guess lifetimes_guess(const struct lifetimes *lifetimes, const struct sched_resources *need,
                             const char *tenant)
{
    uint64_t keys[WIDTHS];
    size_t widths = keys_of(need, tenant, keys);
    double all = lifetimes->all.mean, said = all;
    for (size_t i = 0; i < widths; i++) {
        const struct kind *kind = find(lifetimes, keys[i]);
        if (kind)
            said = (kind->mean * kind->count + said * DOUBT) / (kind->count + DOUBT);
    }
    return (struct guess){said, all, lifetimes->all.count > 0};
}

static void judge(struct lifetimes *lifetimes, const struct guess *guess, double value,
                  double weight)
{
    const double kept = 1 - 1.0 / JUDGED;
    double by_kind = value - guess->kind, by_all = value - guess->all;
    lifetimes->error_kind = lifetimes->error_kind * kept + by_kind * by_kind * weight;
    lifetimes->error_all = lifetimes->error_all * kept + by_all * by_all * weight;
    lifetimes->judged++;
}

void lifetimes_note(struct lifetimes *lifetimes, const struct sched_resources *need,
                    const char *tenant, const struct guess *guess, uint64_t lifetime_s)
{
    uint64_t keys[WIDTHS];
    double value = log((double)(lifetime_s ? lifetime_s : 1));
    if (guess->known)
        judge(lifetimes, guess, value, (double)need->memory_mib);
    size_t widths = keys_of(need, tenant, keys);
    for (size_t i = 0; i < widths; i++)
        learn(ensure(lifetimes, keys[i]), value, KIND_REMEMBERS);
    learn(&lifetimes->all, value, ALL_REMEMBER);
}

double lifetimes_explained(const struct lifetimes *lifetimes)
{
    if (lifetimes->judged < JUDGED_LEAST || lifetimes->error_kind >= lifetimes->error_all)
        return 0;
    return 1 - lifetimes->error_kind / lifetimes->error_all;
}

bool lifetimes_worth_using(const struct lifetimes *lifetimes, bool before)
{
    return lifetimes_explained(lifetimes) >= (before ? TRUST_TO : TRUST_FROM);
}

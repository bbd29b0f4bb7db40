/* simulate.c: see simulate.h. */
#include "scheduler/simulate.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/departures.h"
#include "scheduler/pool.h"
#include "scheduler/search.h"

#define SAMPLE_DEFAULT_S 3600
#define PROGRESS_EVERY   1024
#define MOVES_WINDOW_S   3600

struct simulation {
    const struct sim_config *config;
    struct scheduler *pool;
    struct sim_result *result;
    struct departures departures;
    size_t hosts_used;
    uint64_t demand[DIMENSIONS];
    uint64_t next_sample_s;
    size_t sample_space;
    struct departures recent_moves; /* when each stops counting: an hour after it was made */
};

static void vm_name(size_t number, char out[24])
{
    (void)snprintf(out, 24, "v%zu", number);
}

static int add_host(struct simulation *sim, const char *name,
                    const struct sched_resources *capacity, struct error *err)
{
    struct sched_node node = {.name = name, .capacity = *capacity};
    return scheduler_set_node(sim->pool, &node, err);
}

static int add_hosts(struct simulation *sim, struct error *err)
{
    const struct sim_config *config = sim->config;
    for (size_t i = 0; i < config->host_count; i++) {
        char name[24];
        (void)snprintf(name, sizeof name, "h%zu", i + 1);
        if (config->hosts ? add_host(sim, config->hosts[i].name, &config->hosts[i].capacity, err)
                          : add_host(sim, name, &config->host, err))
            return -1;
    }
    return 0;
}

/* ---- samples ---- */

static void look_at_host(const struct node *node, struct sim_sample *sample)
{
    double least = 1;
    for (int d = 0; d < DIMENSIONS; d++) {
        double left = 1 - node->point.load[d];
        least = left < least ? left : least;
    }
    for (int d = 0; d < DIMENSIONS; d++) {
        sample->load[d] += node->point.load[d];
        sample->stranded[d] += 1 - node->point.load[d] - least;
    }
}

static int take_sample(struct simulation *sim, uint64_t time_s, struct error *err)
{
    struct sim_result *result = sim->result;
    if (result->sample_count == sim->sample_space) {
        size_t space = sim->sample_space ? sim->sample_space * 2 : 64;
        struct sim_sample *samples = reallocarray(result->samples, space, sizeof *samples);
        if (!samples)
            return error_set(err, ERROR_FAILED, "out of memory for %zu samples", space);
        result->samples = samples;
        sim->sample_space = space;
    }
    struct sim_sample *sample = &result->samples[result->sample_count++];
    *sample = (struct sim_sample){
        .time_s = time_s,
        .vms = sim->pool->vm_names.count,
        .hosts_used = sim->hosts_used,
        .hosts_empty = sim->pool->node_count - sim->hosts_used,
    };
    for (size_t i = 0; i < sim->pool->node_count; i++)
        if (sim->pool->nodes[i]->vm_count)
            look_at_host(sim->pool->nodes[i], sample);
    for (int d = 0; d < DIMENSIONS && sim->hosts_used; d++) {
        sample->load[d] /= (double)sim->hosts_used;
        sample->stranded[d] /= (double)sim->hosts_used;
    }
    return 0;
}

/* Samples that are due up to @time_s, before what happens then. */
static int sample_until(struct simulation *sim, uint64_t time_s, struct error *err)
{
    uint64_t every = sim->config->sample_s ? sim->config->sample_s : SAMPLE_DEFAULT_S;
    if (time_s < sim->next_sample_s)
        return 0;
    sim->next_sample_s = time_s - time_s % every + every;
    return take_sample(sim, time_s, err);
}

/* ---- what happens ---- */

static void note_demand(struct simulation *sim)
{
    for (int d = 0; d < DIMENSIONS; d++) {
        uint64_t whole = resource(&sim->config->host, d);
        double hosts = whole ? (double)sim->demand[d] / (double)whole : 0;
        if (hosts > sim->result->bound[d])
            sim->result->bound[d] = hosts;
    }
}

static void depart(struct simulation *sim, size_t number, uint64_t time_s)
{
    char name[24];
    vm_name(number, name);
    const struct vm *vm = pool_find_vm(sim->pool, name);
    const struct node *node = vm->node;
    for (int d = 0; d < DIMENSIONS; d++)
        sim->demand[d] -= resource(&vm->need, d);
    const struct sched_request request = pool_request_of(vm);
    scheduler_note_lifetime(sim->pool, &request, time_s - vm->since_s);
    scheduler_remove_vm(sim->pool, name);
    if (node->vm_count == 0)
        sim->hosts_used--;
}

static int depart_until(struct simulation *sim, uint64_t time_s, struct error *err)
{
    struct departure next;
    while (departures_first(&sim->departures, &next) && next.time_s <= time_s) {
        if (sample_until(sim, next.time_s, err) < 0)
            return -1;
        departures_drop(&sim->departures);
        scheduler_set_time(sim->pool, next.time_s);
        depart(sim, next.vm, next.time_s);
    }
    scheduler_set_time(sim->pool, time_s);
    return sample_until(sim, time_s, err);
}

/* The node for the request, timed; NULL: none. */
static const struct node *decide(struct simulation *sim, const struct query *query)
{
    struct sim_result *result = sim->result;
    if (!sim->config->now_ns)
        return search_best(sim->pool, query);
    uint64_t start = sim->config->now_ns();
    const struct node *best = search_best(sim->pool, query);
    uint64_t took = sim->config->now_ns() - start;
    result->decision_ns[result->decisions++] = took;
    result->decision_total_ns += took;
    return best;
}

/* How many VMs may move now. */
static size_t moves_left(struct simulation *sim, uint64_t now_s)
{
    struct departure oldest;
    while (departures_first(&sim->recent_moves, &oldest) && oldest.time_s <= now_s)
        departures_drop(&sim->recent_moves);
    size_t allowed = sim->pool->vm_names.count * sim->config->moves_permille / 1000;
    return allowed > sim->recent_moves.count ? allowed - sim->recent_moves.count : 0;
}

/* Moves VMs so that the request fits; NULL without error: there is no way. */
static const struct node *make_room(struct simulation *sim, const struct query *query,
                                    uint64_t now_s, struct error *err)
{
    struct sched_plan plan;
    struct error refusal = ERROR_INIT;
    const struct departure end = {now_s + MOVES_WINDOW_S, 0};
    size_t left = moves_left(sim, now_s);
    if (left == 0)
        return NULL;
    if (scheduler_make_room(sim->pool, query->request, left, &plan, &refusal) < 0) {
        if (refusal.kind != ERROR_NO_CAPACITY)
            *err = refusal;
        return NULL;
    }
    const struct node *node = pool_find_node(sim->pool, plan.node);
    for (size_t i = 0; i < plan.count; i++) {
        struct vm *vm = pool_find_vm(sim->pool, plan.moves[i].vm);
        struct node *to = pool_find_node(sim->pool, plan.moves[i].to);
        sim->hosts_used += to->vm_count == 0;
        pool_move_vm(sim->pool, vm, to);
        sim->hosts_used -= pool_find_node(sim->pool, plan.moves[i].from)->vm_count == 0;
        sim->result->moves++;
        sim->result->moved_mib += plan.moves[i].memory_mib;
        if (departures_add(&sim->recent_moves, &end, err) < 0)
            node = NULL;
    }
    sched_plan_free(&plan);
    return node;
}

/* A new host for what fits no other; NULL without error: it does not fit that one either. */
static const struct node *grow(struct simulation *sim, const struct query *query, struct error *err)
{
    char name[24];
    for (int d = 0; d < DIMENSIONS; d++)
        if (resource(&query->need, d) > resource(&sim->config->host, d))
            return NULL;
    (void)snprintf(name, sizeof name, "h%zu", sim->pool->node_count + 1);
    if (add_host(sim, name, &sim->config->host, err) < 0)
        return NULL;
    return pool_find_node(sim->pool, name);
}

static int arrive(struct simulation *sim, const struct sim_arrival *arrival, size_t number,
                  struct error *err)
{
    struct sim_result *result = sim->result;
    char name[24];
    vm_name(number, name);
    struct sched_request request = {.vm = name, .need = arrival->need, .tenant = arrival->tenant};
    struct query query;
    if (query_init(&query, sim->pool, &request, err) < 0)
        return -1;
    const struct node *node = decide(sim, &query);
    if (!node && sim->config->moves_permille)
        node = make_room(sim, &query, arrival->arrival_s, err);
    if (!node && err->kind == ERROR_NONE && sim->config->host_count == 0)
        node = grow(sim, &query, err);
    if (!node && err->kind != ERROR_NONE)
        return -1;
    if (!node) {
        result->refused++;
        return 0;
    }
    bool was_empty = node->vm_count == 0;
    if (scheduler_place(sim->pool, &request, node->name, err) < 0)
        return -1;
    result->placed++;
    result->placed_by_lifetime += query.exit_slot != 0;
    sim->hosts_used += was_empty;
    if (sim->hosts_used > result->peak_hosts) {
        result->peak_hosts = sim->hosts_used;
        result->peak_at_s = arrival->arrival_s;
    }
    for (int d = 0; d < DIMENSIONS; d++)
        sim->demand[d] += resource(&arrival->need, d);
    note_demand(sim);
    if (arrival->lifetime_s == SIM_STAYS)
        return 0;
    struct departure departure = {arrival->arrival_s + arrival->lifetime_s, number};
    return departures_add(&sim->departures, &departure, err);
}

/* ---- the end ---- */

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void summarise(struct simulation *sim)
{
    struct sim_result *result = sim->result;
    result->hosts = sim->pool->node_count;
    result->lifetimes_explained = scheduler_lifetimes_explained(sim->pool, &(bool){false});
    for (int d = 0; d < DIMENSIONS && !sim->config->host_count; d++) {
        size_t whole = (size_t)result->bound[d];
        whole += result->bound[d] > (double)whole;
        result->lower_bound = whole > result->lower_bound ? whole : result->lower_bound;
    }
    for (size_t i = 0; i < result->sample_count; i++) {
        const struct sim_sample *sample = &result->samples[i];
        size_t hosts = sample->hosts_used + sample->hosts_empty;
        if (hosts)
            result->empty_share += (double)sample->hosts_empty / (double)hosts;
        for (int d = 0; d < DIMENSIONS; d++)
            result->stranded_share[d] += sample->stranded[d];
    }
    for (int d = 0; d < DIMENSIONS && result->sample_count; d++)
        result->stranded_share[d] /= (double)result->sample_count;
    if (result->sample_count)
        result->empty_share /= (double)result->sample_count;
    if (result->decision_ns)
        qsort(result->decision_ns, result->decisions, sizeof(uint64_t), by_size);
}

static int run(struct simulation *sim, const struct sim_arrival *arrivals, size_t count,
               struct error *err)
{
    const struct sim_config *config = sim->config;
    if (add_hosts(sim, err) < 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        if (depart_until(sim, arrivals[i].arrival_s, err) < 0 ||
            arrive(sim, &arrivals[i], i, err) < 0)
            return -1;
        if (config->progress && (i % PROGRESS_EVERY == 0 || i + 1 == count))
            config->progress(config->progress_context, i + 1, count);
    }
    summarise(sim);
    return 0;
}

int simulate(const struct sim_config *config, const struct sim_arrival *arrivals, size_t count,
             struct sim_result *result, struct error *err)
{
    struct simulation sim = {.config = config, .result = result};
    *result = (struct sim_result){.arrivals = count};
    sim.pool = scheduler_new(&config->scheduler, err);
    if (config->now_ns)
        result->decision_ns = calloc(count + 1, sizeof *result->decision_ns);
    int status = -1;
    if (config->now_ns && !result->decision_ns)
        (void)error_set(err, ERROR_FAILED, "out of memory for the times of %zu decisions", count);
    else if (sim.pool)
        status = run(&sim, arrivals, count, err);
    scheduler_free(sim.pool);
    departures_free(&sim.departures);
    departures_free(&sim.recent_moves);
    if (status < 0)
        sim_result_free(result);
    return status;
}

void sim_result_free(struct sim_result *result)
{
    free(result->samples);
    free(result->decision_ns);
    *result = (struct sim_result){0};
}

uint64_t sim_decision_ns(const struct sim_result *result, unsigned permille)
{
    if (!result->decision_ns || result->decisions == 0)
        return 0;
    size_t at = result->decisions * permille / 1000;
    return result->decision_ns[at < result->decisions ? at : result->decisions - 1];
}

/* The index must decide as looking at every node would, in any pool. */
#include "scheduler/search.h"
#include "scheduler/group.h"
#include "scheduler/tree.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

struct random {
    uint64_t state;
};

/* xorshift64*, so that a failure can be repeated from its seed. */
static uint64_t draw(struct random *random, uint64_t below)
{
    random->state ^= random->state >> 12;
    random->state ^= random->state << 25;
    random->state ^= random->state >> 27;
    return ((random->state * UINT64_C(2685821657736338717)) >> 33) % below;
}

struct world {
    struct random random;
    struct scheduler *pool;
    unsigned nodes, vms;
    uint64_t now_s;
    bool flavours; /* sizes from a few, so that many nodes are equal */
};

static const struct sched_label labels[] = {
    {"rack", "a"}, {"disk", "ssd"}, {"rack", "b"}, {"dedicated", "x"}, {"rack", "c"},
};
#define LABELS 5

static void set_random_node(struct world *world, unsigned number)
{
    struct error err = ERROR_INIT;
    char name[16];
    uint64_t scale = world->flavours ? 2 : 1 + draw(&world->random, 4);
    struct sched_node node = {
        .name = name,
        .capacity = {16000 * scale, 65536 * scale, UINT64_C(10000000000) * scale},
        .labels = &labels[draw(&world->random, LABELS - 1)],
        .label_count = draw(&world->random, 3), /* two neighbours have different keys */
        .drained = draw(&world->random, 12) == 0,
        .lost = draw(&world->random, 12) == 0,
    };
    if (draw(&world->random, 2))
        node.used = (struct sched_resources){draw(&world->random, node.capacity.cpu_milli),
                                             draw(&world->random, node.capacity.memory_mib), 0};
    (void)snprintf(name, sizeof name, "n%u", number);
    cr_assert_eq(scheduler_set_node(world->pool, &node, &err), 0, "%s", err.text);
}

static struct sched_request random_request(struct world *world, char *vm, char *group)
{
    struct random *random = &world->random;
    struct sched_request request = {.vm = vm, .anti_affinity_group = group};
    uint64_t size = UINT64_C(1) << draw(random, 4);
    (void)sprintf(vm, "v%u", (unsigned)draw(random, world->vms));
    (void)sprintf(group, "%.*s", draw(random, 2) ? 2 : 0,
                  (const char[][3]){"g0", "g1", "g2"}[draw(random, 3)]);
    if (world->flavours)
        request.need = (struct sched_resources){size * 1000, size * 3072, size * 250000000};
    else
        request.need = (struct sched_resources){draw(random, 9000), 1 + draw(random, 20000),
                                                draw(random, 3000000000)};
    request.anti_affinity_soft = draw(random, 2);
    if (draw(random, 6) == 0)
        request.affinity_group = draw(random, 2) ? "a0" : "a1";
    if (draw(random, 4) == 0) {
        request.spread_group = draw(random, 2) ? "s0" : "s1";
        request.spread_label = draw(random, 4) ? "rack" : "disk";
        request.spread_skew = (uint32_t)draw(random, 4);
    }
    if (draw(random, 3) == 0)
        request.tenant = draw(random, 2) ? "x" : "y";
    if (draw(random, 4) == 0) {
        request.selector = &labels[draw(random, 3)];
        request.selector_count = 1;
    }
    return request;
}

/* Boxes, counts and pointers agree with the nodes below, whose number is returned. */
static size_t check_branch(const struct branch *branch)
{
    if (branch->below) {
        cr_assert_eq(branch->below->parent, branch);
        cr_assert_eq(branch->above->parent, branch);
        size_t below = check_branch(branch->below), above = check_branch(branch->above);
        cr_assert_eq(branch->count, branch->below->count + branch->above->count);
        return below + above;
    }
    size_t nodes = 0;
    cr_assert_gt(branch->count, 0);
    for (size_t i = 0; i < branch->count; i++) {
        const struct state *state = branch->states[i];
        cr_assert_eq(state->leaf, branch);
        for (const struct node *node = state->first; node; node = state_next(state, node)) {
            cr_assert(state_matches(state, node));
            cr_assert_eq(node->state, state);
            nodes++;
        }
        for (const struct branch *at = branch; at; at = at->parent) {
            cr_assert_leq(at->first_position, state->first->position);
            cr_assert_eq(at->labels & state->label_bits, state->label_bits);
            for (int d = 0; d < DIMENSIONS; d++) {
                cr_assert_leq(at->box.low.load[d], state->point.load[d]);
                cr_assert_geq(at->box.high.load[d], state->point.load[d]);
                cr_assert_geq(at->box.high.free[d], state->point.free[d]);
                cr_assert_geq(at->box.high.measured[d], state->point.measured[d]);
            }
            cr_assert_leq(at->box.low.exit_slot, state->point.exit_slot);
            cr_assert_geq(at->box.high.exit_slot, state->point.exit_slot);
        }
    }
    return nodes;
}

/* What groups and domains count is what is there. */
static void check_groups(const struct scheduler *pool)
{
    for (size_t i = 0; i < pool->node_count; i++)
        for (const struct vm *vm = pool->nodes[i]->vms; vm; vm = vm->next)
            for (int kind = 0; kind < GROUP_KINDS; kind++) {
                const struct group *group = vm->groups[kind];
                size_t here = 0;
                for (const struct vm *other = pool->nodes[i]->vms; other && group;
                     other = other->next)
                    here += other->groups[kind] == group;
                cr_assert_eq(group_count(group, pool->nodes[i]), here);
            }
    for (const struct label_key *key = pool->label_keys; key; key = key->next)
        for (const struct domain *domain = key->domains; domain; domain = domain->next) {
            size_t open = 0;
            for (size_t i = 0; i < pool->node_count; i++)
                open += node_is_open(pool->nodes[i]) && domain_of(key, pool->nodes[i]) == domain;
            cr_assert_eq(domain->open_nodes, open, "%s=%s", key->name, domain->value);
            for (const struct group *group = key->groups; group; group = group->key_next) {
                size_t members = 0;
                for (size_t i = 0; i < pool->node_count; i++)
                    if (domain_of(key, pool->nodes[i]) == domain)
                        members += group_count(group, pool->nodes[i]);
                cr_assert_eq(group->in_domain[domain->index], members);
            }
        }
}

static void check_tree(const struct scheduler *pool)
{
    size_t open = 0;
    for (size_t i = 0; i < pool->node_count; i++)
        open += !pool->nodes[i]->drained && !pool->nodes[i]->lost;
    cr_assert_eq(pool->tree->root ? check_branch(pool->tree->root) : 0, open);
}

/* ---- the rules again, by looking at every VM of every node ---- */

static size_t members(const struct world *world, const struct node *node, const char *group,
                      const char *(*of)(const struct sched_request *), const char *self)
{
    size_t count = 0;
    (void)world;
    for (const struct vm *vm = node->vms; vm; vm = vm->next) {
        const struct sched_request request = pool_request_of(vm);
        const char *name = of(&request);
        count += name && strcmp(name, group) == 0 && strcmp(vm->name, self) != 0;
    }
    return count;
}

static const char *anti_affinity_of(const struct sched_request *request)
{
    return request->anti_affinity_group;
}

static const char *affinity_of(const struct sched_request *request)
{
    return request->affinity_group;
}

static const char *spread_label; /* of the request that is checked */

static const char *spread_of(const struct sched_request *request)
{
    return request->spread_label && strcmp(request->spread_label, spread_label) == 0
               ? request->spread_group
               : NULL;
}

static size_t in_domain(const struct world *world, const char *value,
                        const struct sched_request *request)
{
    size_t count = 0;
    for (size_t i = 0; i < world->pool->node_count; i++) {
        const struct node *node = world->pool->nodes[i];
        const char *at = node_label(node, request->spread_label);
        if (at && strcmp(at, value) == 0)
            count += members(world, node, request->spread_group, spread_of, request->vm);
    }
    return count;
}

static bool spread_allows(const struct world *world, const struct node *node,
                          const struct sched_request *request)
{
    const char *value = node_label(node, request->spread_label);
    size_t least = SIZE_MAX, skew = request->spread_skew ? request->spread_skew : 1;
    if (!value)
        return false;
    for (size_t i = 0; i < world->pool->node_count; i++) {
        const struct node *other = world->pool->nodes[i];
        const char *at = node_label(other, request->spread_label);
        size_t count = at && node_is_open(other) ? in_domain(world, at, request) : SIZE_MAX;
        least = count < least ? count : least;
    }
    return least == SIZE_MAX || in_domain(world, value, request) + 1 <= least + skew;
}

static bool rules_allow(const struct world *world, const struct node *node,
                        const struct sched_request *request)
{
    const struct scheduler *pool = world->pool;
    const char *tenant = node_label(node, "dedicated");
    size_t together = 0;
    for (size_t i = 0; request->affinity_group && i < pool->node_count; i++)
        together +=
            members(world, pool->nodes[i], request->affinity_group, affinity_of, request->vm);
    spread_label = request->spread_label;
    return (!tenant || (request->tenant && strcmp(tenant, request->tenant) == 0)) &&
           (!together || members(world, node, request->affinity_group, affinity_of, request->vm)) &&
           (request->anti_affinity_soft || !*request->anti_affinity_group ||
            !members(world, node, request->anti_affinity_group, anti_affinity_of, request->vm)) &&
           (!request->spread_group || spread_allows(world, node, request));
}

/* What the filters say of each node is what the rules mean. */
static void check_rules(const struct world *world, const struct query *query,
                        const struct sched_request *request)
{
    const unsigned rules =
        FILTER_DEDICATED | FILTER_AFFINITY | FILTER_ANTI_AFFINITY | FILTER_SPREAD;
    for (size_t i = 0; i < world->pool->node_count; i++)
        if (node_is_open(world->pool->nodes[i]))
            cr_assert_eq(rules_allow(world, world->pool->nodes[i], request),
                         !(filter_node(query, world->pool->nodes[i]) & rules), "node %zu", i);
}

static const struct node *compare(struct world *world, struct sched_request *request)
{
    struct error err = ERROR_INIT;
    struct query query;
    char name[16];
    (void)snprintf(name, sizeof name, "n%u", (unsigned)draw(&world->random, world->nodes));
    if (draw(&world->random, 8) == 0)
        request->not_node = name;
    else if (draw(&world->random, 16) == 0)
        request->only_node = name;
    cr_assert_eq(query_init(&query, world->pool, request, &err), 0);
    if (world->nodes < 30)
        check_rules(world, &query, request);
    const struct node *best = search_best(world->pool, &query);
    const struct node *reference = search_by_scan(world->pool, &query);
    cr_assert_eq(best, reference, "index: %s, scan: %s", best ? best->name : "none",
                 reference ? reference->name : "none");
    request->not_node = request->only_node = NULL;
    return best;
}

/* Its size tells a VM's lifetime, so that a policy which asks for it comes to rely on it. */
static uint64_t lifetime_of(const struct sched_resources *need)
{
    return need->memory_mib * need->memory_mib;
}

static void teach(struct world *world)
{
    char vm[16], group[16];
    for (unsigned i = 0; i < 1000; i++) {
        struct sched_request request = random_request(world, vm, group);
        scheduler_note_lifetime(world->pool, &request, lifetime_of(&request.need));
    }
}

static void leave(struct world *world, const char *name)
{
    const struct vm *vm = pool_find_vm(world->pool, name);
    if (!vm)
        return;
    const struct sched_request asked = pool_request_of(vm);
    scheduler_note_lifetime(world->pool, &asked, lifetime_of(&vm->need));
    scheduler_remove_vm(world->pool, name);
}

static void live(struct world *world, unsigned rounds)
{
    struct error err = ERROR_INIT;
    char vm[16], group[16];
    for (unsigned i = 0; i < world->nodes; i++)
        set_random_node(world, i);
    for (unsigned round = 0; round < rounds; round++) {
        struct sched_request request = random_request(world, vm, group);
        const struct node *best = compare(world, &request);
        uint64_t what = draw(&world->random, 10);
        if (best && what < 6)
            cr_assert_eq(scheduler_place(world->pool, &request, best->name, &err), 0);
        else if (what < 8)
            leave(world, vm);
        else if (what == 8)
            set_random_node(world, (unsigned)draw(&world->random, world->nodes));
        world->now_s += draw(&world->random, 300);
        scheduler_set_time(world->pool, world->now_s);
        if (round % 512 == 0) {
            check_tree(world->pool);
            check_groups(world->pool);
        }
    }
    check_tree(world->pool);
}

static void property(bool flavours)
{
    unsigned relied = 0;
    for (unsigned seed = 1; seed <= 30; seed++) {
        struct error err = ERROR_INIT;
        struct sched_config config = {.policy = (enum sched_policy)(seed % SCHED_POLICIES)};
        if (seed % 5 == 0)
            config.cpu_overcommit_percent = 250;
        struct world world = {.random = {seed * UINT64_C(0x9e3779b97f4a7c15)},
                              .pool = scheduler_new(&config, &err),
                              .nodes = seed < 10 ? seed : 40 * seed,
                              .vms = 100 * seed,
                              .flavours = flavours};
        if (flavours)
            teach(&world);
        live(&world, 2000);
        relied += world.pool->uses_exits;
        scheduler_free(world.pool);
    }
    cr_assert(!flavours || relied > 0, "no pool came to go by lifetimes");
}

Test(search, decides_as_a_scan_does_for_sizes_of_every_kind)
{
    property(false);
}

Test(search, decides_as_a_scan_does_where_many_nodes_are_equal)
{
    property(true);
}

Test(search, the_tree_stays_flat_whatever_the_order_of_nodes)
{
    struct error err = ERROR_INIT;
    struct scheduler *pool = scheduler_new(&(struct sched_config){.policy = SCHED_PACK}, &err);
    char name[16];
    for (unsigned i = 0; i < 20000; i++) {
        struct sched_node node = {.name = name, .capacity = {1000, 1000 + i, 1000}};
        (void)snprintf(name, sizeof name, "n%u", i);
        cr_assert_eq(scheduler_set_node(pool, &node, &err), 0);
    }
    size_t deepest = 0;
    for (size_t i = 0; i < pool->node_count; i++) {
        size_t depth = 0;
        for (const struct branch *at = pool->nodes[i]->state->leaf; at; at = at->parent)
            depth++;
        deepest = depth > deepest ? depth : deepest;
    }
    cr_assert_lt(deepest, 40, "%zu", deepest);
    cr_assert_lt(pool->tree->branches, 20000 / 2);
    scheduler_free(pool);
}

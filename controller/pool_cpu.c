#include "controller/pool_cpu.h"

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "controller/baseline.h"
#include "controller/nodes.h"
#include "controller/pb.h"

struct pool_cpu {
    bool known;
    size_t size;
    uint8_t data[BASELINE_BYTES_MAX];
};

struct pool_cpu *pool_cpu_new(void)
{
    return mem_new(sizeof(struct pool_cpu));
}

void pool_cpu_free(struct pool_cpu *cpu)
{
    free(cpu);
}

/* Of all nodes but @but, and @more (NULL: no other). */
static int intersect_all(const struct controller *controller, const struct node *but,
                         const struct baseline_cpu *more, uint8_t *out, size_t *size,
                         struct error *err)
{
    auto_free struct baseline_cpu *cpus =
        mem_new((controller->nodes_by_name.count + 1) * sizeof *cpus);
    size_t count = 0;
    for (const struct node *node = controller->nodes; node; node = node->next)
        if (node != but && node->stored->facts && node->stored->facts->cpuid.len > 0)
            cpus[count++] = (struct baseline_cpu){node->stored->facts->cpuid.data,
                                                  node->stored->facts->cpuid.len};
    if (more)
        cpus[count++] = *more;
    return baseline_intersect(cpus, count, out, size, err);
}

int pool_cpu_get(const struct controller *controller, const uint8_t **data, size_t *size,
                 struct error *err)
{
    struct pool_cpu *cpu = controller->cpu;
    if (!cpu->known && intersect_all(controller, NULL, NULL, cpu->data, &cpu->size, err) < 0)
        return -1;
    cpu->known = true;
    *data = cpu->data;
    *size = cpu->size;
    return 0;
}

/* The pool's CPU and @more; an intersection is a CPU as any other. */
static int intersect_with(const struct controller *controller, const struct baseline_cpu *more,
                          uint8_t *out, size_t *size, struct error *err)
{
    struct baseline_cpu cpus[2] = {*more};
    if (pool_cpu_get(controller, &cpus[1].data, &cpus[1].size, err) < 0)
        return -1;
    return baseline_intersect(cpus, cpus[1].size ? 2 : 1, out, size, err);
}

static bool same_cpu(const struct node *known, const Vmpool__NodeFacts *facts)
{
    const Vmpool__NodeFacts *old = known ? known->stored->facts : NULL;
    return old && old->cpuid.len == facts->cpuid.len &&
           memcmp(old->cpuid.data, facts->cpuid.data, facts->cpuid.len) == 0;
}

int pool_cpu_check(const struct controller *controller, const struct node *known,
                   const Vmpool__NodeFacts *facts, struct error *err)
{
    struct baseline_cpu more = {facts->cpuid.data, facts->cpuid.len};
    if (more.size == 0 || same_cpu(known, facts))
        return 0;
    if (baseline_check(&more, err) < 0)
        return -1;
    auto_free uint8_t *out = mem_new(BASELINE_BYTES_MAX);
    size_t size = 0;
    if (known && known->stored->facts)
        return intersect_all(controller, known, &more, out, &size, err);
    return intersect_with(controller, &more, out, &size, err);
}

void pool_cpu_added(const struct controller *controller, const Vmpool__NodeFacts *facts)
{
    struct error err = ERROR_INIT;
    struct pool_cpu *cpu = controller->cpu;
    auto_free uint8_t *out = mem_new(BASELINE_BYTES_MAX);
    size_t size = 0;
    struct baseline_cpu more = {facts->cpuid.data, facts->cpuid.len};
    if (!cpu->known || more.size == 0)
        return;
    cpu->known = intersect_with(controller, &more, out, &size, &err) == 0;
    cpu->size = size;
    memcpy(cpu->data, out, size);
}

void pool_cpu_forget(const struct controller *controller)
{
    controller->cpu->known = false;
}

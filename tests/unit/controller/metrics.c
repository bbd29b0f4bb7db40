/* What is measured: beside what poolctl is told, after migrations, and beside docs/metrics.md. */
#include "controller/metrics.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "controller/migrate_review.h"
#include "controller/tallies.h"
#include "metric_page.h"
#include "pool.h"

static struct pool pool;

static void start(void)
{
    pool_open(&pool, 2);
    pool_import_image(&pool);
    (void)pool_create(&pool, "a", "n1");
}

static void finish(void)
{
    pool_close(&pool);
}

TestSuite(metrics, .init = start, .fini = finish, .timeout = 60);

static struct page *measure(void)
{
    struct metric_text text = {0};
    metrics_write(pool.controller, &text);
    cr_assert_not(text.failed);
    struct page *page = page_read(text.data, text.size);
    metric_text_free(&text);
    return page;
}

static void expect(const struct page *page, const char *name, const char *labels, double wanted)
{
    double value = page_value(page, name, labels);
    cr_expect_float_eq(value, wanted, 1e-9, "%s{%s} is %g, not %g", name, labels, value, wanted);
}

static bool reports_usage(struct pool *p, const void *what)
{
    const Vmpool__NodeVm *said = vm_said(pool_vm(p, "a"));
    return said && said->usage && said->usage->disk_write_bytes == *(const uint64_t *)what;
}

static Vmpool__VmUsage make_usage(void)
{
    Vmpool__VmUsage usage = VMPOOL__VM_USAGE__INIT;
    usage.cpu_guest_us = 12500000;
    usage.cpu_user_us = 1000;
    usage.cpu_system_us = 2;
    usage.memory_mib = 300;
    usage.net_rx_bytes = 1ull << 41;
    usage.net_tx_bytes = 7;
    usage.disk_read_bytes = 8;
    usage.disk_write_bytes = 9;
    usage.vmm_overhead_kib = 10;
    return usage;
}

Test(metrics, a_node_measures_what_poolctl_shows)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__NodeList list = VMPOOL__NODE_LIST__INIT;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_NODE_LIST;
    request.node_list = &list;
    const Vmpool__NodeTable *nodes = pool_ask(&pool, &request)->nodes;
    struct page *page = measure();
    cr_assert_eq(nodes->n_nodes, 2);
    for (size_t i = 0; i < nodes->n_nodes; i++) {
        const Vmpool__Node *node = nodes->nodes[i];
        char of[64], up[96];
        (void)snprintf(of, sizeof of, "node=\"%s\"", node->name);
        (void)snprintf(up, sizeof up, "%s,phase=\"up\"", of);
        expect(page, "vmpool_node_phase", up, 1);
        expect(page, "vmpool_node_vms", of, node->vms);
        expect(page, "vmpool_node_cpus", of, node->cpus);
        expect(page, "vmpool_node_vcpus_reserved", of, node->vcpus_reserved);
        expect(page, "vmpool_node_memory_bytes", of, (double)node->memory_mib * 1048576.0);
        expect(page, "vmpool_node_memory_reserved_bytes", of,
               (double)node->memory_reserved_mib * 1048576.0);
        expect(page, "vmpool_node_memory_used_bytes", of,
               (double)node->memory_used_mib * 1048576.0);
        expect(page, "vmpool_node_bandwidth_bytes_per_second", of, (double)node->bandwidth_bps / 8);
        expect(page, "vmpool_node_cpu_used_ratio", of, node->cpu_permille / 1000.0);
        expect(page, "vmpool_node_cpu_user_ratio", of, node->cpu_user_permille / 1000.0);
        expect(page, "vmpool_node_cpu_system_ratio", of, node->cpu_system_permille / 1000.0);
        expect(page, "vmpool_node_cpu_guest_ratio", of, node->cpu_guest_permille / 1000.0);
    }
    expect(page, "vmpool_node_vcpus_reserved", "node=\"n1\"", 2);
    expect(page, "vmpool_node_cpu_user_ratio", "node=\"n1\"", 0.02);
    free(page);
}

Test(metrics, a_vm_measures_what_poolctl_shows)
{
    const Vmpool__VmUsage usage = make_usage();
    sim_agent_vm(pool_agent(&pool, "n1"), "a")->usage = &usage;
    cr_assert(pool_until(&pool, reports_usage, &usage.disk_write_bytes));
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__VmList list = VMPOOL__VM_LIST__INIT;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_VM_LIST;
    request.vm_list = &list;
    const Vmpool__Vm *vm = pool_ask(&pool, &request)->vms->vms[0];
    struct page *page = measure();
    const char *of = "vm=\"a\"";
    cr_assert(vm->usage);
    expect(page, "vmpool_vm_info", "vm=\"a\",node=\"n1\",phase=\"running\"", 1);
    expect(page, "vmpool_vm_vcpus", of, vm->spec->vcpus);
    expect(page, "vmpool_vm_memory_bytes", of, (double)vm->spec->memory_mib * 1048576.0);
    expect(page, "vmpool_vm_start_time_seconds", of, (double)vm->started_wall_ms / 1000.0);
    expect(page, "vmpool_vm_cpu_guest_seconds_total", of, (double)vm->usage->cpu_guest_us / 1e6);
    expect(page, "vmpool_vm_cpu_user_seconds_total", of, (double)vm->usage->cpu_user_us / 1e6);
    expect(page, "vmpool_vm_cpu_system_seconds_total", of, 2e-6);
    expect(page, "vmpool_vm_memory_used_bytes", of, 300 * 1048576.0);
    expect(page, "vmpool_vm_memory_overhead_bytes", of, 10240);
    expect(page, "vmpool_vm_network_receive_bytes_total", of, 2199023255552.0);
    expect(page, "vmpool_vm_network_transmit_bytes_total", of, 7);
    expect(page, "vmpool_vm_disk_read_bytes_total", of, 8);
    expect(page, "vmpool_vm_disk_written_bytes_total", of, 9);
    free(page);
}

/* Larger than any node. */
static void ask_for_too_much(void)
{
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    Vmpool__VmCreate create = VMPOOL__VM_CREATE__INIT;
    char name[] = "big", image[] = "debian";
    create.name = name;
    create.image = image;
    create.vcpus = 1;
    create.memory_mib = 1 << 20;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_VM_CREATE;
    request.vm_create = &create;
    cr_assert_eq(pool_ask(&pool, &request)->failure->kind, ERROR_NO_CAPACITY);
}

Test(metrics, the_pool_counts_what_it_did_since_it_started)
{
    uint64_t decisions = pool.controller->tallies->decisions;
    uint64_t refusals = pool.controller->tallies->refusals;
    ask_for_too_much();
    cr_expect_eq(pool.controller->tallies->decisions, decisions + 1);
    cr_expect_eq(pool.controller->tallies->refusals, refusals + 1);
    (void)pool_create(&pool, "b", "n2");
    pool_agent(&pool, "n1")->refuse_start = ERROR_FAILED;
    (void)pool_create(&pool, "c", "n1");
    (void)pool_change(&pool, "b", VMPOOL__VM_CHANGE__ACTION__KILL, false);
    struct page *page = measure();
    expect(page, "vmpool_build_info", "version=\"" VMPOOL_VERSION "\"", 1);
    expect(page, "vmpool_nodes", "phase=\"up\"", 2);
    expect(page, "vmpool_nodes", "phase=\"lost\"", 0);
    expect(page, "vmpool_vms", "phase=\"running\"", 1);
    expect(page, "vmpool_vms", "phase=\"stopped\"", 1);
    expect(page, "vmpool_jobs_running", "kind=\"vm-create\"", 0);
    expect(page, "vmpool_jobs_started_total", "kind=\"vm-create\"", 3);
    expect(page, "vmpool_jobs_ended_total", "kind=\"vm-create\",outcome=\"done\"", 2);
    expect(page, "vmpool_jobs_ended_total", "kind=\"vm-create\",outcome=\"failed\"", 1);
    expect(page, "vmpool_jobs_ended_total", "kind=\"vm-kill\",outcome=\"done\"", 1);
    expect(page, "vmpool_scheduler_decisions_total", "",
           (double)pool.controller->tallies->decisions);
    expect(page, "vmpool_scheduler_refusals_total", "", (double)pool.controller->tallies->refusals);
    free(page);
}

Test(metrics, a_migration_is_counted_with_the_error_of_its_prediction)
{
    const struct job *job = pool_job_end(&pool, pool_migrate(&pool, "a", "n2"));
    cr_assert_eq(job->stored->phase, VMPOOL__JOB_PHASE__JOB_DONE, "%s", job->stored->text);
    const Vmpool__MigrationReview *review = pool_vm(&pool, "a")->stored->last_review;
    struct page *page = measure();
    expect(page, "vmpool_migrations_total", "mode=\"precopy\",outcome=\"done\"", 1);
    expect(page, "vmpool_migrations_total", "mode=\"postcopy\",outcome=\"done\"", 0);
    expect(page, "vmpool_migration_duration_seconds_count", "", 1);
    expect(page, "vmpool_migration_duration_seconds_sum", "", (double)review->duration_us / 1e6);
    expect(page, "vmpool_migration_pause_seconds_bucket", "le=\"0.01\"", 0);
    expect(page, "vmpool_migration_pause_seconds_bucket", "le=\"0.02\"", 1);
    expect(page, "vmpool_migration_pause_seconds_sum", "", 0.012);
    /* A simulated migration takes less than the second that each is predicted to. */
    cr_assert_gt(review->duration_error_permille, 0);
    expect(page, "vmpool_migration_duration_error_ratio_count", "predicted=\"long_enough\"", 1);
    expect(page, "vmpool_migration_duration_error_ratio_count", "predicted=\"too_short\"", 0);
    expect(page, "vmpool_migration_duration_error_ratio_sum", "predicted=\"long_enough\"",
           review->duration_error_permille / 1000.0);
    expect(page, "vmpool_vm_last_migration_duration_seconds", "vm=\"a\"",
           (double)review->duration_us / 1e6);
    expect(page, "vmpool_vm_last_migration_pause_seconds", "vm=\"a\"", 0.012);
    expect(page, "vmpool_vm_last_migration_duration_error_ratio", "vm=\"a\"",
           review->duration_error_permille / 1000.0);
    expect(page, "vmpool_vm_last_migration_pause_error_ratio", "vm=\"a\"",
           migrate_review_error(review->predicted->pause_us, 12000) / 1000.0);
    free(page);
}

Test(metrics, one_that_fails_counts_and_has_no_error)
{
    pool_agent(&pool, "n2")->refuse_prepare = ERROR_FAILED;
    const struct job *job = pool_job_end(&pool, pool_migrate(&pool, "a", "n2"));
    cr_assert_eq(job->stored->phase, VMPOOL__JOB_PHASE__JOB_FAILED);
    struct page *page = measure();
    expect(page, "vmpool_migrations_total", "mode=\"precopy\",outcome=\"failed\"", 1);
    expect(page, "vmpool_migration_duration_seconds_count", "", 0);
    cr_expect_not(page_has(page, "vmpool_vm_last_migration_duration_error_ratio", "vm=\"a\""));
    free(page);
}

Test(metrics, what_a_lost_node_said_is_not_measured_now)
{
    const Vmpool__VmUsage usage = make_usage();
    sim_agent_vm(pool_agent(&pool, "n1"), "a")->usage = &usage;
    cr_assert(pool_until(&pool, reports_usage, &usage.disk_write_bytes));
    sim_agent_stop(pool_agent(&pool, "n1"));
    cr_assert(pool_await_node_phase(&pool, "n1", VMPOOL__NODE_PHASE__NODE_LOST));
    struct page *page = measure();
    expect(page, "vmpool_node_phase", "node=\"n1\",phase=\"lost\"", 1);
    expect(page, "vmpool_node_phase", "node=\"n1\",phase=\"up\"", 0);
    expect(page, "vmpool_node_cpus", "node=\"n1\"", 8);
    cr_expect_not(page_has(page, "vmpool_node_memory_used_bytes", "node=\"n1\""));
    cr_expect(page_has(page, "vmpool_node_memory_used_bytes", "node=\"n2\""));
    cr_expect_not(page_has(page, "vmpool_vm_cpu_guest_seconds_total", "vm=\"a\""));
    free(page);
}

Test(metrics, nothing_secret_is_in_it)
{
    char *token = pool_token(&pool);
    struct metric_text text = {0};
    metrics_write(pool.controller, &text);
    metric_sample(&text, NULL, 0, 0);
    text.data[text.size - 1] = '\0';
    cr_expect_null(strstr(text.data, token));
    cr_expect_null(strstr(text.data, pool.controller->address));
    cr_expect_null(strstr(text.data, pool_vm(&pool, "a")->stored->spec->id));
    metric_text_free(&text);
}

/* ---- docs/metrics.md ---- */

/* "| `name` | type | labels | unit | meaning |"; false: another line. */
static bool read_row(const char *line, char cells[5][256])
{
    if (strncmp(line, "| `vmpool_", 10) != 0)
        return false;
    const char *at = line + 2;
    for (unsigned i = 0; i < 5; i++) {
        const char *end = strstr(at, " |");
        cr_assert(end, "%s", line);
        (void)snprintf(cells[i], 256, "%.*s", (int)(end - at), at);
        at = end + 2 + (end[2] == ' ');
    }
    cells[0][strlen(cells[0]) - 1] = '\0';
    memmove(cells[0], cells[0] + 1, strlen(cells[0]));
    return true;
}

static const char *unit_of(const struct page_family *family)
{
    static const char *const units[][2] = {{"_bytes_per_second", "bytes/s"},
                                           {"_bytes", "bytes"},
                                           {"_seconds", "seconds"},
                                           {"_ratio", "share of 1"}};
    char name[128];
    (void)snprintf(name, sizeof name, "%s", family->name);
    if (strcmp(family->type, "counter") == 0)
        name[strlen(name) - 6] = '\0'; /* _total */
    for (unsigned i = 0; i < sizeof units / sizeof *units; i++) {
        size_t length = strlen(name), suffix = strlen(units[i][0]);
        if (length > suffix && strcmp(name + length - suffix, units[i][0]) == 0)
            return units[i][1];
    }
    return "";
}

/* The names of its labels, but the one of buckets: "vm, phase". */
static void labels_of(const struct page *page, const struct page_family *family, char out[256])
{
    out[0] = '\0';
    for (size_t i = 0; i < page->sample_count && !out[0]; i++) {
        if (page->samples[i].family != family)
            continue;
        for (const char *at = page->samples[i].labels; *at;) {
            size_t name = strcspn(at, "=");
            if (strncmp(at, "le=", 3) != 0)
                (void)snprintf(out + strlen(out), 256 - strlen(out), "%s%.*s", out[0] ? ", " : "",
                               (int)name, at);
            at += name + 2;
            at += strcspn(at, "\"") + 1;
            at += *at == ',';
        }
    }
}

static const struct page_family *family_named(const struct page *page, const char *name)
{
    for (size_t i = 0; i < page->family_count; i++)
        if (strcmp(page->families[i].name, name) == 0)
            return &page->families[i];
    return NULL;
}

/* All has samples: of a VM that has migrated and whose use is reported. */
Test(metrics, the_page_of_the_docs_is_what_is_exported)
{
    const Vmpool__VmUsage usage = make_usage();
    (void)pool_job_end(&pool, pool_migrate(&pool, "a", "n2"));
    sim_agent_vm(pool_agent(&pool, "n2"), "a")->usage = &usage;
    cr_assert(pool_until(&pool, reports_usage, &usage.disk_write_bytes));
    struct page *page = measure();
    FILE *file = fopen(METRICS_PAGE, "re");
    char line[1024], cells[5][256], labels[256];
    size_t rows = 0;
    cr_assert(file);
    while (fgets(line, sizeof line, file)) {
        if (!read_row(line, cells))
            continue;
        const struct page_family *family = family_named(page, cells[0]);
        cr_assert(family, "%s is not exported", cells[0]);
        labels_of(page, family, labels);
        cr_expect_str_eq(cells[1], family->type, "%s", cells[0]);
        cr_expect_str_eq(cells[2], labels, "%s", cells[0]);
        cr_expect_str_eq(cells[3], unit_of(family), "%s: %s", cells[0], cells[3]);
        cr_expect_str_eq(cells[4], family->help, "%s: %s", cells[0], family->help);
        rows++;
    }
    (void)fclose(file);
    cr_expect_eq(rows, page->family_count, "%zu in the docs, %zu exported", rows,
                 page->family_count);
    for (size_t i = 0; i < page->sample_count; i++)
        cr_expect(isfinite(page->samples[i].value));
    free(page);
}

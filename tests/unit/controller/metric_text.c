/* The text format: every byte of it. */
#include "controller/metric_text.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "metric_page.h"

static void assert_text(struct metric_text *text, const char *wanted)
{
    cr_assert_not(text->failed);
    cr_expect(text->size == strlen(wanted) && memcmp(text->data, wanted, text->size) == 0,
              "wanted:\n%s\ngot:\n%.*s", wanted, (int)text->size, text->data);
    metric_text_free(text);
}

Test(metric_text, each_kind_of_family_is_written_as_prometheus_reads_it)
{
    static const double bounds[] = {0.05, 1, 2.5};
    struct histogram pauses = {.bounds = bounds, .bound_count = 3};
    struct metric_text text = {0};
    const struct metric_label labels[] = {{"vm", "web1"}, {"mode", "precopy"}};
    metric_family(&text, "pool_up", METRIC_GAUGE, "Whether it runs.");
    metric_sample(&text, NULL, 0, 1);
    metric_family(&text, "pool_sent_bytes_total", METRIC_COUNTER, "What was sent.");
    metric_sample(&text, labels, 1, 4398046511104.0);
    metric_sample(&text, labels, 2, 0.1);
    histogram_add(&pauses, 0.05);
    histogram_add(&pauses, 0.06);
    histogram_add(&pauses, 7);
    metric_family(&text, "pool_pause_seconds", METRIC_HISTOGRAM, "How long.");
    metric_histogram(&text, labels, 1, &pauses);
    free(page_read(text.data, text.size));
    assert_text(&text, "# HELP pool_up Whether it runs.\n"
                       "# TYPE pool_up gauge\n"
                       "pool_up 1\n"
                       "# HELP pool_sent_bytes_total What was sent.\n"
                       "# TYPE pool_sent_bytes_total counter\n"
                       "pool_sent_bytes_total{vm=\"web1\"} 4398046511104\n"
                       "pool_sent_bytes_total{vm=\"web1\",mode=\"precopy\"} 0.1\n"
                       "# HELP pool_pause_seconds How long.\n"
                       "# TYPE pool_pause_seconds histogram\n"
                       "pool_pause_seconds_bucket{vm=\"web1\",le=\"0.05\"} 1\n"
                       "pool_pause_seconds_bucket{vm=\"web1\",le=\"1\"} 2\n"
                       "pool_pause_seconds_bucket{vm=\"web1\",le=\"2.5\"} 2\n"
                       "pool_pause_seconds_bucket{vm=\"web1\",le=\"+Inf\"} 3\n"
                       "pool_pause_seconds_sum{vm=\"web1\"} 7.11\n"
                       "pool_pause_seconds_count{vm=\"web1\"} 3\n");
}

Test(metric_text, no_name_can_forge_a_line)
{
    struct metric_text text = {0};
    const struct metric_label label = {"vm", "a\\b\"c\nd 1\n\xff\xc3\xa9"};
    metric_family(&text, "pool_up", METRIC_GAUGE, "A \"word\", a \\ and a\nline.");
    metric_sample(&text, &label, 1, 1);
    free(page_read(text.data, text.size));
    assert_text(&text, "# HELP pool_up A \"word\", a \\\\ and a\\nline.\n"
                       "# TYPE pool_up gauge\n"
                       "pool_up{vm=\"a\\\\b\\\"c\\nd 1\\n???\"} 1\n");
}

Test(metric_text, numbers_read_back_as_they_were)
{
    struct metric_text text = {0};
    static const double values[] = {0, -0.25, 1e-9, 9007199254740993.0, 1.0 / 3};
    metric_family(&text, "n", METRIC_GAUGE, "N.");
    for (unsigned i = 0; i < sizeof values / sizeof *values; i++)
        metric_sample(&text, NULL, 0, values[i]);
    metric_sample(&text, NULL, 0, NAN);
    metric_sample(&text, NULL, 0, INFINITY);
    assert_text(&text, "# HELP n N.\n# TYPE n gauge\n"
                       "n 0\nn -0.25\nn 1e-09\nn 9007199254740992\nn 0.33333333333333331\n"
                       "n +Inf\n");
}

Test(metric_text, it_never_becomes_longer_than_its_limit)
{
    struct metric_text text = {.limit = 40000};
    metric_family(&text, "n", METRIC_GAUGE, "N.");
    for (unsigned i = 0; i < 10000; i++)
        metric_sample(&text, NULL, 0, i);
    cr_expect(text.failed);
    cr_expect_leq(text.size, 40000);
    cr_expect_gt(text.size, 39900);
    metric_text_free(&text);
}

#include "controller/options.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "common/units.h"
#include "controller/metrics_http.h"
#include "controller/rebalance.h"

enum {
    STATE_DIR = 256,
    LISTEN,
    ADVERTISE,
    POOL_NAME,
    METRICS,
    POLICY,
    CPU_OVERCOMMIT,
    MEMORY_OVERCOMMIT,
    REPORT_INTERVAL,
    LOST_AFTER,
    COMMAND_TIMEOUT,
    HANDOVER_GRACE,
    MIGRATIONS_OUT,
    MIGRATIONS_IN,
    MIGRATIONS_POOL,
    KEEP_N1,
    REBALANCE,
    REBALANCE_INTERVAL,
    REBALANCE_HOLD,
    REBALANCE_COOLDOWN,
    REBALANCE_BATCH,
    REBALANCE_THRESHOLD,
    LOG_LEVEL,
    HELP,
    VERSION,
};

static const struct option long_options[] = {
    {"state-dir", required_argument, NULL, STATE_DIR},
    {"listen", required_argument, NULL, LISTEN},
    {"advertise", required_argument, NULL, ADVERTISE},
    {"pool-name", required_argument, NULL, POOL_NAME},
    {"metrics", required_argument, NULL, METRICS},
    {"policy", required_argument, NULL, POLICY},
    {"cpu-overcommit", required_argument, NULL, CPU_OVERCOMMIT},
    {"memory-overcommit", required_argument, NULL, MEMORY_OVERCOMMIT},
    {"report-interval", required_argument, NULL, REPORT_INTERVAL},
    {"lost-after", required_argument, NULL, LOST_AFTER},
    {"command-timeout", required_argument, NULL, COMMAND_TIMEOUT},
    {"handover-grace", required_argument, NULL, HANDOVER_GRACE},
    {"migrations-out", required_argument, NULL, MIGRATIONS_OUT},
    {"migrations-in", required_argument, NULL, MIGRATIONS_IN},
    {"migrations-pool", required_argument, NULL, MIGRATIONS_POOL},
    {"keep-n1", no_argument, NULL, KEEP_N1},
    {"rebalance", required_argument, NULL, REBALANCE},
    {"rebalance-interval", required_argument, NULL, REBALANCE_INTERVAL},
    {"rebalance-hold", required_argument, NULL, REBALANCE_HOLD},
    {"rebalance-cooldown", required_argument, NULL, REBALANCE_COOLDOWN},
    {"rebalance-batch", required_argument, NULL, REBALANCE_BATCH},
    {"rebalance-threshold", required_argument, NULL, REBALANCE_THRESHOLD},
    {"log-level", required_argument, NULL, LOG_LEVEL},
    {"help", no_argument, NULL, HELP},
    {"version", no_argument, NULL, VERSION},
    {NULL, 0, NULL, 0},
};

void options_help(void)
{
    (void)puts(
        "pool-controller: decides where the VMs of a pool run\n"
        "\n"
        "  --state-dir DIR          keys, store and images    (/var/lib/vmpool/controller)\n"
        "  --listen HOST:PORT       for agents and poolctl    (0.0.0.0:7400)\n"
        "  --advertise HOST:PORT    how nodes reach it        (the host's name and port)\n"
        "  --pool-name NAME                                   (pool)\n"
        "  --metrics ADDRESS:PORT   serve metrics at http://ADDRESS:PORT/metrics to all who\n"
        "                           can reach it, such as 127.0.0.1:7401  (off)\n"
        "  --policy pack|spread|balance|best   where VMs go   (balance)\n"
        "  --cpu-overcommit PERCENT       vCPUs per CPU       (400)\n"
        "  --memory-overcommit PERCENT                        (100)\n"
        "  --report-interval TIME   how often agents report   (5s)\n"
        "  --lost-after TIME        silence that makes a node lost   (15s)\n"
        "  --command-timeout TIME   for an agent to carry a command out      (30s)\n"
        "  --handover-grace TIME    a handover may end by itself before it is decided  (2s)\n"
        "  --migrations-out N       that a host sends at a time, others wait  (1)\n"
        "  --migrations-in N        that a host receives at a time  (1)\n"
        "  --migrations-pool N      of all hosts at a time    (16)\n"
        "  --keep-n1                refuse a VM after which the VMs of some one node\n"
        "                           would have no place if that node were lost\n"
        "  --rebalance off|recommend|on   look whether VMs should move, and say so or\n"
        "                           move them, until \"poolctl rebalance\" says otherwise\n"
        "                           (recommend)\n"
        "  --rebalance-interval TIME      between two looks   (1m)\n"
        "  --rebalance-hold TIME    a node hot for less is left alone  (5m)\n"
        "  --rebalance-cooldown TIME      between two batches, and two moves of a VM  (10m)\n"
        "  --rebalance-batch N      moves at a time           (4)\n"
        "  --rebalance-threshold PERCENT  above the mean load, a node is hot  (10)\n"
        "  --log-level error|warn|info|debug                  (info)\n"
        "  --help, --version\n"
        "\n"
        "The first start makes the pool; poolctl on the same host speaks to it at once, by\n"
        "DIR/admin.context. Exit status: 0 ended by a signal, 1 failed, 3 usage, 4 something "
        "named\n"
        "is not there, 5 the port or the state is in use.");
}

static int parse_policy(const char *word, enum sched_policy *policy, struct error *err)
{
    return sched_policy_parse(word, policy, err) < 0 ? error_wrap(err, "--policy") : 0;
}

static int parse_percent(const char *text, const char *what, uint32_t *percent, struct error *err)
{
    uint64_t number = 0;
    if (units_parse_number(text, what, 1, 10000, &number, err) < 0)
        return -1;
    *percent = (uint32_t)number;
    return 0;
}

static int parse_time(const char *text, const char *what, uint64_t *ms, struct error *err)
{
    if (units_parse_ms(text, ms, err) < 0)
        return error_wrap(err, "%s", what);
    if (*ms < 100 || *ms > 3600000)
        return error_set(err, ERROR_USAGE, "%s is 100ms to 1h", what);
    return 0;
}

static int parse_long_time(const char *text, const char *what, uint64_t *ms, struct error *err)
{
    if (units_parse_ms(text, ms, err) < 0)
        return error_wrap(err, "%s", what);
    if (*ms > 7ull * 24 * 3600 * 1000)
        return error_set(err, ERROR_USAGE, "%s is 0s to 7d", what);
    return 0;
}

static int parse_count(const char *text, const char *what, unsigned most, unsigned *count,
                       struct error *err)
{
    uint64_t number = 0;
    if (units_parse_number(text, what, 1, most, &number, err) < 0)
        return -1;
    *count = (unsigned)number;
    return 0;
}

static int take(struct options *options, int option, const char *value, struct error *err)
{
    struct config *config = &options->config;
    unsigned number = 0;
    switch (option) {
    case STATE_DIR:
        config->state_dir = value;
        return 0;
    case LISTEN:
        config->listen = value;
        return 0;
    case ADVERTISE:
        config->advertise = value;
        return 0;
    case POOL_NAME:
        config->pool_name = value;
        return strlen(value) <= 63
                   ? 0
                   : error_set(err, ERROR_USAGE, "--pool-name has up to 63 letters");
    case METRICS:
        config->metrics = value;
        return metrics_http_check(value, err);
    case POLICY:
        return parse_policy(value, &config->scheduler.policy, err);
    case CPU_OVERCOMMIT:
        return parse_percent(value, "--cpu-overcommit", &config->scheduler.cpu_overcommit_percent,
                             err);
    case MEMORY_OVERCOMMIT:
        return parse_percent(value, "--memory-overcommit",
                             &config->scheduler.memory_overcommit_percent, err);
    case REPORT_INTERVAL:
        return parse_time(value, "--report-interval", &config->report_interval_ms, err);
    case LOST_AFTER:
        return parse_time(value, "--lost-after", &config->lost_after_ms, err);
    case COMMAND_TIMEOUT:
        return parse_time(value, "--command-timeout", &config->command_timeout_ms, err);
    case HANDOVER_GRACE:
        return parse_time(value, "--handover-grace", &config->handover_grace_ms, err);
    case MIGRATIONS_OUT:
        return parse_count(value, "--migrations-out", 64, &config->migrations_out, err);
    case MIGRATIONS_IN:
        return parse_count(value, "--migrations-in", 64, &config->migrations_in, err);
    case MIGRATIONS_POOL:
        return parse_count(value, "--migrations-pool", 1000, &config->migrations_pool, err);
    case KEEP_N1:
        config->keep_n1 = true;
        return 0;
    case REBALANCE:
        return rebalance_mode_parse(value, &config->rebalance, err);
    case REBALANCE_INTERVAL:
        return parse_time(value, "--rebalance-interval", &config->rebalance_interval_ms, err);
    case REBALANCE_HOLD:
        return parse_long_time(value, "--rebalance-hold", &config->rebalance_hold_ms, err);
    case REBALANCE_COOLDOWN:
        return parse_long_time(value, "--rebalance-cooldown", &config->rebalance_cooldown_ms, err);
    case REBALANCE_BATCH:
        return parse_count(value, "--rebalance-batch", 1000, &config->rebalance_batch, err);
    case REBALANCE_THRESHOLD:
        if (parse_count(value, "--rebalance-threshold", 100, &number, err) < 0)
            return -1;
        config->rebalance_threshold_permille = number * 10;
        return 0;
    case LOG_LEVEL:
        return log_level_parse(value, &options->log_level) == 0
                   ? 0
                   : error_set(err, ERROR_USAGE, "--log-level is error, warn, info or debug");
    case HELP:
        options->help = true;
        return 0;
    case VERSION:
        options->version = true;
        return 0;
    default:
        return error_set(err, ERROR_USAGE, "see \"pool-controller --help\"");
    }
}

int options_parse(int argc, char **argv, struct options *options, struct error *err)
{
    *options = (struct options){.config = CONFIG_DEFAULTS, .log_level = LOG_LEVEL_INFO};
    optind = 1;
    for (int option; (option = getopt_long(argc, argv, "", long_options, NULL)) != -1;)
        if (take(options, option, optarg, err) < 0)
            return -1;
    if (optind < argc)
        return error_set(err, ERROR_USAGE, "\"%s\" is no option: see \"pool-controller --help\"",
                         argv[optind]);
    if (options->config.lost_after_ms < 2 * options->config.report_interval_ms)
        return error_set(err, ERROR_USAGE,
                         "--lost-after must be at least twice --report-interval: one lost report "
                         "is no lost node");
    return 0;
}

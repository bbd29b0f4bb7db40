#include "node-agent/agent/options.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/units.h"
#include "node-agent/agent/names.h"

static const char help_text[] =
    "Usage: pool-agent [OPTION]...\n"
    "Runs the VMs of a vmpool node as the pool's controller says, and reports what they use.\n"
    "Guests run in processes of their own: stopping, upgrading or losing the agent never stops "
    "one.\n"
    "\n"
    "First start of a node:  pool-agent --join TOKEN   (TOKEN from: poolctl node token)\n"
    "Every later start:      pool-agent\n"
    "\n"
    "Pool\n"
    "  --join TOKEN            join the pool the token names, then run\n"
    "  --name NAME             the node's name in the pool [the host's name]\n"
    "  --label KEY=VALUE       a label for placement rules; may be given several times\n"
    "  --state-dir DIR         keys and the controller's address [/var/lib/vmpool/agent]\n"
    "  --run-dir DIR           sockets and records of running VMs, a tmpfs [/run/vmpool/agent]\n"
    "\n"
    "Guests\n"
    "  --vmm PATH              the VMM to start [pool-vmm beside pool-agent]\n"
    "  --vmm-timeout TIME      how long a VMM may take to answer a command [10s]\n"
    "  --user NAME             unprivileged user the VMMs become [vmpool]\n"
    "  --reserve-memory SIZE   memory kept for the host itself [512M]\n"
    "  --cgroup NAME           cgroup v2 the VMs' groups are made in [vmpool]\n"
    "\n"
    "Network\n"
    "  --bridge NAME           bridge the guests join, made where missing [vmpool0]\n"
    "  --uplink NAME           interface whose traffic is measured [the bridge's, or the default "
    "route's]\n"
    "  --bandwidth RATE        of the uplink, such as 10G [what the interface reports]\n"
    "  --migration-address A   numeric address other nodes send migrations to\n"
    "                          [the one this host reaches the controller from]\n"
    "  --migration-ports LO-HI ports for incoming migrations [7420-7519]\n"
    "\n"
    "Storage\n"
    "  --storage DIR           local disks and the image cache [/var/lib/vmpool/storage]\n"
    "  --image-cache SIZE      most the image cache may use [20G]\n"
    "  --allow-disk-dir DIR    VMs may use disks below DIR; may be given several times\n"
    "                          [the storage folder; block devices only where DIR is in /dev]\n"
    "\n"
    "  --log-level LEVEL       error, warn, info or debug [info]\n"
    "  --version, --help\n"
    "\n"
    "SIGTERM ends the agent and leaves every guest running; the next start adopts them again.\n"
    "Exit status: 0 told to end, 1 failed, 3 wrong usage, 4 something named is not there, 5 "
    "another\n"
    "agent runs here, the node is in another pool or its token is spent, 7 the controller does "
    "not\n"
    "know the token.\n";

enum {
    OPT_JOIN = 256,
    OPT_NAME,
    OPT_LABEL,
    OPT_STATE_DIR,
    OPT_RUN_DIR,
    OPT_VMM,
    OPT_VMM_TIMEOUT,
    OPT_USER,
    OPT_RESERVE,
    OPT_CGROUP,
    OPT_BRIDGE,
    OPT_UPLINK,
    OPT_BANDWIDTH,
    OPT_ADDRESS,
    OPT_PORTS,
    OPT_STORAGE,
    OPT_CACHE,
    OPT_ALLOW,
    OPT_LOG,
    OPT_VERSION,
    OPT_HELP,
};

static const struct option long_options[] = {
    {"join", required_argument, NULL, OPT_JOIN},
    {"name", required_argument, NULL, OPT_NAME},
    {"label", required_argument, NULL, OPT_LABEL},
    {"state-dir", required_argument, NULL, OPT_STATE_DIR},
    {"run-dir", required_argument, NULL, OPT_RUN_DIR},
    {"vmm", required_argument, NULL, OPT_VMM},
    {"vmm-timeout", required_argument, NULL, OPT_VMM_TIMEOUT},
    {"user", required_argument, NULL, OPT_USER},
    {"reserve-memory", required_argument, NULL, OPT_RESERVE},
    {"cgroup", required_argument, NULL, OPT_CGROUP},
    {"bridge", required_argument, NULL, OPT_BRIDGE},
    {"uplink", required_argument, NULL, OPT_UPLINK},
    {"bandwidth", required_argument, NULL, OPT_BANDWIDTH},
    {"migration-address", required_argument, NULL, OPT_ADDRESS},
    {"migration-ports", required_argument, NULL, OPT_PORTS},
    {"storage", required_argument, NULL, OPT_STORAGE},
    {"image-cache", required_argument, NULL, OPT_CACHE},
    {"allow-disk-dir", required_argument, NULL, OPT_ALLOW},
    {"log-level", required_argument, NULL, OPT_LOG},
    {"version", no_argument, NULL, OPT_VERSION},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

static int take_path(const char *what, const char *value, const char **out, struct error *err)
{
    if (value[0] != '/' || strlen(value) > 3000)
        return error_set(err, ERROR_USAGE, "%s needs an absolute path, not '%.200s'", what, value);
    *out = value;
    return 0;
}

static int take_interface(const char *what, const char *value, const char **out, struct error *err)
{
    if (!name_is_interface(value))
        return error_set(err, ERROR_USAGE, "%s: '%.200s' is no interface name (at most 15 letters)",
                         what, value);
    *out = value;
    return 0;
}

static int take_ports(const char *value, struct agent_options *options, struct error *err)
{
    char first[8] = "", last[8] = "";
    uint64_t low = 0, high = 0;
    if (sscanf(value, "%7[0-9]-%7[0-9]", first, last) != 2 ||
        units_parse_number(first, "--migration-ports", 1, 65535, &low, err) < 0 ||
        units_parse_number(last, "--migration-ports", 1, 65535, &high, err) < 0 || low > high)
        return error_set(err, ERROR_USAGE,
                         "--migration-ports needs LO-HI such as 7420-7519, not '%.200s'", value);
    options->port_first = (uint16_t)low;
    options->port_last = (uint16_t)high;
    return 0;
}

static int take_label(char *value, struct agent_options *options, struct error *err)
{
    char *equals = strchr(value, '=');
    if (!equals || equals == value || !text_is_printable(value, 200))
        return error_set(err, ERROR_USAGE, "--label needs KEY=VALUE, not '%.200s'", value);
    if (options->label_count == OPTION_LABELS_MAX)
        return error_set(err, ERROR_USAGE, "more than %d --label", OPTION_LABELS_MAX);
    *equals = '\0';
    options->label_keys[options->label_count] = value;
    options->label_values[options->label_count++] = equals + 1;
    return 0;
}

static int take_address(const char *value, struct agent_options *options, struct error *err)
{
    unsigned char address[16];
    if (inet_pton(AF_INET, value, address) != 1 && inet_pton(AF_INET6, value, address) != 1)
        return error_set(err, ERROR_USAGE,
                         "--migration-address needs a numeric address, not '%.200s'", value);
    options->migration_address = value;
    return 0;
}

static int take_disk_dir(const char *value, struct agent_options *options, struct error *err)
{
    if (options->disk_dir_count == OPTION_DISK_DIRS_MAX)
        return error_set(err, ERROR_USAGE, "more than %d --allow-disk-dir", OPTION_DISK_DIRS_MAX);
    return take_path("--allow-disk-dir", value, &options->disk_dirs[options->disk_dir_count++],
                     err);
}

static int take_name(const char *value, struct agent_options *options, struct error *err)
{
    if (!name_is_node(value))
        return error_set(err, ERROR_USAGE,
                         "--name: '%.200s' is no node name: lower-case letters, digits and '-', at "
                         "most 63, no '-' first",
                         value);
    options->name = value;
    return 0;
}

static int take_memory(const char *value, struct agent_options *options, struct error *err)
{
    uint64_t bytes;
    if (units_parse_bytes(value, 1 << 20, &bytes, err) < 0)
        return error_wrap(err, "--reserve-memory");
    options->reserve_memory_mib = bytes >> 20;
    return 0;
}

static int take_word(const char *what, const char *value, const char **out, struct error *err)
{
    if (!name_is_vm(value))
        return error_set(err, ERROR_USAGE, "%s: '%.200s' has characters that are not allowed", what,
                         value);
    *out = value;
    return 0;
}

static int take_vmm_timeout(const char *value, struct agent_options *options, struct error *err)
{
    if (units_parse_ms(value, &options->vmm_timeout_ms, err) < 0)
        return error_wrap(err, "--vmm-timeout");
    if (options->vmm_timeout_ms < 100 || options->vmm_timeout_ms > 600000)
        return error_set(err, ERROR_USAGE, "--vmm-timeout is 100ms to 10m");
    return 0;
}

static int take_option(int option, char *value, struct agent_options *options, struct error *err)
{
    switch (option) {
    case OPT_JOIN:
        options->join = value;
        return 0;
    case OPT_NAME:
        return take_name(value, options, err);
    case OPT_LABEL:
        return take_label(value, options, err);
    case OPT_STATE_DIR:
        return take_path("--state-dir", value, &options->state_dir, err);
    case OPT_RUN_DIR:
        return take_path("--run-dir", value, &options->run_dir, err);
    case OPT_VMM:
        return take_path("--vmm", value, &options->vmm, err);
    case OPT_VMM_TIMEOUT:
        return take_vmm_timeout(value, options, err);
    case OPT_USER:
        return take_word("--user", value, &options->user, err);
    case OPT_RESERVE:
        return take_memory(value, options, err);
    case OPT_CGROUP:
        return take_word("--cgroup", value, &options->cgroup, err);
    case OPT_BRIDGE:
        return take_interface("--bridge", value, &options->bridge, err);
    case OPT_UPLINK:
        return take_interface("--uplink", value, &options->uplink, err);
    case OPT_BANDWIDTH:
        return units_parse_bps(value, &options->bandwidth_bps, err) < 0
                   ? error_wrap(err, "--bandwidth")
                   : 0;
    case OPT_ADDRESS:
        return take_address(value, options, err);
    case OPT_PORTS:
        return take_ports(value, options, err);
    case OPT_STORAGE:
        return take_path("--storage", value, &options->storage, err);
    case OPT_CACHE:
        return units_parse_bytes(value, 1, &options->image_cache_bytes, err) < 0
                   ? error_wrap(err, "--image-cache")
                   : 0;
    case OPT_ALLOW:
        return take_disk_dir(value, options, err);
    case OPT_LOG:
        if (log_level_parse(value, &options->log_level) == 0)
            return 0;
        return error_set(err, ERROR_USAGE,
                         "--log-level is error, warn, info or debug, not '%.200s'", value);
    default:
        return error_set(err, ERROR_USAGE, "unknown option; see pool-agent --help");
    }
}

static int refuse_option(char **argv, int option, struct error *err)
{
    const char *word = argv[optind - 1] ? argv[optind - 1] : "";
    if (option == ':')
        return error_set(err, ERROR_USAGE, "%.200s needs a value; see pool-agent --help", word);
    return error_set(err, ERROR_USAGE, "unknown option '%.200s'; see pool-agent --help", word);
}

enum options_outcome options_parse(int argc, char **argv, struct agent_options *options,
                                   struct error *err)
{
    *options = (struct agent_options){
        .state_dir = "/var/lib/vmpool/agent",
        .run_dir = "/run/vmpool/agent",
        .bridge = "vmpool0",
        .vmm_timeout_ms = 10000,
        .port_first = 7420,
        .port_last = 7519,
        .storage = "/var/lib/vmpool/storage",
        .user = "vmpool",
        .cgroup = "vmpool",
        .reserve_memory_mib = 512,
        .image_cache_bytes = 20ull << 30,
        .log_level = LOG_LEVEL_INFO,
    };
    optind = 0; /* so that a test may parse more than once */
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, ":", long_options, NULL)) != -1;) {
        if (option == OPT_HELP || option == OPT_VERSION) {
            (void)fputs(option == OPT_HELP ? help_text : "pool-agent " VMPOOL_VERSION "\n", stdout);
            return OPTIONS_DONE;
        }
        if (option == '?' || option == ':') {
            (void)refuse_option(argv, option, err);
            return OPTIONS_BAD;
        }
        if (take_option(option, optarg, options, err) < 0)
            return OPTIONS_BAD;
    }
    if (optind < argc) {
        (void)error_set(err, ERROR_USAGE, "'%.200s' is no option; see pool-agent --help",
                        argv[optind]);
        return OPTIONS_BAD;
    }
    if (options->disk_dir_count == 0)
        options->disk_dirs[options->disk_dir_count++] = options->storage;
    return OPTIONS_RUN;
}

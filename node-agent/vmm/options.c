#include "node-agent/vmm/options.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "common/units.h"
#include "node-agent/vmm/layout.h"

#define MEMORY_MIN_MIB 16ull
#define MEMORY_MAX_MIB (4ull << 20) /* 4 TiB */

static const char help_text[] =
    "Usage: pool-vmm --kernel FILE [OPTION]...\n"
    "Runs one virtual machine on KVM until its guest powers off.\n"
    "\n"
    "  --kernel FILE          what to boot: a Linux bzImage, or an ELF file with a PVH entry\n"
    "  --initrd FILE          initial RAM disk\n"
    "  --cmdline TEXT         kernel command line; 'console=ttyS0' makes a Linux speak here\n"
    "  --cpus N               vCPUs, 1 to 16 (1)\n"
    "  --memory SIZE          RAM, as in 512M or 4G (256M)\n"
    "  --disk FILE[,ro]       a raw disk image or block device, as virtio-blk; may be repeated\n"
    "  --tap NAME             network: a tap interface, as virtio-net\n"
    "  --mac ADDRESS          its address (made from --name)\n"
    "  --console WHERE        the guest's serial port: stdio (default; Ctrl-A x leaves), none, or\n"
    "                         the path of a socket to attach to\n"
    "  --control PATH         take commands on this socket (see proto/vmm.proto)\n"
    "  --paused               start when told to by --control\n"
    "  --incoming HOST:PORT   start with the guest of a migration that arrives here\n"
    "  --epoch N              fencing token the VM starts with (0)\n"
    "  --cpuid FILE           CPU baseline: show the guest no feature that is not in it\n"
    "  --status FILE          keep the VM's last state in this file, for who comes when it is "
    "over\n"
    "  --user UID:GID         become this user before the guest's first instruction\n"
    "  --no-balloon, --no-rng leave these devices out\n"
    "  --boot HOW             auto (default), pvh or linux64: how a bzImage is entered\n"
    "  --name NAME, --id UUID what the VM is called\n"
    "  --kvm FILE             instead of /dev/kvm\n"
    "  --log-level LEVEL      error, warn (default), info or debug\n"
    "  --probe                say whether this host's KVM can boot Linux; exit 0 if it can\n"
    "  --help, --version\n"
    "\n"
    "Where a file, socket or interface is named, fd:N means a descriptor that was inherited\n"
    "(for sockets: one that listens).\n"
    "\n"
    "Example: a Linux that powers off as soon as it has started\n"
    "  pool-vmm --kernel vmlinuz --initrd initrd.img --cpus 2 --memory 512M \\\n"
    "           --cmdline 'console=ttyS0 panic=-1'\n"
    "\n"
    "Exit status: 0 the guest powered off, 1 something failed, 3 the command line is wrong.\n";

enum {
    OPT_NAME = 256,
    OPT_ID,
    OPT_KERNEL,
    OPT_INITRD,
    OPT_CMDLINE,
    OPT_BOOT,
    OPT_CPUS,
    OPT_MEMORY,
    OPT_DISK,
    OPT_TAP,
    OPT_MAC,
    OPT_CONSOLE,
    OPT_CONTROL,
    OPT_INCOMING,
    OPT_PAUSED,
    OPT_EPOCH,
    OPT_CPUID,
    OPT_STATUS,
    OPT_KVM,
    OPT_USER,
    OPT_NO_BALLOON,
    OPT_NO_RNG,
    OPT_LOG_LEVEL,
    OPT_PROBE,
    OPT_HELP,
    OPT_VERSION,
};

static const struct option long_options[] = {
    {"name", required_argument, NULL, OPT_NAME},
    {"id", required_argument, NULL, OPT_ID},
    {"kernel", required_argument, NULL, OPT_KERNEL},
    {"initrd", required_argument, NULL, OPT_INITRD},
    {"cmdline", required_argument, NULL, OPT_CMDLINE},
    {"boot", required_argument, NULL, OPT_BOOT},
    {"cpus", required_argument, NULL, OPT_CPUS},
    {"memory", required_argument, NULL, OPT_MEMORY},
    {"disk", required_argument, NULL, OPT_DISK},
    {"tap", required_argument, NULL, OPT_TAP},
    {"mac", required_argument, NULL, OPT_MAC},
    {"console", required_argument, NULL, OPT_CONSOLE},
    {"control", required_argument, NULL, OPT_CONTROL},
    {"incoming", required_argument, NULL, OPT_INCOMING},
    {"paused", no_argument, NULL, OPT_PAUSED},
    {"epoch", required_argument, NULL, OPT_EPOCH},
    {"cpuid", required_argument, NULL, OPT_CPUID},
    {"status", required_argument, NULL, OPT_STATUS},
    {"kvm", required_argument, NULL, OPT_KVM},
    {"user", required_argument, NULL, OPT_USER},
    {"no-balloon", no_argument, NULL, OPT_NO_BALLOON},
    {"no-rng", no_argument, NULL, OPT_NO_RNG},
    {"log-level", required_argument, NULL, OPT_LOG_LEVEL},
    {"probe", no_argument, NULL, OPT_PROBE},
    {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},
    {NULL, 0, NULL, 0},
};

void options_print_help(void)
{
    (void)fputs(help_text, stdout);
}

static int parse_disk(struct options *options, const char *text, struct error *err)
{
    if (options->disk_count == MACHINE_DISKS_MAX)
        return error_set(err, ERROR_USAGE, "--disk: at most %d disks", MACHINE_DISKS_MAX);
    size_t length = strlen(text);
    bool read_only = length > 3 && strcmp(text + length - 3, ",ro") == 0;
    if (read_only)
        length -= 3;
    if (length == 0 || length >= sizeof options->disks[0].path)
        return error_set(err, ERROR_USAGE, "--disk: '%s' names no file", text);
    memcpy(options->disks[options->disk_count].path, text, length);
    options->disks[options->disk_count].path[length] = '\0';
    options->disks[options->disk_count++].read_only = read_only;
    return 0;
}

static int parse_mac(const char *text, uint8_t mac[6], struct error *err)
{
    unsigned bytes[6];
    int used = 0;
    if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &bytes[0], &bytes[1], &bytes[2], &bytes[3],
               &bytes[4], &bytes[5], &used) != 6 ||
        text[used] != '\0' || (bytes[0] & 1))
        return error_set(err, ERROR_USAGE,
                         "--mac: '%s' is not a unicast address as in 52:54:00:12:34:56", text);
    for (unsigned i = 0; i < 6; i++)
        mac[i] = (uint8_t)bytes[i];
    return 0;
}

/* 52:54:00 and three bytes of the name's FNV-1a hash: the same for the same VM. */
static void make_mac(const char *name, uint8_t mac[6])
{
    uint32_t hash = 2166136261u;
    for (const char *at = name; *at; at++)
        hash = (hash ^ (uint8_t)*at) * 16777619u;
    const uint8_t made[6] = {0x52,         0x54, 0x00, (uint8_t)(hash >> 16), (uint8_t)(hash >> 8),
                             (uint8_t)hash};
    memcpy(mac, made, sizeof made);
}

static int parse_user(struct options *options, const char *text, struct error *err)
{
    char uid_text[16];
    const char *colon = strchr(text, ':');
    uint64_t uid = 0;
    uint64_t gid = 0;
    if (!colon || (size_t)(colon - text) >= sizeof uid_text)
        return error_set(err, ERROR_USAGE, "--user: '%s' is not UID:GID in numbers", text);
    memcpy(uid_text, text, (size_t)(colon - text));
    uid_text[colon - text] = '\0';
    if (units_parse_number(uid_text, "--user", 0, UINT32_MAX - 1, &uid, err) < 0 ||
        units_parse_number(colon + 1, "--user", 0, UINT32_MAX - 1, &gid, err) < 0)
        return -1;
    options->drop_user = true;
    options->uid = (uid_t)uid;
    options->gid = (gid_t)gid;
    return 0;
}

static int parse_memory(struct options *options, const char *text, struct error *err)
{
    if (units_parse_bytes(text, 1ull << 20, &options->memory_bytes, err) < 0)
        return error_wrap(err, "--memory");
    if (options->memory_bytes < MEMORY_MIN_MIB << 20 ||
        options->memory_bytes > MEMORY_MAX_MIB << 20 ||
        options->memory_bytes % LAYOUT_PAGE_SIZE != 0)
        return error_set(err, ERROR_USAGE,
                         "--memory: '%s' is not between 16M and 4T in whole pages of 4K", text);
    return 0;
}

static int parse_number(const char *text, const char *what, uint64_t min, uint64_t max,
                        uint64_t *number, struct error *err)
{
    return units_parse_number(text, what, min, max, number, err);
}

/* Options with a value that needs reading. */
static int take_value(struct options *options, int option, const char *text, struct error *err)
{
    uint64_t number = 0;
    switch (option) {
    case OPT_CPUS:
        if (parse_number(text, "--cpus", 1, LAYOUT_VCPUS_MAX, &number, err) < 0)
            return -1;
        options->cpus = (unsigned)number;
        return 0;
    case OPT_EPOCH:
        return parse_number(text, "--epoch", 0, UINT64_MAX, &options->epoch, err);
    case OPT_MEMORY:
        return parse_memory(options, text, err);
    case OPT_DISK:
        return parse_disk(options, text, err);
    case OPT_MAC:
        return parse_mac(text, options->mac, err);
    case OPT_USER:
        return parse_user(options, text, err);
    case OPT_BOOT:
        return boot_protocol_parse(text, &options->boot, err);
    case OPT_LOG_LEVEL:
        if (log_level_parse(text, &options->log_level) < 0)
            return error_set(err, ERROR_USAGE,
                             "--log-level: '%s' is none of error, warn, info, debug", text);
        return 0;
    default:
        return error_set(err, ERROR_USAGE, "unknown option; see --help");
    }
}

/* Options that are kept as they stand; false where @option is not one of them. */
static bool take_text(struct options *options, int option, const char *text)
{
    const struct {
        int option;
        const char **place;
    } texts[] = {
        {OPT_NAME, &options->name},         {OPT_ID, &options->id},
        {OPT_KERNEL, &options->kernel},     {OPT_INITRD, &options->initrd},
        {OPT_CMDLINE, &options->cmdline},   {OPT_TAP, &options->tap},
        {OPT_CONSOLE, &options->console},   {OPT_CONTROL, &options->control},
        {OPT_INCOMING, &options->incoming}, {OPT_CPUID, &options->cpuid},
        {OPT_KVM, &options->kvm},           {OPT_STATUS, &options->status},
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (texts[i].option == option) {
            *texts[i].place = text;
            return true;
        }
    }
    return false;
}

static bool take_flag(struct options *options, enum options_action *action, int option)
{
    switch (option) {
    case OPT_PAUSED:
        options->paused = true;
        return true;
    case OPT_NO_BALLOON:
        options->balloon = false;
        return true;
    case OPT_NO_RNG:
        options->rng = false;
        return true;
    case OPT_PROBE:
        *action = OPTIONS_PROBE;
        return true;
    case OPT_HELP:
        *action = OPTIONS_HELP;
        return true;
    case OPT_VERSION:
        *action = OPTIONS_VERSION;
        return true;
    default:
        return false;
    }
}

static int check_together(const struct options *options, struct error *err)
{
    if (!options->kernel && !options->incoming)
        return error_set(err, ERROR_USAGE, "--kernel is missing; see --help");
    if (options->paused && !options->control)
        return error_set(err, ERROR_USAGE,
                         "--paused needs --control, or nobody could start the guest");
    if (options->incoming && !options->control)
        return error_set(err, ERROR_USAGE,
                         "--incoming needs --control, where the migration's key is given");
    if (strlen(options->cmdline) >= BOOT_CMDLINE_SIZE)
        return error_set(err, ERROR_USAGE, "--cmdline: longer than %u bytes",
                         BOOT_CMDLINE_SIZE - 1);
    if (options->name[0] == '\0' || strlen(options->name) > 63 || strlen(options->id) > 63)
        return error_set(err, ERROR_USAGE, "--name and --id take at most 63 bytes");
    return 0;
}

int options_parse(struct options *options, enum options_action *action, int argc, char **argv,
                  struct error *err)
{
    *options = (struct options){.name = "vm",
                                .id = "",
                                .cmdline = "",
                                .cpus = 1,
                                .memory_bytes = 256ull << 20,
                                .console = "stdio",
                                .balloon = true,
                                .rng = true,
                                .log_level = LOG_LEVEL_WARN};
    *action = OPTIONS_RUN;
    opterr = 0;
    optind = 1;
    int option = 0;
    while ((option = getopt_long(argc, argv, "+:", long_options, NULL)) != -1) {
        if (option == '?' || option == ':')
            return error_set(err, ERROR_USAGE, "%s: %s; see --help", argv[optind - 1],
                             option == ':' ? "its value is missing" : "no such option");
        if (take_flag(options, action, option) || take_text(options, option, optarg))
            continue;
        if (take_value(options, option, optarg, err) < 0)
            return -1;
    }
    if (optind < argc)
        return error_set(err, ERROR_USAGE, "'%s' is too much; see --help", argv[optind]);
    const uint8_t none[6] = {0};
    if (memcmp(options->mac, none, sizeof none) == 0)
        make_mac(options->name, options->mac);
    return *action == OPTIONS_RUN ? check_together(options, err) : 0;
}

#include "controller/validate.h"

#include <string.h>

#include "common/units.h"
#include "controller/images.h"

#define LABEL_MAX       63
#define PATH_LIMIT      1024
#define DISK_MAX_MIB    (64ull << 20)
#define BANDWIDTH_MAX   1000000000000000ull
#define SPREAD_SKEW_MAX 1000
#define DAY_MS          (24ull * 3600 * 1000)

int validate_name(const char *name, const char *what, struct error *err)
{
    size_t length = strlen(name);
    if (length == 0)
        return error_set(err, ERROR_USAGE, "%s is missing", what);
    if (length > 63 || name[0] == '-' ||
        strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != length)
        return error_set(err, ERROR_USAGE,
                         "%s \"%.80s\" won't do: up to 63 of a-z, 0-9 and \"-\", not beginning "
                         "with \"-\"",
                         what, name);
    return 0;
}

static int check_label_text(const char *text, const char *what, struct error *err)
{
    size_t length = strlen(text);
    if (length == 0 || length > LABEL_MAX ||
        strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./") !=
            length)
        return error_set(err, ERROR_USAGE,
                         "%s \"%.80s\" won't do: 1 to %d letters, digits and \"-_./\"", what, text,
                         LABEL_MAX);
    return 0;
}

static int check_labels(Vmpool__Label **labels, size_t count, const char *what, struct error *err)
{
    if (count > VM_LABELS_MAX)
        return error_set(err, ERROR_USAGE, "%zu labels are too many: up to %d", count,
                         VM_LABELS_MAX);
    for (size_t i = 0; i < count; i++) {
        if (check_label_text(labels[i]->key, "the key of a label", err) < 0 ||
            check_label_text(labels[i]->value, "the value of a label", err) < 0)
            return -1;
        for (size_t j = 0; j < i; j++)
            if (strcmp(labels[i]->key, labels[j]->key) == 0)
                return error_set(err, ERROR_USAGE, "%s %s is given twice", what, labels[i]->key);
    }
    return 0;
}

/* Printable text of one line. */
static bool is_line(const char *text, size_t max)
{
    size_t length = 0;
    for (; text[length]; length++)
        if ((unsigned char)text[length] < 0x20 || text[length] == 0x7f || length >= max)
            return false;
    return true;
}

static int check_disk(const Vmpool__DiskSpec *disk, struct error *err)
{
    if ((disk->path[0] != '\0') == (disk->size_mib != 0))
        return error_set(err, ERROR_USAGE,
                         "a disk is either a PATH that every host can see or a SIZE to make");
    if (disk->size_mib > DISK_MAX_MIB)
        return error_set(err, ERROR_USAGE, "a disk of %llu MiB is too large: up to %llu",
                         (unsigned long long)disk->size_mib, DISK_MAX_MIB);
    if (disk->path[0] &&
        (disk->path[0] != '/' || !is_line(disk->path, PATH_LIMIT) || strstr(disk->path, "/../")))
        return error_set(err, ERROR_USAGE,
                         "the disk's path \"%.100s\" must be absolute, without \"..\"", disk->path);
    return 0;
}

static int check_size(const Vmpool__VmCreate *create, struct error *err)
{
    char text[32], least[32], most[32];
    if (create->vcpus < 1 || create->vcpus > VM_VCPUS_MAX)
        return error_set(err, ERROR_USAGE, "a VM has 1 to %d vCPUs, not %u", VM_VCPUS_MAX,
                         create->vcpus);
    if (create->memory_mib < VM_MEMORY_MIN_MIB || create->memory_mib > VM_MEMORY_MAX_MIB)
        return error_set(err, ERROR_USAGE, "a VM has %s to %s of memory, not %s",
                         units_format_bytes((uint64_t)VM_MEMORY_MIN_MIB << 20, least, sizeof least),
                         units_format_bytes((uint64_t)VM_MEMORY_MAX_MIB << 20, most, sizeof most),
                         create->memory_mib >= 1ull << 40
                             ? "that much"
                             : units_format_bytes(create->memory_mib << 20, text, sizeof text));
    if (create->bandwidth_bps > BANDWIDTH_MAX)
        return error_set(err, ERROR_USAGE, "a bandwidth of %llu bit/s is no real one",
                         (unsigned long long)create->bandwidth_bps);
    return 0;
}

static int check_rules(const Vmpool__PlacementRules *rules, struct error *err)
{
    if ((rules->affinity_group[0] &&
         validate_name(rules->affinity_group, "the affinity group", err) < 0) ||
        (rules->spread_group[0] &&
         validate_name(rules->spread_group, "the spread group", err) < 0) ||
        (rules->spread_label[0] &&
         check_label_text(rules->spread_label, "the label to spread over", err) < 0) ||
        (rules->tenant[0] && check_label_text(rules->tenant, "the tenant", err) < 0))
        return -1;
    if (rules->spread_skew > SPREAD_SKEW_MAX)
        return error_set(err, ERROR_USAGE, "a spread of %u apart is none: up to %d",
                         rules->spread_skew, SPREAD_SKEW_MAX);
    return 0;
}

int validate_create(const Vmpool__VmCreate *create, struct error *err)
{
    if (validate_name(create->name, "the VM's name", err) < 0 || check_size(create, err) < 0)
        return -1;
    if (!create->image[0])
        return error_set(err, ERROR_USAGE,
                         "which image shall it boot? \"poolctl image ls\" shows them");
    if (create->n_disks > VM_DISKS_MAX)
        return error_set(err, ERROR_USAGE, "%zu disks are too many: up to %d", create->n_disks,
                         VM_DISKS_MAX);
    for (size_t i = 0; i < create->n_disks; i++)
        if (check_disk(create->disks[i], err) < 0)
            return -1;
    if (check_labels(create->labels, create->n_labels, "the label", err) < 0 ||
        check_labels(create->node_selector, create->n_node_selector, "the selector", err) < 0)
        return -1;
    if (create->anti_affinity_group[0] &&
        validate_name(create->anti_affinity_group, "the anti-affinity group", err) < 0)
        return -1;
    if (create->rules && check_rules(create->rules, err) < 0)
        return -1;
    if (!is_line(create->cmdline_extra, CMDLINE_MAX / 2))
        return error_set(err, ERROR_USAGE,
                         "the kernel's extra command line is one line of up to %d characters",
                         CMDLINE_MAX / 2);
    return 0;
}

static int check_hash(const char *hash, uint64_t bytes, const char *what, bool must,
                      struct error *err)
{
    if (!hash[0] && !must && bytes == 0)
        return 0;
    if (strlen(hash) != 64 || strspn(hash, "0123456789abcdef") != 64)
        return error_set(err, ERROR_USAGE, "the SHA-256 of %s must be 64 lower-case hex digits",
                         what);
    if (bytes == 0 || bytes > IMAGE_FILE_MAX)
        return error_set(err, ERROR_USAGE, "%s of %llu bytes can't be taken: 1 byte to 1 TiB", what,
                         (unsigned long long)bytes);
    return 0;
}

int validate_image(const Vmpool__ImageSpec *spec, struct error *err)
{
    if (!spec)
        return error_set(err, ERROR_USAGE, "the image is missing");
    if (validate_name(spec->name, "the image's name", err) < 0 ||
        check_hash(spec->kernel_sha256, spec->kernel_bytes, "the kernel", true, err) < 0 ||
        check_hash(spec->initrd_sha256, spec->initrd_bytes, "the initrd", false, err) < 0 ||
        check_hash(spec->disk_sha256, spec->disk_bytes, "the disk", false, err) < 0)
        return -1;
    if (!is_line(spec->cmdline, CMDLINE_MAX / 2))
        return error_set(err, ERROR_USAGE,
                         "the kernel's command line is one line of up to %d characters",
                         CMDLINE_MAX / 2);
    return 0;
}

int validate_limits(const Vmpool__MigrationLimits *limits, struct error *err)
{
    if (!limits)
        return 0;
    if (limits->downtime_limit_ms > 60000)
        return error_set(err, ERROR_USAGE, "a downtime limit is at most 60 s");
    if (limits->streams > 64)
        return error_set(err, ERROR_USAGE, "a migration has at most 64 streams");
    if (limits->timeout_ms > 7 * DAY_MS)
        return error_set(err, ERROR_USAGE, "a migration's timeout is at most 7 days");
    if (limits->mode > VMPOOL__MIGRATION_MODE__MODE_POSTCOPY)
        return error_set(err, ERROR_USAGE, "a migration's mode is auto, precopy or postcopy");
    if (limits->mode == VMPOOL__MIGRATION_MODE__MODE_POSTCOPY && limits->verify)
        return error_set(err, ERROR_USAGE,
                         "verify compares all RAM within the pause, and in post-copy RAM is not "
                         "complete then: choose one of them");
    if (!protobuf_c_enum_descriptor_get_value(&vmpool__migration_compress__descriptor,
                                              (int)limits->compress))
        return error_set(err, ERROR_USAGE, "a migration compresses auto, off, lz4 or zstd");
    if (limits->unencrypted)
        return error_set(err, ERROR_USAGE, "migrations in a pool are always encrypted");
    return 0;
}

int validate_facts(const Vmpool__NodeFacts *facts, struct error *err)
{
    if (!facts)
        return error_set(err, ERROR_USAGE, "the agent says nothing about its host");
    if (facts->cpus < 1 || facts->cpus > 4096 || facts->memory_mib < 1 ||
        facts->memory_mib > 1ull << 34 || facts->reserved_memory_mib > facts->memory_mib)
        return error_set(err, ERROR_USAGE,
                         "a host of %u CPUs and %llu MiB, %llu of them for itself, can't be",
                         facts->cpus, (unsigned long long)facts->memory_mib,
                         (unsigned long long)facts->reserved_memory_mib);
    if (!is_line(facts->migration_address, 64) || !is_line(facts->version, 256) ||
        !is_line(facts->kernel, 256) || !is_line(facts->cpu_model, 256) || facts->n_warnings > 64)
        return error_set(err, ERROR_USAGE, "the agent's facts about its host are damaged");
    return check_labels(facts->labels, facts->n_labels, "the node's label", err);
}

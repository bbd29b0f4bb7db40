/*
 * options.h: pool-agent's command line.
 */
#pragma once

#include <stdint.h>

#include "common/error.h"
#include "common/log.h"

#define OPTION_DISK_DIRS_MAX 16
#define OPTION_LABELS_MAX    32

/* Strings point into argv or to constants; all are absolute paths or checked names. */
struct agent_options {
    const char *state_dir;
    const char *run_dir;
    const char *join; /* token, or NULL */
    const char *name; /* NULL: the host's name */
    const char *bridge;
    const char *uplink;            /* interface to measure; NULL: found by itself */
    const char *migration_address; /* NULL: the one the controller is reached from */
    uint16_t port_first, port_last;
    const char *storage;
    const char *vmm;
    uint64_t vmm_timeout_ms; /* for a VMM to answer a command */
    const char *user;
    const char *cgroup; /* below the cgroup v2 mount */
    uint64_t bandwidth_bps;
    uint64_t reserve_memory_mib;
    uint64_t image_cache_bytes;
    const char *disk_dirs[OPTION_DISK_DIRS_MAX];
    unsigned disk_dir_count;
    const char *label_keys[OPTION_LABELS_MAX];
    const char *label_values[OPTION_LABELS_MAX];
    unsigned label_count;
    enum log_level log_level;
};

enum options_outcome { OPTIONS_RUN, OPTIONS_DONE, OPTIONS_BAD };

/* Reads the command line. OPTIONS_DONE: --help or --version was printed. OPTIONS_BAD: @err says
 * what to change (ERROR_USAGE). "KEY=VALUE" of --label is cut in place. */
enum options_outcome options_parse(int argc, char **argv, struct agent_options *options,
                                   struct error *err);

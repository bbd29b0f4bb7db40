/* options.h: pool-vmm's command line. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"
#include "common/log.h"
#include "node-agent/vmm/boot/boot.h"
#include "node-agent/vmm/machine.h"

/* Where a path or a name stands, "fd:N" means an inherited descriptor. Texts point into argv. */
struct options {
    const char *name;
    const char *id;
    const char *kernel;
    const char *initrd;  /* NULL: none */
    const char *cmdline; /* "" by default */
    enum boot_protocol boot;
    unsigned cpus;
    uint64_t memory_bytes;
    struct {
        char path[4096];
        bool read_only;
    } disks[MACHINE_DISKS_MAX];
    unsigned disk_count;
    const char *tap; /* NULL: no network */
    uint8_t mac[6];
    const char *console;  /* path, fd:N, "stdio" or "none" */
    const char *control;  /* NULL: none */
    const char *incoming; /* NULL: boot here */
    bool paused;
    uint64_t epoch;
    const char *cpuid;  /* NULL: all KVM offers */
    const char *status; /* file of the last state; NULL: none */
    const char *kvm;    /* NULL: /dev/kvm */
    bool drop_user;
    uid_t uid;
    gid_t gid;
    bool balloon;
    bool rng;
    enum log_level log_level;
};

enum options_action { OPTIONS_RUN, OPTIONS_HELP, OPTIONS_VERSION, OPTIONS_PROBE };

/* Reads the command line and checks all that can be checked without opening anything. */
int options_parse(struct options *options, enum options_action *action, int argc, char **argv,
                  struct error *err);

/* Prints --help. */
void options_print_help(void);

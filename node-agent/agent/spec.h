/*
 * spec.h: a VmSpec as it came from the controller, checked whole before anything is done with it.
 */
#pragma once

#include "common/error.h"
#include "proto/common.pb-c.h"

#define SPEC_DISKS_MAX   16
#define SPEC_VCPUS_MAX   256
#define SPEC_CMDLINE_MAX 2047 /* what a Linux boot protocol's command line holds */

/* 0 where every field is within what the agent and the VMM accept; else ERROR_USAGE that names the
 * field. Disk paths are only checked for their form here; disk.h decides whether they are allowed.
 */
int spec_check(const Vmpool__VmSpec *spec, struct error *err);

/* A deep copy through pack and unpack; free with vmpool__vm_spec__free_unpacked(copy, NULL). */
Vmpool__VmSpec *spec_copy(const Vmpool__VmSpec *spec, struct error *err);

/* Whether the VM has a disk that exists on this node only, so that it cannot migrate. */
bool spec_has_local_disk(const Vmpool__VmSpec *spec);

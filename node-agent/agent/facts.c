#include "node-agent/agent/facts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "node-agent/agent/files.h"

#define KVM_API 12 /* the one and only, Documentation/virt/kvm/api.rst */

void facts_warn(struct facts *facts, const char *format, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    if (length < 0)
        return;
    log_warn("%s", text);
    if (facts->warning_count < FACTS_WARNINGS_MAX)
        facts->warnings[facts->warning_count++] = text;
    else
        free(text);
}

/* The value behind "@key ... :" in a file such as /proc/cpuinfo; false where there is none. */
static bool read_field(const char *path, const char *key, char *value, size_t size)
{
    auto_file FILE *file = fopen(path, "re");
    char line[1024];
    while (file && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (!colon || strncmp(line, key, strlen(key)) != 0)
            continue;
        colon += 1 + strspn(colon + 1, " \t");
        colon[strcspn(colon, "\n")] = '\0';
        (void)snprintf(value, size, "%s", colon);
        return true;
    }
    return false;
}

static int read_cpuid(struct facts *facts, int kvm, struct error *err)
{
    size_t entries_bytes = FACTS_CPUID_MAX * sizeof(struct kvm_cpuid_entry2);
    auto_free struct kvm_cpuid2 *cpuid = calloc(1, sizeof *cpuid + entries_bytes);
    if (!cpuid)
        return error_errno(err, ENOMEM, "CPUID");
    cpuid->nent = FACTS_CPUID_MAX;
    if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid) < 0)
        return error_errno(err, errno, "KVM_GET_SUPPORTED_CPUID");
    facts->cpuid_bytes = cpuid->nent * sizeof(struct kvm_cpuid_entry2);
    facts->cpuid = malloc(facts->cpuid_bytes + 1);
    if (!facts->cpuid)
        return error_errno(err, ENOMEM, "CPUID");
    memcpy(facts->cpuid, cpuid->entries, facts->cpuid_bytes);
    return 0;
}

/* KVM tells the TSC's frequency of a vCPU only, so one is made and thrown away; that also shows
 * that this /dev/kvm can make VMs at all. */
static int probe_kvm(struct facts *facts, struct error *err)
{
    auto_fd int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0)
        return error_errno(err, errno, "/dev/kvm");
    int version = ioctl(kvm, KVM_GET_API_VERSION, 0);
    if (version != KVM_API)
        return error_set(err, ERROR_FAILED, "/dev/kvm speaks API %d, not %d", version, KVM_API);
    if (read_cpuid(facts, kvm, err) < 0)
        return -1;
    auto_fd int vm = ioctl(kvm, KVM_CREATE_VM, 0);
    if (vm < 0)
        return error_errno(err, errno, "KVM_CREATE_VM");
    auto_fd int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    if (vcpu < 0)
        return error_errno(err, errno, "KVM_CREATE_VCPU");
    int khz = ioctl(vcpu, KVM_GET_TSC_KHZ, 0);
    facts->tsc_khz = khz > 0 ? (uint64_t)khz : 0;
    facts->kvm = true;
    return 0;
}

int facts_gather(struct facts *facts, struct error *err)
{
    struct utsname name;
    char text[64] = "";
    auto_free char *boot_id = NULL;
    size_t size;
    *facts = (struct facts){0};
    if (uname(&name) == 0)
        (void)snprintf(facts->kernel, sizeof facts->kernel, "Linux %s", name.release);
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    facts->cpus = cpus > 0 ? (uint32_t)cpus : 1;
    if (!read_field("/proc/meminfo", "MemTotal", text, sizeof text))
        return error_set(err, ERROR_FAILED, "/proc/meminfo does not tell the memory's size");
    facts->memory_mib = strtoull(text, NULL, 10) / 1024;
    if (!read_field("/proc/cpuinfo", "model name", facts->cpu_model, sizeof facts->cpu_model))
        (void)snprintf(facts->cpu_model, sizeof facts->cpu_model, "unknown");
    if (files_read(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &boot_id, &size, err) < 0)
        return -1;
    boot_id[strcspn(boot_id, "\n")] = '\0';
    (void)snprintf(facts->boot_id, sizeof facts->boot_id, "%s", boot_id);
    if (probe_kvm(facts, err) < 0) {
        facts_warn(facts, "this host cannot run VMs: %s", err->text);
        error_clear(err);
    }
    return 0;
}

void facts_clear(struct facts *facts)
{
    for (size_t i = 0; i < facts->warning_count; i++)
        free(facts->warnings[i]);
    free(facts->cpuid);
    *facts = (struct facts){0};
}

void facts_fill(struct facts *facts, Vmpool__NodeFacts *message)
{
    static char version[] = VMPOOL_VERSION;
    message->version = version;
    message->kernel = facts->kernel;
    message->cpus = facts->cpus;
    message->memory_mib = facts->memory_mib;
    message->cpuid.data = facts->cpuid;
    message->cpuid.len = facts->cpuid_bytes;
    message->cpu_model = facts->cpu_model;
    message->tsc_khz = facts->tsc_khz;
    message->warnings = facts->warnings;
    message->n_warnings = facts->warning_count;
}

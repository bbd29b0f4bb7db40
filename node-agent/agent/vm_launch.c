#include "node-agent/agent/vm_launch.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "node-agent/agent/spawn.h"
#include "node-agent/agent/tap.h"
#include "node-agent/agent/unix_socket.h"
#include "node-agent/agent/vmm_log.h"

#define LISTEN_BACKLOG 16

/* What is opened for one launch and closed again when the VMM has its copies. */
struct opened {
    int kvm, tap, control, console, cpuid, log, status, procs;
};

static void close_all(struct opened *opened)
{
    close_fd(&opened->kvm);
    close_fd(&opened->tap);
    close_fd(&opened->control);
    close_fd(&opened->console);
    close_fd(&opened->cpuid);
    close_fd(&opened->log);
    close_fd(&opened->status);
    close_fd(&opened->procs);
}

static int make_cpuid_file(const struct agent *agent, struct error *err)
{
    auto_fd int fd = memfd_create("cpuid", MFD_CLOEXEC);
    if (fd < 0 ||
        pwrite(fd, agent->baseline, agent->baseline_bytes, 0) != (ssize_t)agent->baseline_bytes)
        return error_errno(err, errno, "CPU baseline");
    return take_fd(&fd);
}

static int open_tap(struct vm *vm, struct error *err)
{
    unsigned char mac[6];
    if (!name_is_mac(vm->spec->mac, mac))
        return error_set(err, ERROR_USAGE, "the VM has no usable MAC address");
    if (!vm->agent->bridge_ready)
        return error_set(err, ERROR_FAILED, "this node has no bridge %s; see pool-agent's log",
                         vm->agent->bridge);
    return tap_open(vm->agent->netlink, vm->id, mac, vm->agent->bridge, err);
}

static int open_parts(struct vm *vm, struct opened *opened, struct error *err)
{
    struct agent *agent = vm->agent;
    *opened = (struct opened){-1, -1, -1, -1, -1, -1, -1, -1};
    opened->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (opened->kvm < 0)
        return error_errno(err, errno, "/dev/kvm");
    if (vm->spec->mac[0] && (opened->tap = open_tap(vm, err)) < 0)
        return -1;
    if (agent->baseline && (opened->cpuid = make_cpuid_file(agent, err)) < 0)
        return -1;
    if ((opened->control = unix_socket_listen(vm->dir_fd, "control.sock", SOCK_SEQPACKET, err)) <
            0 ||
        (opened->console = unix_socket_listen(vm->dir_fd, "console.sock", SOCK_STREAM, err)) < 0 ||
        (opened->log = vmm_log_open(vm->dir_fd, err)) < 0 ||
        (opened->status = record_open_state(vm->dir_fd, err)) < 0)
        return -1;
    return cgroup_add(&agent->cgroup, vm->id, vm->spec->vcpus, &opened->procs, err);
}

static void add_word(struct spawn *spawn, const char *option, const char *value)
{
    spawn_arg(spawn, "%s", option);
    spawn_arg(spawn, "%s", value);
}

static void add_fd(struct spawn *spawn, const char *option, int fd, const char *suffix)
{
    if (fd < 0)
        return;
    spawn_arg(spawn, "%s", option);
    spawn_arg(spawn, "fd:%d%s", spawn_pass(spawn, fd), suffix);
}

static void add_arguments(struct spawn *spawn, const struct vm *vm, const struct launch *launch,
                          const struct opened *opened)
{
    const Vmpool__VmSpec *spec = vm->spec;
    spawn_arg(spawn, "pool-vmm");
    add_word(spawn, "--name", spec->name);
    add_word(spawn, "--id", vm->id);
    spawn_arg(spawn, "--cpus");
    spawn_arg(spawn, "%u", spec->vcpus);
    spawn_arg(spawn, "--memory");
    spawn_arg(spawn, "%lluM", (unsigned long long)spec->memory_mib);
    spawn_arg(spawn, "--epoch");
    spawn_arg(spawn, "%llu", (unsigned long long)vm->record.epoch);
    add_fd(spawn, "--kvm", opened->kvm, "");
    add_fd(spawn, "--kernel", launch->kernel_fd, "");
    add_fd(spawn, "--initrd", launch->initrd_fd, "");
    if (spec->image->cmdline[0])
        add_word(spawn, "--cmdline", spec->image->cmdline);
    add_fd(spawn, "--cpuid", opened->cpuid, "");
    add_fd(spawn, "--status", opened->status, "");
    for (size_t i = 0; i < launch->disk_count; i++)
        add_fd(spawn, "--disk", launch->disk_fds[i], launch->disk_read_only[i] ? ",ro" : "");
    if (opened->tap >= 0) {
        add_fd(spawn, "--tap", opened->tap, "");
        add_word(spawn, "--mac", spec->mac);
    }
    add_fd(spawn, "--console", opened->console, "");
    add_fd(spawn, "--control", opened->control, "");
    if (launch->incoming_fd >= 0)
        add_fd(spawn, "--incoming", launch->incoming_fd, "");
    else
        spawn_arg(spawn, "--paused");
    if (vm->agent->vmm_user[0])
        add_word(spawn, "--user", vm->agent->vmm_user);
}

static int register_process(void *context, pid_t pid, uint64_t start_ticks, struct error *err)
{
    struct vm *vm = context;
    vm->record.pid = pid;
    vm->record.start_ticks = start_ticks;
    (void)snprintf(vm->record.boot_id, sizeof vm->record.boot_id, "%s", vm->agent->facts.boot_id);
    return record_save(vm->dir_fd, &vm->record, err);
}

int vm_launch(struct vm *vm, const struct launch *launch, struct error *err)
{
    struct opened opened;
    struct spawn spawn;
    pid_t pid = 0;
    int pidfd = -1;
    int status = open_parts(vm, &opened, err);
    if (status == 0) {
        spawn_init(&spawn, vm->agent->vmm_path);
        spawn.stderr_fd = opened.log;
        spawn.cgroup_fd = opened.procs;
        add_arguments(&spawn, vm, launch, &opened);
        status = spawn_start(&spawn, register_process, vm, &pid, &pidfd, err);
        spawn_clear(&spawn);
    }
    /* The listening sockets too: with the VMM's death they are to be gone, and the tap with them.
     */
    close_all(&opened);
    if (status < 0) {
        cgroup_remove(&vm->agent->cgroup, vm->id);
        return -1;
    }
    log_info("VM %s (%s): started its VMM, process %d", vm->spec->name, vm->id, (int)pid);
    if (vm_watch(vm, pidfd, err) < 0)
        return -1;
    return vm_attach(vm, err);
}

static int listen_on(const struct addrinfo *at, struct error *err)
{
    int yes = 1;
    auto_fd int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_errno(err, errno, "socket");
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(fd, at->ai_addr, at->ai_addrlen) < 0 || listen(fd, LISTEN_BACKLOG) < 0)
        return error_errno(err, errno, "cannot listen");
    return take_fd(&fd);
}

int launch_listen(const char *address, uint16_t first, uint16_t last, uint16_t *port,
                  struct error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    for (unsigned number = first; number <= last; number++) {
        struct addrinfo *found = NULL;
        char service[8];
        (void)snprintf(service, sizeof service, "%u", number);
        int status = getaddrinfo(address, service, &hints, &found);
        if (status != 0)
            return error_set(err, ERROR_USAGE, "migration address '%s': %s", address,
                             gai_strerror(status));
        int fd = listen_on(found, err);
        freeaddrinfo(found);
        if (fd >= 0) {
            *port = (uint16_t)number;
            return fd;
        }
        if (err->kind != ERROR_CONFLICT)
            return error_wrap(err, "%s port %u", address, number);
        error_clear(err);
    }
    return error_set(err, ERROR_NO_CAPACITY,
                     "all ports %u-%u for migrations are in use: widen --migration-ports", first,
                     last);
}

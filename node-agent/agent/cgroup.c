#include "node-agent/agent/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "node-agent/agent/files.h"

#define MOUNT         "/sys/fs/cgroup"
#define CGROUP2_MAGIC 0x63677270 /* statfs(2) */
#define PERIOD_US     100000u

static int write_value(int dir_fd, const char *file, const char *value, struct error *err)
{
    auto_fd int fd = openat(dir_fd, file, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, value, strlen(value)) < 0)
        return error_errno(err, errno, "cgroup %s", file);
    return 0;
}

static bool has_word(const char *text, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = strstr(text, word); at; at = strstr(at + 1, word))
        if ((at == text || at[-1] == ' ') &&
            (at[length] == ' ' || at[length] == '\n' || !at[length]))
            return true;
    return false;
}

static int open_mount(struct error *err)
{
    struct statfs info;
    auto_free char *controllers = NULL;
    size_t size;
    auto_fd int fd = open(MOUNT, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fstatfs(fd, &info) < 0 || info.f_type != CGROUP2_MAGIC)
        return error_set(err, ERROR_NOT_FOUND,
                         "no cgroup v2 at " MOUNT ": VMs get no CPU weight, limit or accounting "
                         "(boot the host with systemd.unified_cgroup_hierarchy=1)");
    if (files_read(fd, "cgroup.controllers", 4096, &controllers, &size, err) < 0)
        return -1;
    if (!has_word(controllers, "cpu") || !has_word(controllers, "memory"))
        return error_set(
            err, ERROR_NOT_FOUND,
            "cgroup v2 lacks the cpu or memory controller: VMs get no CPU weight, limit "
            "or accounting");
    return take_fd(&fd);
}

int cgroup_open(struct cgroup *cgroup, const char *name, struct error *err)
{
    cgroup->root_fd = -1;
    auto_fd int mount_fd = open_mount(err);
    if (mount_fd < 0 || write_value(mount_fd, "cgroup.subtree_control", "+cpu +memory", err) < 0)
        return -1;
    if (mkdirat(mount_fd, name, 0755) < 0 && errno != EEXIST)
        return error_errno(err, errno, "cannot create cgroup %s", name);
    auto_fd int root_fd = files_open_dir(mount_fd, name, err);
    if (root_fd < 0 || write_value(root_fd, "cgroup.subtree_control", "+cpu +memory", err) < 0)
        return -1;
    cgroup->root_fd = take_fd(&root_fd);
    return 0;
}

void cgroup_close(struct cgroup *cgroup)
{
    close_fd(&cgroup->root_fd);
}

static int write_limit(int dir_fd, unsigned vcpus, bool moving, struct error *err)
{
    char limit[48] = "max";
    if (!moving)
        (void)snprintf(limit, sizeof limit, "%u %u", vcpus * PERIOD_US + PERIOD_US / 2, PERIOD_US);
    return write_value(dir_fd, "cpu.max", limit, err);
}

int cgroup_limit(const struct cgroup *cgroup, const char *vm_id, unsigned vcpus, bool moving,
                 struct error *err)
{
    if (cgroup->root_fd < 0)
        return 0;
    auto_fd int dir_fd = files_open_dir(cgroup->root_fd, vm_id, err);
    return dir_fd < 0 ? -1 : write_limit(dir_fd, vcpus, moving, err);
}

int cgroup_add(struct cgroup *cgroup, const char *vm_id, unsigned vcpus, int *procs_fd,
               struct error *err)
{
    char weight[16];
    unsigned share = vcpus * 100;
    *procs_fd = -1;
    if (cgroup->root_fd < 0)
        return 0;
    if (mkdirat(cgroup->root_fd, vm_id, 0755) < 0 && errno != EEXIST)
        return error_errno(err, errno, "cannot create cgroup %s", vm_id);
    auto_fd int dir_fd = files_open_dir(cgroup->root_fd, vm_id, err);
    if (dir_fd < 0)
        return -1;
    (void)snprintf(weight, sizeof weight, "%u", share > 10000 ? 10000 : share);
    if (write_value(dir_fd, "cpu.weight", weight, err) < 0 ||
        write_limit(dir_fd, vcpus, false, err) < 0)
        return -1;
    *procs_fd = openat(dir_fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);
    return *procs_fd < 0 ? error_errno(err, errno, "cgroup.procs") : 0;
}

void cgroup_remove(struct cgroup *cgroup, const char *vm_id)
{
    if (cgroup->root_fd >= 0 && unlinkat(cgroup->root_fd, vm_id, AT_REMOVEDIR) < 0 &&
        errno != ENOENT)
        log_warn("cannot remove cgroup %s: %s", vm_id, strerror(errno));
}

bool cgroup_memory(const struct cgroup *cgroup, const char *vm_id, uint64_t *bytes)
{
    char name[96];
    struct error err = ERROR_INIT;
    auto_free char *text = NULL;
    size_t size;
    (void)snprintf(name, sizeof name, "%s/memory.current", vm_id);
    if (cgroup->root_fd < 0 || files_read(cgroup->root_fd, name, 64, &text, &size, &err) < 0)
        return false;
    *bytes = strtoull(text, NULL, 10);
    return true;
}

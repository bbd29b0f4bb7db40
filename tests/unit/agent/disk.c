#include "node-agent/agent/disk.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "node-agent/agent/files.h"

static const char vm_a[] = "aaaaaaaa-89ab-4def-8123-456789abcdef";
static const char vm_b[] = "bbbbbbbb-89ab-4def-8123-456789abcdef";
static char root[] = "/tmp/vmpool-disk-XXXXXX";
static char shared[64], storage[64], path[128];
static struct error err;

static void make(const char *name, size_t bytes)
{
    int fd = open(name, O_WRONLY | O_CREAT, 0600);
    cr_assert_geq(fd, 0, "%s", name);
    cr_assert_eq(ftruncate(fd, (off_t)bytes), 0);
    close(fd);
}

static void setup(void)
{
    cr_assert(mkdtemp(root));
    (void)snprintf(shared, sizeof shared, "%s/shared", root);
    (void)snprintf(storage, sizeof storage, "%s/storage", root);
    (void)snprintf(path, sizeof path, "%s/web.raw", shared);
    cr_assert_eq(mkdir(shared, 0700) | mkdir(storage, 0700), 0);
    make(path, 1 << 20);
}

static void teardown(void)
{
    struct error ignored = ERROR_INIT;
    (void)files_remove_tree(AT_FDCWD, root, &ignored);
}

TestSuite(disk, .init = setup, .fini = teardown);

static int try_open(const char *name, bool read_only, const char *vm)
{
    const char *allowed[] = {shared, storage};
    error_clear(&err);
    return disk_open_shared(name, read_only, vm, allowed, 2, storage, &err);
}

static int try_below(const char *name)
{
    char whole[256];
    (void)snprintf(whole, sizeof whole, "%s/%s", shared, name);
    return try_open(whole, false, vm_a);
}

Test(disk, a_file_in_an_allowed_folder_opens)
{
    int fd = try_open(path, false, vm_a);
    cr_assert_geq(fd, 0, "%s", err.text);
    cr_assert_eq(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
    cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    close(fd);
    fd = try_open(path, true, vm_a);
    cr_assert_eq(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
    close(fd);
}

Test(disk, nothing_leads_out_of_the_allowed_folder)
{
    char link[128];
    cr_assert_lt(try_below("../../../etc/passwd"), 0);
    cr_assert(strstr(err.text, "leads out"), "%s", err.text);
    (void)snprintf(link, sizeof link, "%s/link", shared);
    cr_assert_eq(symlink("/etc/passwd", link), 0);
    cr_assert_lt(try_below("link"), 0);
    cr_assert(strstr(err.text, "leads out"), "%s", err.text);
    cr_assert_lt(try_open("/etc/passwd", false, vm_a), 0);
    cr_assert(strstr(err.text, "--allow-disk-dir"), "%s", err.text);
    char sibling[128];
    (void)snprintf(sibling, sizeof sibling, "%s-other/x", shared);
    cr_assert_lt(try_open(sibling, false, vm_a), 0);
    cr_assert(strstr(err.text, "--allow-disk-dir"), "a common beginning is not the folder");
}

Test(disk, a_link_that_stays_inside_is_fine)
{
    char link[128];
    (void)snprintf(link, sizeof link, "%s/link", shared);
    cr_assert_eq(symlink("web.raw", link), 0);
    int fd = try_below("link");
    cr_assert_geq(fd, 0, "%s", err.text);
    close(fd);
}

Test(disk, only_files_and_block_devices_are_disks)
{
    char name[128];
    (void)snprintf(name, sizeof name, "%s/fifo", shared);
    cr_assert_eq(mkfifo(name, 0600), 0);
    cr_assert_lt(try_below("fifo"), 0);
    cr_assert(strstr(err.text, "neither"), "%s", err.text);
    (void)snprintf(name, sizeof name, "%s/folder", shared);
    cr_assert_eq(mkdir(name, 0700), 0);
    cr_assert_lt(try_below("folder"), 0);
    (void)snprintf(name, sizeof name, "%s/tiny", shared);
    make(name, 100);
    cr_assert_lt(try_below("tiny"), 0);
    cr_assert(strstr(err.text, "sector"), "%s", err.text);
    cr_assert_lt(try_below("absent"), 0);
    cr_assert_eq(err.kind, ERROR_NOT_FOUND);
}

Test(disk, the_agents_own_files_are_no_shared_disks)
{
    char name[256];
    (void)snprintf(name, sizeof name, "%s/images/x", storage);
    cr_assert_lt(try_open(name, false, vm_a), 0);
    cr_assert(strstr(err.text, "belongs to the agent"), "%s", err.text);
    (void)snprintf(name, sizeof name, "%s/%s/disk-0.raw", storage, vm_b);
    cr_assert_lt(try_open(name, false, vm_a), 0);
    cr_assert(strstr(err.text, "belongs to the agent"), "%s", err.text);
    (void)snprintf(name, sizeof name, "%s//%s/disk-0.raw", storage, vm_b);
    cr_assert_lt(try_open(name, false, vm_a), 0);
    cr_assert(strstr(err.text, "belongs to the agent"), "%s", err.text);
}

Test(disk, two_vms_never_share_a_disk_they_write)
{
    int a = try_open(path, false, vm_a);
    cr_assert_geq(a, 0);
    cr_assert_lt(try_open(path, false, vm_b), 0);
    cr_assert_eq(err.kind, ERROR_CONFLICT);
    cr_assert_lt(try_open(path, true, vm_b), 0, "not even to read");
    close(a);
    int b = try_open(path, false, vm_b);
    cr_assert_geq(b, 0, "%s", err.text);
    close(b);
}

Test(disk, both_ends_of_a_migration_hold_it_and_keep_others_out)
{
    int source = try_open(path, false, vm_a), target = try_open(path, false, vm_a);
    cr_assert_geq(source, 0);
    cr_assert_geq(target, 0, "%s", err.text);
    close(source);
    cr_assert_lt(try_open(path, false, vm_b), 0, "the target still has it");
    close(target);
    int b = try_open(path, false, vm_b);
    cr_assert_geq(b, 0, "%s", err.text);
    close(b);
}

Test(disk, readers_share_and_keep_writers_out)
{
    int a = try_open(path, true, vm_a), b = try_open(path, true, vm_b);
    cr_assert_geq(a, 0);
    cr_assert_geq(b, 0, "%s", err.text);
    cr_assert_lt(try_open(path, false, vm_a), 0);
    cr_assert_eq(err.kind, ERROR_CONFLICT);
    close(a);
    close(b);
}

Test(disk, the_lock_lives_with_the_process_that_inherited_it)
{
    int fd = try_open(path, false, vm_a), hold[2];
    cr_assert_eq(pipe(hold), 0);
    pid_t child = fork();
    if (child == 0) {
        char byte;
        close(hold[1]);
        _exit(read(hold[0], &byte, 1) == 0 ? 0 : 1);
    }
    close(fd); /* as the agent does after it started the VMM */
    cr_assert_lt(try_open(path, false, vm_b), 0, "the child holds it");
    close(hold[1]);
    cr_assert_eq(waitpid(child, NULL, 0), child);
    fd = try_open(path, false, vm_b);
    cr_assert_geq(fd, 0, "%s", err.text);
    close(fd);
}

Test(disk, a_disk_whose_folder_is_replaced_by_a_link_is_refused)
{
    char name[128], aside[128];
    (void)snprintf(name, sizeof name, "%s/sub", shared);
    (void)snprintf(aside, sizeof aside, "%s/aside", root);
    cr_assert_eq(mkdir(aside, 0700), 0);
    strcat(aside, "/disk.raw");
    make(aside, 4096);
    cr_assert_eq(symlink("../aside", name), 0);
    cr_assert_lt(try_below("sub/disk.raw"), 0);
    cr_assert(strstr(err.text, "leads out"), "%s", err.text);
}

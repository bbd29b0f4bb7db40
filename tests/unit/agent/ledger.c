#include "node-agent/agent/ledger.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "node-agent/agent/files.h"

static const char vm[] = "01234567-89ab-cdef-0123-456789abcdef";
static char path[] = "/tmp/vmpool-ledger-XXXXXX";
static int dir = -1;

static void setup(void)
{
    cr_assert(mkdtemp(path));
    dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_geq(dir, 0);
}

static void teardown(void)
{
    struct error err = ERROR_INIT;
    close(dir);
    cr_assert_eq(files_remove_tree(AT_FDCWD, path, &err), 0, "%s", err.text);
}

TestSuite(ledger, .init = setup, .fini = teardown);

Test(ledger, an_unknown_vm_has_seen_nothing)
{
    struct error err = ERROR_INIT;
    struct ledger_entry entry;
    cr_assert_eq(ledger_read(dir, vm, &entry, &err), 0);
    cr_assert_eq(entry.seen, 0);
    cr_assert_eq(ledger_check(dir, vm, 1, 1, &err), 0);
}

Test(ledger, an_epoch_lower_than_seen_is_refused)
{
    struct error err = ERROR_INIT;
    cr_assert_eq(ledger_raise(dir, vm, 5, 0, &err), 0);
    cr_assert_eq(ledger_raise(dir, vm, 3, 0, &err), 0, "lower is no error, and changes nothing");
    cr_assert_eq(ledger_check(dir, vm, 5, 1, &err), 0);
    cr_assert_eq(ledger_check(dir, vm, 4, 0, &err), -1);
    cr_assert_eq(err.kind, ERROR_CONFLICT);
}

Test(ledger, a_discarded_epoch_starts_no_new_copy)
{
    struct error err = ERROR_INIT;
    cr_assert_eq(ledger_raise(dir, vm, 5, 5, &err), 0);
    cr_assert_eq(ledger_check(dir, vm, 5, 0, &err), 0, "a repeated discard is fine");
    cr_assert_eq(ledger_check(dir, vm, 5, 1, &err), -1);
    cr_assert_eq(err.kind, ERROR_CONFLICT);
    cr_assert_eq(ledger_check(dir, vm, 6, 1, &err), 0);
}

Test(ledger, a_damaged_entry_is_an_error_not_a_zero)
{
    struct error err = ERROR_INIT;
    cr_assert_eq(files_write(dir, vm, "5", 1, 0600, &err), 0);
    cr_assert_eq(ledger_check(dir, vm, 9, 1, &err), -1);
    cr_assert(strstr(err.text, "damaged"));
}

static int keep_none(void *context, const char *vm_id)
{
    (void)context, (void)vm_id;
    return 0;
}

static int keep_all(void *context, const char *vm_id)
{
    (void)context;
    return strcmp(vm_id, vm) == 0;
}

Test(ledger, old_entries_go_unless_their_vm_is_here)
{
    struct error err = ERROR_INIT;
    struct ledger_entry entry;
    struct timespec old[2] = {{.tv_sec = time(NULL) - 100}, {.tv_sec = time(NULL) - 100}};
    cr_assert_eq(ledger_raise(dir, vm, 5, 0, &err), 0);
    ledger_prune(dir, 50, keep_none, NULL);
    cr_assert_eq(ledger_read(dir, vm, &entry, &err), 0);
    cr_assert_eq(entry.seen, 5, "young");
    cr_assert_eq(utimensat(dir, vm, old, 0), 0);
    ledger_prune(dir, 50, keep_all, NULL);
    cr_assert_eq(ledger_read(dir, vm, &entry, &err), 0);
    cr_assert_eq(entry.seen, 5, "kept");
    ledger_prune(dir, 50, keep_none, NULL);
    cr_assert_eq(ledger_read(dir, vm, &entry, &err), 0);
    cr_assert_eq(entry.seen, 0);
}

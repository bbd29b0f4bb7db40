#include "controller/store.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "controller/pb.h"
#include "proto/store.pb-c.h"

static char folder[64], path[96];

static void make_folder(void)
{
    (void)snprintf(folder, sizeof folder, "/tmp/vmpool-store-XXXXXX");
    cr_assert(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/store.db", folder);
}

static void remove_folder(void)
{
    char command[96];
    (void)snprintf(command, sizeof command, "rm -r %s", folder);
    cr_assert_eq(system(command), 0);
}

TestSuite(store, .init = make_folder, .fini = remove_folder, .timeout = 30);

static struct store *open_store(void)
{
    struct error err = ERROR_INIT;
    struct store *store = store_open(path, &err);
    cr_assert(store, "%s", err.text);
    return store;
}

static void put(struct store *store, const char *key, const char *name)
{
    Vmpool__Store__Node node = VMPOOL__STORE__NODE__INIT;
    char copy[64];
    (void)snprintf(copy, sizeof copy, "%s", name);
    node.name = copy;
    store_put(store, STORE_NODE, key, &node.base);
}

static void commit(struct store *store)
{
    struct error err = ERROR_INIT;
    cr_assert_eq(store_commit(store, &err), 0, "%s", err.text);
}

struct names {
    char text[256];
};

static int add_name(void *context, const char *key, const uint8_t *data, size_t size,
                    struct error *err)
{
    struct names *names = context;
    Vmpool__Store__Node *node = pb_unpack(&vmpool__store__node__descriptor, data, size, err);
    cr_assert(node);
    size_t used = strlen(names->text);
    (void)snprintf(names->text + used, sizeof names->text - used, "%s=%s ", key, node->name);
    pb_free(node);
    return 0;
}

static void assert_holds(struct store *store, const char *after, unsigned limit, const char *want)
{
    struct error err = ERROR_INIT;
    struct names names = {""};
    cr_assert_eq(store_read(store, STORE_NODE, after, limit, add_name, &names, &err), 0);
    cr_assert_str_eq(names.text, want);
}

Test(store, what_was_committed_is_there_after_opening_again)
{
    struct store *store = open_store();
    put(store, "b", "two");
    put(store, "a", "one");
    cr_assert(store_changed(store));
    commit(store);
    cr_assert_not(store_changed(store));
    put(store, "a", "changed");
    commit(store);
    store_delete(store, STORE_NODE, "b");
    put(store, "c", "three");
    commit(store);
    put(store, "d", "not committed");
    store_close(store);
    store = open_store();
    assert_holds(store, "", 0, "a=changed c=three ");
    store_close(store);
}

Test(store, keys_are_read_in_order_and_in_ranges)
{
    struct store *store = open_store();
    char key[STORE_NUMBER_SIZE], last[STORE_NUMBER_SIZE];
    struct error err = ERROR_INIT;
    put(store, store_number(100, key), "x");
    put(store, store_number(9, key), "y");
    put(store, store_number(11, key), "z");
    assert_holds(store, "", 2, "00000000000000000009=y 00000000000000000011=z ");
    assert_holds(store, store_number(9, key), 0, "00000000000000000011=z 00000000000000000100=x ");
    cr_assert_eq(store_last_key(store, STORE_NODE, last, sizeof last, &err), 0);
    cr_assert_str_eq(last, store_number(100, key));
    cr_assert_eq(store_last_key(store, STORE_VM, last, sizeof last, &err), 0);
    cr_assert_str_eq(last, "");
    commit(store);
    store_close(store);
}

Test(store, an_epoch_only_rises_and_a_fall_undoes_the_whole_transaction)
{
    struct error err = ERROR_INIT;
    struct store *store = open_store();
    uint64_t epoch = 99;
    cr_assert_eq(store_read_epoch(store, "vm", &epoch, &err), 0);
    cr_assert_eq(epoch, 0);
    store_raise_epoch(store, "vm", 5);
    commit(store);
    put(store, "a", "one");
    store_raise_epoch(store, "vm", 5);
    cr_assert_eq(store_commit(store, &err), -1);
    cr_assert_eq(err.kind, ERROR_CONFLICT);
    store_raise_epoch(store, "vm", 4);
    cr_assert_eq(store_commit(store, &err), -1);
    assert_holds(store, "", 0, "");
    store_raise_epoch(store, "vm", 6);
    commit(store);
    cr_assert_eq(store_read_epoch(store, "vm", &epoch, &err), 0);
    cr_assert_eq(epoch, 6);
    store_close(store);
}

Test(store, it_is_private_and_belongs_to_one_controller)
{
    struct error err = ERROR_INIT;
    struct stat info;
    struct store *store = open_store();
    put(store, "a", "one");
    commit(store);
    cr_assert_eq(stat(path, &info), 0);
    cr_assert_eq(info.st_mode & 0777, 0600);
    cr_assert_null(store_open(path, &err));
    cr_assert_eq(err.kind, ERROR_CONFLICT, "%s", err.text);
    cr_assert(strstr(err.text, "another pool-controller"), "%s", err.text);
    store_close(store);
}

/* Forked before the store is open here: SQLite knows what it has open itself, and would refuse the
 * second without looking at the lock on the file. */
Test(store, another_process_is_refused_as_long_as_it_is_open)
{
    int go[2];
    char byte;
    cr_assert_eq(pipe(go), 0);
    pid_t other = fork();
    cr_assert(other >= 0);
    if (other == 0) {
        struct error err = ERROR_INIT;
        bool asked = read(go[0], &byte, 1) == 1;
        _exit(!asked || store_open(path, &err) ? 1 : (int)err.kind);
    }
    struct store *store = open_store();
    cr_assert_eq(write(go[1], "g", 1), 1);
    int status = 0;
    cr_assert_eq(waitpid(other, &status, 0), other);
    cr_assert(WIFEXITED(status));
    cr_assert_eq(WEXITSTATUS(status), ERROR_CONFLICT);
    store_close(store);
    (void)close(go[0]);
    (void)close(go[1]);
}

Test(store, one_of_a_newer_vmpool_is_refused_and_unchanged)
{
    struct error err = ERROR_INIT;
    struct store *store = open_store();
    store_close(store);
    sqlite3 *db = NULL;
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(db, "PRAGMA user_version = 99", NULL, NULL, NULL), SQLITE_OK);
    (void)sqlite3_close(db);
    cr_assert_null(store_open(path, &err));
    cr_assert_eq(err.kind, ERROR_CONFLICT);
    cr_assert(strstr(err.text, "newer vmpool"), "%s", err.text);
}

Test(store, a_file_that_is_none_is_refused)
{
    struct error err = ERROR_INIT;
    FILE *file = fopen(path, "we");
    cr_assert(file);
    for (int i = 0; i < 1000; i++)
        (void)fputs("this is not a database ", file);
    (void)fclose(file);
    cr_assert_null(store_open(path, &err));
    cr_assert(strstr(err.text, path), "%s", err.text);
}

/* A file system that takes no more: RLIMIT_FSIZE stands for it. */
Test(store, a_full_disk_undoes_the_transaction_and_says_so)
{
    struct error err = ERROR_INIT;
    struct store *store = open_store();
    struct rlimit before, small;
    put(store, "a", "one");
    commit(store);
    (void)signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 40000;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    int status = 0;
    for (int i = 0; i < 1000 && status == 0; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "k%d", i);
        put(store, key, "a value that takes some room in the file");
        put(store, "a", "changed");
        status = store_commit(store, &err);
    }
    cr_assert_eq(status, -1);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
    put(store, "b", "goes on");
    commit(store);
    store_close(store);
}

/* kill -9 in the middle of many commits: each is there whole or not at all. */
Test(store, a_killed_writer_leaves_whole_transactions)
{
    for (int round = 0; round < 5; round++) {
        int ready[2];
        cr_assert_eq(pipe(ready), 0);
        pid_t child = fork();
        if (child == 0) {
            struct error err = ERROR_INIT;
            struct store *store = store_open(path, &err);
            if (!store)
                _exit(1);
            for (int i = 0;; i++) {
                char value[16];
                (void)snprintf(value, sizeof value, "%d", i);
                put(store, "first", value);
                put(store, "second", value);
                if (store_commit(store, &err) < 0)
                    _exit(1);
                if (i == 20 && write(ready[1], "x", 1) != 1)
                    _exit(1);
            }
            _exit(1);
        }
        char byte;
        cr_assert_eq(read(ready[0], &byte, 1), 1);
        cr_assert_eq(kill(child, SIGKILL), 0);
        cr_assert_eq(waitpid(child, NULL, 0), child);
        (void)close(ready[0]);
        (void)close(ready[1]);
        struct error err = ERROR_INIT;
        struct store *store = open_store();
        struct names names = {""};
        cr_assert_eq(store_read(store, STORE_NODE, "", 0, add_name, &names, &err), 0);
        int first = -1, second = -2;
        cr_assert_eq(sscanf(names.text, "first=%d second=%d", &first, &second), 2, "%s",
                     names.text);
        cr_assert_eq(first, second);
        cr_assert_geq(first, 20);
        store_close(store);
    }
}

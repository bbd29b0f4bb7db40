/*
 * The store on SQLite. One table of records and one of epochs:
 *
 *     record(kind INTEGER, key TEXT, value BLOB)    primary key (kind, key)
 *     epoch(vm TEXT PRIMARY KEY, value INTEGER)     only ever raised
 *
 * WAL with synchronous=FULL: a commit is on the disk when store_commit() returns. The exclusive
 * lock is held as long as the store is open, so that two controllers never share one.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "controller/pb.h"
#include "controller/store.h"

/* Step N brings a file of version N to N + 1. Never changed once released, only added to. */
static const char *const migrations[] = {
    "CREATE TABLE record(kind INTEGER NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,"
    "                    PRIMARY KEY(kind, key)) WITHOUT ROWID;"
    "CREATE TABLE epoch(vm TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;",
};
#define VERSION ((int)(sizeof migrations / sizeof *migrations))

enum statement { PUT, DELETE, RAISE, EPOCH, READ, LAST, STATEMENTS };

static const char *const statement_text[STATEMENTS] = {
    [PUT] = "INSERT INTO record(kind, key, value) VALUES(?1, ?2, ?3)"
            " ON CONFLICT(kind, key) DO UPDATE SET value = excluded.value",
    [DELETE] = "DELETE FROM record WHERE kind = ?1 AND key = ?2",
    [RAISE] = "INSERT INTO epoch(vm, value) VALUES(?1, ?2)"
              " ON CONFLICT(vm) DO UPDATE SET value = excluded.value"
              " WHERE excluded.value > value",
    [EPOCH] = "SELECT value FROM epoch WHERE vm = ?1",
    [READ] = "SELECT key, value FROM record WHERE kind = ?1 AND key > ?2 ORDER BY key LIMIT ?3",
    [LAST] = "SELECT key FROM record WHERE kind = ?1 ORDER BY key DESC LIMIT 1",
};

struct store {
    sqlite3 *db;
    sqlite3_stmt *statements[STATEMENTS];
    bool open_transaction;
    struct error failed; /* the first error of the open transaction */
};

static int sql_error(struct store *store, struct error *err, const char *what)
{
    int code = store->db ? sqlite3_errcode(store->db) : SQLITE_NOMEM;
    if (code == SQLITE_BUSY || code == SQLITE_LOCKED)
        return error_set(err, ERROR_CONFLICT,
                         "%s: another pool-controller uses this store: stop it, or choose another "
                         "--state-dir",
                         what);
    if (code == SQLITE_FULL)
        return error_set(err, ERROR_FAILED, "%s: the disk is full: free space on it", what);
    return error_set(err, ERROR_FAILED, "%s: %s", what,
                     store->db ? sqlite3_errmsg(store->db) : "out of memory");
}

static int run(struct store *store, const char *sql, struct error *err)
{
    if (sqlite3_exec(store->db, sql, NULL, NULL, NULL) == SQLITE_OK)
        return 0;
    return sql_error(store, err, "the store");
}

static int read_version(struct store *store, int *version, struct error *err)
{
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(store->db, "PRAGMA user_version", -1, &statement, NULL) != SQLITE_OK ||
        sqlite3_step(statement) != SQLITE_ROW) {
        (void)sqlite3_finalize(statement);
        return sql_error(store, err, "the store");
    }
    *version = sqlite3_column_int(statement, 0);
    (void)sqlite3_finalize(statement);
    return 0;
}

static int migrate(struct store *store, struct error *err)
{
    int version = 0;
    if (read_version(store, &version, err) < 0)
        return -1;
    if (version < 0 || version > VERSION)
        return error_set(err, ERROR_CONFLICT,
                         "the store was written by a newer vmpool (format %d, this one knows %d): "
                         "start the newer pool-controller",
                         version, VERSION);
    for (; version < VERSION; version++) {
        char number[64];
        (void)snprintf(number, sizeof number, "PRAGMA user_version = %d; COMMIT", version + 1);
        if (run(store, "BEGIN IMMEDIATE", err) < 0 || run(store, migrations[version], err) < 0 ||
            run(store, number, err) < 0)
            return -1;
    }
    return 0;
}

static int prepare(struct store *store, struct error *err)
{
    for (int i = 0; i < STATEMENTS; i++)
        if (sqlite3_prepare_v3(store->db, statement_text[i], -1, SQLITE_PREPARE_PERSISTENT,
                               &store->statements[i], NULL) != SQLITE_OK)
            return sql_error(store, err, "the store");
    return 0;
}

struct store *store_open(const char *path, struct error *err)
{
    /* Made here, so that it is private from the start; SQLite gives its WAL the same mode. Closed
     * before SQLite locks it: closing any descriptor of a file drops the process' locks on it. */
    auto_fd int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        (void)error_errno(err, errno, "cannot open the store %s", path);
        return NULL;
    }
    close_fd(&fd);
    struct store *store = mem_new(sizeof *store);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(path, &store->db, flags, NULL) != SQLITE_OK)
        (void)sql_error(store, err, "the store");
    else if (run(store,
                 "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;"
                 "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 2000;"
                 /* Takes the lock now rather than at the first write. */
                 "BEGIN EXCLUSIVE; COMMIT",
                 err) == 0 &&
             migrate(store, err) == 0 && prepare(store, err) == 0)
        return store;
    (void)error_wrap(err, "cannot open %s", path);
    store_close(store);
    return NULL;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    for (int i = 0; i < STATEMENTS; i++)
        (void)sqlite3_finalize(store->statements[i]);
    (void)sqlite3_close(store->db);
    free(store);
}

/* ---- writing ---- */

static void fail(struct store *store)
{
    if (store->failed.kind == ERROR_NONE)
        (void)sql_error(store, &store->failed, "cannot write the store");
}

/* False where the transaction has failed already and nothing more is worth writing. */
static bool begin(struct store *store)
{
    struct error err = ERROR_INIT;
    if (!store->open_transaction) {
        store->open_transaction = true;
        error_clear(&store->failed);
        if (run(store, "BEGIN IMMEDIATE", &err) < 0)
            store->failed = err;
    }
    return store->failed.kind == ERROR_NONE;
}

static void step(struct store *store, enum statement which)
{
    if (sqlite3_step(store->statements[which]) != SQLITE_DONE)
        fail(store);
    (void)sqlite3_reset(store->statements[which]);
    (void)sqlite3_clear_bindings(store->statements[which]);
}

void store_put(struct store *store, enum store_kind kind, const char *key,
               const ProtobufCMessage *value)
{
    if (!begin(store))
        return;
    size_t size = 0;
    auto_free uint8_t *data = pb_pack(value, &size);
    sqlite3_stmt *statement = store->statements[PUT];
    (void)sqlite3_bind_int(statement, 1, (int)kind);
    (void)sqlite3_bind_text(statement, 2, key, -1, SQLITE_STATIC);
    (void)sqlite3_bind_blob64(statement, 3, data, size, SQLITE_STATIC);
    step(store, PUT);
}

void store_delete(struct store *store, enum store_kind kind, const char *key)
{
    if (!begin(store))
        return;
    (void)sqlite3_bind_int(store->statements[DELETE], 1, (int)kind);
    (void)sqlite3_bind_text(store->statements[DELETE], 2, key, -1, SQLITE_STATIC);
    step(store, DELETE);
}

void store_raise_epoch(struct store *store, const char *vm_id, uint64_t epoch)
{
    if (!begin(store))
        return;
    (void)sqlite3_bind_text(store->statements[RAISE], 1, vm_id, -1, SQLITE_STATIC);
    (void)sqlite3_bind_int64(store->statements[RAISE], 2, (sqlite3_int64)epoch);
    step(store, RAISE);
    if (store->failed.kind == ERROR_NONE && sqlite3_changes(store->db) != 1)
        (void)error_set(&store->failed, ERROR_CONFLICT,
                        "epoch %" PRIu64 " of VM %s is not higher than those given out before",
                        epoch, vm_id);
}

bool store_changed(const struct store *store)
{
    return store->open_transaction;
}

int store_commit(struct store *store, struct error *err)
{
    if (!store->open_transaction)
        return 0;
    store->open_transaction = false;
    if (store->failed.kind == ERROR_NONE &&
        sqlite3_exec(store->db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK)
        return 0;
    fail(store);
    *err = store->failed;
    (void)sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
    return -1;
}

/* ---- reading ---- */

int store_read_epoch(struct store *store, const char *vm_id, uint64_t *epoch, struct error *err)
{
    sqlite3_stmt *statement = store->statements[EPOCH];
    (void)sqlite3_bind_text(statement, 1, vm_id, -1, SQLITE_STATIC);
    int code = sqlite3_step(statement);
    *epoch = code == SQLITE_ROW ? (uint64_t)sqlite3_column_int64(statement, 0) : 0;
    int status = code == SQLITE_ROW || code == SQLITE_DONE
                     ? 0
                     : sql_error(store, err, "cannot read the store");
    (void)sqlite3_reset(statement);
    return status;
}

int store_read(struct store *store, enum store_kind kind, const char *after, unsigned limit,
               store_read_fn call, void *context, struct error *err)
{
    sqlite3_stmt *statement = store->statements[READ];
    int status = 0, code = SQLITE_DONE;
    (void)sqlite3_bind_int(statement, 1, (int)kind);
    (void)sqlite3_bind_text(statement, 2, after, -1, SQLITE_TRANSIENT);
    (void)sqlite3_bind_int64(statement, 3, limit ? (sqlite3_int64)limit : -1);
    while (status == 0 && (code = sqlite3_step(statement)) == SQLITE_ROW)
        status = call(context, (const char *)sqlite3_column_text(statement, 0),
                      sqlite3_column_blob(statement, 1), (size_t)sqlite3_column_bytes(statement, 1),
                      err);
    if (status == 0 && code != SQLITE_DONE)
        status = sql_error(store, err, "cannot read the store");
    (void)sqlite3_reset(statement);
    return status;
}

int store_last_key(struct store *store, enum store_kind kind, char *key, size_t size,
                   struct error *err)
{
    sqlite3_stmt *statement = store->statements[LAST];
    (void)sqlite3_bind_int(statement, 1, (int)kind);
    int code = sqlite3_step(statement);
    const char *text = code == SQLITE_ROW ? (const char *)sqlite3_column_text(statement, 0) : NULL;
    (void)snprintf(key, size, "%s", text ? text : "");
    int status = code == SQLITE_ROW || code == SQLITE_DONE
                     ? 0
                     : sql_error(store, err, "cannot read the store");
    (void)sqlite3_reset(statement);
    return status;
}

const char *store_number(uint64_t number, char out[STORE_NUMBER_SIZE])
{
    (void)snprintf(out, STORE_NUMBER_SIZE, "%020" PRIu64, number);
    return out;
}

/*
 * store.h: what the controller must not forget.
 *
 * Records are protobuf messages (proto/store.proto) under a kind and a key, read in the order of
 * their keys. Changes gather in one transaction until store_commit() makes all of them durable at
 * once, or none. That, and nothing of SQL, is what a back end has to offer, so that etcd's
 * transactions and key ranges will do as well.
 *
 * Writing functions return nothing: the first error is kept and comes out of store_commit(), before
 * which nobody may act on what was written.
 */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

struct store;

enum store_kind {
    STORE_NODE = 1,
    STORE_TOKEN,
    STORE_ADMIN,
    STORE_VM,
    STORE_IMAGE,
    STORE_JOB,   /* key: store_number() of its id */
    STORE_EVENT, /* likewise */
    STORE_REPLY,
    STORE_SETTING,   /* key: the option's name */
    STORE_DEPARTURE, /* key: store_number() of its place in the order */
};

/* Opens or creates the store at @path (0600). A second controller on the same file is
 * ERROR_CONFLICT; a file of a newer vmpool is refused; an older one is brought up to date. */
struct store *store_open(const char *path, struct error *err);
/* What was not committed is undone. NULL is fine. */
void store_close(struct store *store);

/* Adds or replaces a record. */
void store_put(struct store *store, enum store_kind kind, const char *key,
               const ProtobufCMessage *value);
void store_delete(struct store *store, enum store_kind kind, const char *key);

/* Notes that epochs of a VM were given out up to @epoch. One that is not higher than all before is
 * an error of the transaction: an epoch only rises, also for a VM that was removed. */
void store_raise_epoch(struct store *store, const char *vm_id, uint64_t epoch);
/* The highest epoch ever noted; 0: the VM never existed. */
int store_read_epoch(struct store *store, const char *vm_id, uint64_t *epoch, struct error *err);

/* True where something waits for store_commit(). */
bool store_changed(const struct store *store);
int store_commit(struct store *store, struct error *err);

/* Called with each record; -1 with the error set ends the reading. */
typedef int (*store_read_fn)(void *context, const char *key, const uint8_t *data, size_t size,
                             struct error *err);
/* Reads the records of a kind in the order of their keys: those after @after ("": from the first),
 * at most @limit (0: all). Sees what was written and not committed too. */
int store_read(struct store *store, enum store_kind kind, const char *after, unsigned limit,
               store_read_fn call, void *context, struct error *err);
/* The last key of a kind; "" where there is none. */
int store_last_key(struct store *store, enum store_kind kind, char *key, size_t size,
                   struct error *err);

/* A number as a key that sorts as the number does. */
#define STORE_NUMBER_SIZE 21
const char *store_number(uint64_t number, char out[STORE_NUMBER_SIZE]);

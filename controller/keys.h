/*
 * keys.h: who may speak: each CURVE key the controller knows, and its class.
 *
 * A key's class decides which messages it may send at all: a token's key may only join, a node's
 * only speak as that node, an admin's only ask.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "controller/controller.h"
#include "proto/store.pb-c.h"

enum key_class { KEY_NONE, KEY_NODE, KEY_ADMIN, KEY_TOKEN };

/* How long an expired or used token is still remembered, so that who brings it can be told why it
 * is refused. */
#define TOKEN_REMEMBERED_MS (24ull * 3600 * 1000)
#define TOKEN_DEFAULT_MS    (3600ull * 1000)
#define TOKEN_MAX_MS        (7ull * 24 * 3600 * 1000)
#define TOKENS_MAX          1000

struct keys *keys_new(void);
void keys_free(struct keys *keys);

/* Where @key may speak, @user becomes "node:ID", "admin:NAME" or "token:ID". */
bool keys_name(const struct keys *keys, const uint8_t key[32], char *user, size_t size);
/* Splits what keys_name() made. @id points into @user. */
enum key_class keys_class(const char *user, const char **id);

/* -1 with ERROR_CONFLICT where the key is known already. */
int keys_add(struct keys *keys, enum key_class class, const char *id, const uint8_t key[32],
             struct error *err);
void keys_remove(struct keys *keys, const uint8_t key[32]);

/* Takes @stored. */
int keys_add_token(struct keys *keys, Vmpool__Store__Token *stored, struct error *err);
Vmpool__Store__Token *keys_token(const struct keys *keys, const char *id);
size_t keys_token_count(const struct keys *keys);
/* Forgets tokens that ended longer than TOKEN_REMEMBERED_MS ago. Called by the tick. */
void keys_prune(struct controller *controller, uint64_t now_wall_ms);

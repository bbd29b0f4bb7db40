#include "controller/keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/link.h"
#include "common/name_map.h"
#include "controller/pb.h"

struct key {
    struct key *next;
    char hex[LINK_HEX_SIZE];
    char user[LINK_USER_MAX];
    Vmpool__Store__Token *token; /* of KEY_TOKEN */
};

struct keys {
    struct key *all;
    struct name_map by_hex;
    size_t tokens;
};

static const char *const prefixes[] = {
    [KEY_NODE] = "node:", [KEY_ADMIN] = "admin:", [KEY_TOKEN] = "token:"};

struct keys *keys_new(void)
{
    return mem_new(sizeof(struct keys));
}

static void free_key(struct key *key)
{
    pb_free(key->token);
    free(key);
}

void keys_free(struct keys *keys)
{
    if (!keys)
        return;
    while (keys->all) {
        struct key *key = keys->all;
        keys->all = key->next;
        free_key(key);
    }
    name_map_free(&keys->by_hex);
    free(keys);
}

bool keys_name(const struct keys *keys, const uint8_t key[32], char *user, size_t size)
{
    char hex[LINK_HEX_SIZE];
    link_key_format(key, hex);
    const struct key *known = name_map_get(&keys->by_hex, hex);
    if (known)
        (void)snprintf(user, size, "%s", known->user);
    return known != NULL;
}

enum key_class keys_class(const char *user, const char **id)
{
    for (enum key_class class = KEY_NODE; class <= KEY_TOKEN; class ++) {
        size_t length = strlen(prefixes[class]);
        if (strncmp(user, prefixes[class], length) == 0) {
            *id = user + length;
            return class;
        }
    }
    return KEY_NONE;
}

static struct key *add(struct keys *keys, enum key_class class, const char *id,
                       const uint8_t raw[32], struct error *err)
{
    struct key *key = mem_new(sizeof *key);
    link_key_format(raw, key->hex);
    (void)snprintf(key->user, sizeof key->user, "%s%s", prefixes[class], id);
    if (name_map_get(&keys->by_hex, key->hex)) {
        (void)error_set(err, ERROR_CONFLICT, "this key is known already");
        free(key);
        return NULL;
    }
    if (name_map_add(&keys->by_hex, key->hex, key, err) < 0) {
        free(key);
        return NULL;
    }
    key->next = keys->all;
    keys->all = key;
    return key;
}

int keys_add(struct keys *keys, enum key_class class, const char *id, const uint8_t key[32],
             struct error *err)
{
    return add(keys, class, id, key, err) ? 0 : -1;
}

static void remove_key(struct keys *keys, struct key *key)
{
    struct key **at = &keys->all;
    while (*at != key)
        at = &(*at)->next;
    *at = key->next;
    name_map_remove(&keys->by_hex, key->hex);
    keys->tokens -= key->token != NULL;
    free_key(key);
}

void keys_remove(struct keys *keys, const uint8_t raw[32])
{
    char hex[LINK_HEX_SIZE];
    link_key_format(raw, hex);
    struct key *key = name_map_get(&keys->by_hex, hex);
    if (key)
        remove_key(keys, key);
}

int keys_add_token(struct keys *keys, Vmpool__Store__Token *stored, struct error *err)
{
    struct key *key = add(keys, KEY_TOKEN, stored->id, stored->public_key.data, err);
    if (!key) {
        pb_free(stored);
        return -1;
    }
    key->token = stored;
    keys->tokens++;
    return 0;
}

Vmpool__Store__Token *keys_token(const struct keys *keys, const char *id)
{
    for (const struct key *key = keys->all; key; key = key->next)
        if (key->token && strcmp(key->token->id, id) == 0)
            return key->token;
    return NULL;
}

size_t keys_token_count(const struct keys *keys)
{
    return keys->tokens;
}

void keys_prune(struct controller *controller, uint64_t now_wall_ms)
{
    struct keys *keys = controller->keys;
    for (struct key *next, *key = keys->all; key; key = next) {
        next = key->next;
        if (!key->token || key->token->expires_wall_ms + TOKEN_REMEMBERED_MS > now_wall_ms)
            continue;
        store_delete(controller->store, STORE_TOKEN, key->token->id);
        controller_touch(controller);
        remove_key(keys, key);
    }
}

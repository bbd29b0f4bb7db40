/*
 * identity.h: who this node is and which controller it belongs to, kept in the state folder.
 *
 *     node.key             the node's CURVE key pair (common/link.h), 0600
 *     controller.context   lines "address HOST:PORT" and "server <64 hex>": written once the
 *                          controller has accepted the node; its presence means "joined"
 *
 * The key is saved before the join is sent. An agent that dies between the controller's yes and
 * writing the context is therefore still known by its key: uplink.c tries it where the token is
 * refused as used.
 */
#pragma once

#include <stdbool.h>

#include "common/error.h"
#include "common/link.h"

struct identity {
    struct link_keys keys;
    char address[256];
    uint8_t server_key[32];
    bool joined;
};

/* Creates @state_dir (0700) and the key where missing and reads the context where there is one. */
int identity_load(const char *state_dir, struct identity *identity, struct error *err);

/* Writes the context with @identity's address and server key, and marks it joined. */
int identity_save_context(const char *state_dir, struct identity *identity, struct error *err);

/*
 * link.h: control connections: ZeroMQ ROUTER (server) and DEALER (client), CURVE always on.
 *
 * A peer is known by its CURVE public key alone. The server asks authorise() about each key at the
 * handshake (ZAP, RFC 27); what it refuses never delivers a byte to message(). Messages are single
 * frames of at most LINK_MESSAGE_MAX bytes. All callbacks run on the loop.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/loop.h"

#define LINK_MESSAGE_MAX  (4u << 20)
#define LINK_DEFAULT_PORT 7400
#define LINK_USER_MAX     80

/* A CURVE key pair, raw. */
struct link_keys {
    uint8_t public_key[32];
    uint8_t secret_key[32];
};

int link_keys_generate(struct link_keys *keys, struct error *err);
/* Files hold "public <64 hex>\nsecret <64 hex>\n" and are created 0600; a file others may read is
 * refused with the chmod that mends it. load_or_create makes the file where it is missing. */
int link_keys_load(const char *path, struct link_keys *keys, struct error *err);
int link_keys_save(const char *path, const struct link_keys *keys, struct error *err);
int link_keys_load_or_create(const char *path, struct link_keys *keys, struct error *err);

#define LINK_HEX_SIZE 65
/* A key as 64 hex digits, and back; @what names the key in the error. */
void link_key_format(const uint8_t key[32], char out[LINK_HEX_SIZE]);
int link_key_parse(const char *text, const char *what, uint8_t key[32], struct error *err);

/* A join token: "vmpool1." and the base64url of the controller's address, its public key, and the
 * secret key of a pair made for this one join. The controller knows the pair's public half. */
struct link_token {
    char address[256]; /* host:port */
    uint8_t server_key[32];
    struct link_keys join_keys;
};
int link_token_format(const struct link_token *token, char *out, size_t size, struct error *err);
int link_token_parse(const char *text, struct link_token *token, struct error *err);

/* ---- server ---- */
struct link_server;
/* Where to send an answer; plain data, may be copied and kept. */
struct link_peer {
    uint8_t routing_id[16];
    uint8_t routing_length;
    char user[LINK_USER_MAX]; /* as authorise() named it: "node:ID", "admin:NAME", "token:ID" */
    char address[64];         /* of the peer, for logs */
};

struct link_server_events {
    /* Fills @user (LINK_USER_MAX bytes) and returns true where @key may speak. */
    bool (*authorise)(void *context, const uint8_t key[32], const char *address, char *user);
    void (*message)(void *context, const struct link_peer *peer, const uint8_t *data, size_t size);
    /* A stranger or garbage was refused; called at most once per address and 10 s. */
    void (*refused)(void *context, const char *address, const char *reason);
};

/* Binds @address ("0.0.0.0:7400", "[::]:7400"; port 0 takes a free one). A port in use is
 * ERROR_CONFLICT and says whose option to change. */
struct link_server *link_server_open(struct loop *loop, const char *address,
                                     const struct link_keys *keys,
                                     const struct link_server_events *events, void *context,
                                     struct error *err);
void link_server_close(struct link_server *server);
/* host:port really bound, owned by the server. */
const char *link_server_address(const struct link_server *server);
/* Queues one message; never blocks. Returns 0, or 1 where the peer has left and the message was
 * dropped (which is no error), or -1 where its queue is full. */
int link_server_send(struct link_server *server, const struct link_peer *peer, const void *data,
                     size_t size, struct error *err);

/* ---- client ---- */
struct link_client;
struct link_client_events {
    void (*connected)(void *context); /* handshake done; also after each reconnect */
    void (*disconnected)(void *context);
    void (*message)(void *context, const uint8_t *data, size_t size);
    /* The server does not accept our key, or is not the server whose key we were given. The client
     * goes on trying; close it where that is pointless. */
    void (*refused)(void *context, const char *reason);
};

/* Starts connecting and keeps reconnecting by itself, with heartbeats that notice a dead peer in 10
 * s. */
struct link_client *link_client_open(struct loop *loop, const char *address,
                                     const uint8_t server_key[32], const struct link_keys *keys,
                                     const struct link_client_events *events, void *context,
                                     struct error *err);
void link_client_close(struct link_client *client);

/* One ZeroMQ context, and so two threads, for all clients of a program that has very many. Freed
 * after its clients. NULL where memory ran out. */
struct link_context;
struct link_context *link_context_new(void);
void link_context_free(struct link_context *context);
struct link_client *link_client_open_in(struct link_context *in, struct loop *loop,
                                        const char *address, const uint8_t server_key[32],
                                        const struct link_keys *keys,
                                        const struct link_client_events *events, void *context,
                                        struct error *err);
/* Queues one message; refused with ERROR_UNREACHABLE while not connected. */
int link_client_send(struct link_client *client, const void *data, size_t size, struct error *err);

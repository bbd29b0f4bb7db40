/*
 * seal.h: keys and authenticated encryption of a migration's connections.
 *
 * From the 32-byte migration key K, with HKDF-SHA256 (RFC 5869):
 *   hello key          info "vmpool hello",                     no salt
 *   connection keys    info "vmpool stream", index, direction;  salt: both nonces of the hello
 * Each connection and direction has a key of its own, so the frame number can be the nonce.
 * A frame is AES-256-OCB (RFC 7253) with 12 bytes of nonce, the number little-endian, and 16 of
 * tag.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "node-agent/migration/stream.h"

#define SEAL_KEY_BYTES   32
#define SEAL_BLOCK_BYTES 16u

/* MAC of a hello (@second NULL) or, over hello and reply, of a reply. */
int seal_mac(const uint8_t key[SEAL_KEY_BYTES], const void *first, size_t first_size,
             const void *second, size_t second_size, uint8_t mac[STREAM_MAC_BYTES],
             struct error *err);
/* 0 where the two are equal, in constant time. */
int seal_compare(const void *a, const void *b, size_t size);
int seal_random(void *out, size_t size, struct error *err);

/* Before the first seal_new() of a process, and again as often as one likes: that the library is
 * there and can do AES-256-OCB. */
int seal_ready(struct error *err);

struct seal; /* one direction of one connection */

enum seal_direction { SEAL_TO_TARGET = 0, SEAL_TO_SOURCE = 1 };
enum seal_use { SEAL_ENCRYPT, SEAL_DECRYPT };

struct seal *seal_new(const uint8_t key[SEAL_KEY_BYTES], const uint8_t source_nonce[],
                      const uint8_t target_nonce[], unsigned index, enum seal_direction direction,
                      enum seal_use use, struct error *err);
void seal_free(struct seal *seal);

/* One frame: begin with its header, then its payload in pieces, of which all but the last are
 * multiples of SEAL_BLOCK_BYTES, then the tag. What is sealed must stand still meanwhile: OCB reads
 * it twice. @in and @out are the same or do not overlap. What
 * seal_update() gave out of a decryption counts only once seal_open_end() returned 0; a failure of
 * the library is told by seal_end() and seal_open_end(). */
void seal_begin(struct seal *seal, const uint8_t header[STREAM_HEADER_BYTES]);
void seal_update(struct seal *seal, const void *in, size_t size, void *out);
int seal_end(struct seal *seal, uint8_t tag[STREAM_TAG_BYTES], struct error *err);
int seal_open_end(struct seal *seal, const uint8_t tag[STREAM_TAG_BYTES], struct error *err);

/* hash.h: SHA-256 over data that comes in parts. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct hash;

/* NULL where memory ran out. */
struct hash *hash_new(void);
void hash_free(struct hash *hash);
void hash_restart(struct hash *hash);
void hash_add(struct hash *hash, const void *data, size_t size);
/* Ends the hash and compares it with 64 lower-case hexadecimal digits; hash_restart() before the
 * next use. */
bool hash_matches(struct hash *hash, const char *hex);

#include "node-agent/agent/hash.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct hash {
    EVP_MD_CTX *context;
    bool broken; /* OpenSSL failed: then nothing matches */
};

struct hash *hash_new(void)
{
    struct hash *hash = calloc(1, sizeof *hash);
    if (hash)
        hash->context = EVP_MD_CTX_new();
    if (!hash || !hash->context) {
        free(hash);
        return NULL;
    }
    hash_restart(hash);
    return hash;
}

void hash_free(struct hash *hash)
{
    if (!hash)
        return;
    EVP_MD_CTX_free(hash->context);
    free(hash);
}

void hash_restart(struct hash *hash)
{
    hash->broken = EVP_DigestInit_ex(hash->context, EVP_sha256(), NULL) != 1;
}

void hash_add(struct hash *hash, const void *data, size_t size)
{
    if (EVP_DigestUpdate(hash->context, data, size) != 1)
        hash->broken = true;
}

bool hash_matches(struct hash *hash, const char *hex)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    char text[2 * EVP_MAX_MD_SIZE + 1];
    unsigned size = 0;
    if (EVP_DigestFinal_ex(hash->context, digest, &size) != 1 || hash->broken)
        return false;
    for (unsigned i = 0; i < size; i++)
        (void)snprintf(text + (size_t)i * 2, 3, "%02x", digest[i]);
    return strcmp(text, hex) == 0;
}

#include "node-agent/migration/seal.h"

#include <intel-ipsec-mb.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#define GCM_NONCE_BYTES 12
#define VECTOR_BYTES    64u /* the widest register: keys are loaded by it */

struct seal_cipher {
    IMB_MGR *manager; /* only its table of functions is used, which threads may share */
};

struct seal {
    struct gcm_key_data key;
    struct gcm_context_data context;
    IMB_MGR *manager;
    uint64_t frame; /* number of the next one */
    enum seal_use use;
};

static int crypto_error(struct error *err, const char *what)
{
    return error_set(err, ERROR_FAILED, "libcrypto cannot %s", what);
}

static int derive(const uint8_t key[SEAL_KEY_BYTES], const void *salt, size_t salt_size,
                  const void *info, size_t info_size, uint8_t out[SEAL_KEY_BYTES],
                  struct error *err)
{
    char digest[] = "SHA256";
    uint8_t secret[SEAL_KEY_BYTES], info_copy[64], salt_copy[64];
    if (info_size > sizeof(info_copy) || salt_size > sizeof(salt_copy))
        return crypto_error(err, "derive a key of so much");
    memcpy(secret, key, sizeof(secret));
    memcpy(info_copy, info, info_size);
    if (salt_size)
        memcpy(salt_copy, salt, salt_size);
    OSSL_PARAM params[5] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, secret, sizeof(secret)),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info_copy, info_size),
        OSSL_PARAM_construct_end(),
        OSSL_PARAM_construct_end(),
    };
    if (salt_size)
        params[3] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, salt_copy, salt_size);
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *context = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
    int done = context ? EVP_KDF_derive(context, out, SEAL_KEY_BYTES, params) : 0;
    EVP_KDF_CTX_free(context);
    EVP_KDF_free(kdf);
    OPENSSL_cleanse(secret, sizeof(secret));
    return done == 1 ? 0 : crypto_error(err, "derive a key");
}

int seal_mac(const uint8_t key[SEAL_KEY_BYTES], const void *first, size_t first_size,
             const void *second, size_t second_size, uint8_t mac[STREAM_MAC_BYTES],
             struct error *err)
{
    static const char info[] = "vmpool hello";
    uint8_t hello_key[SEAL_KEY_BYTES];
    char digest[] = "SHA256";
    if (derive(key, NULL, 0, info, sizeof(info) - 1, hello_key, err) < 0)
        return -1;
    OSSL_PARAM params[2] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                            OSSL_PARAM_construct_end()};
    size_t size = 0;
    EVP_MAC *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    EVP_MAC_CTX *context = hmac ? EVP_MAC_CTX_new(hmac) : NULL;
    bool done = context && EVP_MAC_init(context, hello_key, sizeof(hello_key), params) == 1 &&
                EVP_MAC_update(context, first, first_size) == 1 &&
                (!second || EVP_MAC_update(context, second, second_size) == 1) &&
                EVP_MAC_final(context, mac, &size, STREAM_MAC_BYTES) == 1;
    EVP_MAC_CTX_free(context);
    EVP_MAC_free(hmac);
    OPENSSL_cleanse(hello_key, sizeof(hello_key));
    return done && size == STREAM_MAC_BYTES ? 0 : crypto_error(err, "compute a MAC");
}

int seal_compare(const void *a, const void *b, size_t size)
{
    return CRYPTO_memcmp(a, b, size) == 0 ? 0 : -1;
}

int seal_random(void *out, size_t size, struct error *err)
{
    return RAND_bytes(out, (int)size) == 1 ? 0 : crypto_error(err, "make random bytes");
}

struct seal_cipher *seal_cipher_new(struct error *err)
{
    struct seal_cipher *cipher = calloc(1, sizeof(*cipher));
    IMB_MGR *manager = cipher ? alloc_mb_mgr(0) : NULL;
    IMB_ARCH arch = IMB_ARCH_NONE;
    if (manager)
        init_mb_mgr_auto(manager, &arch);
    if (arch == IMB_ARCH_NONE) {
        error_set(err, ERROR_FAILED, "this processor cannot do AES-256-GCM: %s",
                  manager ? imb_get_strerror(imb_get_errno(manager)) : "out of memory");
        free_mb_mgr(manager);
        free(cipher);
        return NULL;
    }
    cipher->manager = manager;
    return cipher;
}

void seal_cipher_free(struct seal_cipher *cipher)
{
    if (!cipher)
        return;
    free_mb_mgr(cipher->manager);
    free(cipher);
}

struct seal *seal_new(const struct seal_cipher *cipher, const uint8_t key[SEAL_KEY_BYTES],
                      const uint8_t source_nonce[], const uint8_t target_nonce[], unsigned index,
                      enum seal_direction direction, enum seal_use use, struct error *err)
{
    uint8_t salt[2 * STREAM_NONCE_BYTES], info[15] = "vmpool stream", own[SEAL_KEY_BYTES];
    memcpy(salt, source_nonce, STREAM_NONCE_BYTES);
    memcpy(salt + STREAM_NONCE_BYTES, target_nonce, STREAM_NONCE_BYTES);
    info[13] = (uint8_t)index;
    info[14] = (uint8_t)direction;
    if (derive(key, salt, sizeof(salt), info, sizeof(info), own, err) < 0)
        return NULL;
    size_t size = (sizeof(struct seal) + VECTOR_BYTES - 1) / VECTOR_BYTES * VECTOR_BYTES;
    struct seal *seal = aligned_alloc(VECTOR_BYTES, size);
    if (seal) {
        memset(seal, 0, sizeof(*seal));
        seal->manager = cipher->manager;
        seal->use = use;
        IMB_AES256_GCM_PRE(seal->manager, own, &seal->key);
    } else {
        error_set(err, ERROR_FAILED, "out of memory for a key");
    }
    OPENSSL_cleanse(own, sizeof(own));
    return seal;
}

void seal_free(struct seal *seal)
{
    if (!seal)
        return;
    OPENSSL_cleanse(seal, sizeof(*seal));
    free(seal);
}

void seal_begin(struct seal *seal, const uint8_t header[STREAM_HEADER_BYTES])
{
    uint8_t nonce[GCM_NONCE_BYTES] = {0};
    for (unsigned i = 0; i < 8; i++)
        nonce[i] = (uint8_t)(seal->frame >> (8 * i));
    seal->frame++;
    IMB_AES256_GCM_INIT(seal->manager, &seal->key, &seal->context, nonce, header,
                        STREAM_HEADER_BYTES);
}

void seal_update(struct seal *seal, const void *in, size_t size, void *out)
{
    if (seal->use == SEAL_ENCRYPT)
        IMB_AES256_GCM_ENC_UPDATE(seal->manager, &seal->key, &seal->context, out, in, size);
    else
        IMB_AES256_GCM_DEC_UPDATE(seal->manager, &seal->key, &seal->context, out, in, size);
}

void seal_end(struct seal *seal, uint8_t tag[STREAM_TAG_BYTES])
{
    IMB_AES256_GCM_ENC_FINALIZE(seal->manager, &seal->key, &seal->context, tag, STREAM_TAG_BYTES);
}

int seal_open_end(struct seal *seal, const uint8_t tag[STREAM_TAG_BYTES], struct error *err)
{
    uint8_t expected[STREAM_TAG_BYTES];
    IMB_AES256_GCM_DEC_FINALIZE(seal->manager, &seal->key, &seal->context, expected,
                                sizeof(expected));
    if (seal_compare(expected, tag, sizeof(expected)) != 0)
        return error_set(err, ERROR_FAILED, "a frame of the migration was tampered with");
    return 0;
}

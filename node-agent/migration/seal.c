#include "node-agent/migration/seal.h"

#include <errno.h>
#include <gcrypt.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define NONCE_BYTES 12

struct seal {
    gcry_cipher_hd_t cipher;
    uint64_t frame; /* number of the next one */
    enum seal_use use;
    bool last;            /* the frame's last piece has been taken */
    gcry_error_t failure; /* of this frame, the first */
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

static int cipher_error(struct error *err, gcry_error_t failure)
{
    return error_set(err, ERROR_FAILED, "libgcrypt cannot do AES-256-OCB: %s",
                     gcry_strerror(failure));
}

int seal_ready(struct error *err)
{
    if (!gcry_control(GCRYCTL_INITIALIZATION_FINISHED_P)) {
        if (!gcry_check_version(GCRYPT_VERSION))
            return error_set(err, ERROR_FAILED, "libgcrypt is older than %s", GCRYPT_VERSION);
        gcry_error_t failure = gcry_control(GCRYCTL_DISABLE_SECMEM, 0);
        if (!failure)
            failure = gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
        if (failure)
            return cipher_error(err, failure);
    }
    gcry_error_t failure = gcry_cipher_test_algo(GCRY_CIPHER_AES256);
    return failure ? cipher_error(err, failure) : 0;
}

struct seal *seal_new(const uint8_t key[SEAL_KEY_BYTES], const uint8_t source_nonce[],
                      const uint8_t target_nonce[], unsigned index, enum seal_direction direction,
                      enum seal_use use, struct error *err)
{
    uint8_t salt[2 * STREAM_NONCE_BYTES], info[15] = "vmpool stream", own[SEAL_KEY_BYTES];
    memcpy(salt, source_nonce, STREAM_NONCE_BYTES);
    memcpy(salt + STREAM_NONCE_BYTES, target_nonce, STREAM_NONCE_BYTES);
    info[13] = (uint8_t)index;
    info[14] = (uint8_t)direction;
    if (derive(key, salt, sizeof(salt), info, sizeof(info), own, err) < 0)
        return NULL;
    struct seal *seal = calloc(1, sizeof(*seal));
    gcry_error_t failure = seal ? 0 : gcry_error_from_errno(ENOMEM);
    if (!failure)
        failure = gcry_cipher_open(&seal->cipher, GCRY_CIPHER_AES256, GCRY_CIPHER_MODE_OCB, 0);
    if (!failure)
        failure = gcry_cipher_setkey(seal->cipher, own, sizeof(own));
    OPENSSL_cleanse(own, sizeof(own));
    if (failure) {
        (void)cipher_error(err, failure);
        seal_free(seal);
        return NULL;
    }
    seal->use = use;
    return seal;
}

void seal_free(struct seal *seal)
{
    if (!seal)
        return;
    gcry_cipher_close(seal->cipher); /* wipes the key; nothing where NULL */
    free(seal);
}

static void note(struct seal *seal, gcry_error_t failure)
{
    if (!seal->failure)
        seal->failure = failure;
}

void seal_begin(struct seal *seal, const uint8_t header[STREAM_HEADER_BYTES])
{
    uint8_t nonce[NONCE_BYTES] = {0};
    for (unsigned i = 0; i < 8; i++)
        nonce[i] = (uint8_t)(seal->frame >> (8 * i));
    seal->frame++;
    seal->last = false;
    seal->failure = gcry_cipher_setiv(seal->cipher, nonce, sizeof(nonce));
    note(seal, gcry_cipher_authenticate(seal->cipher, header, STREAM_HEADER_BYTES));
}

/* Of the last piece the library wants to be told beforehand. */
static void take(struct seal *seal, const void *in, size_t size, void *out, bool last)
{
    if (last)
        note(seal, gcry_cipher_final(seal->cipher));
    seal->last |= last;
    note(seal, seal->use == SEAL_ENCRYPT ? gcry_cipher_encrypt(seal->cipher, out, size, in, size)
                                         : gcry_cipher_decrypt(seal->cipher, out, size, in, size));
}

void seal_update(struct seal *seal, const void *in, size_t size, void *out)
{
    if (size > 0)
        take(seal, in, size, out, size % SEAL_BLOCK_BYTES != 0);
}

/* The last piece of whole blocks could not be known for the last one: nothing follows it. */
static void finish(struct seal *seal)
{
    uint8_t nothing[SEAL_BLOCK_BYTES] = {0};
    if (!seal->last)
        take(seal, nothing, 0, nothing, true);
}

int seal_end(struct seal *seal, uint8_t tag[STREAM_TAG_BYTES], struct error *err)
{
    finish(seal);
    note(seal, gcry_cipher_gettag(seal->cipher, tag, STREAM_TAG_BYTES));
    return seal->failure ? cipher_error(err, seal->failure) : 0;
}

int seal_open_end(struct seal *seal, const uint8_t tag[STREAM_TAG_BYTES], struct error *err)
{
    finish(seal);
    if (seal->failure)
        return cipher_error(err, seal->failure);
    if (gcry_cipher_checktag(seal->cipher, tag, STREAM_TAG_BYTES))
        return error_set(err, ERROR_FAILED, "a frame of the migration was tampered with");
    return 0;
}

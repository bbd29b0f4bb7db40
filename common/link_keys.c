/*
 * Keys and tokens: pure formats and their files.
 *
 * Token: "vmpool1." base64url( server key 32 | join secret key 32 | check 4 | address ), where
 * check is the first bytes of the BLAKE2b hash of all the rest, so that a token copied in part is
 * noticed before it is sent anywhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/link.h"

#define TOKEN_PREFIX "vmpool1."
#define TOKEN_CHECK  4
#define TOKEN_FIXED  (32 + 32 + TOKEN_CHECK)

static int sodium_ready(struct error *err)
{
    return sodium_init() >= 0 ? 0 : error_set(err, ERROR_FAILED, "libsodium does not start");
}

void link_key_format(const uint8_t key[32], char out[LINK_HEX_SIZE])
{
    (void)sodium_bin2hex(out, LINK_HEX_SIZE, key, 32);
}

int link_key_parse(const char *text, const char *what, uint8_t key[32], struct error *err)
{
    size_t length = 0;
    const char *end = NULL;
    if (sodium_hex2bin(key, 32, text, strlen(text), NULL, &length, &end) != 0 || length != 32 ||
        *end != '\0')
        return error_set(err, ERROR_USAGE, "%s must be 64 hex digits", what);
    return 0;
}

int link_keys_generate(struct link_keys *keys, struct error *err)
{
    if (sodium_ready(err) < 0)
        return -1;
    /* CURVE keys are those of crypto_box (RFC 26). */
    (void)crypto_box_keypair(keys->public_key, keys->secret_key);
    return 0;
}

static int check_private(int fd, const char *path, struct error *err)
{
    struct stat info;
    if (fstat(fd, &info) < 0)
        return error_errno(err, errno, "%s", path);
    if (!S_ISREG(info.st_mode))
        return error_set(err, ERROR_FAILED, "%s is not a regular file", path);
    if (info.st_mode & 077)
        return error_set(err, ERROR_FAILED,
                         "others may read the key file %s: run \"chmod 600 %s\", and make a new "
                         "key if they did",
                         path, path);
    return 0;
}

int link_keys_load(const char *path, struct link_keys *keys, struct error *err)
{
    auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "cannot open the key file %s", path);
    if (check_private(fd, path, err) < 0)
        return -1;
    char text[256] = "";
    ssize_t size = read(fd, text, sizeof text - 1);
    if (size < 0)
        return error_errno(err, errno, "cannot read the key file %s", path);
    char public_hex[LINK_HEX_SIZE] = "", secret_hex[LINK_HEX_SIZE] = "";
    uint8_t derived[32];
    bool good =
        sscanf(text, "public %64[0-9a-fA-F]\nsecret %64[0-9a-fA-F]", public_hex, secret_hex) == 2 &&
        link_key_parse(public_hex, "the public key", keys->public_key, err) == 0 &&
        link_key_parse(secret_hex, "the secret key", keys->secret_key, err) == 0 &&
        crypto_scalarmult_base(derived, keys->secret_key) == 0 &&
        memcmp(derived, keys->public_key, sizeof derived) == 0;
    sodium_memzero(text, sizeof text);
    sodium_memzero(secret_hex, sizeof secret_hex);
    return good ? 0
                : error_set(err, ERROR_FAILED,
                            "%s holds no key pair: restore it from a backup, or move it away to "
                            "make a new one",
                            path);
}

int link_keys_save(const char *path, const struct link_keys *keys, struct error *err)
{
    char public_hex[LINK_HEX_SIZE], secret_hex[LINK_HEX_SIZE], temporary[4096];
    int length = snprintf(temporary, sizeof temporary, "%s.new", path);
    if (length < 0 || (size_t)length >= sizeof temporary)
        return error_errno(err, ENAMETOOLONG, "%s", path);
    /* A whole file or none: written beside it, made durable, then renamed over it. */
    (void)unlink(temporary);
    auto_fd int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_errno(err, errno, "cannot write the key file %s", temporary);
    link_key_format(keys->public_key, public_hex);
    link_key_format(keys->secret_key, secret_hex);
    bool written =
        dprintf(fd, "public %s\nsecret %s\n", public_hex, secret_hex) > 0 && fsync(fd) == 0;
    sodium_memzero(secret_hex, sizeof secret_hex);
    if (!written || rename(temporary, path) < 0) {
        (void)error_errno(err, errno, "cannot write the key file %s", path);
        (void)unlink(temporary);
        return -1;
    }
    return 0;
}

int link_keys_load_or_create(const char *path, struct link_keys *keys, struct error *err)
{
    if (access(path, F_OK) == 0 || errno != ENOENT)
        return link_keys_load(path, keys, err);
    if (link_keys_generate(keys, err) < 0)
        return -1;
    return link_keys_save(path, keys, err);
}

/* The check bytes of a token's other parts. */
static void token_check(const struct link_token *token, uint8_t check[TOKEN_CHECK])
{
    uint8_t hash[crypto_generichash_BYTES];
    crypto_generichash_state state;
    (void)crypto_generichash_init(&state, NULL, 0, sizeof hash);
    (void)crypto_generichash_update(&state, token->server_key, 32);
    (void)crypto_generichash_update(&state, token->join_keys.secret_key, 32);
    (void)crypto_generichash_update(&state, (const uint8_t *)token->address,
                                    strlen(token->address));
    (void)crypto_generichash_final(&state, hash, sizeof hash);
    memcpy(check, hash, TOKEN_CHECK);
}

int link_token_format(const struct link_token *token, char *out, size_t size, struct error *err)
{
    uint8_t raw[TOKEN_FIXED + sizeof token->address];
    size_t address_length = strlen(token->address);
    size_t raw_size = TOKEN_FIXED + address_length;
    size_t prefix = strlen(TOKEN_PREFIX);
    size_t needed =
        prefix + sodium_base64_encoded_len(raw_size, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    if (sodium_ready(err) < 0)
        return -1;
    if (needed > size)
        return error_set(err, ERROR_FAILED, "a token needs %zu bytes", needed);
    memcpy(raw, token->server_key, 32);
    memcpy(raw + 32, token->join_keys.secret_key, 32);
    token_check(token, raw + 64);
    memcpy(raw + TOKEN_FIXED, token->address, address_length);
    (void)snprintf(out, size, "%s", TOKEN_PREFIX);
    (void)sodium_bin2base64(out + prefix, size - prefix, raw, raw_size,
                            sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    sodium_memzero(raw, sizeof raw);
    return 0;
}

int link_token_parse(const char *text, struct link_token *token, struct error *err)
{
    uint8_t raw[TOKEN_FIXED + sizeof token->address];
    size_t size = 0;
    const char *end = NULL;
    size_t prefix = strlen(TOKEN_PREFIX);
    memset(token, 0, sizeof *token);
    if (sodium_ready(err) < 0)
        return -1;
    if (strncmp(text, TOKEN_PREFIX, prefix) != 0)
        return error_set(err, ERROR_USAGE,
                         "a join token starts with \"" TOKEN_PREFIX
                         "\": make one with \"poolctl node token\"");
    if (sodium_base642bin(raw, sizeof raw - 1, text + prefix, strlen(text + prefix), NULL, &size,
                          &end, sodium_base64_VARIANT_URLSAFE_NO_PADDING) != 0 ||
        *end != '\0' || size <= TOKEN_FIXED)
        return error_set(err, ERROR_USAGE, "the join token is damaged: copy it again, whole");
    uint8_t check[TOKEN_CHECK];
    memcpy(token->server_key, raw, 32);
    memcpy(token->join_keys.secret_key, raw + 32, 32);
    memcpy(token->address, raw + TOKEN_FIXED, size - TOKEN_FIXED);
    token_check(token, check);
    if (memcmp(check, raw + 64, TOKEN_CHECK) != 0 || strlen(token->address) != size - TOKEN_FIXED ||
        crypto_scalarmult_base(token->join_keys.public_key, token->join_keys.secret_key) != 0)
        return error_set(err, ERROR_USAGE, "the join token is damaged: copy it again, whole");
    return 0;
}

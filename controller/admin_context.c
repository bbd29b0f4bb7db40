/*
 * STATE_DIR/admin.context:
 *
 *     address HOST:PORT
 *     server <64 hex digits>       the controller's public key
 *     public <64 hex digits>       the admin's key pair
 *     secret <64 hex digits>
 */
#include "controller/admin_context.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "controller/keys.h"
#include "controller/pb.h"

#define ADMIN_NAME "admin"

int admin_context_address(const struct config *config, const char *bound, char *out, size_t size,
                          struct error *err)
{
    char host[256] = "localhost";
    const char *colon = strrchr(bound, ':');
    if (config->advertise[0]) {
        const char *port = strrchr(config->advertise, ':');
        if (!port || port == config->advertise || strlen(config->advertise) >= size ||
            strpbrk(config->advertise, " /@"))
            return error_set(err, ERROR_USAGE, "--advertise \"%s\" is not HOST:PORT",
                             config->advertise);
        (void)snprintf(out, size, "%s", config->advertise);
        return 0;
    }
    if (strncmp(bound, "0.0.0.0:", 8) != 0 && strncmp(bound, "[::]:", 5) != 0) {
        (void)snprintf(out, size, "%s", bound);
        return 0;
    }
    if (gethostname(host, sizeof host - 1) < 0)
        return error_errno(err, errno, "the host has no name: give --advertise HOST:PORT");
    (void)snprintf(out, size, "%s%s", host, colon);
    return 0;
}

static int write_file(struct controller *controller, const char *path, const struct link_keys *keys,
                      struct error *err)
{
    char temporary[4200], server[LINK_HEX_SIZE], public[LINK_HEX_SIZE], secret[LINK_HEX_SIZE];
    (void)snprintf(temporary, sizeof temporary, "%s.new", path);
    (void)unlink(temporary);
    auto_fd int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_errno(err, errno, "cannot write %s", temporary);
    link_key_format(controller->own_keys.public_key, server);
    link_key_format(keys->public_key, public);
    link_key_format(keys->secret_key, secret);
    if (dprintf(fd, "address %s\nserver %s\npublic %s\nsecret %s\n", controller->address, server,
                public, secret) < 0 ||
        fsync(fd) < 0 || rename(temporary, path) < 0)
        return error_errno(err, errno, "cannot write %s", path);
    return 0;
}

/* The key pair of a context made before; -1 without an error where there is none to be used. */
static int read_keys(const char *path, struct link_keys *keys)
{
    struct error err = ERROR_INIT;
    char text[1024] = "", public[LINK_HEX_SIZE] = "", secret[LINK_HEX_SIZE] = "";
    auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
        return -1;
    const char *keys_at = strstr(text, "\npublic ");
    if (!keys_at ||
        sscanf(keys_at, "\npublic %64[0-9a-f]\nsecret %64[0-9a-f]", public, secret) != 2)
        return -1;
    return link_key_parse(public, "the public key", keys->public_key, &err) == 0 &&
                   link_key_parse(secret, "the secret key", keys->secret_key, &err) == 0
               ? 0
               : -1;
}

int admin_context_ensure(struct controller *controller, struct error *err)
{
    char path[4100], user[LINK_USER_MAX];
    struct link_keys keys;
    (void)snprintf(path, sizeof path, "%s/admin.context", controller->config.state_dir);
    if (read_keys(path, &keys) == 0 &&
        keys_name(controller->keys, keys.public_key, user, sizeof user) &&
        strcmp(user, "admin:" ADMIN_NAME) == 0)
        return write_file(controller, path, &keys, err);
    Vmpool__Store__Admin stored = VMPOOL__STORE__ADMIN__INIT;
    if (link_keys_generate(&keys, err) < 0 ||
        keys_add(controller->keys, KEY_ADMIN, ADMIN_NAME, keys.public_key, err) < 0)
        return -1;
    char name[] = ADMIN_NAME, key[LINK_HEX_SIZE];
    link_key_format(keys.public_key, key);
    stored.name = name;
    stored.public_key = (ProtobufCBinaryData){32, keys.public_key};
    store_put(controller->store, STORE_ADMIN, key, &stored.base);
    log_info("made a key for the admin of this host: %s", path);
    return write_file(controller, path, &keys, err);
}

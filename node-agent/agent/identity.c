#include "node-agent/agent/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "node-agent/agent/files.h"

static int parse_context(char *text, struct identity *identity)
{
    bool have_address = false, have_server = false;
    struct error ignored = ERROR_INIT;
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n"));) {
        if (strncmp(line, "address ", 8) == 0) {
            int length = snprintf(identity->address, sizeof identity->address, "%s", line + 8);
            have_address = length > 0 && length < (int)sizeof identity->address;
        } else if (strncmp(line, "server ", 7) == 0) {
            have_server = link_key_parse(line + 7, "server", identity->server_key, &ignored) == 0;
        }
    }
    return have_address && have_server ? 0 : -1;
}

int identity_load(const char *state_dir, struct identity *identity, struct error *err)
{
    char path[PATH_MAX];
    auto_free char *text = NULL;
    size_t size;
    *identity = (struct identity){0};
    if (files_make_dirs(state_dir, 0700, err) < 0)
        return error_wrap(err, "--state-dir");
    if (snprintf(path, sizeof path, "%s/node.key", state_dir) >= (int)sizeof path)
        return error_set(err, ERROR_USAGE, "--state-dir is too long");
    if (link_keys_load_or_create(path, &identity->keys, err) < 0)
        return error_wrap(err, "the node's key");

    auto_fd int dir = files_open_dir(AT_FDCWD, state_dir, err);
    if (dir < 0)
        return -1;
    if (files_read(dir, "controller.context", 4096, &text, &size, err) < 0) {
        if (err->kind != ERROR_NOT_FOUND)
            return -1;
        error_clear(err);
        return 0;
    }
    if (parse_context(text, identity) < 0)
        return error_set(
            err, ERROR_FAILED,
            "%s/controller.context is damaged; remove it and join again with a new token",
            state_dir);
    identity->joined = true;
    return 0;
}

int identity_save_context(const char *state_dir, struct identity *identity, struct error *err)
{
    char hex[LINK_HEX_SIZE], text[512];
    link_key_format(identity->server_key, hex);
    int length = snprintf(text, sizeof text, "address %s\nserver %s\n", identity->address, hex);
    auto_fd int dir = files_open_dir(AT_FDCWD, state_dir, err);
    if (dir < 0)
        return -1;
    if (files_write(dir, "controller.context", text, (size_t)length, 0600, err) < 0)
        return -1;
    identity->joined = true;
    return 0;
}

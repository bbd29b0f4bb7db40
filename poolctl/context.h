/*
 * context.h: which controller to talk to, and as whom.
 *
 * A context is a small file: "address HOST:PORT", "server HEX" (the controller's public key),
 * "public HEX" and "secret HEX" (the admin's own pair), one a line. It holds a secret key, so a
 * file that others may read is refused. Looked for in this order: --context, $VMPOOL_CONTEXT (each
 * a name or a path with a slash), the current context, and the file the controller makes on its own
 * host. Named contexts are $XDG_CONFIG_HOME/vmpool/contexts/NAME (default ~/.config); the name of
 * the current one stands in .../vmpool/current.
 */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"
#include "common/link.h"
#include "poolctl/invocation.h"

#define CONTEXT_LOCAL    "/var/lib/vmpool/controller/admin.context"
#define CONTEXT_NAME_MAX 63

struct context {
    char name[CONTEXT_NAME_MAX + 1]; /* empty: a file given by its path */
    char file[PATH_MAX];
    char address[256];
    uint8_t server_key[32];
    struct link_keys keys;
};

/* Finds and reads the context @call asks for. One that is missing is
 * ERROR_USAGE; ERROR_NOT_FOUND would read as "no such VM". */
int context_resolve(const struct invocation *call, struct context *context, struct error *err);

/* Reads @file; only the fields name and file are left untouched on failure. */
int context_read(const char *file, struct context *context, struct error *err);

/* Saves a context under @name, made 0600; ERROR_CONFLICT where the name is taken. */
int context_save(const char *name, const struct context *context, struct error *err);

/* The folder of named contexts, the file of @name in it, the name of the current one ("" where none
 * is). */
int context_folder(char *out, size_t size, struct error *err);
int context_path(const char *name, char *out, size_t size, struct error *err);
void context_current(char *out, size_t size);
/* Makes @name the current context; "" for none. */
int context_set_current(const char *name, struct error *err);

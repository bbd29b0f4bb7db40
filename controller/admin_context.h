/* admin_context.h: the first admin, whom poolctl on this host speaks for. */
#pragma once

#include "controller/controller.h"

/* The address nodes and admins reach the controller at: --advertise, or made from where it listens:
 * a wildcard becomes the host's name. */
int admin_context_address(const struct config *config, const char *bound, char *out, size_t size,
                          struct error *err);

/* Makes STATE_DIR/admin.context (0600) and the key "admin" where they are missing, and writes the
 * file anew where the address has changed. */
int admin_context_ensure(struct controller *controller, struct error *err);

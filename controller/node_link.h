/* node_link.h: what agents say to the controller, and what they are answered. */
#pragma once

#include "common/link.h"
#include "controller/controller.h"

/* A message from a peer with a node's key, and one with a token's. @id: as keys_class() gave it. */
void node_link_message(struct controller *controller, const struct link_peer *peer, const char *id,
                       const uint8_t *data, size_t size);
void node_link_join(struct controller *controller, const struct link_peer *peer, const char *id,
                    const uint8_t *data, size_t size);

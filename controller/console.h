/* console.h: sessions between an admin and a VM's console; the controller only passes bytes on. */
#pragma once

#include "common/link.h"
#include "controller/controller.h"
#include "controller/nodes.h"
#include "controller/vms.h"

#define CONSOLES_MAX      256
#define CONSOLE_INPUT_MAX 65536

/* Opens a session; what comes of it is sent as replies to @request_id. */
int console_open(struct controller *controller, const struct vm *vm, const struct link_peer *peer,
                 const char *request_id, struct error *err);
void console_input(struct controller *controller, const struct link_peer *peer,
                   const Vmpool__ConsoleInput *input);
void console_from_node(struct controller *controller, const struct node *node,
                       const Vmpool__NodeConsoleData *data);
/* The admin left: its sessions end. */
void consoles_drop_peer(struct controller *controller, const struct link_peer *peer);
void consoles_free(struct controller *controller);

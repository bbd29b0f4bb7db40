/*
 * unix_socket.h: Unix sockets named relative to a folder's descriptor, so that neither the length
 * of the folder's path nor a change of it matters.
 */
#pragma once

#include "common/error.h"

/* Listens on @name below @dir_fd (an old socket of that name is replaced), reachable by root only.
 * @type: SOCK_STREAM or SOCK_SEQPACKET. Returns the descriptor. */
int unix_socket_listen(int dir_fd, const char *name, int type, struct error *err);

/* Connects, non-blocking. ERROR_UNREACHABLE where nobody listens any more. */
int unix_socket_connect(int dir_fd, const char *name, int type, struct error *err);

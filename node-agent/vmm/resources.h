/*
 * resources.h: everything the VMM needs from outside, opened before privileges are dropped.
 *
 * Each text is a path (or what the option says) or "fd:N", an inherited descriptor. All functions
 * return a descriptor that is closed on exec, or -1.
 */
#pragma once

#include <stdbool.h>

#include "common/error.h"

/* A file or block device; @what names the option in errors. */
int resources_open_file(const char *text, const char *what, bool read_only, struct error *err);

/* A tap interface with IFF_NO_PI | IFF_VNET_HDR; made where it does not exist. */
int resources_open_tap(const char *text, struct error *err);

/* A Unix socket of @type (SOCK_STREAM or SOCK_SEQPACKET) that listens at a path; what a VMM that is
 * gone left there is replaced. */
int resources_listen_unix(const char *text, int type, const char *what, struct error *err);

/* A TCP socket that listens on "ADDRESS:PORT", numeric; "[...]" around an IPv6 address. */
int resources_listen_tcp(const char *text, struct error *err);

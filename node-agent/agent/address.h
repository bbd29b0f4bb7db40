/* address.h: which of this host's addresses others reach it at. */
#pragma once

#include <stddef.h>

#include "common/error.h"

/* The numeric local address the kernel would use towards @peer ("host:port", "[v6]:port"); nothing
 * is sent. */
int address_towards(const char *peer, char *out, size_t size, struct error *err);

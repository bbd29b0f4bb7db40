/*
 * names.h: what a name, hash or address that came over the network may look like.
 *
 * The agent makes paths, interface names and command lines of these words, so each is checked
 * letter by letter before its first use; nothing that passes here can leave a folder or become an
 * option.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define VM_ID_LENGTH      36 /* "01234567-89ab-cdef-0123-456789abcdef" */
#define SHA256_HEX_LENGTH 64

/* A UUID in lower case with its four dashes. */
bool name_is_uuid(const char *text);
/* A node's name: [a-z0-9][a-z0-9-]{0,62} */
bool name_is_node(const char *text);
/* A VM's name, which becomes part of a process's command line: [A-Za-z0-9][A-Za-z0-9._-]{0,62} */
bool name_is_vm(const char *text);
/* 64 hexadecimal digits in lower case. */
bool name_is_sha256(const char *text);
/* A network interface's name: 1 to 15 of [A-Za-z0-9._-], not "." or "..". */
bool name_is_interface(const char *text);
/* A unicast address "52:54:00:xx:xx:xx" with lower-case digits; @mac (6 bytes) may be NULL. */
bool name_is_mac(const char *text, unsigned char *mac);
/* Printable ASCII of at most @max characters; empty is fine. */
bool text_is_printable(const char *text, size_t max);

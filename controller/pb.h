/*
 * pb.h: protobuf-c messages as values: set a string, copy, pack, and unpack what is hostile.
 *
 * These few functions end the process where memory runs out (abort): each allocates at most what a
 * checked message needs, the store is whole at every moment, and no VM depends on the controller.
 */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/* Zeroed memory; never NULL. */
void *mem_new(size_t size);
/* A copy on the heap. */
char *text_copy(const char *text);
char *text_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Replaces a message's string field; "" is the default. @text may be the field itself. */
void pb_set(char **field, const char *text);
void pb_setf(char **field, const char *format, ...) __attribute__((format(printf, 2, 3)));
void pb_set_bytes(ProtobufCBinaryData *field, const void *data, size_t size);

/* Appends @item to a repeated field of pointers: pb_push(&m->vms, &m->n_vms, vm). */
void pb_push(void *array, size_t *count, void *item);
void pb_push_text(char ***array, size_t *count, const char *text);

/* Packed bytes on the heap. */
uint8_t *pb_pack(const ProtobufCMessage *message, size_t *size);
/* A deep copy; NULL for NULL. Free with protobuf_c_message_free_unpacked(). */
void *pb_copy(const ProtobufCMessage *message);
void pb_free(void *message);

/* Unpacks bytes from outside. Refuses what would need more than PB_UNPACK_MAX bytes of memory, as a
 * few bytes on the wire can ask for many. NULL with ERROR_USAGE. */
#define PB_UNPACK_MAX (32u << 20)
void *pb_unpack(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t size,
                struct error *err);

/* A Failure on the heap. */
void *pb_failure(const struct error *err);

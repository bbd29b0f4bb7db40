/*
 * message.h: protobuf messages as JSON, by the message's own description.
 *
 * A key is the field's name in proto/, so units stand in the names and a field that is added there
 * shows up by itself. Every field is always present: numbers and strings with their default, a
 * message that is not set as null, lists possibly empty. Enum values are lower case without the
 * prefix of their type ("NODE_UP" is "up"); a list of Label is an object; bytes are hexadecimal;
 * the members of a oneof are left out unless set. 64-bit numbers above 2^63-1 become 2^63-1.
 */
#pragma once

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>

#include "common/error.h"

/* Version of the shape of all JSON and YAML output; raised when a key changes its meaning or goes
 * away, not when one is added. */
#define MESSAGE_SCHEMA_VERSION 1

/* A new reference, or NULL where memory ran out. */
json_t *message_to_json(const ProtobufCMessage *message, struct error *err);

/* { "schema_version": 1, @key: @value }; takes over @value, NULL included, which gives NULL. */
json_t *message_document(const char *key, json_t *value, struct error *err);

/* Value at a path of keys such as "spec.image.name"; NULL where there is none. Borrowed. */
json_t *message_at(const json_t *object, const char *path);

/* As message_at() for a string and a whole number; "" and 0 where it is not one. */
const char *message_text(const json_t *object, const char *path);
json_int_t message_number(const json_t *object, const char *path);

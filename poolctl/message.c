#include "poolctl/message.h"

#include <ctype.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

static json_t *enum_to_json(const ProtobufCEnumDescriptor *descriptor, int value)
{
    char name[64];
    const ProtobufCEnumValue *found = protobuf_c_enum_descriptor_get_value(descriptor, value);
    if (!found) {
        (void)snprintf(name, sizeof name, "unknown-%d", value);
        return json_string(name);
    }
    const char *underscore = strchr(found->name, '_');
    (void)snprintf(name, sizeof name, "%s", underscore ? underscore + 1 : found->name);
    for (char *at = name; *at; at++)
        *at = *at == '_' ? '-' : (char)tolower((unsigned char)*at);
    return json_string(name);
}

static json_t *bytes_to_json(const ProtobufCBinaryData *bytes)
{
    auto_free char *text = malloc(bytes->len * 2 + 1);
    if (!text)
        return NULL;
    text[0] = '\0';
    for (size_t i = 0; i < bytes->len; i++)
        (void)snprintf(text + 2 * i, 3, "%02x", bytes->data[i]);
    return json_string(text);
}

static json_t *unsigned_to_json(uint64_t value)
{
    return json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value);
}

/* A string from the controller may be anything; jansson takes valid UTF-8 only. */
static json_t *text_to_json(const char *text)
{
    if (!text)
        text = "";
    json_t *value = json_string(text);
    if (value)
        return value;
    char *copy = strdup(text);
    for (char *at = copy; at && *at; at++)
        if ((unsigned char)*at >= 0x80)
            *at = '?';
    value = copy ? json_string(copy) : NULL;
    free(copy);
    return value;
}

/* JSON knows no NaN and no infinity. */
static json_t *real_to_json(double value)
{
    return json_real(isfinite(value) ? value : 0);
}

static json_t *value_to_json(const ProtobufCFieldDescriptor *field, const void *at)
{
    struct error ignored = ERROR_INIT;
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        return json_integer(*(const int32_t *)at);
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        return json_integer(*(const uint32_t *)at);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return json_integer(*(const int64_t *)at);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return unsigned_to_json(*(const uint64_t *)at);
    case PROTOBUF_C_TYPE_FLOAT:
        return real_to_json((double)*(const float *)at);
    case PROTOBUF_C_TYPE_DOUBLE:
        return real_to_json(*(const double *)at);
    case PROTOBUF_C_TYPE_BOOL:
        return json_boolean(*(const protobuf_c_boolean *)at);
    case PROTOBUF_C_TYPE_ENUM:
        return enum_to_json(field->descriptor, *(const int *)at);
    case PROTOBUF_C_TYPE_STRING:
        return text_to_json(*(char *const *)at);
    case PROTOBUF_C_TYPE_BYTES:
        return bytes_to_json(at);
    case PROTOBUF_C_TYPE_MESSAGE: {
        const ProtobufCMessage *message = *(ProtobufCMessage *const *)at;
        return message ? message_to_json(message, &ignored) : json_null();
    }
    }
    return NULL;
}

static size_t element_size(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return sizeof(uint64_t);
    case PROTOBUF_C_TYPE_DOUBLE:
        return sizeof(double);
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    default:
        return sizeof(uint32_t);
    }
}

/* [{key: "k", value: "v"}] as {"k": "v"} */
static json_t *labels_to_json(json_t *list)
{
    size_t index = 0;
    json_t *entry = NULL;
    json_t *object = json_object();
    json_array_foreach(list, index, entry) if (json_object_set(object, message_text(entry, "key"),
                                                               json_object_get(entry, "value")))
    {
        json_decref(object);
        object = NULL;
        break;
    }
    json_decref(list);
    return object;
}

static json_t *repeated_to_json(const ProtobufCFieldDescriptor *field, const char *base)
{
    size_t count = *(const size_t *)(const void *)(base + field->quantifier_offset);
    const char *at = *(const char *const *)(const void *)(base + field->offset);
    json_t *list = json_array();
    for (size_t i = 0; list && i < count; i++)
        if (json_array_append_new(list, value_to_json(field, at + i * element_size(field->type)))) {
            json_decref(list);
            return NULL;
        }
    if (!list || field->type != PROTOBUF_C_TYPE_MESSAGE)
        return list;
    const ProtobufCMessageDescriptor *element = field->descriptor;
    return strcmp(element->name, "vmpool.Label") == 0 ? labels_to_json(list) : list;
}

json_t *message_to_json(const ProtobufCMessage *message, struct error *err)
{
    const char *base = (const char *)message;
    json_t *object = json_object();
    for (unsigned i = 0; object && i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        bool one_of = field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF;
        if (one_of &&
            *(const uint32_t *)(const void *)(base + field->quantifier_offset) != field->id)
            continue;
        json_t *value = field->label == PROTOBUF_C_LABEL_REPEATED
                            ? repeated_to_json(field, base)
                            : value_to_json(field, base + field->offset);
        if (json_object_set_new(object, field->name, value)) {
            json_decref(object);
            object = NULL;
        }
    }
    if (!object)
        (void)error_set(err, ERROR_FAILED, "out of memory");
    return object;
}

json_t *message_document(const char *key, json_t *value, struct error *err)
{
    json_t *document = value ? json_object() : NULL;
    if (!document ||
        json_object_set_new(document, "schema_version", json_integer(MESSAGE_SCHEMA_VERSION)) ||
        json_object_set(document, key, value)) {
        if (err->kind == ERROR_NONE)
            (void)error_set(err, ERROR_FAILED, "out of memory");
        json_decref(document);
        document = NULL;
    }
    json_decref(value);
    return document;
}

json_t *message_at(const json_t *object, const char *path)
{
    char key[64];
    json_t *value = NULL;
    while (object && *path) {
        size_t length = strcspn(path, ".");
        (void)snprintf(key, sizeof key, "%.*s", (int)length, path);
        value = json_object_get(object, key);
        object = value;
        path += length + (path[length] == '.');
    }
    return value;
}

const char *message_text(const json_t *object, const char *path)
{
    const char *text = json_string_value(message_at(object, path));
    return text ? text : "";
}

json_int_t message_number(const json_t *object, const char *path)
{
    return json_integer_value(message_at(object, path));
}

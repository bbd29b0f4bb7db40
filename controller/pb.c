#include "controller/pb.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "proto/common.pb-c.h"

static void *need(void *memory)
{
    if (!memory) {
        log_error("out of memory");
        abort();
    }
    return memory;
}

void *mem_new(size_t size)
{
    return need(calloc(1, size ? size : 1));
}

char *text_copy(const char *text)
{
    return need(strdup(text));
}

__attribute__((format(printf, 1, 0))) static char *text_vformat(const char *format, va_list args)
{
    char *text = NULL;
    if (vasprintf(&text, format, args) < 0)
        text = NULL;
    return need(text);
}

char *text_format(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text = text_vformat(format, args);
    va_end(args);
    return text;
}

static void replace(char **field, char *text)
{
    if (*field && *field != protobuf_c_empty_string)
        free(*field);
    *field = text;
}

void pb_set(char **field, const char *text)
{
    replace(field, text_copy(text ? text : ""));
}

void pb_setf(char **field, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text = text_vformat(format, args);
    va_end(args);
    replace(field, text);
}

void pb_set_bytes(ProtobufCBinaryData *field, const void *data, size_t size)
{
    uint8_t *copy = NULL;
    if (size > 0) {
        copy = mem_new(size);
        memcpy(copy, data, size);
    }
    free(field->data);
    field->data = copy;
    field->len = size;
}

void pb_push(void *array, size_t *count, void *item)
{
    void ***items = array;
    /* To the exact size, as that is what protobuf-c gives the arrays it unpacks. */
    *items = need(realloc(*items, (*count + 1) * sizeof **items));
    (*items)[(*count)++] = item;
}

void pb_push_text(char ***array, size_t *count, const char *text)
{
    pb_push(array, count, text_copy(text));
}

uint8_t *pb_pack(const ProtobufCMessage *message, size_t *size)
{
    uint8_t *data = mem_new(protobuf_c_message_get_packed_size(message));
    *size = protobuf_c_message_pack(message, data);
    return data;
}

void *pb_copy(const ProtobufCMessage *message)
{
    if (!message)
        return NULL;
    size_t size = 0;
    uint8_t *data = pb_pack(message, &size);
    void *copy = need(protobuf_c_message_unpack(message->descriptor, NULL, size, data));
    free(data);
    return copy;
}

void pb_free(void *message)
{
    protobuf_c_message_free_unpacked(message, NULL);
}

static void *bounded_alloc(void *context, size_t size)
{
    size_t *left = context;
    /* What malloc itself needs counts too. */
    if (size + 16 > *left)
        return NULL;
    *left -= size + 16;
    return malloc(size);
}

static void bounded_free(void *context, void *memory)
{
    (void)context;
    free(memory);
}

void *pb_unpack(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t size,
                struct error *err)
{
    size_t left = PB_UNPACK_MAX;
    ProtobufCAllocator allocator = {bounded_alloc, bounded_free, &left};
    void *message = protobuf_c_message_unpack(type, &allocator, size, data);
    if (!message)
        (void)error_set(err, ERROR_USAGE, "%zu bytes that are no %s", size, type->short_name);
    return message;
}

void *pb_failure(const struct error *err)
{
    Vmpool__Failure *failure = mem_new(sizeof *failure);
    vmpool__failure__init(failure);
    failure->kind = err->kind == ERROR_NONE ? ERROR_FAILED : (uint32_t)err->kind;
    pb_set(&failure->text, err->text);
    return failure;
}

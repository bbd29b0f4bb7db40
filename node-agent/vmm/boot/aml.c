#include "node-agent/vmm/boot/aml.h"

#include <stdlib.h>
#include <string.h>

/* Opcodes of ACPI 6.4, table 20.1. */
enum {
    OP_ZERO = 0x00,
    OP_ONE = 0x01,
    OP_NAME = 0x08,
    OP_BYTE = 0x0a,
    OP_WORD = 0x0b,
    OP_DWORD = 0x0c,
    OP_STRING = 0x0d,
    OP_QWORD = 0x0e,
    OP_SCOPE = 0x10,
    OP_BUFFER = 0x11,
    OP_PACKAGE = 0x12,
    OP_METHOD = 0x14,
    OP_EXTENDED = 0x5b,
    OP_EXT_REGION = 0x80,
    OP_EXT_FIELD = 0x81,
    OP_EXT_DEVICE = 0x82,
    OP_LOCAL0 = 0x60,
    OP_STORE = 0x70,
    OP_AND = 0x7b,
    OP_NOTIFY = 0x86,
    OP_IF = 0xa0,
    SPACE_IO = 1,
    FIELD_BYTE_ACCESS = 1,
};

#define LENGTH_BYTES 3u /* of every block's length */

void aml_init(struct aml *aml, uint8_t *bytes, size_t capacity)
{
    *aml = (struct aml){.bytes = bytes, .capacity = capacity};
}

size_t aml_size(const struct aml *aml)
{
    return aml->full || aml->depth > 0 ? 0 : aml->used;
}

static void put(struct aml *aml, const void *data, size_t size)
{
    if (aml->full || size > aml->capacity - aml->used) {
        aml->full = true;
        return;
    }
    memcpy(aml->bytes + aml->used, data, size);
    aml->used += size;
}

static void put_8(struct aml *aml, unsigned value)
{
    put(aml, &(uint8_t){(uint8_t)value}, 1);
}

static void put_16(struct aml *aml, uint16_t value)
{
    put(aml, &value, sizeof value);
}

static void put_32(struct aml *aml, uint32_t value)
{
    put(aml, &value, sizeof value);
}

static void put_integer(struct aml *aml, uint64_t value)
{
    if (value <= 1) {
        put_8(aml, value ? OP_ONE : OP_ZERO);
    } else if (value <= UINT8_MAX) {
        put_8(aml, OP_BYTE);
        put_8(aml, (unsigned)value);
    } else if (value <= UINT16_MAX) {
        put_8(aml, OP_WORD);
        put_16(aml, (uint16_t)value);
    } else if (value <= UINT32_MAX) {
        put_8(aml, OP_DWORD);
        put_32(aml, (uint32_t)value);
    } else {
        put_8(aml, OP_QWORD);
        put(aml, &value, sizeof value);
    }
}

static void put_name(struct aml *aml, const char *name)
{
    put(aml, name, strlen(name));
}

static void open_length(struct aml *aml)
{
    if (aml->depth == AML_DEPTH_MAX) {
        aml->full = true;
        return;
    }
    aml->open[aml->depth++] = aml->used;
    put(aml, "\0\0\0", LENGTH_BYTES);
}

void aml_close(struct aml *aml)
{
    if (aml->full || aml->depth == 0) {
        aml->full = true;
        return;
    }
    size_t start = aml->open[--aml->depth];
    size_t length = aml->used - start; /* counts itself */
    aml->bytes[start] = (uint8_t)(0x80 | (length & 0xf));
    aml->bytes[start + 1] = (uint8_t)(length >> 4);
    aml->bytes[start + 2] = (uint8_t)(length >> 12);
}

void aml_open_scope(struct aml *aml, const char *path)
{
    put_8(aml, OP_SCOPE);
    open_length(aml);
    put_name(aml, path);
}

void aml_open_device(struct aml *aml, const char *name)
{
    put_8(aml, OP_EXTENDED);
    put_8(aml, OP_EXT_DEVICE);
    open_length(aml);
    put_name(aml, name);
}

void aml_open_method(struct aml *aml, const char *name, unsigned arguments, bool serialized)
{
    put_8(aml, OP_METHOD);
    open_length(aml);
    put_name(aml, name);
    put_8(aml, arguments | (serialized ? 8u : 0u));
}

void aml_name_integer(struct aml *aml, const char *name, uint64_t value)
{
    put_8(aml, OP_NAME);
    put_name(aml, name);
    put_integer(aml, value);
}

void aml_name_string(struct aml *aml, const char *name, const char *value)
{
    put_8(aml, OP_NAME);
    put_name(aml, name);
    put_8(aml, OP_STRING);
    put(aml, value, strlen(value) + 1);
}

void aml_name_eisa_id(struct aml *aml, const char *name, const char *id)
{
    uint32_t vendor = 0;
    for (unsigned i = 0; i < 3; i++)
        vendor = vendor << 5 | ((uint32_t)(id[i] - 0x40) & 0x1f);
    uint32_t product = (uint32_t)strtoul(id + 3, NULL, 16);
    put_8(aml, OP_NAME);
    put_name(aml, name);
    put_8(aml, OP_DWORD);
    put_32(aml, __builtin_bswap32(vendor << 16 | product));
}

void aml_name_package(struct aml *aml, const char *name, const uint8_t *values, unsigned count)
{
    put_8(aml, OP_NAME);
    put_name(aml, name);
    put_8(aml, OP_PACKAGE);
    open_length(aml);
    put_8(aml, count);
    for (unsigned i = 0; i < count; i++)
        put_integer(aml, values[i]);
    aml_close(aml);
}

/* Name(_CRS, Buffer(size) {...}); the size is filled in on closing and stands as a word behind the
 * block's length. */
void aml_open_resources(struct aml *aml)
{
    put_8(aml, OP_NAME);
    put_name(aml, "_CRS");
    put_8(aml, OP_BUFFER);
    open_length(aml);
    put_8(aml, OP_WORD);
    put_16(aml, 0);
}

void aml_close_resources(struct aml *aml)
{
    put_16(aml, 0x0079); /* end tag; a checksum of 0 counts as right */
    if (!aml->full && aml->depth > 0) {
        size_t place = aml->open[aml->depth - 1] + LENGTH_BYTES + 1;
        uint16_t size = (uint16_t)(aml->used - place - 2);
        memcpy(aml->bytes + place, &size, sizeof size);
    }
    aml_close(aml);
}

void aml_io(struct aml *aml, uint16_t port, uint8_t length)
{
    put_8(aml, 0x47);
    put_8(aml, 1); /* decodes 16 bits */
    put_16(aml, port);
    put_16(aml, port);
    put_8(aml, 1);
    put_8(aml, length);
}

void aml_irq(struct aml *aml, unsigned gsi)
{
    put_8(aml, 0x22);
    put_16(aml, (uint16_t)(1u << gsi));
}

void aml_level_interrupt(struct aml *aml, uint32_t gsi)
{
    put_8(aml, 0x89);
    put_16(aml, 6);
    put_8(aml, 1); /* consumer */
    put_8(aml, 1);
    put_32(aml, gsi);
}

void aml_memory_fixed(struct aml *aml, uint32_t address, uint32_t length)
{
    put_8(aml, 0x86);
    put_16(aml, 9);
    put_8(aml, 1); /* writable */
    put_32(aml, address);
    put_32(aml, length);
}

/* Address space descriptors: type 0 memory, 1 I/O, 2 bus numbers. Flags 0xc: fixed at both ends. */
static void word_range(struct aml *aml, uint8_t type, uint8_t type_flags, uint16_t first,
                       uint16_t last)
{
    put_8(aml, 0x88);
    put_16(aml, 13);
    put_8(aml, type);
    put_8(aml, 0x0c);
    put_8(aml, type_flags);
    put_16(aml, 0);
    put_16(aml, first);
    put_16(aml, last);
    put_16(aml, 0);
    put_16(aml, (uint16_t)(last - first + 1));
}

void aml_bus_numbers(struct aml *aml, uint16_t first, uint16_t last)
{
    word_range(aml, 2, 0, first, last);
}

void aml_io_range(struct aml *aml, uint16_t first, uint16_t last)
{
    word_range(aml, 1, 3, first, last); /* the entire range */
}

void aml_memory_range(struct aml *aml, uint32_t first, uint32_t last)
{
    put_8(aml, 0x87);
    put_16(aml, 23);
    put_8(aml, 0);
    put_8(aml, 0x0c);
    put_8(aml, 1); /* writable, not cacheable */
    put_32(aml, 0);
    put_32(aml, first);
    put_32(aml, last);
    put_32(aml, 0);
    put_32(aml, last - first + 1);
}

void aml_io_field(struct aml *aml, const char *name, uint16_t port, uint8_t length,
                  const char *field)
{
    put_8(aml, OP_EXTENDED);
    put_8(aml, OP_EXT_REGION);
    put_name(aml, name);
    put_8(aml, SPACE_IO);
    put_integer(aml, port);
    put_integer(aml, length);
    put_8(aml, OP_EXTENDED);
    put_8(aml, OP_EXT_FIELD);
    open_length(aml);
    put_name(aml, name);
    put_8(aml, FIELD_BYTE_ACCESS);
    put_name(aml, field);
    put_8(aml, 8); /* bits, as a one-byte length */
    aml_close(aml);
}

void aml_notify_if(struct aml *aml, const char *field, uint8_t mask, const char *device,
                   uint8_t value)
{
    put_8(aml, OP_STORE);
    put_name(aml, field);
    put_8(aml, OP_LOCAL0);
    put_8(aml, OP_IF);
    open_length(aml);
    put_8(aml, OP_AND);
    put_8(aml, OP_LOCAL0);
    put_integer(aml, mask);
    put_8(aml, OP_ZERO); /* the result goes nowhere */
    put_8(aml, OP_NOTIFY);
    put_name(aml, device);
    put_integer(aml, value);
    aml_close(aml);
}

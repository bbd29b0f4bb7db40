/*
 * aml.h: writes ACPI Machine Language: just what our DSDT is made of.
 *
 * A block (scope, device, method...) is opened and closed; its length is filled in on closing,
 * always in the three-byte form. Once the buffer is full everything further is dropped and
 * aml_size() is 0, so that callers check once, at the end. Source: ACPI 6.4, chapter 20.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AML_DEPTH_MAX 8

struct aml {
    uint8_t *bytes;
    size_t capacity;
    size_t used;
    bool full;
    unsigned depth;
    size_t open[AML_DEPTH_MAX]; /* where the lengths of the open blocks stand */
};

void aml_init(struct aml *aml, uint8_t *bytes, size_t capacity);
/* Bytes written; 0 where they did not fit or a block is still open. */
size_t aml_size(const struct aml *aml);

/* Names are given with four letters, "\\_SB_" as a root path. */
void aml_open_scope(struct aml *aml, const char *path);
void aml_open_device(struct aml *aml, const char *name);
void aml_open_method(struct aml *aml, const char *name, unsigned arguments, bool serialized);
void aml_close(struct aml *aml);

void aml_name_integer(struct aml *aml, const char *name, uint64_t value);
void aml_name_string(struct aml *aml, const char *name, const char *value);
/* "PNP0A08" as the compressed integer EISAID() makes of it. */
void aml_name_eisa_id(struct aml *aml, const char *name, const char *id);
/* A package of small integers. */
void aml_name_package(struct aml *aml, const char *name, const uint8_t *values, unsigned count);

/* A resource template named _CRS. */
void aml_open_resources(struct aml *aml);
void aml_close_resources(struct aml *aml);
void aml_io(struct aml *aml, uint16_t port, uint8_t length);
void aml_irq(struct aml *aml, unsigned gsi); /* edge, active high, exclusive */
/* Extended interrupt: level, active high, exclusive. */
void aml_level_interrupt(struct aml *aml, uint32_t gsi);
void aml_memory_fixed(struct aml *aml, uint32_t address, uint32_t length);
void aml_bus_numbers(struct aml *aml, uint16_t first, uint16_t last);
void aml_io_range(struct aml *aml, uint16_t first, uint16_t last);
void aml_memory_range(struct aml *aml, uint32_t first, uint32_t last);

/* OperationRegion(@name, SystemIO, @port, @length) and in it one byte field @field at its start. */
void aml_io_field(struct aml *aml, const char *name, uint16_t port, uint8_t length,
                  const char *field);
/* Store(@field, Local0); If (Local0 & @mask) { Notify(@device, @value) } */
void aml_notify_if(struct aml *aml, const char *field, uint8_t mask, const char *device,
                   uint8_t value);

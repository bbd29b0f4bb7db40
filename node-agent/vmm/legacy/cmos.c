#include "node-agent/vmm/legacy/cmos.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "node-agent/vmm/layout.h"
#include "proto/state.pb-c.h"

#define CMOS_SIZE     128u
#define STATE_VERSION 1u
#define REG_A         0x0au
#define REG_B         0x0bu
#define REG_C         0x0cu
#define REG_D         0x0du
#define REG_CENTURY   0x32u
#define A_32768_HZ    0x26u /* oscillator on, 1024 Hz rate; no update in progress */
#define B_24_HOURS    0x02u /* BCD */
#define D_VALID       0x80u

struct cmos {
    pthread_mutex_t lock;
    uint8_t index;
    uint8_t memory[CMOS_SIZE];
};

static uint8_t bcd(int value)
{
    return (uint8_t)((value / 10 % 10) << 4 | value % 10);
}

/* Register @index of the clock; false where it is plain memory. */
static bool read_clock(uint8_t index, uint8_t *value)
{
    time_t now = time(NULL);
    struct tm utc = {0};
    (void)gmtime_r(&now, &utc);
    switch (index) {
    case 0x00:
        *value = bcd(utc.tm_sec);
        return true;
    case 0x02:
        *value = bcd(utc.tm_min);
        return true;
    case 0x04:
        *value = bcd(utc.tm_hour);
        return true;
    case 0x06:
        *value = bcd(utc.tm_wday + 1);
        return true;
    case 0x07:
        *value = bcd(utc.tm_mday);
        return true;
    case 0x08:
        *value = bcd(utc.tm_mon + 1);
        return true;
    case 0x09:
        *value = bcd(utc.tm_year % 100);
        return true;
    case REG_CENTURY:
        *value = bcd(19 + utc.tm_year / 100);
        return true;
    case REG_A:
        *value = A_32768_HZ;
        return true;
    case REG_B:
        *value = B_24_HOURS;
        return true;
    case REG_C:
        *value = 0;
        return true;
    case REG_D:
        *value = D_VALID;
        return true;
    default:
        return false;
    }
}

static void cmos_read(void *device, uint64_t offset, void *data, unsigned length)
{
    struct cmos *cmos = device;
    if (offset != 1 || length != 1)
        return; /* the index port is write-only */
    (void)pthread_mutex_lock(&cmos->lock);
    uint8_t value = cmos->memory[cmos->index];
    (void)read_clock(cmos->index, &value);
    (void)pthread_mutex_unlock(&cmos->lock);
    memcpy(data, &value, 1);
}

static void cmos_write(void *device, uint64_t offset, const void *data, unsigned length)
{
    struct cmos *cmos = device;
    if (length != 1)
        return;
    uint8_t value = *(const uint8_t *)data;
    (void)pthread_mutex_lock(&cmos->lock);
    if (offset == 0)
        cmos->index = value & 0x7f; /* the top bit masks NMI */
    else
        cmos->memory[cmos->index] = value;
    (void)pthread_mutex_unlock(&cmos->lock);
}

static int cmos_save(void *device, struct device_state *state, struct error *err)
{
    struct cmos *cmos = device;
    Vmpool__State__Cmos message = VMPOOL__STATE__CMOS__INIT;
    message.index = cmos->index;
    message.memory = (ProtobufCBinaryData){CMOS_SIZE, cmos->memory};
    state->version = STATE_VERSION;
    state->size = vmpool__state__cmos__get_packed_size(&message);
    state->data = malloc(state->size);
    if (!state->data)
        return error_errno(err, ENOMEM, "cmos");
    (void)vmpool__state__cmos__pack(&message, state->data);
    return 0;
}

static int cmos_load(void *device, const struct device_state *state, struct error *err)
{
    struct cmos *cmos = device;
    Vmpool__State__Cmos *message = NULL;
    if (state->version == STATE_VERSION)
        message = vmpool__state__cmos__unpack(NULL, state->size, state->data);
    if (!message || message->memory.len != CMOS_SIZE || message->index >= CMOS_SIZE) {
        vmpool__state__cmos__free_unpacked(message, NULL);
        return error_set(err, ERROR_USAGE, "cmos: the state is damaged or of another version");
    }
    cmos->index = (uint8_t)message->index;
    memcpy(cmos->memory, message->memory.data, CMOS_SIZE);
    vmpool__state__cmos__free_unpacked(message, NULL);
    return 0;
}

static void cmos_free(void *device)
{
    struct cmos *cmos = device;
    (void)pthread_mutex_destroy(&cmos->lock);
    free(cmos);
}

static const struct bus_ops cmos_bus_ops = {cmos_read, cmos_write};
static const struct device_ops cmos_device_ops = {
    .save = cmos_save, .load = cmos_load, .free = cmos_free};

int cmos_new(struct bus *ports, struct device *device, struct error *err)
{
    struct cmos *cmos = calloc(1, sizeof *cmos);
    if (!cmos)
        return error_errno(err, ENOMEM, "cmos");
    (void)pthread_mutex_init(&cmos->lock, NULL);
    if (bus_add(ports, LAYOUT_PORT_CMOS, 2, &cmos_bus_ops, cmos, err) < 0) {
        cmos_free(cmos);
        return -1;
    }
    *device = (struct device){.name = "cmos", .ops = &cmos_device_ops, .self = cmos};
    return 0;
}

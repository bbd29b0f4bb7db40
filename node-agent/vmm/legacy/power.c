#include "node-agent/vmm/legacy/power.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "node-agent/vmm/boot/acpi.h"
#include "node-agent/vmm/layout.h"
#include "proto/state.pb-c.h"

#define STATE_VERSION    1u
#define SLEEP_ENABLE     0x20u
#define I8042_DATA       0x60u
#define I8042_COMMAND    0x64u
#define I8042_PULSE_MASK 0xf1u /* 0xf0 | bit 0 clear: pulse the reset line */
#define I8042_PULSE      0xf0u
#define PVPANIC_PANICKED 1u

struct power {
    struct irq_chip *irqs;
    struct power_events events;
    pthread_mutex_t lock;
    uint8_t pending; /* GED events the guest has not taken */
};

static void drive(struct power *power)
{
    struct error err = ERROR_INIT;
    if (irq_set_line(power->irqs, LAYOUT_GSI_GED, power->pending != 0, &err) < 0)
        log_warn("power: %s", err.text);
}

void power_press_button(struct power *power)
{
    (void)pthread_mutex_lock(&power->lock);
    power->pending |= ACPI_GED_POWER_BUTTON;
    drive(power);
    (void)pthread_mutex_unlock(&power->lock);
}

static void power_read(void *device, uint64_t offset, void *data, unsigned length)
{
    (void)device, (void)offset;
    memset(data, 0, length);
}

static void power_write(void *device, uint64_t offset, const void *data, unsigned length)
{
    struct power *power = device;
    if (length == 0)
        return;
    uint8_t value = *(const uint8_t *)data;
    if (offset == ACPI_SLEEP_CONTROL && (value & SLEEP_ENABLE) &&
        ((value >> 2) & 7) == ACPI_S5_TYPE)
        power->events.ended(power->events.context, GUEST_POWERED_OFF, "");
    else if (offset == ACPI_RESET && value == ACPI_RESET_VALUE)
        power->events.ended(power->events.context, GUEST_RESET, "");
}

static void ged_read(void *device, uint64_t offset, void *data, unsigned length)
{
    struct power *power = device;
    memset(data, 0, length);
    if (offset != 0)
        return;
    (void)pthread_mutex_lock(&power->lock);
    *(uint8_t *)data = power->pending;
    power->pending = 0;
    drive(power);
    (void)pthread_mutex_unlock(&power->lock);
}

/* Neither data nor full buffers, ever. */
static void i8042_read(void *device, uint64_t offset, void *data, unsigned length)
{
    (void)device, (void)offset;
    memset(data, 0, length);
}

static void i8042_write(void *device, uint64_t offset, const void *data, unsigned length)
{
    struct power *power = device;
    (void)offset;
    if (length > 0 && (*(const uint8_t *)data & I8042_PULSE_MASK) == I8042_PULSE)
        power->events.ended(power->events.context, GUEST_RESET, "");
}

/* Reading says which events we understand. */
static void pvpanic_read(void *device, uint64_t offset, void *data, unsigned length)
{
    (void)device, (void)offset;
    memset(data, 0, length);
    *(uint8_t *)data = PVPANIC_PANICKED;
}

static void pvpanic_write(void *device, uint64_t offset, const void *data, unsigned length)
{
    struct power *power = device;
    (void)offset;
    if (length > 0 && (*(const uint8_t *)data & PVPANIC_PANICKED))
        power->events.ended(power->events.context, GUEST_PANICKED, "the guest's kernel panicked");
}

static int power_save(void *device, struct device_state *state, struct error *err)
{
    struct power *power = device;
    Vmpool__State__Power message = VMPOOL__STATE__POWER__INIT;
    message.pending = power->pending;
    state->version = STATE_VERSION;
    state->size = vmpool__state__power__get_packed_size(&message);
    state->data = malloc(state->size + 1); /* + 1: an empty message is not a failure */
    if (!state->data)
        return error_errno(err, ENOMEM, "power");
    (void)vmpool__state__power__pack(&message, state->data);
    return 0;
}

static int power_load(void *device, const struct device_state *state, struct error *err)
{
    struct power *power = device;
    Vmpool__State__Power *message = NULL;
    if (state->version == STATE_VERSION)
        message = vmpool__state__power__unpack(NULL, state->size, state->data);
    if (!message)
        return error_set(err, ERROR_USAGE, "power: the state is damaged or of another version");
    power->pending = message->pending & ACPI_GED_POWER_BUTTON;
    vmpool__state__power__free_unpacked(message, NULL);
    return 0;
}

static void power_resume(void *device, bool moved)
{
    struct power *power = device;
    if (!moved)
        return;
    (void)pthread_mutex_lock(&power->lock);
    drive(power);
    (void)pthread_mutex_unlock(&power->lock);
}

static void power_free(void *device)
{
    struct power *power = device;
    (void)pthread_mutex_destroy(&power->lock);
    free(power);
}

static const struct bus_ops power_ops = {power_read, power_write};
static const struct bus_ops ged_ops = {ged_read, NULL};
static const struct bus_ops i8042_data_ops = {i8042_read, NULL};
static const struct bus_ops i8042_command_ops = {i8042_read, i8042_write};
static const struct bus_ops pvpanic_ops = {pvpanic_read, pvpanic_write};
static const struct device_ops power_device_ops = {
    .save = power_save, .load = power_load, .resume = power_resume, .free = power_free};

struct power *power_new(struct bus *ports, struct irq_chip *irqs, const struct power_events *events,
                        struct device *device, struct error *err)
{
    struct power *power = calloc(1, sizeof *power);
    if (!power) {
        (void)error_errno(err, ENOMEM, "power");
        return NULL;
    }
    power->irqs = irqs;
    power->events = *events;
    (void)pthread_mutex_init(&power->lock, NULL);
    if (bus_add(ports, LAYOUT_PORT_POWER, 4, &power_ops, power, err) < 0 ||
        bus_add(ports, LAYOUT_PORT_GED, 4, &ged_ops, power, err) < 0 ||
        bus_add(ports, I8042_DATA, 1, &i8042_data_ops, power, err) < 0 ||
        bus_add(ports, I8042_COMMAND, 1, &i8042_command_ops, power, err) < 0 ||
        bus_add(ports, ACPI_PVPANIC_PORT, 1, &pvpanic_ops, power, err) < 0) {
        power_free(power);
        return NULL;
    }
    *device = (struct device){.name = "power", .ops = &power_device_ops, .self = power};
    return power;
}

#include "node-agent/vmm/legacy/uart.h"

#include <errno.h>
#include <linux/serial_reg.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "node-agent/vmm/layout.h"
#include "proto/state.pb-c.h"

#define FIFO_SIZE     16u
#define STATE_VERSION 1u
#define IIR_FIFO      0xc0u

struct uart {
    struct irq_chip *irqs;
    struct uart_events events;
    pthread_mutex_t lock; /* guards all below */
    bool line;            /* as last driven */
    bool thre_pending;    /* the transmitter became empty and the guest has not seen it */
    uint8_t ier, lcr, mcr, scr, dll, dlm;
    bool fifo_enabled;
    unsigned fifo_used;
    uint8_t fifo[FIFO_SIZE];
};

/* The lock is held. The cause IIR shows now; UART_IIR_NO_INT where there is none. */
static uint8_t cause(const struct uart *uart)
{
    if ((uart->ier & UART_IER_RDI) && uart->fifo_used > 0)
        return UART_IIR_RDI;
    if ((uart->ier & UART_IER_THRI) && uart->thre_pending)
        return UART_IIR_THRI;
    return UART_IIR_NO_INT;
}

static void drive(struct uart *uart, bool high)
{
    struct error err = ERROR_INIT;
    uart->line = high;
    if (irq_set_line(uart->irqs, LAYOUT_GSI_COM1, high, &err) < 0)
        log_warn("com1: %s", err.text);
}

/* The lock is held. */
static void update_line(struct uart *uart)
{
    bool high = cause(uart) != UART_IIR_NO_INT;
    if (high != uart->line)
        drive(uart, high);
}

static uint8_t line_status(const struct uart *uart)
{
    return (uint8_t)(UART_LSR_THRE | UART_LSR_TEMT | (uart->fifo_used > 0 ? UART_LSR_DR : 0));
}

/* In loopback the modem outputs are wired to the inputs; else someone is always there. */
static uint8_t modem_status(const struct uart *uart)
{
    if (!(uart->mcr & UART_MCR_LOOP))
        return UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS;
    return (uint8_t)((uart->mcr & UART_MCR_RTS ? UART_MSR_CTS : 0) |
                     (uart->mcr & UART_MCR_DTR ? UART_MSR_DSR : 0) |
                     (uart->mcr & UART_MCR_OUT1 ? UART_MSR_RI : 0) |
                     (uart->mcr & UART_MCR_OUT2 ? UART_MSR_DCD : 0));
}

static uint8_t take_input(struct uart *uart)
{
    if (uart->fifo_used == 0)
        return 0;
    uint8_t byte = uart->fifo[0];
    memmove(uart->fifo, uart->fifo + 1, --uart->fifo_used);
    return byte;
}

static uint8_t read_cause(struct uart *uart)
{
    uint8_t value = cause(uart);
    if (value == UART_IIR_THRI)
        uart->thre_pending = false;
    return (uint8_t)(value | (uart->fifo_enabled ? IIR_FIFO : 0));
}

/* The lock is held. */
static uint8_t read_register(struct uart *uart, uint64_t offset)
{
    bool divisor = uart->lcr & UART_LCR_DLAB;
    switch (offset) {
    case UART_RX:
        return divisor ? uart->dll : take_input(uart);
    case UART_IER:
        return divisor ? uart->dlm : uart->ier;
    case UART_IIR:
        return read_cause(uart);
    case UART_LCR:
        return uart->lcr;
    case UART_MCR:
        return uart->mcr;
    case UART_LSR:
        return line_status(uart);
    case UART_MSR:
        return modem_status(uart);
    default:
        return uart->scr;
    }
}

static void uart_read(void *device, uint64_t offset, void *data, unsigned length)
{
    struct uart *uart = device;
    uint8_t *bytes = data;
    (void)pthread_mutex_lock(&uart->lock);
    unsigned before = uart->fifo_used;
    for (unsigned i = 0; i < length && offset + i < 8; i++)
        bytes[i] = read_register(uart, offset + i);
    /* Half of the FIFO would do as well; empty or just not full are the two moments that matter. */
    bool room = uart->fifo_used < before && (before == FIFO_SIZE || uart->fifo_used == 0);
    update_line(uart);
    (void)pthread_mutex_unlock(&uart->lock);
    if (room)
        uart->events.room(uart->events.context);
}

/* The lock is held. */
static void send_byte(struct uart *uart, uint8_t byte, bool *output)
{
    if (!(uart->mcr & UART_MCR_LOOP))
        *output = true;
    else if (uart->fifo_used < FIFO_SIZE)
        uart->fifo[uart->fifo_used++] = byte;
    uart->thre_pending = true;
}

/* The lock is held. */
static void write_interrupts(struct uart *uart, uint8_t value)
{
    bool enabled_before = uart->ier & UART_IER_THRI;
    uart->ier = value & 0x0f;
    if (!enabled_before && (uart->ier & UART_IER_THRI))
        uart->thre_pending = true;
}

static void write_fifo_control(struct uart *uart, uint8_t value)
{
    uart->fifo_enabled = value & UART_FCR_ENABLE_FIFO;
    if (value & UART_FCR_CLEAR_RCVR)
        uart->fifo_used = 0;
}

/* The lock is held. Sets *@output where @value is to leave. */
static void write_register(struct uart *uart, uint64_t offset, uint8_t value, bool *output)
{
    bool divisor = uart->lcr & UART_LCR_DLAB;
    switch (offset) {
    case UART_TX:
        if (divisor)
            uart->dll = value;
        else
            send_byte(uart, value, output);
        break;
    case UART_IER:
        if (divisor)
            uart->dlm = value;
        else
            write_interrupts(uart, value);
        break;
    case UART_FCR:
        write_fifo_control(uart, value);
        break;
    case UART_LCR:
        uart->lcr = value;
        break;
    case UART_MCR:
        uart->mcr = value & 0x1f;
        break;
    case UART_SCR:
        uart->scr = value;
        break;
    default: /* line and modem status are read-only */
        break;
    }
}

static void uart_write(void *device, uint64_t offset, const void *data, unsigned length)
{
    struct uart *uart = device;
    const uint8_t *bytes = data;
    for (unsigned i = 0; i < length && offset + i < 8; i++) {
        bool output = false;
        (void)pthread_mutex_lock(&uart->lock);
        write_register(uart, offset + i, bytes[i], &output);
        update_line(uart);
        (void)pthread_mutex_unlock(&uart->lock);
        if (output)
            uart->events.output(uart->events.context, &bytes[i], 1);
    }
}

size_t uart_receive(struct uart *uart, const uint8_t *data, size_t size)
{
    (void)pthread_mutex_lock(&uart->lock);
    size_t room = FIFO_SIZE - uart->fifo_used;
    size_t taken = size < room ? size : room;
    if (uart->mcr & UART_MCR_LOOP)
        taken = 0;
    memcpy(uart->fifo + uart->fifo_used, data, taken);
    uart->fifo_used += (unsigned)taken;
    update_line(uart);
    (void)pthread_mutex_unlock(&uart->lock);
    return taken;
}

static int uart_save(void *device, struct device_state *state, struct error *err)
{
    struct uart *uart = device;
    Vmpool__State__Uart message = VMPOOL__STATE__UART__INIT;
    (void)pthread_mutex_lock(&uart->lock);
    message.interrupt_enable = uart->ier;
    message.line_control = uart->lcr;
    message.modem_control = uart->mcr;
    message.scratch = uart->scr;
    message.divisor = (uint32_t)uart->dlm << 8 | uart->dll;
    message.fifo_enabled = uart->fifo_enabled;
    message.thre_pending = uart->thre_pending;
    message.input = (ProtobufCBinaryData){uart->fifo_used, uart->fifo};
    state->version = STATE_VERSION;
    state->size = vmpool__state__uart__get_packed_size(&message);
    state->data = malloc(state->size + 1); /* + 1: an empty message is not a failure */
    if (state->data)
        (void)vmpool__state__uart__pack(&message, state->data);
    (void)pthread_mutex_unlock(&uart->lock);
    return state->data ? 0 : error_errno(err, ENOMEM, "com1");
}

static int uart_load(void *device, const struct device_state *state, struct error *err)
{
    struct uart *uart = device;
    if (state->version != STATE_VERSION)
        return error_set(err, ERROR_CONFLICT, "com1: state version %u is not known",
                         state->version);
    Vmpool__State__Uart *message = vmpool__state__uart__unpack(NULL, state->size, state->data);
    if (!message || message->input.len > FIFO_SIZE) {
        vmpool__state__uart__free_unpacked(message, NULL);
        return error_set(err, ERROR_USAGE, "com1: the state is damaged");
    }
    (void)pthread_mutex_lock(&uart->lock);
    uart->ier = message->interrupt_enable & 0x0f;
    uart->lcr = (uint8_t)message->line_control;
    uart->mcr = message->modem_control & 0x1f;
    uart->scr = (uint8_t)message->scratch;
    uart->dll = (uint8_t)message->divisor;
    uart->dlm = (uint8_t)(message->divisor >> 8);
    uart->fifo_enabled = message->fifo_enabled;
    uart->thre_pending = message->thre_pending;
    uart->fifo_used = (unsigned)message->input.len;
    if (message->input.len > 0)
        memcpy(uart->fifo, message->input.data, message->input.len);
    (void)pthread_mutex_unlock(&uart->lock);
    vmpool__state__uart__free_unpacked(message, NULL);
    return 0;
}

/* KVM's record of line levels does not travel: drive the line anew, and as an edge, because the one
 * the source gave may have been taken by its own interrupt controller only. One too many is
 * harmless. */
static void uart_resume(void *device, bool moved)
{
    struct uart *uart = device;
    if (!moved)
        return;
    (void)pthread_mutex_lock(&uart->lock);
    bool high = cause(uart) != UART_IIR_NO_INT;
    drive(uart, false);
    if (high)
        drive(uart, true);
    (void)pthread_mutex_unlock(&uart->lock);
}

static void uart_free(void *device)
{
    struct uart *uart = device;
    (void)pthread_mutex_destroy(&uart->lock);
    free(uart);
}

static const struct bus_ops uart_bus_ops = {uart_read, uart_write};
static const struct device_ops uart_device_ops = {
    .save = uart_save, .load = uart_load, .resume = uart_resume, .free = uart_free};

struct uart *uart_new(struct bus *ports, struct irq_chip *irqs, const struct uart_events *events,
                      struct device *device, struct error *err)
{
    struct uart *uart = calloc(1, sizeof *uart);
    if (!uart) {
        (void)error_errno(err, ENOMEM, "com1");
        return NULL;
    }
    uart->irqs = irqs;
    uart->events = *events;
    (void)pthread_mutex_init(&uart->lock, NULL);
    if (bus_add(ports, LAYOUT_PORT_COM1, 8, &uart_bus_ops, uart, err) < 0) {
        uart_free(uart);
        return NULL;
    }
    *device = (struct device){.name = "com1 8250", .ops = &uart_device_ops, .self = uart};
    return uart;
}

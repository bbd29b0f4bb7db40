#include "node-agent/vmm/legacy/uart.h"

#include <criterion/criterion.h>
#include <linux/serial_reg.h>
#include <stdlib.h>
#include <string.h>

#include "node-agent/vmm/layout.h"

/* The one line of an interrupt controller that this device drives. */
struct irq_chip {
    bool line;
};

int irq_set_line(struct irq_chip *chip, unsigned gsi, bool high, struct error *err)
{
    (void)err;
    cr_assert_eq(gsi, LAYOUT_GSI_COM1);
    chip->line = high;
    return 0;
}

struct port {
    struct bus *bus;
    struct irq_chip irqs;
    struct device device;
    struct uart *uart;
    char output[64];
    unsigned output_used;
    unsigned rooms;
};

static void on_output(void *context, const uint8_t *data, size_t size)
{
    struct port *port = context;
    cr_assert_lt(port->output_used + size, sizeof port->output);
    memcpy(port->output + port->output_used, data, size);
    port->output_used += (unsigned)size;
}

static void on_room(void *context)
{
    struct port *port = context;
    port->rooms++;
}

static void open_port(struct port *port)
{
    struct error err = ERROR_INIT;
    *port = (struct port){0};
    const struct uart_events events = {on_output, on_room, port};
    port->bus = bus_new(&err);
    port->uart = uart_new(port->bus, &port->irqs, &events, &port->device, &err);
    cr_assert_not_null(port->uart, "%s", err.text);
}

static void close_port(struct port *port)
{
    port->device.ops->free(port->device.self);
    bus_free(port->bus);
}

static void out(struct port *port, unsigned reg, uint8_t value)
{
    bus_write(port->bus, LAYOUT_PORT_COM1 + reg, &value, 1);
}

static uint8_t in(struct port *port, unsigned reg)
{
    uint8_t value = 0;
    bus_read(port->bus, LAYOUT_PORT_COM1 + reg, &value, 1);
    return value;
}

static bool line(const struct port *port)
{
    return port->irqs.line;
}

Test(uart, bytes_leave_at_once)
{
    struct port port;
    open_port(&port);
    for (const char *at = "hello"; *at; at++) {
        cr_expect(in(&port, UART_LSR) & UART_LSR_THRE);
        out(&port, UART_TX, (uint8_t)*at);
    }
    cr_expect_eq(port.output_used, 5);
    cr_expect_arr_eq(port.output, "hello", 5);
    cr_expect_not(line(&port), "no interrupt was asked for");
    close_port(&port);
}

Test(uart, no_transmitter_interrupt_is_lost)
{
    struct port port;
    open_port(&port);
    out(&port, UART_IER, UART_IER_THRI);
    cr_expect(line(&port), "enabling it while empty must raise it");
    cr_expect_eq(in(&port, UART_IIR) & 0xf, UART_IIR_THRI);
    cr_expect_not(line(&port), "seen in IIR");
    cr_expect_eq(in(&port, UART_IIR) & 0xf, UART_IIR_NO_INT);
    out(&port, UART_TX, 'a');
    cr_expect(line(&port));
    out(&port, UART_IER, 0);
    cr_expect_not(line(&port));
    out(&port, UART_IER, UART_IER_THRI);
    cr_expect(line(&port));
    close_port(&port);
}

Test(uart, input_comes_in_order_and_is_bounded)
{
    struct port port;
    open_port(&port);
    out(&port, UART_IER, UART_IER_RDI | UART_IER_THRI);
    cr_expect_eq(uart_receive(port.uart, (const uint8_t *)"0123456789abcdefgh", 18), 16);
    cr_expect_eq(uart_receive(port.uart, (const uint8_t *)"x", 1), 0);
    cr_expect_eq(in(&port, UART_IIR) & 0xf, UART_IIR_RDI, "input goes before output");
    for (unsigned i = 0; i < 16; i++) {
        cr_expect(in(&port, UART_LSR) & UART_LSR_DR);
        cr_expect_eq(in(&port, UART_RX), "0123456789abcdef"[i]);
    }
    cr_expect_not(in(&port, UART_LSR) & UART_LSR_DR);
    cr_expect_eq(port.rooms, 2, "once no longer full, once empty");
    cr_expect_eq(in(&port, UART_IIR) & 0xf, UART_IIR_THRI);
    close_port(&port);
}

Test(uart, a_driver_that_probes_it_finds_a_16550a)
{
    struct port port;
    open_port(&port);
    out(&port, UART_SCR, 0x5a);
    cr_expect_eq(in(&port, UART_SCR), 0x5a);
    out(&port, UART_MCR, UART_MCR_LOOP | UART_MCR_RTS | UART_MCR_OUT2);
    cr_expect_eq(in(&port, UART_MSR) & 0xf0, UART_MSR_CTS | UART_MSR_DCD);
    out(&port, UART_TX, 'L');
    cr_expect_eq(in(&port, UART_RX), 'L');
    cr_expect_eq(port.output_used, 0, "a byte left in loopback");
    out(&port, UART_MCR, 0);
    out(&port, UART_FCR, UART_FCR_ENABLE_FIFO);
    cr_expect_eq(in(&port, UART_IIR) & 0xc0, 0xc0);
    out(&port, UART_LCR, UART_LCR_DLAB);
    out(&port, UART_DLL, 12);
    out(&port, UART_DLM, 1);
    cr_expect_eq(in(&port, UART_DLL), 12);
    cr_expect_eq(in(&port, UART_DLM), 1);
    out(&port, UART_LCR, UART_LCR_WLEN8);
    cr_expect_eq(in(&port, UART_IER), 0);
    close_port(&port);
}

Test(uart, its_state_moves)
{
    struct error err = ERROR_INIT;
    struct port from, to;
    struct device_state state = {0};
    open_port(&from);
    out(&from, UART_LCR, UART_LCR_WLEN8);
    out(&from, UART_IER, UART_IER_RDI | UART_IER_THRI);
    out(&from, UART_SCR, 7);
    uart_receive(from.uart, (const uint8_t *)"in", 2);
    cr_assert_eq(from.device.ops->save(from.device.self, &state, &err), 0);
    close_port(&from);

    open_port(&to);
    cr_assert_eq(to.device.ops->load(to.device.self, &state, &err), 0, "%s", err.text);
    to.device.ops->resume(to.device.self, true);
    cr_expect(line(&to), "a pending interrupt was lost on the way");
    cr_expect_eq(in(&to, UART_RX), 'i');
    cr_expect_eq(in(&to, UART_RX), 'n');
    cr_expect_eq(in(&to, UART_IIR) & 0xf, UART_IIR_THRI);
    cr_expect_eq(in(&to, UART_SCR), 7);

    for (size_t size = 0; size < state.size; size++) {
        struct device_state cut = {state.version, state.data, size};
        (void)to.device.ops->load(to.device.self, &cut, &err); /* anything but a crash */
    }
    uint8_t long_input[] = {0x42, 17, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    struct device_state hostile = {state.version, long_input, sizeof long_input};
    cr_expect_eq(to.device.ops->load(to.device.self, &hostile, &err), -1);
    hostile.version = 99;
    cr_expect_eq(to.device.ops->load(to.device.self, &hostile, &err), -1);
    free(state.data);
    close_port(&to);
}

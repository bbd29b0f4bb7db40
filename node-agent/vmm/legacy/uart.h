/*
 * uart.h: a 16550A serial port, COM1: the guest's console.
 *
 * Output leaves at once, so the transmitter is always empty; what matters is that no interrupt for
 * it is lost: writing a byte, or enabling the interrupt while the transmitter is empty, makes it
 * pending until the guest has seen it in IIR. Source: PC16550D data sheet.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "node-agent/vmm/bus.h"
#include "node-agent/vmm/device.h"
#include "node-agent/vmm/irq.h"

struct uart;

struct uart_events {
    /* Both are called from vCPU threads. */
    void (*output)(void *context, const uint8_t *data, size_t size);
    void (*room)(void *context); /* the guest took input: uart_receive() may take more */
    void *context;
};

/* Claims its ports on @ports. @device is filled; freed by its ops. */
struct uart *uart_new(struct bus *ports, struct irq_chip *irqs, const struct uart_events *events,
                      struct device *device, struct error *err);

/* Gives the guest input; returns how many bytes the receive FIFO took. Any thread. */
size_t uart_receive(struct uart *uart, const uint8_t *data, size_t size);

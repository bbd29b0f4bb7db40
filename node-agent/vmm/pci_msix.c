#include "node-agent/vmm/pci_msix.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"

int pci_msix_init(struct pci_msix *msix, struct irq_chip *irqs, unsigned count, struct error *err)
{
    *msix = (struct pci_msix){.count = 0};
    (void)pthread_mutex_init(&msix->lock, NULL);
    for (unsigned i = 0; i < count && i < PCI_MSIX_VECTORS_MAX; i++) {
        msix->entries[i].control = PCI_MSIX_ENTRY_CTRL_MASKBIT;
        msix->routes[i] = irq_route_new(irqs, err);
        if (!msix->routes[i]) {
            pci_msix_destroy(msix);
            return -1;
        }
        msix->count = i + 1;
    }
    return 0;
}

void pci_msix_destroy(struct pci_msix *msix)
{
    for (unsigned i = 0; i < msix->count; i++)
        irq_route_free(msix->routes[i]);
    msix->count = 0;
    (void)pthread_mutex_destroy(&msix->lock);
}

void pci_msix_signal(const struct pci_msix *msix, unsigned vector)
{
    const uint64_t one = 1;
    if (vector < msix->count)
        (void)!write(irq_route_fd(msix->routes[vector]), &one, sizeof one); /* full: is pending */
}

static bool masked(const struct pci_msix *msix, unsigned vector)
{
    return !msix->open || (msix->entries[vector].control & PCI_MSIX_ENTRY_CTRL_MASKBIT);
}

/* Brings the kernel's route in line with the entry. The lock is held. */
static void update(struct pci_msix *msix, unsigned vector)
{
    struct error err = ERROR_INIT;
    const struct pci_msix_entry *entry = &msix->entries[vector];
    const struct irq_message message = {
        .address = (uint64_t)entry->address_high << 32 | entry->address_low,
        .data = entry->data,
    };
    bool off = masked(msix, vector);
    if (irq_route_set(msix->routes[vector], off ? NULL : &message, &err) < 0) {
        log_warn("MSI-X vector %u: %s", vector, err.text);
        return;
    }
    if (!off && (msix->pending & (1ull << vector))) {
        msix->pending &= ~(1ull << vector);
        pci_msix_signal(msix, vector);
    }
}

void pci_msix_table_read(struct pci_msix *msix, uint32_t offset, void *data, unsigned length)
{
    const uint32_t size = PCI_MSIX_ENTRY_SIZE * msix->count;
    memset(data, 0, length);
    (void)pthread_mutex_lock(&msix->lock);
    if (offset < size && length <= size - offset)
        memcpy(data, (const uint8_t *)msix->entries + offset, length);
    (void)pthread_mutex_unlock(&msix->lock);
}

void pci_msix_table_write(struct pci_msix *msix, uint32_t offset, const void *data, unsigned length)
{
    /* Aligned accesses of 4 or 8 bytes only, so an entry is never left half-written by us. */
    if ((length != 4 && length != 8) || offset % length != 0 ||
        offset >= PCI_MSIX_ENTRY_SIZE * msix->count)
        return;
    unsigned vector = offset / PCI_MSIX_ENTRY_SIZE;
    (void)pthread_mutex_lock(&msix->lock);
    bool was_masked = masked(msix, vector);
    memcpy((uint8_t *)msix->entries + offset, data, length);
    msix->entries[vector].control &= PCI_MSIX_ENTRY_CTRL_MASKBIT; /* the rest is reserved */
    if (!was_masked || !masked(msix, vector))
        update(msix, vector);
    (void)pthread_mutex_unlock(&msix->lock);
}

/* Moves what a masked route has caught into the pending bits. The lock is held. */
static void collect_pending(struct pci_msix *msix)
{
    for (unsigned i = 0; i < msix->count; i++)
        if (irq_route_take_pending(msix->routes[i]))
            msix->pending |= 1ull << i;
}

void pci_msix_pending_read(struct pci_msix *msix, uint32_t offset, void *data, unsigned length)
{
    memset(data, 0, length);
    (void)pthread_mutex_lock(&msix->lock);
    collect_pending(msix);
    if (offset < sizeof msix->pending && length <= sizeof msix->pending - offset)
        memcpy(data, (const uint8_t *)&msix->pending + offset, length);
    (void)pthread_mutex_unlock(&msix->lock);
}

void pci_msix_set_control(struct pci_msix *msix, uint16_t control)
{
    bool open = (control & PCI_MSIX_FLAGS_ENABLE) && !(control & PCI_MSIX_FLAGS_MASKALL);
    (void)pthread_mutex_lock(&msix->lock);
    if (open != msix->open) {
        msix->open = open;
        for (unsigned i = 0; i < msix->count; i++)
            if (!(msix->entries[i].control & PCI_MSIX_ENTRY_CTRL_MASKBIT))
                update(msix, i);
    }
    (void)pthread_mutex_unlock(&msix->lock);
}

int pci_msix_save(struct pci_msix *msix, Vmpool__Device__Msix *message, struct error *err)
{
    vmpool__device__msix__init(message);
    message->words = calloc(4 * (size_t)msix->count, sizeof *message->words);
    if (!message->words)
        return error_errno(err, ENOMEM, "state of an MSI-X table");
    message->n_words = 4 * (size_t)msix->count;
    (void)pthread_mutex_lock(&msix->lock);
    collect_pending(msix);
    memcpy(message->words, msix->entries, sizeof *message->words * message->n_words);
    message->pending = msix->pending;
    (void)pthread_mutex_unlock(&msix->lock);
    return 0;
}

void pci_msix_state_free(Vmpool__Device__Msix *message)
{
    free(message->words);
    message->words = NULL;
    message->n_words = 0;
}

int pci_msix_load(struct pci_msix *msix, const Vmpool__Device__Msix *message, struct error *err)
{
    if (!message || message->n_words != 4 * (size_t)msix->count)
        return error_set(err, ERROR_CONFLICT, "the MSI-X table does not have %u vectors",
                         msix->count);
    pci_msix_set_control(msix, 0);
    (void)pthread_mutex_lock(&msix->lock);
    memcpy(msix->entries, message->words, PCI_MSIX_ENTRY_SIZE * (size_t)msix->count);
    for (unsigned i = 0; i < msix->count; i++)
        msix->entries[i].control &= PCI_MSIX_ENTRY_CTRL_MASKBIT;
    msix->pending = message->pending & ((1ull << msix->count) - 1);
    (void)pthread_mutex_unlock(&msix->lock);
    return 0;
}

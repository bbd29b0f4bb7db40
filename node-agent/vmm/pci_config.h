/*
 * pci_config.h: the 256 bytes of configuration space of one PCI function (PCI 3.0 §6).
 *
 * Each byte has a mask of the bits the guest may write; the rest keeps what we put there. So BAR
 * sizing needs no code: the low bits of a BAR do not change.
 */
#pragma once

#include <stdint.h>

#define PCI_CONFIG_SIZE 256u
#define PCI_BARS        6u

struct pci_config {
    uint8_t bytes[PCI_CONFIG_SIZE];
    uint8_t writable[PCI_CONFIG_SIZE];
    uint32_t bar_size[PCI_BARS]; /* bytes, a power of two from 16 on; 0: no such BAR */
    uint8_t last_capability;     /* offset; 0: none yet */
    uint8_t free_offset;         /* where the next capability goes */
};

struct pci_identity {
    uint16_t vendor;
    uint16_t device;
    uint8_t revision;
    uint32_t class_code; /* class, subclass, interface: 24 bits */
    uint16_t subsystem_vendor;
    uint16_t subsystem;
};

/* A header of type 0 without BARs and capabilities; decoding off. */
void pci_config_init(struct pci_config *config, const struct pci_identity *identity);
/* Gives it 32-bit memory BAR @bar. */
void pci_config_set_bar(struct pci_config *config, unsigned bar, uint32_t size);
/* Appends a capability: @body is what follows id and next pointer. Returns its offset. The room is
 * the caller's to keep: 192 bytes in all. */
uint8_t pci_config_add_capability(struct pci_config *config, uint8_t id, const void *body,
                                  uint8_t body_size);
/* Lets the guest write the bits of the 16-bit word at @offset that are set in @mask. */
void pci_config_allow16(struct pci_config *config, uint8_t offset, uint16_t mask);

/* Guest accesses of 1, 2 or 4 bytes; out of range reads zeros. */
void pci_config_read(const struct pci_config *config, uint32_t offset, void *data, unsigned length);
void pci_config_write(struct pci_config *config, uint32_t offset, const void *data,
                      unsigned length);

uint16_t pci_config_get16(const struct pci_config *config, uint8_t offset);
uint32_t pci_config_get32(const struct pci_config *config, uint8_t offset);
void pci_config_set16(struct pci_config *config, uint8_t offset, uint16_t value);
void pci_config_set32(struct pci_config *config, uint8_t offset, uint32_t value);

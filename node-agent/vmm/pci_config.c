#include "node-agent/vmm/pci_config.h"

#include <linux/pci_regs.h>
#include <stdbool.h>
#include <string.h>

#define COMMAND_WRITABLE                                                                           \
    (PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY | PCI_COMMAND_SERR |             \
     PCI_COMMAND_INTX_DISABLE)

uint16_t pci_config_get16(const struct pci_config *config, uint8_t offset)
{
    uint16_t value;
    memcpy(&value, config->bytes + offset, sizeof value);
    return value;
}

uint32_t pci_config_get32(const struct pci_config *config, uint8_t offset)
{
    uint32_t value;
    memcpy(&value, config->bytes + offset, sizeof value);
    return value;
}

void pci_config_set16(struct pci_config *config, uint8_t offset, uint16_t value)
{
    memcpy(config->bytes + offset, &value, sizeof value);
}

void pci_config_set32(struct pci_config *config, uint8_t offset, uint32_t value)
{
    memcpy(config->bytes + offset, &value, sizeof value);
}

void pci_config_allow16(struct pci_config *config, uint8_t offset, uint16_t mask)
{
    memcpy(config->writable + offset, &mask, sizeof mask);
}

void pci_config_init(struct pci_config *config, const struct pci_identity *identity)
{
    *config = (struct pci_config){.free_offset = PCI_STD_HEADER_SIZEOF};
    pci_config_set16(config, PCI_VENDOR_ID, identity->vendor);
    pci_config_set16(config, PCI_DEVICE_ID, identity->device);
    pci_config_set32(config, PCI_CLASS_REVISION, identity->class_code << 8 | identity->revision);
    pci_config_set16(config, PCI_SUBSYSTEM_VENDOR_ID, identity->subsystem_vendor);
    pci_config_set16(config, PCI_SUBSYSTEM_ID, identity->subsystem);
    pci_config_allow16(config, PCI_COMMAND, COMMAND_WRITABLE);
    config->writable[PCI_CACHE_LINE_SIZE] = 0xff;
    config->writable[PCI_INTERRUPT_LINE] = 0xff;
}

void pci_config_set_bar(struct pci_config *config, unsigned bar, uint32_t size)
{
    uint8_t offset = (uint8_t)(PCI_BASE_ADDRESS_0 + 4 * bar);
    uint32_t mask = ~(size - 1);
    config->bar_size[bar] = size;
    pci_config_set32(config, offset, PCI_BASE_ADDRESS_SPACE_MEMORY);
    memcpy(config->writable + offset, &mask, sizeof mask);
}

uint8_t pci_config_add_capability(struct pci_config *config, uint8_t id, const void *body,
                                  uint8_t body_size)
{
    uint8_t offset = config->free_offset;
    config->bytes[offset] = id;
    memcpy(config->bytes + offset + PCI_CAP_FLAGS, body, body_size);
    if (config->last_capability)
        config->bytes[config->last_capability + PCI_CAP_LIST_NEXT] = offset;
    else
        config->bytes[PCI_CAPABILITY_LIST] = offset;
    config->bytes[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
    config->last_capability = offset;
    config->free_offset = (uint8_t)(((unsigned)offset + PCI_CAP_FLAGS + body_size + 3) & ~3u);
    return offset;
}

static bool in_range(uint32_t offset, unsigned length)
{
    return offset < PCI_CONFIG_SIZE && length <= PCI_CONFIG_SIZE - offset;
}

void pci_config_read(const struct pci_config *config, uint32_t offset, void *data, unsigned length)
{
    if (in_range(offset, length))
        memcpy(data, config->bytes + offset, length);
    else
        memset(data, 0, length);
}

void pci_config_write(struct pci_config *config, uint32_t offset, const void *data, unsigned length)
{
    if (!in_range(offset, length))
        return;
    const uint8_t *in = data;
    for (unsigned i = 0; i < length; i++) {
        uint8_t mask = config->writable[offset + i];
        uint8_t *byte = &config->bytes[offset + i];
        *byte = (uint8_t)((*byte & ~mask) | (in[i] & mask));
    }
}

#include "node-agent/agent/image_window.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct image_slot *slot_of(struct image_window *window, uint64_t offset)
{
    return &window->slots[offset / IMAGE_PIECE_BYTES % IMAGE_WINDOW];
}

void image_window_clear(struct image_window *window)
{
    for (size_t i = 0; i < IMAGE_WINDOW; i++) {
        free(window->slots[i].data);
        window->slots[i] = (struct image_slot){0};
    }
}

void image_window_start(struct image_window *window, uint64_t bytes, uint64_t length)
{
    image_window_clear(window);
    window->bytes = bytes;
    window->length = length;
}

void image_window_ask(struct image_window *window, int64_t now_ms, int64_t again_ms,
                      image_ask_fn ask, void *context)
{
    uint64_t end = window->length + (uint64_t)IMAGE_WINDOW * IMAGE_PIECE_BYTES;
    for (uint64_t offset = window->length; offset < window->bytes && offset < end;
         offset += IMAGE_PIECE_BYTES) {
        struct image_slot *slot = slot_of(window, offset);
        uint64_t left = window->bytes - offset;
        if (slot->data || (slot->asked && again_ms && now_ms - slot->asked_ms <= again_ms))
            continue;
        slot->offset = offset;
        slot->length = left < IMAGE_PIECE_BYTES ? (uint32_t)left : IMAGE_PIECE_BYTES;
        slot->asked = ask(context, slot->offset, slot->length);
        slot->asked_ms = now_ms;
    }
}

int image_window_put(struct image_window *window, uint64_t offset, const uint8_t *data, size_t size,
                     struct error *err)
{
    struct image_slot *slot = slot_of(window, offset);
    if (!slot->length || slot->offset != offset || slot->data)
        return 0;
    if (size != slot->length)
        return error_set(err, ERROR_FAILED, "the controller sent %zu bytes where %u were asked for",
                         size, slot->length);
    slot->data = malloc(size);
    if (!slot->data)
        return error_errno(err, ENOMEM, "receiving it");
    memcpy(slot->data, data, size);
    return 0;
}

const struct image_slot *image_window_peek(const struct image_window *window)
{
    const struct image_slot *slot =
        &window->slots[window->length / IMAGE_PIECE_BYTES % IMAGE_WINDOW];
    return slot->data && slot->offset == window->length ? slot : NULL;
}

void image_window_pop(struct image_window *window)
{
    struct image_slot *slot = slot_of(window, window->length);
    window->length += slot->length;
    free(slot->data);
    *slot = (struct image_slot){0};
}

/*
 * image_window.h: the pieces of one file that are on their way: what to ask for, what came, in
 * order.
 *
 * IMAGE_WINDOW pieces behind the end of what was taken so far. A piece's slot is fixed by its
 * offset, so two never meet in one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

#define IMAGE_PIECE_BYTES (1u << 20)
#define IMAGE_WINDOW      4

struct image_slot {
    uint64_t offset;
    uint32_t length; /* 0: the slot is free */
    bool asked;
    int64_t asked_ms;
    uint8_t *data; /* arrived, but something before it has not */
};

struct image_window {
    uint64_t bytes;  /* of the whole file */
    uint64_t length; /* taken so far; a multiple of IMAGE_PIECE_BYTES, or all */
    struct image_slot slots[IMAGE_WINDOW];
};

/* Asks for a piece; false where it could not be asked for now. */
typedef bool (*image_ask_fn)(void *context, uint64_t offset, uint32_t length);

/* Starts at @length of @bytes; what was in the window is dropped. */
void image_window_start(struct image_window *window, uint64_t bytes, uint64_t length);
void image_window_clear(struct image_window *window);

/* Asks for each piece of the window that was never asked for, or longer than @again_ms ago (0: all
 * that have not come). */
void image_window_ask(struct image_window *window, int64_t now_ms, int64_t again_ms,
                      image_ask_fn ask, void *context);

/* A piece arrived. One that was not asked for, or came before, is ignored (0); one of a wrong size
 * is an error. */
int image_window_put(struct image_window *window, uint64_t offset, const uint8_t *data, size_t size,
                     struct error *err);

/* The piece that continues the file, or NULL where it has not come. */
const struct image_slot *image_window_peek(const struct image_window *window);
/* That piece was taken. */
void image_window_pop(struct image_window *window);

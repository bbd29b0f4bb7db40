/*
 * images.h: the files VMs boot, kept by their SHA-256.
 *
 * An admin announces an image, sends the pieces of the files that are missing, and announces it
 * again; it exists once all its files are here and their hashes are right. Agents fetch pieces of
 * files by hash.
 */
#pragma once

#include "common/link.h"
#include "controller/controller.h"
#include "proto/admin.pb-c.h"
#include "proto/node.pb-c.h"
#include "proto/store.pb-c.h"

#define IMAGE_PIECE_MAX (1u << 20)
#define IMAGE_FILE_MAX  (1ull << 40)
#define IMAGES_MAX      10000
#define UPLOADS_MAX     32

struct image {
    struct image *next;
    Vmpool__Store__Image *stored;
};

/* The folder STATE_DIR/images is made where it is missing; uploads that were cut off are removed.
 */
struct images *images_open(struct controller *controller, struct error *err);
void images_close(struct images *images);
/* Takes @stored. */
void image_add(struct controller *controller, Vmpool__Store__Image *stored);
struct image *image_by_name(const struct controller *controller, const char *name);
const struct image *images_first(const struct controller *controller);

/* Announces an image. Fills the hashes of files that are missing; none: it exists now. */
int image_put(struct controller *controller, const Vmpool__ImageSpec *spec,
              Vmpool__ImageAccepted *missing, struct error *err);
/* One piece of a file that was announced, in order from offset 0. A repeat of the last is fine. */
int image_take_piece(struct controller *controller, const Vmpool__ImagePiece *piece,
                     struct error *err);
int image_remove(struct controller *controller, const char *name, struct error *err);
/* The removal of images is in the store: their files may go. */
void images_committed(struct controller *controller);
unsigned image_users(const struct controller *controller, const struct image *image);

/* Answers an agent with a piece. */
void images_send_piece(struct controller *controller, const struct link_peer *peer,
                       uint64_t request_id, const Vmpool__NodeImageNeed *need);

/* Images: import in pieces, list, remove. */
#include "controller/api.h"
#include "controller/images.h"
#include "controller/pb.h"

int api_image_put(struct controller *controller, struct api_call *call, struct error *err)
{
    Vmpool__ImageAccepted *accepted = mem_new(sizeof *accepted);
    vmpool__image_accepted__init(accepted);
    call->reply.body_case = VMPOOL__ADMIN_REPLY__BODY_IMAGE_ACCEPTED;
    call->reply.image_accepted = accepted;
    return image_put(controller, call->request->image_put->image, accepted, err);
}

int api_image_piece(struct controller *controller, struct api_call *call, struct error *err)
{
    return image_take_piece(controller, call->request->image_piece, err);
}

static Vmpool__Image *describe(const struct controller *controller, const struct image *image)
{
    Vmpool__Image *out = mem_new(sizeof *out);
    vmpool__image__init(out);
    out->spec = pb_copy(&image->stored->spec->base);
    out->created_wall_ms = image->stored->created_wall_ms;
    out->vms = image_users(controller, image);
    return out;
}

int api_image_list(struct controller *controller, struct api_call *call, struct error *err)
{
    const char *name = call->request->image_list->name;
    const struct image *only = name[0] ? image_by_name(controller, name) : NULL;
    if (name[0] && !only)
        return error_set(err, ERROR_NOT_FOUND,
                         "there is no image %.80s: \"poolctl image ls\" shows them", name);
    Vmpool__ImageTable *table = mem_new(sizeof *table);
    vmpool__image_table__init(table);
    call->reply.body_case = VMPOOL__ADMIN_REPLY__BODY_IMAGES;
    call->reply.images = table;
    for (const struct image *image = only ? only : images_first(controller); image;
         image = only ? NULL : image->next) {
        if (table->n_images == TABLE_ROWS_MAX)
            api_send_part(controller, call);
        pb_push(&table->images, &table->n_images, describe(controller, image));
    }
    return 0;
}

int api_image_remove(struct controller *controller, struct api_call *call, struct error *err)
{
    return image_remove(controller, call->request->image_remove->name, err);
}

/* cmd_image.c: poolctl image ls|rm. */
#include "poolctl/ask.h"
#include "poolctl/commands.h"
#include "poolctl/confirm.h"
#include "poolctl/message.h"

static int run_ls(struct invocation *call, struct error *err)
{
    Vmpool__ImageList body = VMPOOL__IMAGE_LIST__INIT;
    ADMIN_REQUEST(request, IMAGE_LIST, image_list, &body);
    return ask_and_print(call, &request, VMPOOL__ADMIN_REPLY__BODY_IMAGES, &view_images, err);
}

static const struct command image_ls = {
    .name = "ls",
    .summary = "list the images VMs can be made of",
    .run = run_ls,
};

static int run_rm(struct invocation *call, struct error *err)
{
    const char *name = invocation_argument(call, 0);
    Vmpool__ImageRemove body = VMPOOL__IMAGE_REMOVE__INIT;
    body.name = ask_text(name);
    ADMIN_REQUEST(request, IMAGE_REMOVE, image_remove, &body);
    if (confirm(call, err, "Remove image %s?", name) < 0)
        return -1;
    struct session *session = session_open(call, err);
    Vmpool__AdminReply *reply = NULL;
    int result = session ? session_call(session, &request, &reply, err) : -1;
    session_close(session);
    if (result == 0 && !invocation_has(call, "quiet"))
        (void)fprintf(call->terminal.err, "Image %s is removed.\n", name);
    vmpool__admin_reply__free_unpacked(reply, NULL);
    return result;
}

static const struct command image_rm = {
    .name = "rm",
    .summary = "remove an image no VM uses",
    .arguments = ONE_ARGUMENT("IMAGE", "the image's name", COMPLETE_IMAGE),
    .run = run_rm,
};

const struct command command_image = {
    .name = "image",
    .summary = "what VMs boot from",
    .children = (const struct command *const[]){&command_image_import, &image_ls, &image_rm, NULL},
};

#include "controller/outbox.h"

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "controller/pb.h"

struct letter {
    struct letter *next;
    struct link_peer peer;
    char *request_id; /* of an admin's request; NULL: to an agent */
    uint8_t *data;
    size_t size;
};

struct outbox {
    struct letter *first, **last;
};

struct outbox *outbox_new(void)
{
    struct outbox *outbox = mem_new(sizeof *outbox);
    outbox->last = &outbox->first;
    return outbox;
}

static void free_letter(struct letter *letter)
{
    free(letter->request_id);
    free(letter->data);
    free(letter);
}

static struct letter *take_all(struct outbox *outbox)
{
    struct letter *all = outbox->first;
    outbox->first = NULL;
    outbox->last = &outbox->first;
    return all;
}

void outbox_free(struct outbox *outbox)
{
    if (!outbox)
        return;
    for (struct letter *next, *letter = take_all(outbox); letter; letter = next) {
        next = letter->next;
        free_letter(letter);
    }
    free(outbox);
}

static struct letter *queue(struct controller *controller, const struct link_peer *peer,
                            const ProtobufCMessage *message)
{
    struct letter *letter = mem_new(sizeof *letter);
    letter->peer = *peer;
    letter->data = pb_pack(message, &letter->size);
    *controller->outbox->last = letter;
    controller->outbox->last = &letter->next;
    controller_touch(controller);
    return letter;
}

void outbox_node(struct controller *controller, const struct link_peer *peer,
                 const Vmpool__ControllerToNode *message)
{
    (void)queue(controller, peer, &message->base);
}

void outbox_admin(struct controller *controller, const struct link_peer *peer,
                  const Vmpool__AdminReply *reply)
{
    struct letter *letter = queue(controller, peer, &reply->base);
    letter->request_id = text_copy(reply->request_id);
}

void outbox_send(struct controller *controller, outbox_gone_fn gone)
{
    for (struct letter *next, *letter = take_all(controller->outbox); letter; letter = next) {
        struct error err = ERROR_INIT;
        next = letter->next;
        int status =
            link_server_send(controller->link, &letter->peer, letter->data, letter->size, &err);
        if (status < 0)
            log_warn("%s", err.text);
        if (status != 0 && letter->request_id)
            gone(controller, &letter->peer);
        free_letter(letter);
    }
}

void outbox_fail(struct controller *controller, const struct error *failure)
{
    for (struct letter *next, *letter = take_all(controller->outbox); letter; letter = next) {
        next = letter->next;
        if (letter->request_id) {
            struct error err = ERROR_INIT;
            Vmpool__AdminReply reply = VMPOOL__ADMIN_REPLY__INIT;
            size_t size = 0;
            reply.request_id = letter->request_id;
            reply.done = true;
            reply.failure = pb_failure(failure);
            uint8_t *data = pb_pack(&reply.base, &size);
            (void)link_server_send(controller->link, &letter->peer, data, size, &err);
            pb_free(reply.failure);
            free(data);
        }
        free_letter(letter);
    }
}

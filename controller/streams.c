#include "controller/streams.h"

#include <stdlib.h>
#include <string.h>

#include "controller/outbox.h"
#include "controller/pb.h"

static void free_stream(struct stream *stream)
{
    free(stream->request_id);
    free(stream);
}

static bool same_peer(const struct link_peer *a, const struct link_peer *b)
{
    return a->routing_length == b->routing_length &&
           memcmp(a->routing_id, b->routing_id, a->routing_length) == 0;
}

void stream_open(struct controller *controller, uint64_t job, const struct link_peer *peer,
                 const char *request_id)
{
    unsigned count = 1;
    struct stream **last = &controller->streams;
    for (; *last; last = &(*last)->next)
        count++;
    struct stream *stream = mem_new(sizeof *stream);
    stream->job = job;
    stream->peer = *peer;
    stream->request_id = text_copy(request_id);
    *last = stream;
    if (count > STREAMS_MAX) {
        struct stream *oldest = controller->streams;
        controller->streams = oldest->next;
        free_stream(oldest);
    }
}

void streams_send(struct controller *controller, uint64_t job, Vmpool__AdminReply *reply)
{
    char *request_id = reply->request_id;
    for (struct stream **at = &controller->streams; *at;) {
        struct stream *stream = *at;
        if (stream->job != job) {
            at = &stream->next;
            continue;
        }
        reply->request_id = stream->request_id;
        outbox_admin(controller, &stream->peer, reply);
        if (reply->done) {
            *at = stream->next;
            free_stream(stream);
        } else {
            at = &stream->next;
        }
    }
    reply->request_id = request_id;
}

bool streams_watch(const struct controller *controller, uint64_t job)
{
    for (const struct stream *stream = controller->streams; stream; stream = stream->next)
        if (stream->job == job)
            return true;
    return false;
}

void streams_drop_peer(struct controller *controller, const struct link_peer *peer)
{
    for (struct stream **at = &controller->streams; *at;) {
        struct stream *stream = *at;
        if (same_peer(&stream->peer, peer)) {
            *at = stream->next;
            free_stream(stream);
        } else {
            at = &stream->next;
        }
    }
}

void streams_free(struct controller *controller)
{
    while (controller->streams) {
        struct stream *stream = controller->streams;
        controller->streams = stream->next;
        free_stream(stream);
    }
}

/*
 * streams.h: requests that are answered many times: watched jobs and followed events.
 *
 * A stream ends with its last answer, when its admin can't be reached, or as the oldest of more
 * than STREAMS_MAX.
 */
#pragma once

#include "common/link.h"
#include "controller/controller.h"
#include "proto/admin.pb-c.h"

#define STREAMS_MAX 512

struct stream {
    struct stream *next;
    uint64_t job; /* watched; 0: events are followed */
    struct link_peer peer;
    char *request_id;
};

void stream_open(struct controller *controller, uint64_t job, const struct link_peer *peer,
                 const char *request_id);
/* Sends @reply to all streams of a job (0: of events); with reply->done they end. The request_id is
 * filled in here. */
void streams_send(struct controller *controller, uint64_t job, Vmpool__AdminReply *reply);
bool streams_watch(const struct controller *controller, uint64_t job);
void streams_drop_peer(struct controller *controller, const struct link_peer *peer);
void streams_free(struct controller *controller);

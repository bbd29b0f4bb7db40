#include "controller/events.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "controller/outbox.h"
#include "controller/pb.h"
#include "controller/streams.h"

/* A reply of so many events stays far below LINK_MESSAGE_MAX. */
#define BATCH 500

static void send_event(struct controller *controller, Vmpool__Event *event)
{
    Vmpool__EventBatch batch = VMPOOL__EVENT_BATCH__INIT;
    Vmpool__AdminReply reply = VMPOOL__ADMIN_REPLY__INIT;
    batch.events = &event;
    batch.n_events = 1;
    reply.body_case = VMPOOL__ADMIN_REPLY__BODY_EVENTS;
    reply.events = &batch;
    streams_send(controller, 0, &reply);
}

void event_add(struct controller *controller, const char *severity, const char *kind,
               const char *subject, uint64_t job, const char *format, ...)
{
    char text[ERROR_TEXT_MAX], key[STORE_NUMBER_SIZE];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    Vmpool__Event *event = mem_new(sizeof *event);
    vmpool__event__init(event);
    event->id = controller->next_event++;
    event->wall_ms = (uint64_t)clock_wall_ms();
    event->job = job;
    pb_set(&event->severity, severity);
    pb_set(&event->kind, kind);
    pb_set(&event->subject, subject);
    pb_set(&event->text, text);
    store_put(controller->store, STORE_EVENT, store_number(event->id, key), &event->base);
    if (event->id > EVENTS_KEPT)
        store_delete(controller->store, STORE_EVENT, store_number(event->id - EVENTS_KEPT, key));
    enum log_level level = severity[0] == 'e'   ? LOG_LEVEL_ERROR
                           : severity[0] == 'w' ? LOG_LEVEL_WARN
                                                : LOG_LEVEL_INFO;
    log_line(level, "%s %s: %s", kind, subject, text);
    send_event(controller, event);
    pb_free(event);
    controller_touch(controller);
}

struct reading {
    struct controller *controller;
    const struct link_peer *peer;
    Vmpool__AdminReply reply;
    Vmpool__EventBatch batch;
};

static void flush(struct reading *reading, bool done)
{
    reading->reply.done = done;
    outbox_admin(reading->controller, reading->peer, &reading->reply);
    for (size_t i = 0; i < reading->batch.n_events; i++)
        pb_free(reading->batch.events[i]);
    free(reading->batch.events);
    reading->batch.events = NULL;
    reading->batch.n_events = 0;
}

static int read_event(void *context, const char *key, const uint8_t *data, size_t size,
                      struct error *err)
{
    struct reading *reading = context;
    (void)key;
    void *event = pb_unpack(&vmpool__event__descriptor, data, size, err);
    if (!event)
        return -1;
    pb_push(&reading->batch.events, &reading->batch.n_events, event);
    if (reading->batch.n_events == BATCH)
        flush(reading, false);
    return 0;
}

void events_watch(struct controller *controller, const struct link_peer *peer,
                  const char *request_id, const Vmpool__EventWatch *watch)
{
    struct error err = ERROR_INIT;
    struct reading reading = {controller, peer, VMPOOL__ADMIN_REPLY__INIT,
                              VMPOOL__EVENT_BATCH__INIT};
    char after[STORE_NUMBER_SIZE] = "";
    uint64_t newest = controller->next_event - 1;
    auto_free char *id = text_copy(request_id);
    uint64_t since = watch->since_id;
    if (since == 0 && watch->last > 0)
        since = newest > watch->last ? newest - watch->last : 0;
    else if (since == 0 && watch->follow)
        since = newest;
    reading.reply.request_id = id;
    reading.reply.body_case = VMPOOL__ADMIN_REPLY__BODY_EVENTS;
    reading.reply.events = &reading.batch;
    if (store_read(controller->store, STORE_EVENT, store_number(since, after), 0, read_event,
                   &reading, &err) < 0)
        reading.reply.failure = pb_failure(&err);
    flush(&reading, !watch->follow || reading.reply.failure);
    if (watch->follow && !reading.reply.failure)
        stream_open(controller, 0, peer, request_id);
    pb_free(reading.reply.failure);
}

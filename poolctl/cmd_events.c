/* cmd_events.c: poolctl events. */
#include "common/units.h"
#include "poolctl/ask.h"
#include "poolctl/commands.h"
#include "poolctl/message.h"

#define EVENTS_DEFAULT 50
#define EVENTS_MAX     100000
#define WAIT_MS        60000

struct following {
    struct view_style style;
    uint64_t last_id; /* what was printed last: a repeated answer prints nothing twice */
};

/* One document a event for JSON and YAML, rows that continue the table for the rest. */
static int print_events(struct following *following, const Vmpool__EventBatch *batch,
                        struct error *err)
{
    struct view_style *style = &following->style;
    json_t *list = json_array();
    int result = list ? 0 : error_set(err, ERROR_FAILED, "out of memory");
    bool one_each = style->format == OUTPUT_JSON || style->format == OUTPUT_YAML;
    for (size_t i = 0; result == 0 && i < batch->n_events; i++) {
        const Vmpool__Event *event = batch->events[i];
        if (event->id && event->id <= following->last_id)
            continue;
        following->last_id = event->id;
        json_t *json = message_to_json(&event->base, err);
        if (one_each)
            result = json ? view_document(style, message_document("event", json, err), err) : -1;
        else if (json_array_append_new(list, json) < 0)
            result = error_set(err, ERROR_FAILED, "out of memory");
    }
    if (result == 0 && json_array_size(list) > 0 && !one_each) {
        result = view_list(style, &view_events, json_incref(list), err);
        style->no_header = true;
    }
    json_decref(list);
    (void)fflush(style->terminal.out);
    return result;
}

static int follow(const struct invocation *call, struct session *session,
                  Vmpool__AdminRequest *request, struct error *err)
{
    struct following following = {.style = view_style_of(call)};
    bool one_each = following.style.format == OUTPUT_JSON || following.style.format == OUTPUT_YAML;
    following.style.no_header = one_each; /* one compact JSON document a line */
    session_set_patience(session, SESSION_RETRY_MS);
    struct session_request *watch = session_begin(session, request, err);
    int result = watch ? session_catch_interrupts(session, err) : -1;
    bool done = false;
    while (result == 0 && !done && !session_interrupted(session)) {
        Vmpool__AdminReply *reply = NULL;
        int got = session_next(session, watch, WAIT_MS, &reply, err);
        if (got < 0)
            result = -1;
        else if (got > 0 && reply->body_case == VMPOOL__ADMIN_REPLY__BODY_EVENTS)
            result = print_events(&following, reply->events, err);
        done = got > 0 && reply->done;
        vmpool__admin_reply__free_unpacked(reply, NULL);
    }
    session_end(session, watch);
    return result;
}

static int run(struct invocation *call, struct error *err)
{
    uint64_t last = 0;
    Vmpool__EventWatch body = VMPOOL__EVENT_WATCH__INIT;
    ADMIN_REQUEST(request, EVENT_WATCH, event_watch, &body);
    if (invocation_number(call, "since", 0, INT64_MAX, &body.since_id, err) < 0 ||
        invocation_number(call, "last", 1, EVENTS_MAX, &last, err) < 0)
        return -1;
    body.follow = invocation_has(call, "follow");
    body.last = last ? (uint32_t)last : invocation_has(call, "since") ? 0 : EVENTS_DEFAULT;
    if (!body.follow)
        return ask_and_print(call, &request, VMPOOL__ADMIN_REPLY__BODY_EVENTS, &view_events, err);
    struct session *session = session_open(call, err);
    int result = session ? follow(call, session, &request, err) : -1;
    session_close(session);
    return result;
}

const struct command command_events = {
    .name = "events",
    .summary = "what happened in the pool",
    .details = "With --follow and -o json each event is a document on a line of its own; events "
               "that were missed while the controller was away are caught up with.",
    .options =
        (const struct option[]){
            {.name = "follow", .letter = 'f', .help = "go on as events come, until Ctrl-C"},
            {.name = "last", .value = "N", .help = "begin with the last N (default 50)"},
            {.name = "since", .value = "ID", .help = "begin after the event with this id"},
            {0}},
    .examples = (const struct example[]){{"poolctl events -f", "See what happens"}, {0}},
    .run = run,
};

#include "poolctl/ask.h"

#include "poolctl/message.h"

char *ask_text(const char *text)
{
    return (char *)(uintptr_t)(text ? text : "");
}

int ask_session(struct session *session, Vmpool__AdminRequest *request,
                Vmpool__AdminReply__BodyCase expected, Vmpool__AdminReply **reply,
                struct error *err)
{
    if (session_call(session, request, reply, err) < 0)
        return -1;
    if ((*reply)->body_case == expected)
        return 0;
    vmpool__admin_reply__free_unpacked(*reply, NULL);
    *reply = NULL;
    return error_set(err, ERROR_FAILED, ASK_WRONG_ANSWER);
}

int ask(const struct invocation *call, Vmpool__AdminRequest *request,
        Vmpool__AdminReply__BodyCase expected, Vmpool__AdminReply **reply, struct error *err)
{
    struct session *session = session_open(call, err);
    int result = session ? ask_session(session, request, expected, reply, err) : -1;
    session_close(session);
    return result;
}

/* Adds what one part of an answer holds to @list. */
static int add_part(json_t *list, const Vmpool__AdminReply *reply, const struct view *view,
                    struct error *err)
{
    char path[64];
    /* A reply's member is named as the list inside it: { "vms": { "vms": [...] } } */
    (void)snprintf(path, sizeof path, "%s.%s", view->list_key, view->list_key);
    json_t *json = message_to_json(&reply->base, err);
    json_t *part = message_at(json, path);
    int result = json ? 0 : -1;
    if (json && (!part || json_array_extend(list, part) < 0))
        result = error_set(err, ERROR_FAILED, "the controller's answer has no %s", view->list_key);
    json_decref(json);
    return result;
}

json_t *ask_list(struct session *session, Vmpool__AdminRequest *request,
                 Vmpool__AdminReply__BodyCase expected, const struct view *view, struct error *err)
{
    json_t *list = json_array();
    struct session_request *made = session_begin(session, request, err);
    bool done = false;
    int result = made ? 0 : -1;
    while (result == 0 && !done) { /* a long list comes in parts */
        Vmpool__AdminReply *reply = NULL;
        if (session_await(session, made, &reply, err) < 0)
            result = -1;
        else if (reply->body_case != expected)
            result = error_set(err, ERROR_FAILED, ASK_WRONG_ANSWER);
        else
            result = add_part(list, reply, view, err);
        done = reply && reply->done;
        vmpool__admin_reply__free_unpacked(reply, NULL);
    }
    session_end(session, made);
    if (result == 0)
        return list;
    json_decref(list);
    return NULL;
}

int ask_and_print(const struct invocation *call, Vmpool__AdminRequest *request,
                  Vmpool__AdminReply__BodyCase expected, const struct view *view, struct error *err)
{
    struct view_style style = view_style_of(call);
    struct session *session = session_open(call, err);
    json_t *list = session ? ask_list(session, request, expected, view, err) : NULL;
    session_close(session);
    return list ? view_list(&style, view, list, err) : -1;
}

json_t *ask_one(struct session *session, Vmpool__AdminRequest *request,
                Vmpool__AdminReply__BodyCase expected, const struct view *view, const char *what,
                const char *name, struct error *err)
{
    json_t *list = ask_list(session, request, expected, view, err);
    json_t *one = json_incref(json_array_get(list, 0));
    if (list && !one)
        (void)error_set(err, ERROR_NOT_FOUND, "there is no %s '%s': see poolctl %s ls", what, name,
                        what);
    json_decref(list);
    return one;
}

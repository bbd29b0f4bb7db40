/* events.h: what happened, for people: kept in the store, sent to those who follow. */
#pragma once

#include "common/link.h"
#include "controller/controller.h"
#include "proto/admin.pb-c.h"

#define EVENTS_KEPT 50000

/* Adds an event. @severity: "info", "warning", "error"; @kind: "vm.started"; @job: 0 for none. */
void event_add(struct controller *controller, const char *severity, const char *kind,
               const char *subject, uint64_t job, const char *format, ...)
    __attribute__((format(printf, 6, 7)));

/* Answers an EventWatch: what is kept, then what comes where it follows. */
void events_watch(struct controller *controller, const struct link_peer *peer,
                  const char *request_id, const Vmpool__EventWatch *watch);

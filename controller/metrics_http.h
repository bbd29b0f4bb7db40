/*
 * metrics_http.h: "GET /metrics" over plain HTTP, by libmicrohttpd in the controller's own event
 * loop: no thread, and nothing that a client does or leaves undone makes the loop wait.
 *
 * Bounds: 16 connections, whoever is beyond them waits in the kernel's queue; a connection that is
 * silent for 10 s, or older than 60 s, ends; a request's head is at most 8 KiB; an answer is at
 * most 64 MiB, and four are in memory at a time. Who asks within a second of another that still
 * reads gets the same answer, so that many clients cost little more than one.
 */
#pragma once

#include "common/error.h"
#include "common/loop.h"
#include "controller/metric_text.h"

struct metrics_http;

typedef void (*metrics_write_fn)(const void *context, struct metric_text *text);

/* Whether @address is one to listen at: "127.0.0.1:7401", "[::1]:7401"; else ERROR_USAGE. */
int metrics_http_check(const char *address, struct error *err);

/* Listens at @address (port 0: any free one) and answers with what @write makes. An address in use
 * is ERROR_CONFLICT. Close before @loop is freed. */
struct metrics_http *metrics_http_open(struct loop *loop, const char *address,
                                       metrics_write_fn write, const void *context,
                                       struct error *err);
/* Ends all connections, too. NULL is fine. */
void metrics_http_close(struct metrics_http *http);
/* The port listened at. */
unsigned metrics_http_port(const struct metrics_http *http);

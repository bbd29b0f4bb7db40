/*
 * supply.h: post-copy as the source sees it: the pages the target lacks, sent by the page streams.
 *
 * The first stream is the urgent one: it reads which pages are wanted and sends them at once, then
 * the pages around them that are still to be sent. The others send all the rest, from the lowest
 * page on, once the guest runs at the target. Each page is claimed by who sends it, and sent once.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

#define SUPPLY_AROUND 16u /* blocks of 64 pages whose rest is to be sent soon */

struct page_stream;

struct supply {
    uint64_t pages;            /* of RAM */
    _Atomic uint64_t *pending; /* one bit a page: not sent yet */
    _Atomic uint64_t cursor;   /* next word of @pending for the others than the urgent stream */
    _Atomic uint64_t wanted;   /* pages that were */
    int push_fd;               /* eventfd, readable: the others may begin */
    int over_fd;               /* eventfd, readable: streams shall end */
};

/* For RAM of @pages pages. */
int supply_init(struct supply *supply, uint64_t pages, struct error *err);
void supply_destroy(struct supply *supply);

/* What is to be sent: the pages of @bitmap. No stream may be serving. */
void supply_fill(struct supply *supply, const uint64_t *bitmap);
/* The guest runs at the target. */
void supply_push(struct supply *supply);
/* Streams that serve end soon. */
void supply_end(struct supply *supply);
uint64_t supply_left(const struct supply *supply);

/* A page stream's part, on its thread. Returns 0 once it is over (for others than the urgent
 * stream: or nothing is left), -1 where the link broke or the stream was stopped. */
int supply_serve(struct supply *supply, struct page_stream *stream, bool urgent, struct error *err);

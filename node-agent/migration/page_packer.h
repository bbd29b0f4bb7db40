/*
 * page_packer.h: puts the pages a stream has to send into frames, each with the codec that serves
 * it best: words that fill a page, what changed since an earlier round, LZ4, zstd, or as they are.
 * One packer a stream; it sends nothing itself. What is sent as it is is never copied.
 *
 * In automatic mode LZ4 and zstd are tried on a few pages now and then, for at most one hundredth
 * of the stream's time, and codec_choice.h decides.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "node-agent/migration/codec_meter.h"
#include "node-agent/migration/migration.h"
#include "node-agent/migration/page_cache.h"

struct packer_options {
    const uint8_t *ram;
    enum migration_compress compress;
    struct codec_meter *meter; /* of all streams; outlives the packer */
    unsigned plain_pages;      /* most pages of a frame that is sent as it is */
};

/* A frame that is ready. */
struct packed {
    enum codec codec;
    const struct run *runs;
    unsigned runs_count;
    uint64_t pages;
    const uint8_t *body; /* NULL: the pages are to be sent from RAM */
    size_t body_bytes;
};

struct packer;

struct packer *packer_new(const struct packer_options *options, struct error *err);
void packer_free(struct packer *packer);

/* A round begins. @cache is NULL where it goes without deltas, and shared by all packers. @calm:
 * the guest runs, so that trying codecs and remembering pages costs it nothing; otherwise it stands
 * still and RAM does not change. */
void packer_begin_round(struct packer *packer, struct page_cache *cache, bool calm);
/* Adds a page that is not all zeros. Returns a frame that is complete by it, or NULL; the frame
 * must be sent before the next call. */
const struct packed *packer_add(struct packer *packer, uint64_t page);
/* The page was sent as zeros. */
void packer_note_zeros(struct packer *packer, uint64_t page);
/* At the end of a round: the frames that are not full yet, one a call; NULL: no more. */
const struct packed *packer_flush(struct packer *packer);
/* The frame that was given last went out in @send_ns, of which the link was waited for in
 * @waited_ns; @wire_bytes with header and tag. */
void packer_note_sent(struct packer *packer, uint64_t send_ns, uint64_t waited_ns,
                      uint64_t wire_bytes);

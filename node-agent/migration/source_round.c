/* source_round.c: a round of pages at the source: begun, counted, and what it tells reported. */
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "node-agent/migration/pages.h"
#include "node-agent/migration/source_steps.h"

#define SPEED_BYTES 1048576u /* on the wire; a smaller round says nothing of its speed */

void source_report_counters(struct migration_source *source)
{
    uint64_t sent = atomic_load(&source->sender.pages_sent);
    uint64_t zero = atomic_load(&source->sender.pages_zero);
    uint64_t done = sent + zero - source->round_sent - source->round_zero;
    uint64_t left = source->remaining > done ? source->remaining - done : 0;
    if (source->postcopy)
        left = supply_left(&source->supply);
    struct migration_progress *progress = report_edit(&source->report);
    progress->wire_bytes = source->bytes_before + page_sender_bytes(&source->sender) +
                           atomic_load(&source->control.sent);
    progress->pages_sent = sent;
    progress->pages_zero = zero;
    progress->page_bytes = sent * PAGE_BYTES;
    progress->remaining_bytes = left * PAGE_BYTES;
    progress->round = source->round;
    report_done(&source->report);
}

void source_begin_round(struct migration_source *source)
{
    source->round++;
    source->round_ns = clock_monotonic_ns();
    source->round_bytes = page_sender_bytes(&source->sender);
    source->round_sent = atomic_load(&source->sender.pages_sent);
    source->round_zero = atomic_load(&source->sender.pages_zero);
    struct page_round round = {.number = source->round,
                               .bitmap = source->bitmap,
                               .clear = !source->paused,
                               .first = source->round == 1};
    page_sender_begin_round(&source->sender, &round);
}

int source_limit_round(struct migration_source *source, uint64_t pages, struct error *err)
{
    uint64_t words = bitmap_words(source->guest.ram_bytes / PAGE_BYTES);
    source->rest = calloc(words, sizeof(*source->rest));
    if (!source->rest)
        return error_set(err, ERROR_FAILED, "out of memory for a page bitmap");
    for (uint64_t word = 0; word < words; word++) {
        uint64_t count = (uint64_t)__builtin_popcountll(source->bitmap[word]);
        if (count > pages) {
            source->rest[word] = source->bitmap[word];
            source->bitmap[word] = pages = 0;
        }
        pages -= source->bitmap[word] ? count : 0;
    }
    return 0;
}

/* Takes back what the round left out; returns how many pages that is. */
static uint64_t collect_rest(struct migration_source *source)
{
    uint64_t words = bitmap_words(source->guest.ram_bytes / PAGE_BYTES), pages = 0;
    for (uint64_t word = 0; source->rest && word < words; word++) {
        pages += (uint64_t)__builtin_popcountll(source->rest[word]);
        source->bitmap[word] |= source->rest[word];
    }
    free(source->rest);
    source->rest = NULL;
    return pages;
}

/* How the pages of the round were encoded. */
static void count_codecs(struct migration_source *source, struct migration_round *round)
{
    uint64_t most = 0;
    for (unsigned codec = 0; codec < CODECS; codec++) {
        uint64_t pages = atomic_load(&source->sender.pages_by[codec]);
        uint64_t now = pages - source->round_by[codec];
        source->round_by[codec] = pages;
        if (codec == CODEC_DELTA)
            round->pages_delta = now;
        if (now > most) {
            most = now;
            round->codec = (uint8_t)codec;
        }
    }
    round->page_bytes = round->pages_sent * PAGE_BYTES;
}

/* The round is with the target: takes its statistics and collects what was dirtied meanwhile. */
struct migration_round source_count_round(struct migration_source *source)
{
    struct migration_round round = {
        .number = source->round,
        .pages_sent = atomic_load(&source->sender.pages_sent) - source->round_sent,
        .pages_zero = atomic_load(&source->sender.pages_zero) - source->round_zero,
        .wire_bytes = page_sender_bytes(&source->sender) - source->round_bytes,
        .duration_us = (uint64_t)(clock_monotonic_ns() - source->round_ns) / 1000 + 1,
    };
    count_codecs(source, &round);
    return round;
}

int source_end_round(struct migration_source *source, struct error *err)
{
    struct migration_round round = source_count_round(source);
    uint64_t us = round.duration_us;
    uint64_t pages = source->guest.ram_bytes / PAGE_BYTES;
    memset(source->bitmap, 0, bitmap_words(pages) * sizeof(*source->bitmap));
    if (source->guest.ops->dirty_sync(source->guest.self, source->bitmap, err) < 0)
        return error_wrap(err, "cannot read the dirty log");
    hot_collect(source);
    bool limited = source->rest;
    uint64_t left_out = collect_rest(source);
    source->remaining = bitmap_count(source->bitmap, pages);
    round.dirtied_pages = source->remaining - left_out;
    source->round_sent += round.pages_sent;
    source->round_zero += round.pages_zero;
    /* Of pages, not of what they were encoded to: dirty memory is counted in pages, too. */
    link_model_note(&source->link, round.page_bytes, us);
    if (source->round == 1)
        source->link.rough = true;
    report_add_round(&source->report, &round);
    struct migration_progress *progress = report_edit(&source->report);
    uint64_t dirty = round.dirtied_pages * 1000000 / us;
    if (source->round == 1 && dirty < source->hot.pages_per_second)
        dirty = source->hot.pages_per_second;
    /* What a round left out was dirty already: it cannot tell that it was written again. */
    if (!limited)
        progress->dirty_bps = dirty * PAGE_BYTES * 8;
    if (round.wire_bytes >= SPEED_BYTES || progress->bandwidth_bps == 0)
        progress->bandwidth_bps = round.wire_bytes * 8 * 1000000 / us;
    report_done(&source->report);
    source_report_counters(source);
    return 0;
}

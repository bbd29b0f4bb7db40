#include "node-agent/migration/delta.h"

#include <emmintrin.h>
#include <endian.h>
#include <string.h>

#define PAGE_WORDS  512u
#define BLOCK_WORDS 8u
#define WORD_BYTES  sizeof(uint64_t)
#define HEAD_BYTES  4u

static void put_head(uint8_t *out, unsigned kept, unsigned changed)
{
    uint16_t head[2] = {htole16((uint16_t)kept), htole16((uint16_t)changed)};
    memcpy(out, head, sizeof(head));
}

/* Takes 8 words of the page, once, to @words; whether they differ from the copy's. */
static bool take_block(const uint8_t *page, const uint8_t *copy, uint64_t words[BLOCK_WORDS])
{
    __m128i same = _mm_set1_epi8(-1);
    for (unsigned i = 0; i < 4; i++) {
        __m128i now = _mm_load_si128((const __m128i *)(const void *)page + i);
        __m128i old = _mm_load_si128((const __m128i *)(const void *)copy + i);
        _mm_storeu_si128((__m128i *)(void *)words + i, now);
        same = _mm_and_si128(same, _mm_cmpeq_epi8(now, old));
    }
    return _mm_movemask_epi8(same) != 0xffff;
}

struct writer {
    uint8_t *out;
    size_t used, room;
    size_t head;            /* where the head of the record that is open is */
    unsigned kept, changed; /* of that record; changed 0: its head is not written yet */
};

static bool put_word(struct writer *writer, const uint64_t *word)
{
    size_t need = WORD_BYTES + (writer->changed == 0 ? HEAD_BYTES : 0);
    if (writer->room - writer->used < need)
        return false;
    if (writer->changed++ == 0) {
        writer->head = writer->used;
        writer->used += HEAD_BYTES;
    }
    memcpy(writer->out + writer->used, word, WORD_BYTES);
    writer->used += WORD_BYTES;
    return true;
}

/* A word that is as it was: it closes an open record. */
static void keep_words(struct writer *writer, unsigned count)
{
    if (writer->changed > 0) {
        put_head(writer->out + writer->head, writer->kept, writer->changed);
        writer->kept = writer->changed = 0;
    }
    writer->kept += count;
}

static bool put_block(struct writer *writer, const uint64_t words[BLOCK_WORDS], uint8_t *copy)
{
    for (unsigned i = 0; i < BLOCK_WORDS; i++) {
        if (memcmp(copy + (size_t)i * WORD_BYTES, &words[i], WORD_BYTES) == 0)
            keep_words(writer, 1);
        else if (!put_word(writer, &words[i]))
            return false;
    }
    memcpy(copy, words, BLOCK_WORDS * WORD_BYTES);
    return true;
}

size_t delta_encode(const uint8_t *page, uint8_t *copy, uint8_t *out, size_t room)
{
    struct writer writer = {.out = out, .room = room};
    uint64_t words[BLOCK_WORDS];
    for (unsigned at = 0; at < PAGE_WORDS; at += BLOCK_WORDS) {
        size_t offset = (size_t)at * WORD_BYTES;
        if (!take_block(page + offset, copy + offset, words))
            keep_words(&writer, BLOCK_WORDS);
        else if (!put_block(&writer, words, copy + offset))
            return 0;
    }
    if (writer.changed > 0) {
        put_head(out + writer.head, writer.kept, writer.changed);
    } else { /* what is left was kept, or all of it */
        if (room - writer.used < HEAD_BYTES)
            return 0;
        put_head(out + writer.used, writer.kept, 0);
        writer.used += HEAD_BYTES;
    }
    return writer.used;
}

size_t delta_decode(const uint8_t *in, size_t size, uint8_t *page)
{
    size_t used = 0;
    for (unsigned at = 0; at < PAGE_WORDS;) {
        uint16_t head[2];
        if (size - used < sizeof(head))
            return 0;
        memcpy(head, in + used, sizeof(head));
        used += sizeof(head);
        unsigned kept = le16toh(head[0]), changed = le16toh(head[1]);
        size_t bytes = (size_t)changed * WORD_BYTES;
        if (kept + changed == 0 || kept + changed > PAGE_WORDS - at || bytes > size - used)
            return 0;
        memcpy(page + (size_t)(at + kept) * WORD_BYTES, in + used, bytes);
        used += bytes;
        at += kept + changed;
    }
    return used;
}

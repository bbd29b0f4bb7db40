/*
 * stream.c: the byte format of a migration.
 *
 * The source opens one control connection (index 0) and N page connections (1 to N) to the same
 * port. All numbers are little-endian. Each connection begins with
 *
 *   source -> target, 240 bytes                     target -> source, 336 bytes
 *     0  "VMPMIGR1"                                   0  "VMPMIGR2"
 *     8  u16 version   10 u16 index                   8  u16 version   10 u16 flags (1: accepted,
 *    12  u16 N         14 u16 flags (1: encrypted,                256: can do post-copy)
 *                             2: verify,             12  u32 0
 *                             256: post-copy)        16  text, why not, 256 bytes, terminated
 *    16  u64 RAM bytes 24 u64 epoch of the target   272  nonce, 32 random bytes
 *    32  migration id, 64 bytes, terminated         304  MAC, 32 bytes
 *    96  VM id, 64 bytes, terminated
 *   160  nonce, 32 random bytes   192 u64 realtime  200 u64 resume
 *   208  MAC, 32 bytes
 *
 * realtime: the source's CLOCK_REALTIME as it sent the hello, in nanoseconds. The target takes it
 * for how far the two hosts' clocks are apart, so that the guest's clock goes on by the time that
 * passed and not by what the hosts disagree.
 *
 * resume: 0, or the number of the source's attempt, from 1, to go on after the link was lost in
 * post-copy. All connections are made anew then, with keys of their own. A number that is not
 * higher than the last is a recording.
 *
 * MACs are HMAC-SHA256 with a key derived from the migration's: of all before it, and, in the
 * reply, of the source's whole hello first. A hello whose MAC is wrong gets no answer. Keys of the
 * connection are derived from the migration's key and both nonces (seal.h), so a recording of one
 * migration is worthless in any other, a second try of the same one included.
 *
 * After that, frames, each
 *
 *     0        1        2           4            8                16
 *     +--------+--------+-----------+------------+----------------+---------+-----------------+
 *     | type   | codec  | u16 runs  | u32 length | u64 argument   | payload | tag, 16 bytes,  |
 *     |        |        |           | of payload |                |         | where encrypted |
 *     +--------+--------+-----------+------------+----------------+---------+-----------------+
 *
 * With encryption the payload is AES-256-OCB (RFC 7253), the header is authenticated with it, and
 * the nonce is the number of the frame on its connection and direction: frames cannot be dropped,
 * repeated or exchanged. Payloads and arguments:
 *
 *   on page connections, source -> target
 *     PAGES       run table, then the pages of all runs, in order, encoded as codec says: below;
 *                 argument: round
 *     ZEROS       run table; these pages are all zeros; argument: round
 *     ROUND_END   argument: round; nothing of it follows on this connection
 *   on the control connection, source -> target
 *     STATE_BEGIN argument: size of the machine state; payload: u32 attempt, u32 last round.
 *                 The guest is paused: once all page connections reached the end of that round
 *                 and the state is complete, RAM is.
 *     STATE       a piece of at most 1 MiB, in order; argument: its offset
 *     HASH        RAM's XXH3-128 and the state's (memory_hash.h); only with verify
 *     RETRACT     argument: attempt. The guest runs on at the source; rounds go on
 *     GO          argument: epoch; payload: u32 attempt, u32 0. The source has given up: run
 *     CANCEL      throw everything away
 *     STALE       list of runs: what was sent of these pages is old; drop it. Until they are sent
 *                 again they count as lacking
 *     POSTCOPY    within a pause, before STATE; argument: how many pages are lacking. RAM is not
 *                 going to be complete: they come when the guest runs, or when it is loaded
 *   target -> source
 *     REHEARSED   argument: microseconds that saving and loading its own, empty machine state took
 *     ROUND_DONE  argument: round; all page connections have reached its end
 *     READY       argument: attempt; payload: times. Loaded and verified, waiting for GO
 *     RUNNING     argument: epoch; payload: times
 *     ANNOUNCED   argument: microseconds from running until the network was told
 *     FAILED      payload: text, at most 255 bytes. The guest will never run here, or never again
 *     DROPPED     answer to the last STALE; argument: how many pages are lacking
 *     LACKS       once all connections are there again: list of runs that are lacking; argument:
 *                 how many pages more are told by further frames of this type
 *     COMPLETE    the guest runs and nothing is lacking any more: the source is needed no longer
 *   on the first page connection, target -> source
 *     WANT        argument: a page somebody waits for
 *
 * In post-copy PAGES and ZEROS have 2^32 - 1 for a round: such a page is put where nothing is,
 * never over what is there. The first page connection carries what was wanted and what lies around
 * it, the others everything else. A list of runs is at most 1 MiB of them.
 *
 * A run is a u64: page number in the upper 48 bits, number of pages - 1 in the lower 16. Page
 * number is RAM offset / 4096. A frame has at most 256 runs, and 256 pages of data. A run table of
 * an odd number of runs ends with 8 bytes of zeros: what follows it begins a block of the cipher.
 *
 * The codec of PAGES; an encoding is shorter than its pages, and exactly of them:
 *
 *     0 NONE   the pages
 *     1 LZ4    one block in LZ4's block format, of all pages as if they followed one another
 *     2 ZSTD   zstd frames (RFC 8878), likewise
 *     3 DELTA  each page as what differs from its contents of an earlier round, which the target
 *              has in RAM: records as delta.h draws them
 *     4 FILL   per run a u64 that fills all of its pages
 *
 * Encryption is of what was encoded.
 *
 * The source begins a round only after ROUND_DONE of the one before. So a page's older contents
 * cannot overtake newer ones, though any connection may carry any page, and the time of a round is
 * the time until the target had it, socket buffers left out.
 */
#include "node-agent/migration/stream.h"

#include <endian.h>
#include <string.h>

#include "node-agent/migration/codec.h"

#define FLAG_ENCRYPTED   1u
#define FLAG_VERIFY      2u
#define FLAG_POSTCOPY    256u
#define FLAG_ACCEPTED    1u
#define STREAM_COUNT_MAX 16u
#define RAM_BYTES_MAX    (1ull << 46)

static const char hello_magic[8] = {'V', 'M', 'P', 'M', 'I', 'G', 'R', '1'};
static const char reply_magic[8] = {'V', 'M', 'P', 'M', 'I', 'G', 'R', '2'};

static void put16(uint8_t *out, uint16_t value)
{
    value = htole16(value);
    memcpy(out, &value, sizeof(value));
}

static void put32(uint8_t *out, uint32_t value)
{
    value = htole32(value);
    memcpy(out, &value, sizeof(value));
}

static void put64(uint8_t *out, uint64_t value)
{
    value = htole64(value);
    memcpy(out, &value, sizeof(value));
}

static uint16_t get16(const uint8_t *in)
{
    uint16_t value;
    memcpy(&value, in, sizeof(value));
    return le16toh(value);
}

static uint32_t get32(const uint8_t *in)
{
    uint32_t value;
    memcpy(&value, in, sizeof(value));
    return le32toh(value);
}

static uint64_t get64(const uint8_t *in)
{
    uint64_t value;
    memcpy(&value, in, sizeof(value));
    return le64toh(value);
}

/* What each type of frame may look like. PAGES and ZEROS are looked at more closely below. */
static const struct shape {
    uint8_t type;
    enum stream_path path;
    uint32_t length_min, length_max;
} shapes[] = {
    {FRAME_PAGES, PATH_PAGES, 2 * STREAM_RUN_BYTES + 1, STREAM_PAYLOAD_MAX},
    {FRAME_ZEROS, PATH_PAGES, 2 * STREAM_RUN_BYTES, STREAM_RUNS_MAX *STREAM_RUN_BYTES},
    {FRAME_ROUND_END, PATH_PAGES, 0, 0},
    {FRAME_STATE_BEGIN, PATH_TO_TARGET, 8, 8},
    {FRAME_STATE, PATH_TO_TARGET, 1, STREAM_CHUNK_MAX},
    {FRAME_HASH, PATH_TO_TARGET, STREAM_HASH_BYTES, STREAM_HASH_BYTES},
    {FRAME_RETRACT, PATH_TO_TARGET, 0, 0},
    {FRAME_GO, PATH_TO_TARGET, 8, 8},
    {FRAME_CANCEL, PATH_TO_TARGET, 0, 0},
    {FRAME_STALE, PATH_TO_TARGET, STREAM_RUN_BYTES, STREAM_CHUNK_MAX},
    {FRAME_POSTCOPY, PATH_TO_TARGET, 0, 0},
    {FRAME_ROUND_DONE, PATH_TO_SOURCE, 0, 0},
    {FRAME_REHEARSED, PATH_TO_SOURCE, 0, 0},
    {FRAME_READY, PATH_TO_SOURCE, STREAM_TIMES_BYTES, STREAM_TIMES_BYTES},
    {FRAME_RUNNING, PATH_TO_SOURCE, STREAM_TIMES_BYTES, STREAM_TIMES_BYTES},
    {FRAME_ANNOUNCED, PATH_TO_SOURCE, 0, 0},
    {FRAME_FAILED, PATH_TO_SOURCE, 0, STREAM_TEXT_MAX},
    {FRAME_DROPPED, PATH_TO_SOURCE, 0, 0},
    {FRAME_LACKS, PATH_TO_SOURCE, 0, STREAM_CHUNK_MAX},
    {FRAME_COMPLETE, PATH_TO_SOURCE, 0, 0},
    {FRAME_WANT, PATH_WANTS, 0, 0},
};

static const struct shape *find_shape(uint8_t type, enum stream_path path)
{
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        if (shapes[i].type == type && shapes[i].path == path)
            return &shapes[i];
    return NULL;
}

void stream_put_frame(uint8_t out[STREAM_HEADER_BYTES], const struct frame *frame)
{
    out[0] = frame->type;
    out[1] = frame->codec;
    put16(out + 2, frame->runs);
    put32(out + 4, frame->length);
    put64(out + 8, frame->argument);
}

int stream_get_frame(const uint8_t in[STREAM_HEADER_BYTES], enum stream_path path,
                     struct frame *frame, struct error *err)
{
    *frame = (struct frame){.type = in[0],
                            .codec = in[1],
                            .runs = get16(in + 2),
                            .length = get32(in + 4),
                            .argument = get64(in + 8)};
    const struct shape *shape = find_shape(frame->type, path);
    if (!shape)
        return error_set(err, ERROR_FAILED, "frame of type %u cannot come here", frame->type);
    if (frame->length < shape->length_min || frame->length > shape->length_max)
        return error_set(err, ERROR_FAILED, "frame of type %u cannot be %u bytes long", frame->type,
                         frame->length);
    if (frame->codec >= (frame->type == FRAME_PAGES ? CODECS : 1))
        return error_set(err, ERROR_FAILED, "codec %u is not known", frame->codec);
    bool has_runs = frame->type == FRAME_PAGES || frame->type == FRAME_ZEROS;
    uint32_t table = stream_table_bytes(frame->runs);
    if (has_runs ? frame->runs == 0 || frame->runs > STREAM_RUNS_MAX || frame->length < table
                 : frame->runs != 0)
        return error_set(err, ERROR_FAILED, "frame of type %u cannot have %u runs", frame->type,
                         frame->runs);
    if (frame->type == FRAME_ZEROS && frame->length != table)
        return error_set(err, ERROR_FAILED, "a frame of zero pages has %u bytes too many",
                         frame->length - table);
    return 0;
}

void stream_put_run(uint8_t out[STREAM_RUN_BYTES], struct run run)
{
    put64(out, run.first << 16 | (uint64_t)(run.count - 1));
}

void stream_put_runs(uint8_t *out, const struct run *runs, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        stream_put_run(out + (size_t)i * STREAM_RUN_BYTES, runs[i]);
    if (count % 2)
        memset(out + (size_t)count * STREAM_RUN_BYTES, 0, STREAM_RUN_BYTES);
}

static int get_run(const uint8_t *at, uint64_t ram_pages, struct run *run, struct error *err)
{
    uint64_t packed = get64(at);
    *run = (struct run){.first = packed >> 16, .count = (uint32_t)(packed & 0xffff) + 1};
    if (run->first >= ram_pages || run->count > ram_pages - run->first)
        return error_set(err, ERROR_FAILED, "pages %llu to %llu are beyond the guest's RAM",
                         (unsigned long long)run->first,
                         (unsigned long long)(run->first + run->count - 1));
    return 0;
}

int stream_get_list(const uint8_t *payload, uint32_t length, uint32_t *at, uint64_t ram_pages,
                    struct run *run, struct error *err)
{
    if (length % STREAM_RUN_BYTES)
        return error_set(err, ERROR_FAILED, "a list of %u bytes has half a run", length);
    if (*at >= length)
        return 0;
    if (get_run(payload + *at, ram_pages, run, err) < 0)
        return -1;
    *at += STREAM_RUN_BYTES;
    return 1;
}

int stream_get_runs(const uint8_t *table, const struct frame *frame, uint64_t ram_pages,
                    struct run *runs, uint64_t *pages, struct error *err)
{
    *pages = 0;
    for (unsigned i = 0; i < frame->runs; i++) {
        if (get_run(table + (size_t)i * STREAM_RUN_BYTES, ram_pages, &runs[i], err) < 0)
            return -1;
        *pages += runs[i].count;
    }
    if (frame->runs % 2 && get64(table + (size_t)frame->runs * STREAM_RUN_BYTES) != 0)
        return error_set(err, ERROR_FAILED, "the end of a table of runs is not zeros");
    if (frame->type != FRAME_PAGES)
        return 0;
    if (*pages > STREAM_FRAME_PAGES_MAX)
        return error_set(err, ERROR_FAILED, "%llu pages in one frame are too many",
                         (unsigned long long)*pages);
    uint64_t want = stream_table_bytes(frame->runs) + *pages * STREAM_PAGE_BYTES;
    if (frame->codec != CODEC_NONE ? frame->length >= want : frame->length != want)
        return error_set(err, ERROR_FAILED, "frame of %u bytes where its runs have %llu",
                         frame->length, (unsigned long long)want);
    return 0;
}

void stream_put_times(uint8_t out[STREAM_TIMES_BYTES], const struct stream_times *times)
{
    put64(out, times->load_us);
    put64(out + 8, times->verify_us);
    put64(out + 16, times->activate_us);
}

void stream_get_times(const uint8_t in[STREAM_TIMES_BYTES], struct stream_times *times)
{
    times->load_us = get64(in);
    times->verify_us = get64(in + 8);
    times->activate_us = get64(in + 16);
}

static void put_text(uint8_t *out, const char *text, size_t size)
{
    size_t length = strnlen(text, size - 1);
    memcpy(out, text, length);
    memset(out + length, 0, size - length);
}

static int get_text(const uint8_t *in, char *text, size_t size, const char *what, struct error *err)
{
    if (!memchr(in, 0, size))
        return error_set(err, ERROR_FAILED, "the peer's %s has no end", what);
    memcpy(text, in, size);
    return 0;
}

void stream_put_hello(uint8_t out[STREAM_HELLO_BYTES], const struct hello *hello)
{
    memset(out, 0, STREAM_HELLO_BYTES);
    memcpy(out, hello_magic, sizeof hello_magic);
    put16(out + 8, hello->version);
    put16(out + 10, hello->index);
    put16(out + 12, hello->streams);
    put16(out + 14,
          (uint16_t)((hello->encrypted ? FLAG_ENCRYPTED : 0u) | (hello->verify ? FLAG_VERIFY : 0u) |
                     (hello->postcopy ? FLAG_POSTCOPY : 0u)));
    put64(out + 16, hello->ram_bytes);
    put64(out + 24, hello->next_epoch);
    put_text(out + 32, hello->migration_id, STREAM_ID_BYTES);
    put_text(out + 96, hello->vm_id, STREAM_ID_BYTES);
    memcpy(out + 160, hello->nonce, STREAM_NONCE_BYTES);
    put64(out + 192, hello->realtime_ns);
    put64(out + 200, hello->resume);
}

int stream_get_hello(const uint8_t in[STREAM_HELLO_BYTES], struct hello *hello, struct error *err)
{
    if (memcmp(in, hello_magic, sizeof hello_magic) != 0)
        return error_set(err, ERROR_FAILED, "this is not a vmpool migration");
    unsigned flags = get16(in + 14);
    *hello = (struct hello){.version = get16(in + 8),
                            .index = get16(in + 10),
                            .streams = get16(in + 12),
                            .encrypted = flags & FLAG_ENCRYPTED,
                            .verify = flags & FLAG_VERIFY,
                            .postcopy = flags & FLAG_POSTCOPY,
                            .ram_bytes = get64(in + 16),
                            .next_epoch = get64(in + 24)};
    if (hello->streams == 0 || hello->streams > STREAM_COUNT_MAX || hello->index > hello->streams)
        return error_set(err, ERROR_FAILED, "stream %u of %u is impossible", hello->index,
                         hello->streams);
    if (hello->ram_bytes > RAM_BYTES_MAX)
        return error_set(err, ERROR_FAILED, "%llu bytes of RAM are impossible",
                         (unsigned long long)hello->ram_bytes);
    if (get_text(in + 32, hello->migration_id, STREAM_ID_BYTES, "migration id", err) < 0 ||
        get_text(in + 96, hello->vm_id, STREAM_ID_BYTES, "VM id", err) < 0)
        return -1;
    memcpy(hello->nonce, in + 160, STREAM_NONCE_BYTES);
    hello->realtime_ns = get64(in + 192);
    hello->resume = get64(in + 200);
    return 0;
}

void stream_put_reply(uint8_t out[STREAM_REPLY_BYTES], const struct hello_reply *reply)
{
    memset(out, 0, STREAM_REPLY_BYTES);
    memcpy(out, reply_magic, sizeof reply_magic);
    put16(out + 8, reply->version);
    put16(out + 10, (uint16_t)((reply->accepted ? FLAG_ACCEPTED : 0u) |
                               (reply->postcopy ? FLAG_POSTCOPY : 0u)));
    put_text(out + 16, reply->text, STREAM_TEXT_MAX + 1);
    memcpy(out + 272, reply->nonce, STREAM_NONCE_BYTES);
}

int stream_get_reply(const uint8_t in[STREAM_REPLY_BYTES], struct hello_reply *reply,
                     struct error *err)
{
    if (memcmp(in, reply_magic, sizeof reply_magic) != 0)
        return error_set(err, ERROR_FAILED, "the target does not speak vmpool's migration");
    unsigned flags = get16(in + 10);
    *reply = (struct hello_reply){.version = get16(in + 8),
                                  .accepted = flags & FLAG_ACCEPTED,
                                  .postcopy = flags & FLAG_POSTCOPY};
    memcpy(reply->nonce, in + 272, STREAM_NONCE_BYTES);
    return get_text(in + 16, reply->text, STREAM_TEXT_MAX + 1, "answer", err);
}

/*
 * stream.h: the byte format of a migration, drawn at the top of stream.c. Pure encoding and
 * checking: no sockets, no memory of earlier frames.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

#define STREAM_VERSION         3u
#define STREAM_PAGE_BYTES      4096u
#define STREAM_HEADER_BYTES    16u
#define STREAM_TAG_BYTES       16u
#define STREAM_RUN_BYTES       ((size_t)8)
#define STREAM_RUNS_MAX        256u       /* in one frame; even */
#define STREAM_FRAME_PAGES_MAX 256u       /* of data in one frame: 1 MiB */
#define STREAM_RUN_PAGES_MAX   65536u     /* in one run of zero pages */
#define STREAM_CHUNK_MAX       (1u << 20) /* of machine state in one frame */
#define STREAM_STATE_MAX       (64u << 20)
#define STREAM_TEXT_MAX        255u
#define STREAM_PAYLOAD_MAX                                                                         \
    (STREAM_RUNS_MAX * STREAM_RUN_BYTES + STREAM_FRAME_PAGES_MAX * STREAM_PAGE_BYTES)
#define STREAM_HASH_BYTES  32u
#define STREAM_NONCE_BYTES 32u
#define STREAM_MAC_BYTES   32u
#define STREAM_ID_BYTES    64u
#define STREAM_HELLO_BYTES 240u
#define STREAM_REPLY_BYTES 336u

enum frame_type {
    FRAME_PAGES = 1,
    FRAME_ZEROS = 2,
    FRAME_ROUND_END = 3,
    FRAME_STATE_BEGIN = 16,
    FRAME_STATE = 17,
    FRAME_HASH = 18,
    FRAME_RETRACT = 19,
    FRAME_GO = 20,
    FRAME_CANCEL = 21,
    FRAME_STALE = 22,
    FRAME_POSTCOPY = 23,
    FRAME_ROUND_DONE = 32,
    FRAME_READY = 33,
    FRAME_RUNNING = 34,
    FRAME_ANNOUNCED = 35,
    FRAME_FAILED = 36,
    FRAME_REHEARSED = 37,
    FRAME_DROPPED = 40,
    FRAME_LACKS = 41,
    FRAME_COMPLETE = 42,
    FRAME_WANT = 48,
};

/* The round that PAGES and ZEROS of post-copy are said to be of. */
#define STREAM_POSTCOPY_ROUND UINT32_MAX

/* Who may send what: a frame on the wrong path is refused. */
enum stream_path { PATH_PAGES, PATH_TO_TARGET, PATH_TO_SOURCE, PATH_WANTS };

struct frame {
    uint8_t type;    /* enum frame_type */
    uint8_t codec;   /* of PAGES: enum codec (codec.h) */
    uint16_t runs;   /* of PAGES and ZEROS: entries of the run table */
    uint32_t length; /* bytes of payload */
    uint64_t argument;
};

struct run {
    uint64_t first; /* page number */
    uint32_t count;
};

/* What READY and RUNNING carry: how long the target's steps took. */
struct stream_times {
    uint64_t load_us;
    uint64_t verify_us;
    uint64_t activate_us;
};

/* Plain fields of both hellos; see stream.c. */
struct hello {
    uint16_t version;
    uint16_t index;
    uint16_t streams;
    bool encrypted;
    bool verify;
    uint64_t ram_bytes;
    uint64_t next_epoch;
    uint64_t realtime_ns; /* the source's clock as it sent this */
    bool postcopy;        /* the source may switch to post-copy */
    uint64_t resume;      /* number of the attempt to go on in post-copy; 0: the first connection */
    char migration_id[STREAM_ID_BYTES];
    char vm_id[STREAM_ID_BYTES];
    uint8_t nonce[STREAM_NONCE_BYTES];
};

struct hello_reply {
    uint16_t version;
    bool accepted;
    bool postcopy;                  /* the target can do that */
    char text[STREAM_TEXT_MAX + 1]; /* why not */
    uint8_t nonce[STREAM_NONCE_BYTES];
};

/* Frame headers. stream_get_frame() refuses a type that may not come on @path, and a length or
 * number of runs that is impossible for its type. */
void stream_put_frame(uint8_t out[STREAM_HEADER_BYTES], const struct frame *frame);
int stream_get_frame(const uint8_t in[STREAM_HEADER_BYTES], enum stream_path path,
                     struct frame *frame, struct error *err);

/* Bytes of a table of @runs runs. */
static inline uint32_t stream_table_bytes(unsigned runs)
{
    return (runs + runs % 2) * (uint32_t)STREAM_RUN_BYTES;
}

/* Run tables. stream_put_runs() fills stream_table_bytes(@count). stream_get_runs() refuses empty
 * and overlong runs, pages at or beyond @ram_pages, and, for PAGES, a table that doesn't match the
 * frame's length or an encoding longer than the pages. @runs has room for frame->runs. */
void stream_put_run(uint8_t out[STREAM_RUN_BYTES], struct run run);
void stream_put_runs(uint8_t *out, const struct run *runs, unsigned count);
int stream_get_runs(const uint8_t *table, const struct frame *frame, uint64_t ram_pages,
                    struct run *runs, uint64_t *pages, struct error *err);

/* Lists of runs without data: the payload of STALE and LACKS. stream_get_list() gives one after the
 * other, from *@at on: 1, or 0 at the end; refuses what stream_get_runs() does. */
#define STREAM_LIST_MAX (STREAM_CHUNK_MAX / STREAM_RUN_BYTES)
int stream_get_list(const uint8_t *payload, uint32_t length, uint32_t *at, uint64_t ram_pages,
                    struct run *run, struct error *err);

/* Payload of READY and RUNNING: 24 bytes. */
#define STREAM_TIMES_BYTES 24u
void stream_put_times(uint8_t out[STREAM_TIMES_BYTES], const struct stream_times *times);
void stream_get_times(const uint8_t in[STREAM_TIMES_BYTES], struct stream_times *times);

/* Hellos, without their MAC (the last STREAM_MAC_BYTES, which the caller fills and checks). get
 * refuses wrong magic, text that isn't terminated, and impossible numbers. */
void stream_put_hello(uint8_t out[STREAM_HELLO_BYTES], const struct hello *hello);
int stream_get_hello(const uint8_t in[STREAM_HELLO_BYTES], struct hello *hello, struct error *err);
void stream_put_reply(uint8_t out[STREAM_REPLY_BYTES], const struct hello_reply *reply);
int stream_get_reply(const uint8_t in[STREAM_REPLY_BYTES], struct hello_reply *reply,
                     struct error *err);

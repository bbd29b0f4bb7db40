/*
 * fuzz_link.h: the peer of an end of a migration that is fuzzed. It knows the key, greets as is
 * right, and then says what the input wants.
 *
 * An input is a byte of flags and steps, each a byte that says what, a length in two bytes (little
 * endian) and so many bytes. What a real migration says is in the corpus; fuzz_record.c made it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node-agent/migration/migration.h"
#include "node-agent/migration/seal.h"

#define LINK_STREAMS_MAX 2u
#define LINK_WAIT_MS     20
#define LINK_AGAIN_MS    400 /* a source knocks after 100 ms */

enum link_flag {
    LINK_VERIFY = 1,
    LINK_TWO_STREAMS = 2,
    LINK_POSTCOPY = 4,
    LINK_SEALED = 8,   /* the frames of a step are encrypted, each by its own header */
    LINK_STRANGE = 16, /* the first steps are greetings, byte for byte */
    LINK_DIRTY = 32,   /* the source's guest writes for some rounds */
};

enum link_step {
    STEP_SAY = 0,   /* + number of the connection: 0 control, 1 and 2 page streams */
    STEP_HEAR = 3,  /* waits for a frame of the control connection, LINK_WAIT_MS at most */
    STEP_CUT = 4,   /* + number: closes */
    STEP_ORDER = 7, /* of the controller */
    STEP_AGAIN = 8, /* all connections are lost, and new ones made to go on in post-copy */
    LINK_STEPS = 9,
};

struct input {
    const uint8_t *data;
    size_t size;
};

/* The next step: its kind, its bytes in @bytes; -1 at the end. */
int input_step(struct input *input, struct input *bytes);

struct link {
    unsigned flags, streams;
    uint64_t resume; /* number of the last attempt to go on */
    int fds[1 + LINK_STREAMS_MAX];
    struct seal *seals[1 + LINK_STREAMS_MAX];
};

void link_make(struct link *link, unsigned flags);
void link_free(struct link *link);

/* What both ends are told alike. */
extern const uint8_t link_key[MIGRATION_KEY_BYTES];
#define LINK_MIGRATION_ID "m-1"
struct migration_limits link_limits(unsigned flags);

/* The seal of what is said on connection @index, by both nonces. */
void link_seal(struct link *link, unsigned index, const uint8_t *source_nonce,
               const uint8_t *target_nonce, enum seal_direction direction);

/* Sends what the kernel takes now. */
void link_say(struct link *link, unsigned index, struct input bytes);
/* Receives @size bytes of @fd within @limit_ms; false where they do not come. */
bool link_receive(int fd, void *out, size_t size, int limit_ms);
/* Takes one frame of the control connection. */
void link_hear(struct link *link);
void link_cut(struct link *link, unsigned index);
/* The control connection is over: whoever is there hears all that was said, and then the end. */
void link_end(struct link *link);

/* Bytes of the payload that the frame at @header has. */
uint32_t link_payload(const uint8_t *header);

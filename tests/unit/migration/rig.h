/*
 * rig.h: two fake guests and a migration between them over loopback, with a proxy between that can
 * hold, cut and spoil the link.
 */
#pragma once

#include "fake_guest.h"

enum rig_link { LINK_UP, LINK_HELD, LINK_CUT };

struct proxy;

struct rig {
    struct fake_guest *from, *to;
    int listen_fd;
    uint16_t port;
    struct proxy *proxy; /* NULL: none */
    struct migration_source_options out;
    struct migration_target_options in;
    struct migration_source *source;
    struct migration_target *target;
    struct migration_progress end; /* of the source */
};

/* Guests of 16 MiB, the source's half filled; default options. */
void rig_make(struct rig *rig);
/* Puts the proxy between. To be called before rig_start(). */
void rig_add_proxy(struct rig *rig);
void rig_link(struct rig *rig, enum rig_link link);
/* Flips one bit of the byte at @offset of what the source sends on its @connection-th connection.
 */
void rig_spoil(struct rig *rig, unsigned connection, uint64_t offset);
void rig_start_target(struct rig *rig);
void rig_start_source(struct rig *rig);
void rig_start(struct rig *rig);
/* Waits for the source's end, at most 30 s. */
enum migration_outcome rig_wait(struct rig *rig);
/* Waits until the target is in @state, at most 30 s; false where it got into another final one. */
bool rig_wait_target(struct rig *rig, enum migration_target_state state);
void rig_free(struct rig *rig);

/* Asserts what must hold after success, and after a failure before give-up. */
void rig_assert_moved(struct rig *rig);
void rig_assert_stayed(struct rig *rig);

/*
 * source_postcopy.h: post-copy at the source: the pages that are stale are told, the pause ends
 * without them, and they are served until the target has all; with a link that is lost on the way
 * and made anew. The steps of source_steps.c call these.
 */
#pragma once

#include "node-agent/migration/source.h"

/* What the options say of it; fails where they contradict each other. */
int source_check_postcopy(const struct migration_source_options *options, struct error *err);
/* After the greeting: fails where post-copy was demanded and the target cannot. */
int source_check_target(const struct migration_source *source, struct error *err);
/* Whether it is wanted at all: asked for in the greeting. */
bool source_wants_postcopy(const struct migration_source *source);

/* Before the pause: the target drops what is dirty now, and what gets dirty meanwhile. */
int source_drop_stale(struct migration_source *source, struct error *err);
/* Within the pause, source->bitmap being what is lacking: tells what is new in it, and serves from
 * now on what the load of the machine state touches. */
int source_switch(struct migration_source *source, struct error *err);
/* The pause is taken back: source->bitmap is to be sent as a round. */
int source_unswitch(struct migration_source *source, struct error *err);
/* The guest runs at the target: all is sent, until the target says that it has it. -1: the link was
 * lost, or, source->refused or leaving, it is over. */
int source_serve(struct migration_source *source, struct error *err);
/* One attempt to connect anew, after a pause that grows from attempt to attempt. 0: the streams
 * serve again. */
int source_reconnect(struct migration_source *source, struct error *err);
/* Whether what failed can be mended by connecting anew. */
bool source_may_reconnect(struct migration_source *source);

/* DROPPED, LACKS and COMPLETE. */
int source_hear_postcopy(struct migration_source *source, const struct frame *frame,
                         const uint8_t *payload, struct error *err);

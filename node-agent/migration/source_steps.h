/*
 * source_steps.h: the steps of the source, drawn at the top of source_steps.c. Each does its part
 * and says which comes next; STEP_FAIL with @err set. All are the engine thread's.
 */
#pragma once

#include "node-agent/migration/source.h"

enum step {
    STEP_CONNECT,
    STEP_ROUND,
    STEP_DECIDE,
    STEP_PROBE,
    STEP_PAUSE,
    STEP_LAST,
    STEP_RETRACT,
    STEP_GIVE_UP,
    STEP_HANDOVER,
    STEP_DROP,
    STEP_SERVE,
    STEP_RECONNECT,
    STEP_END,
    STEP_FAIL, /* @err is set */
};

/* ---- source_precopy.c */

enum step source_step_connect(struct migration_source *source, struct error *err);
enum step source_step_round(struct migration_source *source, struct error *err);
enum step source_step_decide(struct migration_source *source, struct error *err);
/* A small round, of no pages where the latency is not known yet, otherwise before a pause of which
 * only the first round tells how fast it will be. */
enum step source_step_probe(struct migration_source *source, struct error *err);

/* ---- source_pause.c */

/* Post-copy: what is dirty is dropped at the target. */
enum step source_step_drop(struct migration_source *source, struct error *err);
enum step source_step_pause(struct migration_source *source, struct error *err);
/* The last pages are on their way: READY, or the deadline. */
enum step source_step_last(struct migration_source *source, struct error *err);
enum step source_step_retract(struct migration_source *source, struct error *err);

/* ---- source_handover.c */

enum step source_step_give_up(struct migration_source *source, struct error *err);
enum step source_step_handover(struct migration_source *source, struct error *err);
/* Post-copy: until nothing is lacking, and one attempt to connect anew. */
enum step source_step_serve(struct migration_source *source, struct error *err);
enum step source_step_reconnect(struct migration_source *source, struct error *err);

/* ---- source_round.c */

/* Sets the page streams to source->bitmap. */
void source_begin_round(struct migration_source *source);
/* Leaves all but the first @pages of source->bitmap to a later round. */
int source_limit_round(struct migration_source *source, uint64_t pages, struct error *err);
/* Its statistics so far. */
struct migration_round source_count_round(struct migration_source *source);
/* The round is with the target: reports it and collects what was dirtied meanwhile. */
int source_end_round(struct migration_source *source, struct error *err);

/*
 * policy.h: when to pause, when to go on, when to give up: a pure function of statistics.
 *
 * It has no clock and no memory of its own; what it must remember from round to round is in struct
 * policy_memory, which the caller keeps zeroed at first. After each round of pre-copy the engine
 * asks once.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* The state of things when a round has ended and the dirty pages were collected. */
struct policy_input {
    uint32_t round;           /* that has ended, from 1 */
    uint64_t elapsed_ms;      /* since the migration began */
    uint64_t remaining_bytes; /* dirty now */
    uint64_t bandwidth;       /* bytes a second, measured or capped; 0: not known */
    uint64_t dirty;           /* bytes a second the guest dirtied in that round */
    uint64_t fixed_us;        /* of a pause, whatever its pages: stop, state, handover */
    uint64_t limit_us;        /* of the pause */
    uint64_t timeout_ms;      /* of the whole */
    uint32_t pauses_failed;   /* that were over their limit and taken back */
    uint64_t since_failed_ms; /* since the last of them */
    bool postcopy_allowed;
    bool may_throttle; /* the vCPUs that write may be slowed */
};

struct policy_memory {
    uint64_t best_us; /* smallest predicted pause so far; 0: none */
    uint64_t best_elapsed_ms;
    uint32_t best_round;
    uint64_t last_remaining;
    uint64_t last_elapsed_ms;
    uint64_t outrun_ms;   /* the guest has been faster than the link for so long, without a break */
    uint64_t fastest;     /* bytes a second it dirtied, since its speed was last changed */
    uint32_t within;      /* rounds that ended within the limit */
    uint32_t idle_rounds; /* in a row, over the limit and without getting closer to it */
    uint32_t throttle_step; /* of the ladder; 0: full speed */
};

enum policy_choice { POLICY_CONTINUE, POLICY_PAUSE, POLICY_GIVE_UP, POLICY_POSTCOPY };

enum policy_reason {
    POLICY_REASON_NONE,
    POLICY_REASON_DIVERGES, /* rounds no longer bring the pause down, and it is over the limit */
    POLICY_REASON_TIMEOUT,
};

struct policy_output {
    enum policy_choice choice;
    enum policy_reason reason; /* of giving up */
    uint64_t predicted_pause_us;
    uint64_t eta_ms;  /* until the guest runs at the target; 0: not known */
    uint64_t wait_ms; /* before the next round: there is little to send, and a pause must wait */
    uint32_t
        throttle_percent; /* of their time that the vCPUs that write shall not run from now on */
};

/* Stated bounds; docs/migration.md explains them to operators. */
#define POLICY_STUCK_ROUNDS 12u    /* without a better prediction ... */
#define POLICY_STUCK_MS     10000u /* ... and this long: the guest outruns the link */
/* A guest so many times faster than the link for so long goes by post-copy at once; where slowing
 * is no way (any more), one that is just as fast does. */
#define POLICY_OUTRUN_TIMES 4u
#define POLICY_OUTRUN_MS    1000u
#define POLICY_POLISH_MAX   6u   /* rounds spent making a permitted pause shorter still */
#define POLICY_IDLE_ROUNDS  2u   /* without getting closer, before the guest is slowed at all */
#define POLICY_BACKOFF_MS   500u /* after the first failed pause; twice that after the second ... */
#define POLICY_WAIT_MS      50u

struct policy_output policy_decide(const struct policy_input *input, struct policy_memory *memory);

/* The pause there would be now. UINT64_MAX where the bandwidth isn't known. */
uint64_t policy_predict_us(const struct policy_input *input);

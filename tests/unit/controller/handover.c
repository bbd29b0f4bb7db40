/* Every combination of what both ends of a migration can say, and what must follow. */
#include "controller/handover.h"

#include <criterion/criterion.h>

#define W HANDOVER_WAIT
#define A HANDOVER_ACCEPT
#define R HANDOVER_RUN_TARGET
#define B HANDOVER_TAKE_BACK
#define D HANDOVER_ABANDON
#define L HANDOVER_LEAVE
#define G HANDOVER_GONE

/* clang-format off */
static const enum handover_decision expected[SOURCE_WORDS][TARGET_WORDS] = {
    /*                      silent lost preparing ready ran broke none fenced */
    [SOURCE_SILENT]    = {  W,     W,   W,        W,    A,  G,    W,   W },
    [SOURCE_LOST]      = {  W,     W,   L,        W,    A,  G,    L,   L },
    [SOURCE_STREAMING] = {  W,     W,   W,        W,    A,  G,    W,   W },
    [SOURCE_RUNS_ON]   = {  D,     D,   D,        D,    A,  G,    D,   D },
    [SOURCE_GAVE_UP]   = {  W,     W,   W,        R,    A,  G,    B,   B },
    [SOURCE_DIED]      = {  W,     W,   L,        G,    A,  G,    G,   G },
    [SOURCE_DIED_LATE] = {  W,     W,   W,        R,    A,  G,    G,   G },
    [SOURCE_FENCED]    = {  W,     W,   G,        G,    A,  G,    G,   G },
};
/* clang-format on */

Test(handover, each_combination_is_decided_as_documented)
{
    for (unsigned s = 0; s < SOURCE_WORDS; s++)
        for (unsigned t = 0; t < TARGET_WORDS; t++) {
            enum handover_decision got = handover_decide((enum source_word)s, (enum target_word)t);
            cr_assert_eq(got, expected[s][t], "source %s, target %s: %s instead of %s",
                         handover_source_name((enum source_word)s),
                         handover_target_name((enum target_word)t), handover_decision_name(got),
                         handover_decision_name(expected[s][t]));
        }
}

/* What the table must obey whatever it says in detail. */
Test(handover, no_decision_can_make_two_running_copies)
{
    for (unsigned s = 0; s < SOURCE_WORDS; s++)
        for (unsigned t = 0; t < TARGET_WORDS; t++) {
            enum source_word source = (enum source_word)s;
            enum target_word target = (enum target_word)t;
            enum handover_decision decision = handover_decide(source, target);
            bool gave_up = source == SOURCE_GAVE_UP || source == SOURCE_DIED_LATE;
            /* The target runs only if the source has said that it never will by itself. */
            if (decision == HANDOVER_RUN_TARGET)
                cr_assert(gave_up && target == TARGET_READY);
            /* The source gets it back only where the target can't run it. */
            if (decision == HANDOVER_TAKE_BACK)
                cr_assert(source == SOURCE_GAVE_UP &&
                          (target == TARGET_NONE || target == TARGET_FENCED));
            /* A source that gave up does not simply go on. */
            if (decision == HANDOVER_ABANDON || decision == HANDOVER_LEAVE)
                cr_assert(!gave_up);
            /* Whoever is silent may be running: nothing is decided against it. */
            if (target == TARGET_SILENT || target == TARGET_LOST)
                cr_assert(decision == HANDOVER_WAIT || source == SOURCE_RUNS_ON);
            if (source == SOURCE_SILENT || source == SOURCE_LOST)
                cr_assert(decision != HANDOVER_RUN_TARGET && decision != HANDOVER_TAKE_BACK);
            /* A target that ran is the owner. */
            if (target == TARGET_RAN)
                cr_assert_eq(decision, HANDOVER_ACCEPT);
        }
}

Test(handover, words_out_of_range_wait)
{
    cr_assert_eq(handover_decide(SOURCE_WORDS, TARGET_RAN), HANDOVER_WAIT);
    cr_assert_eq(handover_decide(SOURCE_GAVE_UP, TARGET_WORDS), HANDOVER_WAIT);
}

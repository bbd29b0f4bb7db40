#include "node-agent/migration/policy.h"

/* A prediction is better only if it is so by 5 %: noise is no progress. */
static bool is_better(uint64_t predicted_us, uint64_t best_us)
{
    return best_us == 0 || predicted_us < best_us - best_us / 20;
}

uint64_t policy_predict_us(const struct policy_input *input)
{
    if (input->bandwidth == 0)
        return UINT64_MAX;
    /* 128 bits: 2^46 bytes times 10^6 does not fit into 64 */
    unsigned __int128 us = (unsigned __int128)input->remaining_bytes * 1000000 / input->bandwidth;
    us += input->fixed_us;
    return us > UINT64_MAX ? UINT64_MAX : (uint64_t)us;
}

/* Rounds shrink like a geometric series of ratio dirty / bandwidth until the pause is short enough;
 * the whole series is the time that is left at most. */
static uint64_t estimate_ms(const struct policy_input *input)
{
    if (input->bandwidth == 0 || input->dirty >= input->bandwidth)
        return 0;
    unsigned __int128 ms =
        (unsigned __int128)input->remaining_bytes * 1000 / (input->bandwidth - input->dirty);
    ms += input->fixed_us / 1000 + 1;
    return ms > UINT64_MAX ? UINT64_MAX : (uint64_t)ms;
}

/* A permitted pause is made shorter as long as its pages are much of it and one more round would
 * leave a quarter less of them: rounds are short themselves by now, so that little time is spent on
 * it. What the next round leaves is what the guest writes at its speed of the last one. */
static bool worth_polishing(const struct policy_input *input, const struct policy_memory *memory)
{
    uint64_t round_us = policy_predict_us(input), pages_us = round_us - input->fixed_us;
    unsigned __int128 left = (unsigned __int128)input->dirty * round_us / 1000000;
    return memory->within <= POLICY_POLISH_MAX && pages_us > input->fixed_us / 4 &&
           left < input->remaining_bytes - input->remaining_bytes / 4;
}

/* A pause that failed had a reason nobody predicted; the guest shall not stutter because of it. */
static bool must_back_off(const struct policy_input *input)
{
    return input->pauses_failed > 0 && input->pauses_failed < 16 &&
           input->since_failed_ms < (uint64_t)POLICY_BACKOFF_MS << (input->pauses_failed - 1);
}

/* Each step leaves the guest's writers about 40 % of the speed of the one before. */
static const uint32_t throttle_steps[] = {0, 60, 84, 94, 97, 99};
#define THROTTLE_LAST (sizeof throttle_steps / sizeof throttle_steps[0] - 1)

/* A guest that had its working set dirty again before the round was over may be faster than the
 * round could tell: what a shorter one saw of it holds. */
static uint64_t dirty_rate(const struct policy_input *input, struct policy_memory *memory)
{
    bool all_again = memory->last_remaining > 0 &&
                     input->remaining_bytes >= memory->last_remaining - memory->last_remaining / 20;
    if (!all_again || input->dirty > memory->fastest)
        memory->fastest = input->dirty;
    return memory->fastest;
}

/* Rounds cannot shrink below the working set of a guest that dirties as fast as the link carries;
 * the tenth is what the measurement of a working set that is sent over and over lacks. As long as
 * slowing the guest may help, only one so fast counts that it would hardly run afterwards. */
static void note_outrun(const struct policy_input *input, struct policy_memory *memory)
{
    bool may_slow = input->may_throttle && memory->throttle_step < THROTTLE_LAST;
    uint64_t dirty = dirty_rate(input, memory);
    bool outrun =
        input->bandwidth > 0 && (may_slow ? dirty / POLICY_OUTRUN_TIMES >= input->bandwidth
                                          : dirty >= input->bandwidth - input->bandwidth / 10);
    memory->outrun_ms =
        outrun ? memory->outrun_ms + input->elapsed_ms - memory->last_elapsed_ms : 0;
    memory->last_elapsed_ms = input->elapsed_ms;
}

/* Goes one step on where rounds no longer shrink by 30 %; the first only after some patience. True
 * where it did: what was tried before says nothing of what comes. */
static bool step_throttle(const struct policy_input *input, struct policy_memory *memory)
{
    bool closer = memory->last_remaining == 0 ||
                  input->remaining_bytes < memory->last_remaining - memory->last_remaining / 10 * 3;
    memory->idle_rounds = closer ? 0 : memory->idle_rounds + 1;
    uint32_t patience = memory->throttle_step == 0 ? POLICY_IDLE_ROUNDS : 1;
    if (!input->may_throttle || memory->throttle_step == THROTTLE_LAST ||
        memory->idle_rounds < patience)
        return false;
    memory->throttle_step++;
    memory->fastest = 0;
    memory->idle_rounds = 0;
    memory->best_round = input->round;
    memory->best_elapsed_ms = input->elapsed_ms;
    return true;
}

struct policy_output policy_decide(const struct policy_input *input, struct policy_memory *memory)
{
    struct policy_output output = {
        .choice = POLICY_CONTINUE,
        .predicted_pause_us = policy_predict_us(input),
        .eta_ms = estimate_ms(input),
    };
    if (is_better(output.predicted_pause_us, memory->best_us)) {
        memory->best_us = output.predicted_pause_us;
        memory->best_round = input->round;
        memory->best_elapsed_ms = input->elapsed_ms;
    }
    note_outrun(input, memory);
    if (output.predicted_pause_us <= input->limit_us) {
        memory->within++;
        if (must_back_off(input))
            output.wait_ms = POLICY_WAIT_MS;
        else if (!worth_polishing(input, memory))
            output.choice = POLICY_PAUSE;
    } else if (input->postcopy_allowed && !must_back_off(input) &&
               memory->outrun_ms >= POLICY_OUTRUN_MS) {
        output.choice = POLICY_POSTCOPY;
    } else if (input->elapsed_ms >= input->timeout_ms) {
        output.choice = POLICY_GIVE_UP;
        output.reason = POLICY_REASON_TIMEOUT;
    } else if (step_throttle(input, memory)) {
        output.choice = POLICY_CONTINUE;
    } else if (input->round >= memory->best_round + POLICY_STUCK_ROUNDS &&
               input->elapsed_ms >= memory->best_elapsed_ms + POLICY_STUCK_MS) {
        output.choice = input->postcopy_allowed ? POLICY_POSTCOPY : POLICY_GIVE_UP;
        output.reason = POLICY_REASON_DIVERGES;
    }
    memory->last_remaining = input->remaining_bytes;
    output.throttle_percent = throttle_steps[memory->throttle_step];
    return output;
}

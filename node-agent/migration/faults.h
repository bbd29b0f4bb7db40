/*
 * faults.h: the fault points of a migration (common/fault.h), in the order of the protocol. Each
 * stands right before the step it names. "drop" loses the message, where there is one; a message
 * that is sent there may also be told to "repeat". docs/handover.md maps them to the model.
 *
 *   source.connect       before the first connection
 *   source.log           before the dirty log starts; the guest runs
 *   source.round         before each round of pre-copy
 *   source.pause         before the guest is stopped
 *   source.paused        guest stopped, nothing sent of it yet
 *   source.state         before the machine state is sent (drop: it never is)
 *   source.retract       the pause's deadline passed, before the guest runs on
 *   source.retracted     the guest runs on, before RETRACT is sent (drop)
 *   source.ready         READY came, before giving up (drop: as if it had not come)
 *   source.gave-up       given up, before GO is sent (drop: it never is)
 *   source.go            GO handed to the kernel, before waiting for the word
 *   source.running       RUNNING came (drop: as if it had not come)
 *   source.cancel        failed or cancelled; the guest runs on, before CANCEL is sent (drop)
 *   source.drop          post-copy, before the pause: before the first STALE
 *   source.serve         post-copy: the target runs, before the rest is pushed
 *
 *   target.accept        all connections are there
 *   target.round-done    before ROUND_DONE (drop)
 *   target.load          RAM and state complete, before the state is loaded
 *   target.ready         loaded, before READY is sent (drop)
 *   target.go            GO came, before the guest runs (drop: as if it had not come)
 *   target.run           right before the guest runs, whoever said so
 *   target.running       the guest runs, before RUNNING is sent (drop)
 *   target.complete      post-copy: all pages are there, before COMPLETE is sent (drop)
 */
#pragma once

#include "common/fault.h"

/*
 * handover.pml: the handover of docs/handover.md as a model that spin checks in every state.
 *
 * One VM runs at the source at epoch 1 and moves to the target at epoch 2. Five processes: the two
 * VMMs, the agent of each host, the controller. What survives a crash is what the code keeps:
 *
 *   controller   the job's step, epochs, owner, "the source gave up" (the store)
 *   agent        the epochs seen and thrown away (the ledger), the last state of its VMM (run folder)
 *   VMM          nothing: it does not come back
 *
 * Messages:
 *   link      between the VMMs, a set: what was sent may arrive at any later time, any number of
 *             times, in any order, or never
 *   commands  controller to agent: one place; a newer command or a crash takes it away (lost), one
 *             that was carried out may be so again (repeated), at any later time (late)
 *   answers   likewise, to the last command only: an answer carries its request's number
 *   reports   agent to controller: renewed at any time, or not for long (lost, late), looked at at
 *             any time (repeated). Answers and reports of one agent do not overtake each other.
 *
 * Time is not modelled: a deadline may pass in any state, and a frozen process is one that takes no
 * step for long. Names in brackets are fault points: migration/, agent/ and controller/faults.h.
 *
 * Switches: FAIR   1: nobody dies and nothing is lost; then it must also end (liveness)
 *           BREAK  a defect put in on purpose, by number (model_part.py); 0: none
 */
#ifndef BREAK
#define BREAK 0
#endif
#ifndef FAIR
#define FAIR 0
#endif
#define MAY_FAIL (!FAIR)
#define PAUSES   2 /* attempts to stop and hand over */
#define EPOCHS   4 /* the highest epoch given out for a take-back */

mtype = { /* a VMM */ Absent, Runs, Paused, GaveUp, Incoming, Ready, Failed, Dead,
          /* a step of the job */ Prepare, Stream, RunTarget, TakeBack, RunSource, Undo, Abandon,
          Leave, Gone, Accept, Over,
          /* a command */ None, Out, Cancel, Run, Discard, DiscardRunning,
          /* an answer */ Done, Refused,
          /* more that an agent may report, or not */ Silent, Lost, Idle, Streaming, RunsOn, Broke };

/* ---- the VMMs */
mtype source = Runs, target = Absent;
byte source_epoch = 1, source_seen = 1, attempt, target_attempt;
byte source_order;                 /* RUN at this epoch waits in its control socket; 0: none */
bool target_order;                 /* likewise, at epoch 2 */
bool migrating, tried, connected;  /* the source works on it; did so once; reached the target */

/* ---- the link: what was ever sent, for each attempt */
bool sent_state[PAUSES + 1], sent_retract[PAUSES + 1], sent_ready[PAUSES + 1], sent_go[PAUSES + 1];
bool sent_running, sent_cancel;

/* ---- the agents, and the places between them and the controller */
byte source_ledger = 1;
bool target_discarded;
mtype source_command = None, target_command = None, source_answer = None, target_answer = None;
byte source_command_epoch = 1;
mtype source_report = Silent, target_report = Silent;

/* ---- the controller's store; what follows "settled" it forgets */
mtype step = Prepare;
byte epoch = 1, last_epoch = 2;
bool owner_is_target, knows_gave_up, vm_failed, cancelled;
bool settled; /* OUT or CANCEL was answered: a source that knows nothing of it then runs on */

/* ---- what really happened, for the properties alone */
bool gave_up, target_ran, no_copy_said;
bool third; /* a copy that the operator started anew, once the store said "failed" */

#define COPIES ((source == Runs) + (target == Runs) + third)

/* In every state: never two running copies. */
active proctype monitor()
{
end: atomic { COPIES > 1 -> assert(COPIES <= 1) }
}

inline used(place) /* it may come again */
{
    if
    :: place = None
    :: MAY_FAIL -> skip
    fi
}

/* ------------------------------------------------------------------ source VMM */

inline source_gives_up()
{
    source = GaveUp; gave_up = true; source_seen = 2
}

inline source_runs_at(new_epoch)
{
    assert(new_epoch > source_epoch && new_epoch > source_seen); /* epochs only rise */
    assert(!target_ran);              /* or its memory would be older than the guest's disks */
    assert(!gave_up || no_copy_said); /* only on the target's word */
    source = Runs; source_epoch = new_epoch; source_seen = new_epoch
}

active proctype source_vmm()
{
end:do
    /* [source.connect] [source.log] [source.round] */
    :: atomic { migrating && !connected && source == Runs ->
            if
            :: target == Incoming -> connected = true
            :: migrating = false /* refused, or no way there: it runs on */
            fi }
    /* [source.pause] [source.paused] [source.state] */
    :: atomic { migrating && connected && source == Runs && attempt < PAUSES ->
            attempt++; source = Paused; sent_state[attempt] = true }
    /* [source.cancel]: pre-copy fails: a link, a stall, a guest that is too fast */
    :: atomic { migrating && connected && source == Runs -> migrating = false; sent_cancel = true }
    /* [source.retract] [source.retracted]: the pause's deadline passed, or the link broke */
    :: atomic { source == Paused ->
            source = Runs; sent_retract[attempt] = true;
            if
            :: attempt < PAUSES
            :: migrating = false; sent_cancel = true
            fi }
    /* [source.ready]: then the point of no return */
    :: atomic { source == Paused && sent_ready[attempt] -> source_gives_up() }
#if BREAK == 1 /* the READY of a pause that was taken back counts for this one */
    :: atomic { source == Paused && attempt == 2 && sent_ready[1] -> source_gives_up();
            sent_go[1] = true }
#endif
    /* [source.gave-up] [source.go] */
    :: atomic { source == GaveUp && migrating && !sent_go[attempt] -> sent_go[attempt] = true }
    /* [source.running], or no word comes: in doubt */
    :: atomic { source == GaveUp && migrating -> migrating = false }
#if BREAK == 2 /* in doubt, it runs on by itself */
    :: atomic { source == GaveUp && !migrating && !sent_running -> source = Runs }
#endif
    /* an order from its control socket: only above all that it has seen */
    :: atomic { source_order != 0 ->
            if
            :: (source == GaveUp || source == Runs) && !migrating && source_order > source_seen ->
                source_runs_at(source_order)
            :: else
            fi;
            source_order = 0 }
    :: atomic { MAY_FAIL && source != Absent && source != Dead ->
            source = Dead; migrating = false; source_order = 0 }
    od
}

/* ------------------------------------------------------------------ target VMM */

inline target_runs()
{
    assert(gave_up);                   /* the source stands still, for good */
    assert(target_attempt == attempt); /* and this is its memory as it was then */
    assert(epoch <= 2);                /* epochs only rise */
    target = Runs; target_ran = true
}

active proctype target_vmm()
{
end:do
    /* [target.accept] [target.round-done] [target.load] */
    :: atomic { target == Incoming && connected && target_attempt < PAUSES &&
                sent_state[target_attempt + 1] -> target_attempt++; target = Ready }
    /* [target.ready] */
    :: atomic { target == Ready && !sent_ready[target_attempt] -> sent_ready[target_attempt] = true }
    /* RETRACT of this pause, or of one whose state never came */
    :: atomic { target == Ready && sent_retract[target_attempt] -> target = Incoming }
    :: atomic { target == Incoming && connected && target_attempt < PAUSES &&
                sent_retract[target_attempt + 1] -> target_attempt++ }
    /* [target.go] [target.run] */
    :: atomic { target == Ready && sent_go[target_attempt] -> target_runs() }
    /* [target.running] */
    :: atomic { target == Runs && !sent_running -> sent_running = true }
    /* CANCEL, an error of its own, or a link that is lost too early */
    :: atomic { (target == Ready && sent_cancel) || target == Incoming -> target = Failed }
    /* an order from its control socket */
    :: atomic { target_order ->
            if
            :: target == Ready -> target_runs()
            :: else
            fi;
            target_order = false }
    :: atomic { MAY_FAIL && target != Absent && target != Dead -> target = Dead; target_order = false }
    od
}

/* ------------------------------------------------------------------ agents
 *
 * [agent.command.prepare] [agent.command.migrate-out] [agent.command.cancel] [agent.command.run]
 * [agent.command.discard]: it came; [agent.answer]: carried out; [agent.event] [agent.report]: what
 * its VMM is, is about to be told.
 */

active proctype source_agent()
{
end:do
    /* OUT again is answered as before, whatever became of it */
    :: atomic { source_command == Out ->
            if
            :: source_ledger == 1 && source == Runs && !tried ->
                migrating = true; tried = true; source_answer = Done
            :: source_ledger == 1 && tried -> source_answer = Done
            :: source_ledger > 1 || (source != Runs && !tried) -> source_answer = Refused
            fi;
            used(source_command) }
    :: atomic { source_command == Cancel ->
            if
            :: migrating && (source == Runs || source == Paused) ->
                migrating = false; source = Runs; sent_cancel = true; source_answer = Done
            :: else -> source_answer = Refused
            fi;
            used(source_command) }
    /* RUN is noted, then goes to the VMM; where that takes too long, the answer is a failure */
    :: atomic { source_command == Run ->
            if
            :: source_epoch == source_command_epoch && source == Runs ->
                source_answer = Done; used(source_command)
            :: source_command_epoch < source_ledger || source == Dead || source == Absent ->
                source_answer = Refused; used(source_command)
            :: source_command_epoch >= source_ledger && source_epoch < source_command_epoch &&
               source != Dead && source != Absent ->
                source_ledger = source_command_epoch; source_order = source_command_epoch;
                if
                :: skip
                :: MAY_FAIL -> source_answer = Refused; used(source_command)
                fi
            fi }
    :: atomic { source_command == Discard ->
            if
            :: source != Dead && source_epoch > source_command_epoch -> source_answer = Refused
            :: else ->
                source = Absent; migrating = false; source_order = 0; source_answer = Done;
                if
                :: source_ledger < source_command_epoch -> source_ledger = source_command_epoch
                :: else
                fi
            fi;
            used(source_command) }
    /* what its VMM is; of a dead one, what the run folder keeps */
    :: atomic { MAY_FAIL || source_command == None ->
            if
            :: source == Dead || source == Absent -> source_report = source
            :: source == GaveUp -> source_report = GaveUp
            :: (source == Runs || source == Paused) && source_epoch > 1 -> source_report = Runs
            :: (source == Runs || source == Paused) && source_epoch == 1 ->
                source_report = (migrating -> Streaming : (tried -> RunsOn : Idle))
            fi }
    /* it dies with what it was told and was about to say, and comes back */
    :: atomic { MAY_FAIL && (source_command != None || source_answer != None) ->
            source_command = None; source_answer = None }
    od
}

active proctype target_agent()
{
end:do
    :: atomic { target_command == Prepare ->
            if
            :: target == Absent && !target_discarded && !connected ->
                if
                :: target = Incoming; target_answer = Done
                :: target_answer = Refused /* no room */
                fi
            :: target == Incoming || target == Ready || target == Runs -> target_answer = Done
            :: else -> target_answer = Refused
            fi;
            used(target_command) }
    :: atomic { target_command == Run ->
            if
            :: target == Runs -> target_answer = Done; used(target_command)
            :: target == Ready -> target_order = true;
                if
                :: skip
                :: MAY_FAIL -> target_answer = Refused; used(target_command)
                fi
            :: else -> target_answer = Refused; used(target_command)
            fi }
    /* DISCARD below the copy's epoch is refused where it is ready, runs or ran */
    :: atomic { target_command == Discard || target_command == DiscardRunning ->
            if
            :: target_command == Discard && (target == Ready || target == Runs ||
               (target == Dead && target_ran && BREAK != 8)) ->
                target_answer = Refused
            :: else ->
                target = Absent; target_order = false; target_discarded = true;
                no_copy_said = true; target_answer = Done
            fi;
            used(target_command) }
    :: atomic { MAY_FAIL || target_command == None ->
            if
            :: target == Absent || target == Failed -> target_report = Absent
            :: target == Dead -> target_report = (target_ran -> Broke : Absent)
            :: else -> target_report = target
            fi }
    :: atomic { MAY_FAIL && (target_command != None || target_answer != None) ->
            target_command = None; target_answer = None }
    od
}

/* ------------------------------------------------------------------ controller */

inline tell_source(what, at)
{
    source_command = what; source_command_epoch = at; source_answer = None
}

inline tell_target(what)
{
    target_command = what; target_answer = None
}

/*
 * [job.vm-migrate.STEP.entering] the step and its epochs go to the store in one transaction;
 * [.journalled] its command is sent; [.sent]. A crash at the first is as if this had not happened
 * yet, at the others as a command that is lost: after it, it is said again.
 */
inline go(next)
{
    step = next; settled = false;
    if
    :: step == Prepare -> tell_target(Prepare)
    :: step == Stream && !knows_gave_up ->
        if
        :: cancelled -> tell_source(Cancel, 1)
        :: else -> tell_source(Out, 1)
        fi
    :: step == RunTarget -> tell_target(Run)
    :: step == TakeBack || step == Leave -> tell_target(Discard)
    :: step == RunSource -> tell_source(Run, last_epoch)
    :: step == Undo || step == Abandon || step == Gone -> tell_target(DiscardRunning)
    :: step == Accept -> epoch = 2; owner_is_target = true; tell_source(Discard, 2)
    :: else
    fi
}

#define SOURCE_GONE    (source_report == Dead || source_report == Absent)
#define SOURCE_GAVE_UP (source_report == GaveUp || (knows_gave_up && !SOURCE_GONE))
#define SOURCE_KEEPS   (!SOURCE_GAVE_UP && (source_report == RunsOn || (source_report == Idle && settled)))

/* The table of controller/handover.c. */
inline decide()
{
    if
    :: source_report == GaveUp -> knows_gave_up = true
    :: else
    fi;
    if
    :: target_report == Runs -> go(Accept)
    :: target_report == Broke -> go(Gone)
    :: SOURCE_KEEPS && target_report != Runs && target_report != Broke -> go(Abandon)
    :: SOURCE_GAVE_UP && target_report == Ready -> go(RunTarget)
    :: SOURCE_GAVE_UP && target_report == Absent && last_epoch < EPOCHS -> go(TakeBack)
#if BREAK == 3 /* the target's silence is taken for its word */
    :: SOURCE_GAVE_UP && target_report == Lost && last_epoch < EPOCHS ->
        last_epoch++; go(RunSource)
#endif
#if BREAK == 4 /* what the target holds is taken for the last that the source was */
    :: SOURCE_GONE && target_report == Ready -> go(RunTarget)
#else
    :: SOURCE_GONE && target_report == Ready && knows_gave_up -> go(RunTarget)
    :: SOURCE_GONE && target_report == Ready && !knows_gave_up -> go(Gone)
#endif
    :: SOURCE_GONE && target_report == Absent -> go(Gone)
    :: source_report == Lost && !knows_gave_up &&
       (target_report == Incoming || target_report == Absent) -> go(Leave)
    :: SOURCE_GONE && !knows_gave_up && target_report == Incoming -> go(Leave)
    :: else
    fi
}

/* Once the job is over: controller/reconcile.c. */
inline reconcile_source()
{
    if
    :: (third || owner_is_target) && !SOURCE_GONE -> tell_source(Discard, last_epoch)
    :: !third && !owner_is_target && source_report == Runs -> epoch = source_epoch; vm_failed = false
    :: !third && !owner_is_target && SOURCE_GONE -> vm_failed = true
    :: !third && !owner_is_target && source_report == GaveUp ->
        if
#if BREAK == 5 /* whatever became of the VM, an owner that gave up gets it back */
        :: last_epoch < EPOCHS -> last_epoch++; tell_source(Run, last_epoch)
#else
        :: !vm_failed && last_epoch < EPOCHS -> last_epoch++; tell_source(Run, last_epoch)
        :: vm_failed -> tell_source(Discard, last_epoch)
#endif
        :: else
        fi
    :: else
    fi
}

inline reconcile_target()
{
    if
    :: !third && !owner_is_target && target_report == Runs && epoch < 2 ->
        epoch = 2; owner_is_target = true; vm_failed = false
    :: (third || (!owner_is_target && (target_report != Runs || epoch >= 2))) &&
       target_report != Absent -> tell_target(DiscardRunning)
    :: !third && owner_is_target && (target_report == Broke || target_report == Absent) ->
        vm_failed = true
    :: else
    fi
}

active proctype controller()
{
    go(Prepare);
end:do
    :: atomic { source_report != Silent && step == Over -> reconcile_source(); source_report = Silent }
    :: atomic { target_report != Silent && step == Over -> reconcile_target(); target_report = Silent }
    :: atomic { step == Stream && source_report != Silent && target_report != Silent &&
                (MAY_FAIL || source_answer == None) -> decide() }
    :: atomic { (step == RunTarget || step == TakeBack || step == Leave) && target_report == Runs ->
            go(Accept) }
    /* a node that was not heard of for long counts as lost */
    :: atomic { MAY_FAIL && step == Stream -> source_report = Lost }
    :: atomic { MAY_FAIL && step == Stream -> target_report = Lost }
    /* the operator cancels, or the whole took too long */
    :: atomic { step == Stream && !cancelled && !knows_gave_up ->
            cancelled = true; tell_source(Cancel, 1) }

    :: atomic { step == Prepare && target_answer == Done -> target_report = Silent; go(Stream) }
    :: atomic { step == Prepare -> go(Undo) } /* refused, cancelled, or out of time */
    :: atomic { step == Stream && source_answer != None ->
            source_answer = None; settled = true; source_report = Silent }
    :: atomic { step == RunTarget && target_answer == Done -> go(Accept) }
    :: atomic { step == RunTarget && target_answer == Refused -> go(Stream) }
    :: atomic { step == TakeBack && target_answer == Done -> last_epoch++; go(RunSource) }
    :: atomic { step == TakeBack && target_answer == Refused -> go(Stream) }
    :: atomic { step == Leave && target_answer == Done ->
            if
            :: SOURCE_GONE -> vm_failed = true
            :: else
            fi;
            go(Over) }
    :: atomic { step == Leave && target_answer == Refused -> go(Stream) }
    :: atomic { step == RunSource && source_answer == Done ->
            assert(last_epoch > epoch); epoch = last_epoch; go(Over) }
#if BREAK == 6 /* RUN without an answer counts as "it does not run" */
    :: atomic { step == RunSource && source_answer == Refused -> go(Gone) }
#else
    :: atomic { step == RunSource && source_answer == Refused -> source_report = Silent; go(Stream) }
#endif
    /* these end with the answer or without it */
    :: atomic { (step == Undo || step == Abandon) -> go(Over) }
    /* GO may be on its way to a target that was ready: its word is needed */
    :: atomic { step == Gone && (target_answer == Done || BREAK == 7) -> vm_failed = true; go(Over) }
    :: atomic { step == Accept && (source_answer != None || MAY_FAIL) -> go(Over) }
    /* the operator starts it anew, elsewhere: the store says that it runs nowhere */
    :: atomic { step == Over && vm_failed && !third -> third = true; last_epoch++; epoch = last_epoch }
    /* it dies and goes on from its store, or a node's connection comes back: said again */
    :: atomic { MAY_FAIL && step != Over -> go(step) }
    od
}

#if FAIR
/* Nobody dies and nothing is lost: it ends, with one copy that runs. */
ltl ends { <> [] (step == Over && COPIES == 1) }
#endif

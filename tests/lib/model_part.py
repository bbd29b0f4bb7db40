"""Checks the model of the handover (tests/model/handover.pml) with spin, and counts each check.

The model must hold; with a defect put in on purpose (BREAK) spin must find it, so that a check which can't fail would
be noticed.
"""

import pathlib
import re
import subprocess
import tempfile
import time

import fault_table
from results import FAILED, PASSED, Results

MODEL = pathlib.Path(__file__).resolve().parents[1] / "model" / "handover.pml"
LIMIT_S, MEMORY_MIB = 300, 1024

DEFECTS = {
    1: "a_late_ready_counts_for_a_later_pause",
    2: "a_source_in_doubt_runs_on_by_itself",
    3: "the_controller_takes_silence_for_the_targets_word",
    4: "a_target_runs_with_memory_older_than_the_source",
    5: "a_source_gets_back_what_ran_elsewhere",
    6: "a_run_that_was_not_answered_counts_as_refused",
    7: "a_failure_is_declared_without_the_targets_word",
    8: "a_dead_copy_that_ran_is_discarded_as_if_it_never_had",
}
CHECKS = {"model.handover.never_two_copies_with_every_fault": (("-DSAFETY",), ("-DBREAK=0",), (), True),
          "model.handover.it_ends_where_nothing_fails": (("-DNFAIR=3",), ("-DFAIR=1",), ("-a", "-f"), True)}
CHECKS |= {f"model.handover.spin_finds_that_{name}": (("-DSAFETY",), (f"-DBREAK={number}",), (), False)
           for number, name in DEFECTS.items()}


TABLE = "model.handover.every_step_has_its_fault_points_in_the_code"


def list_tests(keyword):
    return [name for name in (*CHECKS, TABLE) if keyword in name]


def run(keyword):
    results = Results("model")
    for name in list_tests(keyword):
        begun = time.monotonic()
        outcome, text = _check_table() if name == TABLE else _check(*CHECKS[name])
        seconds = time.monotonic() - begun
        results.add(name, outcome, text, seconds)
        print(f"  {outcome:7} {name} ({seconds:.1f} s{', ' + text if outcome == PASSED else ''})", flush=True)
    return results


def _check_table():
    wrong = fault_table.check()
    return (FAILED, "\n".join(wrong)) if wrong else (PASSED, "")


def _check(defines, switches, options, holds):
    """(outcome, text) of one exhaustive search."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            _call(folder, "spin", "-a", *switches, MODEL)
            _call(folder, "gcc", "-O2", "-w", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MIB}", *defines, "-o", "pan", "pan.c")
            said = _call(folder, "./pan", "-m100000", "-n", *options)
        except (OSError, subprocess.SubprocessError) as failure:
            return FAILED, f"{failure}\n{getattr(failure, 'stdout', '') or ''}"
        found = re.search(r"errors: (\d+)", said)
        whole = "Search not completed" not in said and "max search depth too small" not in said
        states = re.search(r"(\d+) states, stored", said)
        if found and holds and found[1] == "0" and whole:
            return PASSED, f"{states[1]} states"
        if found and not holds and found[1] != "0":
            return PASSED, "found"
        trail = "" if not holds else _call(folder, "spin", *switches, "-t", "-p", MODEL, check=False)[-20000:]
        return FAILED, f"{said}\n{trail}\n{'it does not hold' if holds else 'spin did not find the defect'}"


def _call(folder, *words, check=True):
    return subprocess.run([str(word) for word in words], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=LIMIT_S, check=check).stdout

"""The crossing: each step of the handover (docs/handover.md) with each fault that makes sense there, on real VMMs, agents
and a real controller. A few faults a step are tried by default, all of them where VMPOOL_FAULTS=all; VMPOOL_FAULTS=TEXT
tries those with TEXT in "POINT x FAULT".

Afterwards exactly one copy runs, or none where the VM's only host lost it before the handover, and the pool says so;
never two, at any time; the guest is whole; the pause is within the limit as long as the source has not given up; and
nothing is left over."""

import collections
import concurrent.futures
import os
import queue
import unittest

from crossing import CONTROLLER, SLOWLY, SOURCE, TARGET, CrossingPool

POOLS = 3
CHOSEN = os.environ.get("VMPOOL_FAULTS", "")
SAMPLE = 2  # faults of a point where nothing is chosen, beside the lost, repeated and late messages

# ---- how a migration comes to a point: faults armed before, options, and what becomes of the VM whatever else happens

Way = collections.namedtuple("Way", "faults options cancel outcome", defaults=({}, (), False, None))
PLAIN = Way()
POSTCOPY = Way(options=("--mode", "postcopy"))
RETRACT = Way({TARGET: {"target.ready": "drop"}})
LOST_GO = Way({SOURCE: {"source.gave-up": "drop"}})
TARGET_DIES = Way({TARGET: {"target.go": "kill"}})
TARGET_FAILS = Way({TARGET: {"target.load": "kill"}})
SOURCE_DIES = Way({SOURCE: {"source.ready": "kill"}}, outcome="failed")
UNANSWERED = Way({TARGET: {"agent.answer": "drop"}})
SILENT = Way({SOURCE: {"agent.report": "drop", "agent.event": "drop", "source.round": "delay:9000"}})
CANCELLED = Way(options=SLOWLY, cancel=True)
# Slowly: the pages that are pushed beside the served ones must not have arrived before it dies.
SERVER_DIES = Way({SOURCE: {"source.serve": "kill"}}, POSTCOPY.options + SLOWLY, outcome="failed")

# ---- the table: point, where it stands, how it is reached, what the guest does then, the model's step

RUNS, PAUSED, COMMITS, GAVE_UP, MOVED, SPLIT, ANY = "runs", "paused", "commits", "gave up", "moved", "split", ""


class Point:
    """@guest: at the source it RUNS or is PAUSED; READY has come and the source COMMITS; it GAVE_UP; it MOVED and runs at the target, or so SPLIT over
    both by post-copy; ANY: it is not known. @message: the point stands before or behind one."""

    def __init__(self, name, place, way, guest, message=False):
        self.name, self.place, self.way, self.guest, self.message = name, place, way, guest, message
        # An answer has no name of its own: it is what follows the command.
        self.armed = name.replace("agent.answer.", "agent.command.")
        self.then = "agent.answer" if self.armed != name else None
        self.reach = self.then or name

    def outcome(self, killed):
        """What the VM must be where VMM @killed (or none) died."""
        if killed is None:
            return "running"
        if killed == "source-vmm":
            return {RUNS: "failed", PAUSED: "failed", COMMITS: "failed", MOVED: "running"}.get(self.guest)
        return {RUNS: "running", PAUSED: "running", COMMITS: "running", MOVED: "failed",
                SPLIT: "failed"}.get(self.guest)


def _step(name, way, guest=ANY):
    return [Point(f"job.vm-migrate.{name}.{moment}", CONTROLLER, way, guest)
            for moment in ("entering", "journalled", "sent")]


# Steps that one migration alone goes through in the turn that brings it there, so that nothing can come in between; with
# others before it: tests/unit/controller/queue.c and crash.c.
IN_PASSING = {"place", "queue", "ready"}

POINTS = [
    Point("source.connect", SOURCE, PLAIN, RUNS),
    Point("source.log", SOURCE, PLAIN, RUNS),
    Point("source.round", SOURCE, PLAIN, RUNS),
    Point("source.pause", SOURCE, PLAIN, RUNS),
    Point("source.paused", SOURCE, PLAIN, PAUSED),
    Point("source.state", SOURCE, PLAIN, PAUSED, True),
    Point("source.retract", SOURCE, RETRACT, PAUSED),
    Point("source.retracted", SOURCE, RETRACT, RUNS, True),
    Point("source.ready", SOURCE, PLAIN, COMMITS, True),
    Point("source.gave-up", SOURCE, PLAIN, GAVE_UP, True),
    Point("source.go", SOURCE, PLAIN, GAVE_UP),
    Point("source.running", SOURCE, PLAIN, MOVED, True),
    Point("source.cancel", SOURCE, TARGET_FAILS, RUNS, True),
    Point("source.drop", SOURCE, POSTCOPY, RUNS),
    Point("source.serve", SOURCE, POSTCOPY, SPLIT),
    Point("target.accept", TARGET, PLAIN, RUNS),
    Point("target.round-done", TARGET, PLAIN, RUNS, True),
    Point("target.load", TARGET, PLAIN, PAUSED),
    Point("target.ready", TARGET, PLAIN, PAUSED, True),
    Point("target.go", TARGET, PLAIN, GAVE_UP, True),
    Point("target.run", TARGET, PLAIN, GAVE_UP),
    Point("target.running", TARGET, PLAIN, MOVED, True),
    Point("target.complete", TARGET, POSTCOPY, MOVED, True),
    Point("agent.command.prepare", TARGET, PLAIN, RUNS, True),
    Point("agent.answer.prepare", TARGET, PLAIN, RUNS, True),
    Point("agent.command.migrate-out", SOURCE, PLAIN, RUNS, True),
    Point("agent.answer.migrate-out", SOURCE, PLAIN, ANY, True),
    Point("agent.command.cancel", SOURCE, CANCELLED, ANY, True),
    Point("agent.answer.cancel", SOURCE, CANCELLED, ANY, True),
    Point("agent.command.run", TARGET, LOST_GO, GAVE_UP, True),
    Point("agent.answer.run", TARGET, LOST_GO, ANY, True),
    Point("agent.command.discard", SOURCE, PLAIN, MOVED, True),
    Point("agent.answer.discard", SOURCE, PLAIN, MOVED, True),
    Point("agent.event", SOURCE, PLAIN, ANY, True),
    Point("agent.report", TARGET, PLAIN, ANY, True),
    *_step("prepare", PLAIN, RUNS),
    *_step("stream", PLAIN),
    *_step("accept", PLAIN, MOVED),
    *_step("undo", UNANSWERED, RUNS),
    *_step("run-target", LOST_GO, GAVE_UP),
    *_step("take-back", TARGET_DIES, GAVE_UP),
    *_step("run-source", TARGET_DIES, GAVE_UP),
    *_step("abandon", TARGET_FAILS, RUNS),
    *_step("leave", SILENT, RUNS),
    *_step("gone", SOURCE_DIES),
    *_step("lost", SERVER_DIES),
    *_step("end", PLAIN, MOVED),
]

# ---- the faults


class Fault(collections.namedtuple("Fault", "kind victim action", defaults=(None, None))):
    def __str__(self):
        return f"{self.kind} {self.victim}" if self.victim else self.kind


PROCESSES = ("source-vmm", "target-vmm", "source-agent", "target-agent", CONTROLLER)
KILLED = [Fault("kill", process) for process in PROCESSES]
FROZEN = [Fault("freeze", process) for process in PROCESSES]
CUT = [Fault("link", host) for host in (SOURCE, TARGET)]
MESSAGES = [Fault("lost", action="drop"), Fault("repeated", action="repeat"), Fault("late", action="delay:1800")]
RECEIVED = ("source.ready", "source.running", "target.go")  # points behind a message: it came once


def faults_of(point):
    faults = list(KILLED)
    if not point.name.endswith((".entering", ".sent")):  # between these, only its own death makes a difference
        faults += FROZEN + CUT
    else:
        faults = [Fault("kill", CONTROLLER)]
    if point.message:
        faults += [fault for fault in MESSAGES if fault.action != "repeat" or point.name not in RECEIVED]
    return faults


def chosen(number, point):
    faults = faults_of(point)
    if CHOSEN == "all":
        return faults
    if CHOSEN:
        return [fault for fault in faults if CHOSEN in f"{point.name} x {fault}"]
    messages = [fault for fault in faults if fault.action]
    others = [fault for fault in faults if not fault.action]
    return messages + [others[(number * 5 + turn * 7) % len(others)] for turn in range(min(SAMPLE, len(others)))]


class Crossing(unittest.TestCase):
    limit_s = 900

    @classmethod
    def setUpClass(cls):
        cls.pools = queue.Queue()
        for number in range(POOLS):
            cls.pools.put(CrossingPool(number))
        cls.matrix = {}

    @classmethod
    def tearDownClass(cls):
        counts = collections.Counter(cls.matrix.values())
        print("  crossing: " + ", ".join(f"{count} {word}" for word, count in sorted(counts.items())), flush=True)

    def one(self, point, fault):
        pool = self.pools.get()
        try:
            word = pool.run(point, fault)
        except AssertionError as error:
            self.matrix[point.name, str(fault)] = "failed the test"
            print(f"    {str(error).splitlines()[0]}", flush=True)
            return fault, str(error)
        finally:
            self.pools.put(pool)
        self.matrix[point.name, str(fault)] = word
        return fault, None

    def cross(self, point, faults):
        with concurrent.futures.ThreadPoolExecutor(POOLS) as workers:
            for fault, error in workers.map(lambda fault: self.one(point, fault), faults):
                with self.subTest(fault=str(fault)):
                    if error:
                        self.fail(error)


def _add(number, point):
    faults = chosen(number, point)

    def test(self):
        self.cross(point, faults)
    if faults:
        setattr(Crossing, "test_" + point.name.replace(".", "_").replace("-", "_"), test)


for _number, _point in enumerate(POINTS):
    _add(_number, _point)

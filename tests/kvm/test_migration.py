"""Live migration between pool-vmm processes on this machine's KVM: the freestanding guest checks its own memory."""

import os
import pathlib
import signal
import socket
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from vmm import (CANCELLED, COMPLETED, CONFLICT, GAVE_UP, INCOMING, MIGRATION_FAILED, OUT, CANCEL, QUERY, QUIT, READY,
                 RUN, RUNNING, Refused, Vmm, free_port, migrate, parse, read_until)

CMDLINE = "ws=2M fill=32M sweep=1024"
MEMORY = "64M"
FIRST_EPOCH = 1
# Fields of MigrationLimits, as migrate() takes them.
DOWNTIME_MS, BANDWIDTH, STREAMS, VERIFY, STALL_MS = "n1", "n2", "n3", "n4", "n7"
COMPRESS = "n30"
COMPRESS_OFF, COMPRESS_LZ4, COMPRESS_ZSTD = 1, 2, 3


def start(**environment):
    """A guest that runs and has filled its memory; its console."""
    vmm = Vmm("--memory", MEMORY, "--cmdline", CMDLINE, "--epoch", FIRST_EPOCH, **environment)
    console = vmm.attach()
    read_until(console, b"R", 60)
    return vmm, console


def check_guest(test, vmm, passes=15):
    """The guest makes progress and finds its memory as it left it: a pass checks a seventh of it and more."""
    console = vmm.attach()
    try:
        seen = read_until(console, b".", 30, enough=passes)
    finally:
        console.close()
    test.assertNotIn(b"E", seen)


def makes_progress(console, wait_s=2):
    """Whether passes still come once what was printed before is read away."""
    console.setblocking(False)  # a lively guest is never silent: only what is there already is old
    try:
        while console.recv(65536):
            pass
    except BlockingIOError:
        pass
    console.settimeout(wait_s)
    try:
        return bool(console.recv(65536))
    except TimeoutError:
        return False


def longest_silence(console, seconds):
    """The longest time without a pass within the next @seconds."""
    makes_progress(console)
    begun = last = time.monotonic()
    longest = 0.0
    while last - begun < seconds:
        console.settimeout(0.02)
        try:
            came = bool(console.recv(65536))
        except TimeoutError:
            came = False
        now = time.monotonic()
        longest = max(longest, now - last)
        last = now if came else last
        if not came and now - begun >= seconds:
            break
    return longest


def alive(vmm):
    return vmm.process.poll() is None


def state_of(vmm):
    if not alive(vmm):
        return None
    try:
        return vmm.control.status().state
    except (ConnectionError, BrokenPipeError):
        return None


def report(vmm):
    """MigrationProgress of a VMM, by field number."""
    _, reply = vmm.control.ask(QUERY)
    return parse(parse(reply[3][-1])[11][-1])


@unittest.skipUnless(os.path.exists("/dev/kvm"), "needs /dev/kvm")
class MigrationTest(unittest.TestCase):
    def setUp(self):
        self.vmms = []
        self.port = free_port()

    def tearDown(self):
        for vmm in self.vmms:
            if alive(vmm):
                vmm.process.send_signal(signal.SIGCONT)
            vmm.__exit__()

    def source(self, **environment):
        vmm, console = start(**environment)
        self.vmms.append(vmm)
        self.console = console
        self.addCleanup(console.close)
        return vmm

    def target(self, **environment):
        vmm = Vmm("--memory", MEMORY, port=self.port, **environment)
        self.vmms.append(vmm)
        return vmm

    def move(self, source, target, port=None, **limits):
        migrate(source, target, FIRST_EPOCH, port=port or self.port, **limits)

    def wait_over(self, source, timeout_s=60):
        try:
            return source.control.wait("the migration's end", lambda s: s.phase in (
                COMPLETED, MIGRATION_FAILED, CANCELLED) or (s.state == GAVE_UP and s.migration_text), timeout_s)
        except ConnectionError:
            raise AssertionError(f"the source ended with {source.wait_exit()}: {source.log()}") from None


class Moves(MigrationTest):
    limit_s = 600

    def test_fifty_times_back_and_forth_verified(self):
        """One guest through 51 processes; every move compares the hashes of both ends."""
        source = self.source()
        for move in range(50):
            port = free_port()
            target = Vmm("--memory", MEMORY, port=port)
            self.vmms.append(target)
            migrate(source, target, FIRST_EPOCH + move, migration_id=f"m{move}", port=port, **{VERIFY: 1})
            status = self.wait_over(source)
            self.assertEqual(status.phase, COMPLETED, f"move {move}: {status.migration_text}")
            self.assertTrue(status.verified)
            self.assertEqual(target.control.wait_state(RUNNING).epoch, FIRST_EPOCH + move + 1)
            check_guest(self, target, passes=3)
            self.assertEqual(state_of(source), GAVE_UP)
            source.control.ask(QUIT, {1: FIRST_EPOCH + move + 1})
            source.wait_exit()
            self.vmms.remove(source)
            source.__exit__()
            source = target
        check_guest(self, source)

    def test_the_report_is_complete(self):
        source, target = self.source(), self.target()
        self.move(source, target, **{VERIFY: 1, STREAMS: 3})
        self.wait_over(source)
        progress = report(source)
        pause = {number: values[-1] for number, values in parse(progress[14][-1]).items()}
        self.assertEqual(pause[1], sum(pause.get(part, 0) for part in range(2, 8)))
        self.assertGreater(pause[6], 0)
        self.assertEqual(progress[18][-1], 3)
        self.assertEqual(progress[19][-1], 1)
        rounds = [parse(data) for data in progress[15]]
        self.assertEqual([r[1][-1] for r in rounds], list(range(1, len(rounds) + 1)))
        self.assertGreater(progress[6][-1], 32 * 256 - 1)  # at least the filled pages
        self.assertLess(progress[5][-1], 48 << 20)  # and no holes

    def test_unencrypted_where_both_say_so(self):
        source, target = self.source(), self.target()
        self.move(source, target, n5=1, **{VERIFY: 1})
        self.assertEqual(self.wait_over(source).phase, COMPLETED)
        check_guest(self, target)

    def test_a_cap_holds(self):
        source, target = self.source(), self.target()
        begun = time.monotonic()
        self.move(source, target, **{BANDWIDTH: 200_000_000, DOWNTIME_MS: 500})
        self.assertEqual(self.wait_over(source).phase, COMPLETED)
        self.assertGreater(time.monotonic() - begun, (32 << 20) * 8 / 200e6 * 0.95)
        check_guest(self, target)

    def test_cancel_lets_the_guest_run_on(self):
        source, target = self.source(), self.target()
        self.move(source, target, **{BANDWIDTH: 50_000_000})
        source.control.wait("pre-copy", lambda s: s.phase == 2)
        source.control.ask(CANCEL, {1: "m1"})
        status = self.wait_over(source)
        self.assertEqual((status.phase, status.state), (CANCELLED, RUNNING))
        self.assertTrue(makes_progress(self.console))
        target.control.wait("the target's end", lambda s: s.state not in (INCOMING, RUNNING, READY))
        # and it can be moved after all
        self.vmms.remove(target)
        target.__exit__()
        target = self.target()
        migrate(source, target, FIRST_EPOCH, migration_id="m2", port=self.port)
        self.assertEqual(self.wait_over(source).phase, COMPLETED)
        check_guest(self, target)

    def test_a_wrong_key_moves_nothing(self):
        source, target = self.source(), self.target()
        target.control.ask(10, {1: "m1", 2: b"x" * 32, 3: FIRST_EPOCH + 1})
        source.control.ask(OUT, {1: "m1", 2: "127.0.0.1", 3: self.port, 4: b"k" * 32, 5: FIRST_EPOCH,
                                 6: FIRST_EPOCH + 1})
        status = self.wait_over(source)
        self.assertEqual((status.phase, status.state), (MIGRATION_FAILED, RUNNING))
        self.assertIn("key", status.migration_text)
        self.assertEqual(state_of(target), INCOMING)
        self.assertTrue(makes_progress(self.console))

    def test_a_guest_too_fast_for_the_link_is_reported_and_unharmed(self):
        source, target = self.source(), self.target()
        self.move(source, target, n20=1, n40=1, **{BANDWIDTH: 100_000_000, DOWNTIME_MS: 30, COMPRESS: COMPRESS_OFF})
        status = self.wait_over(source, 90)
        self.assertEqual((status.phase, status.state), (MIGRATION_FAILED, RUNNING))
        self.assertIn("the guest dirties", status.migration_text)
        self.assertTrue(makes_progress(self.console))

    def test_a_guest_too_fast_for_the_link_moves_by_what_it_changes(self):
        source, target = self.source(), self.target()
        self.move(source, target, **{BANDWIDTH: 100_000_000, DOWNTIME_MS: 100, VERIFY: 1})
        status = self.wait_over(source, 90)
        self.assertEqual(status.phase, COMPLETED, status.migration_text)
        check_guest(self, target)

    def test_every_codec_moves_the_guest(self):
        for codec in (COMPRESS_OFF, COMPRESS_LZ4, COMPRESS_ZSTD):
            with self.subTest(codec=codec):
                source, target = self.source(), self.target()
                self.move(source, target, **{VERIFY: 1, COMPRESS: codec})
                status = self.wait_over(source)
                self.assertEqual(status.phase, COMPLETED, status.migration_text)
                check_guest(self, target)
                self.port = free_port()


class Link(threading.Thread):
    """Forwards TCP from a port of its own to another; can be held (as a cut cable) and freed again."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.to = self.listener.getsockname()[1], port
        self.free = threading.Event()
        self.free.set()
        self.start()

    def run(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.to))
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self.carry, args=(one, other), daemon=True).start()

    def carry(self, one, other):
        try:
            while data := one.recv(65536):
                self.free.wait()
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass


class Links(MigrationTest):
    def hold(self, link, seconds):
        link.free.clear()
        timer = threading.Timer(seconds, link.free.set)
        timer.start()
        self.addCleanup(timer.cancel)

    def test_a_cut_of_seconds_in_pre_copy_is_survived(self):
        link = Link(self.port)
        source, target = self.source(), self.target()
        self.move(source, target, port=link.port, **{BANDWIDTH: 100_000_000, DOWNTIME_MS: 500, VERIFY: 1})
        source.control.wait("pre-copy", lambda s: s.phase == 2 and s.wire_bytes > 4 << 20)
        self.hold(link, 7)
        source.control.wait("a warning", lambda s: "stalled" in s.migration_text, 20)
        self.assertTrue(makes_progress(self.console))
        self.assertEqual(self.wait_over(source).phase, COMPLETED)
        check_guest(self, target)

    def test_a_cut_beyond_the_stall_timeout_fails_cleanly(self):
        link = Link(self.port)
        source, target = self.source(), self.target()
        self.move(source, target, port=link.port, **{BANDWIDTH: 100_000_000, STALL_MS: 2000})
        source.control.wait("pre-copy", lambda s: s.phase == 2 and s.wire_bytes > 4 << 20)
        link.free.clear()
        status = self.wait_over(source)
        self.assertEqual((status.phase, status.state), (MIGRATION_FAILED, RUNNING))
        self.assertIn("no progress", status.migration_text)
        self.assertTrue(makes_progress(self.console))
        target.control.wait("the target's end", lambda s: s.state not in (INCOMING, READY))
        self.assertNotEqual(state_of(target), RUNNING)

    def test_a_cut_in_the_pause_never_stops_the_guest_longer_than_the_limit(self):
        link = Link(self.port)
        # The guest is stopped, and before anything of the pause is sent the link is cut.
        source, target = self.source(VMPOOL_FAULTS="source.pause=delay:300"), self.target()
        self.move(source, target, port=link.port, **{DOWNTIME_MS: 200, STALL_MS: 20000})
        source.control.wait("the pause", lambda s: s.phase == 3)
        self.hold(link, 3)
        source.control.wait("the pause taken back", lambda s: s.phase == 2, 5)
        # The cut lasts 3 s, the pause may last 0.2: what is beyond that here is the machine being busy.
        self.assertLess(longest_silence(self.console, 2), 0.8)
        self.assertEqual(self.wait_over(source).phase, COMPLETED)
        self.assertGreaterEqual(report(source)[20][-1], 1)
        check_guest(self, target)


# What may become of the guest where a process is killed, or frozen for a while, at each step.
SOURCE_POINTS = ["connect", "log", "round", "pause", "paused", "state", "ready", "gave-up", "go", "running"]
TARGET_POINTS = ["accept", "round-done", "load", "ready", "go", "run", "running"]


class Faults(MigrationTest):
    """Each step of the handover with each fault; then the controller's part is played by the rules of design.md:
    afterwards exactly one copy runs, or none, where its only host died before the handover."""

    def settle(self, source, target, timeout_s=40):
        """Decides as a controller does; returns the VMM that runs the guest, or None."""
        end = time.monotonic() + timeout_s
        while True:
            here, there = state_of(source), state_of(target)
            self.assertFalse(here == RUNNING and there == RUNNING, "two copies run")
            if there == RUNNING:
                return target
            if there == READY and here in (None, GAVE_UP):
                if here is None or self.in_doubt(source):
                    self.order(target, FIRST_EPOCH + 1)
            elif here == GAVE_UP and there in (None, 10) and self.in_doubt(source):  # 10: VM_FAILED
                self.order(source, FIRST_EPOCH + 2)
            elif here == RUNNING and there != READY:
                return source
            elif here is None and there == INCOMING:  # no source ever connects: it waits to be told
                target.control.ask(QUIT, {1: FIRST_EPOCH + 1})
            elif here is None and there is None or here is None and there == 10:
                return None
            self.assertLess(time.monotonic(), end, f"undecided: source {here}, target {there}")
            time.sleep(0.05)

    def order(self, vmm, epoch):
        try:
            vmm.control.ask(RUN, {1: epoch})
        except Refused as refusal:
            self.assertEqual(refusal.kind, CONFLICT, refusal.text)
        except ConnectionError:
            pass

    def in_doubt(self, source):
        return bool(source.control.status().migration_text)

    def check_outcome(self, source, target, runner):
        if runner is None:
            self.assertFalse(alive(source), "nobody runs although the source lives")
            return
        check_guest(self, runner)
        loser = target if runner is source else source
        self.assertNotEqual(state_of(loser), RUNNING)

    def begin_move(self, source, target, **limits):
        """The fault may come before the request was even answered: the answer is awaited on a thread."""
        def ask():
            try:
                self.move(source, target, **limits)
            except ConnectionError:
                pass  # killed before it answered
        mover = threading.Thread(target=ask, daemon=True)
        mover.start()
        return mover

    def run_killed(self, side, point):
        faults = {"VMPOOL_FAULTS": f"{side}.{point}=kill"}
        source = self.source(**(faults if side == "source" else {}))
        target = self.target(**(faults if side == "target" else {}))
        mover = self.begin_move(source, target, **{DOWNTIME_MS: 300, STALL_MS: 3000})
        (source if side == "source" else target).wait_exit()
        mover.join(20)
        runner = self.settle(source, target)
        self.check_outcome(source, target, runner)
        if side == "target":
            self.assertIsNotNone(runner)
        return runner

    def run_frozen(self, side, point):
        """Frozen for two seconds, much longer than the pause may take, then awake again, as if nothing had been."""
        faults = {"VMPOOL_FAULTS": f"{side}.{point}=stop"}
        source = self.source(**(faults if side == "source" else {}))
        target = self.target(**(faults if side == "target" else {}))
        frozen = source if side == "source" else target
        mover = self.begin_move(source, target, **{DOWNTIME_MS: 300, STALL_MS: 20000})
        self.wait_frozen(frozen)
        time.sleep(2)  # the fault itself
        if side == "target" and point in ("accept", "round-done", "load", "ready"):
            self.assertTrue(makes_progress(self.console), "the source must run on by itself")
        self.wake(frozen)
        mover.join(20)
        self.assertFalse(mover.is_alive(), "the request was never answered")
        runner = self.settle(source, target)
        self.assertIsNotNone(runner)
        self.check_outcome(source, target, runner)

    def wait_frozen(self, vmm, timeout_s=30):
        end = time.monotonic() + timeout_s
        while True:
            with open(f"/proc/{vmm.process.pid}/stat", encoding="ascii") as stat:
                if stat.read().rsplit(")", 1)[1].split()[0] == "T":
                    return
            self.assertLess(time.monotonic(), end, "the fault point was not reached")
            time.sleep(0.01)

    def wake(self, vmm):
        """Keeps waking: a point that is passed each round freezes again each time."""
        vmm.process.send_signal(signal.SIGCONT)
        waker = threading.Thread(target=self.keep_awake, args=(vmm,), daemon=True)
        waker.start()

    def keep_awake(self, vmm):
        while alive(vmm):
            vmm.process.send_signal(signal.SIGCONT)
            time.sleep(0.02)

    def run_lost(self, side, point):
        faults = {"VMPOOL_FAULTS": f"{side}.{point}=drop"}
        source = self.source(**(faults if side == "source" else {}))
        target = self.target(**(faults if side == "target" else {}))
        self.move(source, target, **{DOWNTIME_MS: 200, STALL_MS: 3000})
        runner = self.settle(source, target)
        self.assertIsNotNone(runner)
        self.check_outcome(source, target, runner)

    def test_a_target_that_was_discarded_never_runs(self):
        """Given up, GO lost: the target is thrown away, and the source gets a new epoch."""
        source, target = self.source(VMPOOL_FAULTS="source.gave-up=drop"), self.target()
        self.move(source, target, **{STALL_MS: 1000})
        self.wait_over(source)
        target.control.wait_state(READY)
        with self.assertRaises(Refused):
            source.control.ask(RUN, {1: FIRST_EPOCH})  # not higher than what was given up
        target.control.ask(QUIT, {1: FIRST_EPOCH + 1})
        target.wait_exit()
        source.control.ask(RUN, {1: FIRST_EPOCH + 2})
        source.control.wait_state(RUNNING)
        check_guest(self, source)

    def test_ready_without_a_source_is_decided_from_outside(self):
        source, target = self.source(VMPOOL_FAULTS="source.gave-up=drop"), self.target()
        self.move(source, target, **{STALL_MS: 1000})
        self.wait_over(source)
        source.process.kill()
        source.wait_exit()
        target.control.wait_state(READY)
        with self.assertRaises(Refused):
            target.control.ask(RUN, {1: FIRST_EPOCH})
        target.control.ask(RUN, {1: FIRST_EPOCH + 1})
        target.control.wait_state(RUNNING)
        check_guest(self, target)


def _add(kind, side, point):
    def test(self):
        getattr(self, f"run_{kind}")(side, point)
    setattr(Faults, f"test_{kind}_at_{side}_{point.replace('-', '_')}", test)


for _point in SOURCE_POINTS:
    _add("killed", "source", _point)
    _add("frozen", "source", _point)
for _point in TARGET_POINTS:
    _add("killed", "target", _point)
    _add("frozen", "target", _point)
for _side, _point in (("source", "state"), ("source", "ready"), ("source", "gave-up"), ("source", "running"),
                      ("target", "round-done"), ("target", "ready"), ("target", "go"), ("target", "running")):
    _add("lost", _side, _point)

if __name__ == "__main__":
    unittest.main()

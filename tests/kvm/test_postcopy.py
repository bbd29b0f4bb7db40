"""Post-copy between pool-vmm processes on this machine's KVM: the freestanding guest checks its own memory."""

import pathlib
import socket
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from test_migration import (BANDWIDTH, COMPRESS, COMPRESS_OFF, DOWNTIME_MS, FIRST_EPOCH, MEMORY, STALL_MS, VERIFY, MigrationTest, alive,
                            check_guest, makes_progress, report, state_of)
from vmm import (COMPLETED, CONFLICT, GAVE_UP, MIGRATION_FAILED, OUT, QUIT, RUN, RUNNING, USAGE, Refused, Vmm, free_port,
                 migrate, parse, read_until)

MODE, NO_POSTCOPY, RECOVERY_MS, NO_THROTTLE = "n40", "n41", "n42", "n20"
POSTCOPY_MODE, POSTCOPY = 2, 8
PAUSED, FAILED = 3, 10
# Rewritten at full speed: more than the capped link carries.
BUSY = "ws=24M fill=32M sweep=256"


class CutLink(threading.Thread):
    """Forwards TCP; can be cut, so that all connections break and none is made, and mended."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.to = self.listener.getsockname()[1], port
        self.lock, self.pairs, self.is_cut = threading.Lock(), [], False
        self.start()

    def run(self):
        while True:
            near, _ = self.listener.accept()
            with self.lock:
                if self.is_cut:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self.to))
                self.pairs.append((near, far))
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self.carry, args=(one, other), daemon=True).start()

    @staticmethod
    def carry(one, other):
        try:
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def cut(self):
        with self.lock:
            self.is_cut = True
            for pair in self.pairs:
                for end in pair:
                    try:
                        end.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass
            self.pairs.clear()

    def mend(self):
        with self.lock:
            self.is_cut = False


def is_silent(vmm, seconds):
    """Whether the guest prints nothing for so long, once what it printed before has been read."""
    console = vmm.attach()
    console.settimeout(0.5)
    end = time.monotonic() + 10
    try:
        while console.recv(65536) and time.monotonic() < end:
            pass
    except TimeoutError:
        pass
    return not makes_progress(console, seconds)


def postcopy_of(vmm):
    """MigrationPostcopy of a VMM, by field number; what is 0 is left out."""
    return {number: values[-1] for number, values in parse(report(vmm).get(60, [b""])[-1]).items()}


class PostcopyTest(MigrationTest):
    def busy_source(self):
        vmm = Vmm("--memory", MEMORY, "--cmdline", BUSY, "--epoch", FIRST_EPOCH)
        self.vmms.append(vmm)
        self.console = vmm.attach()
        read_until(self.console, b"R", 60)
        self.addCleanup(self.console.close)
        return vmm

    def begin(self, source, target, port=None, bandwidth=100_000_000, **limits):
        """Moves until the guest runs at the target and pages are lacking."""
        self.move(source, target, port=port, **{MODE: POSTCOPY_MODE, BANDWIDTH: bandwidth, DOWNTIME_MS: 500, **limits})
        source.control.wait("post-copy", lambda s: s.phase == POSTCOPY, 60)
        self.assertEqual(state_of(source), GAVE_UP)
        self.assertEqual(target.control.status().epoch, FIRST_EPOCH + 1)

    def check_over(self, source, target):
        status = source.control.wait("the end", lambda s: s.phase in (COMPLETED, MIGRATION_FAILED), 60)
        self.assertEqual(status.phase, COMPLETED, status.migration_text)
        self.assertEqual(status.state, GAVE_UP)
        status = target.control.wait("the end", lambda s: s.phase == COMPLETED)
        self.assertEqual(status.state, RUNNING)
        check_guest(self, target)


class Moves(PostcopyTest):
    def test_the_guest_runs_before_its_memory_is_there_and_finds_all_of_it(self):
        source, target = self.busy_source(), self.target()
        self.begin(source, target)
        self.assertEqual(state_of(target), RUNNING)
        check_guest(self, target, passes=2)
        self.check_over(source, target)
        postcopy = postcopy_of(target)
        self.assertGreater(postcopy[1], 0)
        self.assertGreaterEqual(postcopy[3], postcopy[2])
        self.assertEqual(report(target).get(8, [0])[-1], 0)

    def test_auto_ends_where_pre_copy_does_not_converge(self):
        source, target = self.busy_source(), self.target()
        begun = time.monotonic()
        self.move(source, target, **{BANDWIDTH: 60_000_000, DOWNTIME_MS: 50})
        self.check_over(source, target)
        # RAM in use is 32 MiB: 4.5 s. Diverging rounds alone would take 10 s before anybody gives up.
        self.assertLess(time.monotonic() - begun, 9)
        self.assertIn(1, postcopy_of(target))

    def test_a_guest_that_came_by_post_copy_goes_on_the_same_way(self):
        source = self.busy_source()
        for move in range(4):
            self.port = free_port()
            target = self.target()
            migrate(source, target, FIRST_EPOCH + move, migration_id=f"m{move}", port=self.port,
                    **{MODE: POSTCOPY_MODE, BANDWIDTH: 300_000_000, DOWNTIME_MS: 500})
            self.check_over(source, target)
            source.control.ask(QUIT, {1: FIRST_EPOCH + move + 1})
            source.wait_exit()
            source = target

    def test_it_cannot_leave_before_it_has_arrived(self):
        source, target = self.busy_source(), self.target()
        self.begin(source, target, bandwidth=30_000_000)
        with self.assertRaises(Refused) as refused:
            target.control.ask(OUT, {1: "m2", 2: "127.0.0.1", 3: self.port, 4: b"k" * 32, 5: FIRST_EPOCH + 1,
                                     6: FIRST_EPOCH + 2})
        self.assertEqual(refused.exception.kind, CONFLICT)
        self.check_over(source, target)


class Choices(PostcopyTest):
    def refused(self, **limits):
        source, target = self.busy_source(), self.target()
        with self.assertRaises(Refused) as refused:
            self.move(source, target, **{MODE: POSTCOPY_MODE, **limits})
        self.assertEqual(refused.exception.kind, USAGE)
        self.assertEqual(state_of(source), RUNNING)
        return refused.exception.text

    def test_verify_and_post_copy_exclude_each_other(self):
        self.assertIn("verify", self.refused(**{VERIFY: 1}))

    def test_a_vm_may_opt_out(self):
        self.assertIn("--no-post-copy", self.refused(**{NO_POSTCOPY: 1}))

    def test_auto_heeds_the_opt_out(self):
        source, target = self.busy_source(), self.target()
        self.move(source, target, **{BANDWIDTH: 100_000_000, DOWNTIME_MS: 30, NO_POSTCOPY: 1, NO_THROTTLE: 1,
                                     COMPRESS: COMPRESS_OFF})
        status = self.wait_over(source, 90)
        self.assertEqual((status.phase, status.state), (MIGRATION_FAILED, RUNNING))
        self.assertIn("the guest dirties", status.migration_text)
        self.assertTrue(makes_progress(self.console))


class Links(PostcopyTest):
    def hold_and_mend(self, lose, mend):
        source, target = self.busy_source(), self.target()
        link = CutLink(self.port)
        self.begin(source, target, port=link.port, bandwidth=40_000_000)
        lose(link)
        status = target.control.wait_state(PAUSED, 20)
        self.assertIn("the link to the source is lost", status.text)
        self.assertTrue(is_silent(target, 1))
        with self.assertRaises(Refused) as refused:
            target.control.ask(RUN, {1: FIRST_EPOCH + 1})
        self.assertEqual(refused.exception.kind, CONFLICT)
        mend(link)
        target.control.wait_state(RUNNING, 20)
        self.check_over(source, target)
        self.assertGreaterEqual(postcopy_of(target)[4], 1)

    def test_a_link_lost_pauses_the_guest_and_nothing_is_lost(self):
        self.hold_and_mend(CutLink.cut, CutLink.mend)

    def test_many_cuts(self):
        source, target = self.busy_source(), self.target()
        link = CutLink(self.port)
        self.begin(source, target, port=link.port, bandwidth=40_000_000)
        for _ in range(4):
            link.cut()
            target.control.wait_state(PAUSED, 20)
            link.mend()
            target.control.wait("the link or the end", lambda s: s.state == RUNNING, 20)
            if target.control.status().phase != POSTCOPY:
                break
        self.check_over(source, target)


class Ends(PostcopyTest):
    def test_a_source_that_dies_takes_the_guest_with_it_and_that_is_said(self):
        source, target = self.busy_source(), self.target()
        self.begin(source, target, bandwidth=30_000_000, **{RECOVERY_MS: 1500})
        source.process.kill()
        source.wait_exit()
        target.control.wait_state(PAUSED, 20)
        status = target.control.wait_state(FAILED, 20)
        self.assertIn("memory was lost with its source in post-copy", status.text)
        self.assertRegex(status.text, r"\d+ MiB were still there")
        self.assertTrue(is_silent(target, 1))
        with self.assertRaises(Refused):
            target.control.ask(RUN, {1: FIRST_EPOCH + 1})

    def test_without_a_limit_the_target_waits(self):
        source, target = self.busy_source(), self.target()
        self.begin(source, target, bandwidth=30_000_000)
        source.process.kill()
        target.control.wait_state(PAUSED, 20)
        self.assertTrue(is_silent(target, 3))
        self.assertEqual(state_of(target), PAUSED)
        target.control.ask(QUIT, {1: FIRST_EPOCH + 1})
        target.wait_exit()

    def test_a_target_that_dies_leaves_a_source_that_never_runs(self):
        source, target = self.busy_source(), self.target()
        self.begin(source, target, bandwidth=30_000_000)
        target.process.kill()
        target.wait_exit()
        source.control.wait("the loss", lambda s: "the link is lost" in s.migration_text, 20)
        with self.assertRaises(Refused):
            source.control.ask(RUN, {1: FIRST_EPOCH + 2})
        self.assertEqual(state_of(source), GAVE_UP)
        self.assertTrue(is_silent(source, 1))
        source.control.ask(QUIT, {1: FIRST_EPOCH + 1})
        source.wait_exit()

    def test_a_target_told_to_quit_quits(self):
        source, target = self.busy_source(), self.target()
        self.begin(source, target, bandwidth=30_000_000)
        target.control.ask(QUIT, {1: FIRST_EPOCH + 1})
        target.wait_exit()
        self.assertTrue(alive(source))


class Words(PostcopyTest):
    def lost(self, source_faults=None, target_faults=None):
        """The word is lost, then the link is made anew and it is said again: nobody has to decide."""
        source = self.source(**({"VMPOOL_FAULTS": source_faults} if source_faults else {}))
        target = self.target(**({"VMPOOL_FAULTS": target_faults} if target_faults else {}))
        self.move(source, target, **{MODE: POSTCOPY_MODE, BANDWIDTH: 100_000_000, DOWNTIME_MS: 500, STALL_MS: 1000})
        self.check_over(source, target)

    def test_go_lost(self):
        self.lost(source_faults="source.gave-up=drop")

    def test_running_lost(self):
        self.lost(target_faults="target.running=drop")


if __name__ == "__main__":
    unittest.main()

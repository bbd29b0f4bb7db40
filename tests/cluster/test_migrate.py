"""Live migration of an unmodified Debian guest under load, judged by what the guest saw of it."""

import os
import unittest

import cluster
from fault_case import wire_bytes
from guest import EchoStream
from vm import Vm
from waiting import until

# How often test_back_and_forth moves it; 50 for the long run.
MIGRATIONS = int(os.environ.get("VMPOOL_MIGRATIONS", "4"))


class Migrate(unittest.TestCase):
    limit_s = max(600, 40 * MIGRATIONS)

    @classmethod
    def setUpClass(cls):
        cls.pool = cluster.pool()
        cluster.testbed().exec(1, "truncate", "-s", "64M", "/srv/vmpool/mover.img")
        cls.vm = Vm.linux(cls.pool, "mover", host=1, cpus=2, memory="256M", disk="/srv/vmpool/mover.img")
        cls.addClassCleanup(cls.vm.remove)
        cls.vm.guest.ask("memory 48 16")
        cls.vm.guest.ask("disk /dev/vda")
        until("both loads are under way", cls.loaded, 120)

    @classmethod
    def loaded(cls):
        report = cls.vm.guest.report()
        return report["memory_passes"] >= 1 and report["disk_verified"] > 0

    def move(self, *options):
        """One migration to the other host under load and a connection; checks what the guest saw. Returns the job."""
        there = 3 - self.vm.host()
        stream = EchoStream(self.vm.guest)
        before = self.vm.guest.ask("reset")
        until("the connection is in use", lambda: stream.blocks > 10, 30)
        job = self.vm.migrate("--to", f"host{there}", *options)
        at_end = stream.blocks
        until("the connection goes on", lambda: stream.blocks > at_end + 10 or stream.error, 60)
        stream.end()
        after = self.vm.guest.report()
        self.assertEqual(self.vm.host(), there)
        self.vm.assert_one_running_copy()
        self.check_guest(before, after, job)
        return job

    def check_guest(self, before, after, job):
        pause_us = job["migration"]["pause"]["total_us"]
        print(f"    {job['migration']['round']} rounds, {job['migration']['wire_bytes'] >> 20} MiB, "
              f"{job['migration']['elapsed_us'] / 1e6:.1f} s, pause {pause_us / 1000:.1f} ms; the guest saw a gap of "
              f"{after['longest_gap_us'] / 1000:.1f} ms, wall jump {after['largest_wall_jump_us'] / 1000:.1f} ms")
        self.assertGreater(after["uptime_ms"], before["uptime_ms"], "the guest started anew")
        for what in ("memory_errors", "disk_errors", "clock_backwards"):
            self.assertEqual(after[what], 0, after)
        self.assertGreater(after["memory_pages"], before["memory_pages"])
        self.assertGreater(after["disk_verified"], before["disk_verified"])
        # The guest's clock goes on through the pause, so the pause is a gap in it; emulated hosts add their own.
        self.assertLess(after["longest_gap_us"], pause_us + 500_000)
        # The hosts' own clocks differ by what setting them costs.
        self.assertLess(abs(after["largest_wall_jump_us"]), 2_000_000)

    def test_under_load_and_verified(self):
        job = self.move("--verify")
        migration = job["migration"]
        self.assertEqual((job["phase"], migration["phase"]), ("done", "completed"))
        self.assertTrue(migration["verified"])
        self.assertTrue(migration["encrypted"])
        self.assertGreaterEqual(migration["streams"], 2)
        self.assertEqual(len(migration["rounds"]), migration["round"])

    def test_back_and_forth(self):
        for turn in range(MIGRATIONS):
            with self.subTest(turn=turn):
                self.move()

    def test_cancelled_it_runs_on(self):
        here = self.vm.host()
        job = self.vm.start_migration("--bandwidth", "20M")
        until("pages flow", lambda: wire_bytes(self.pool.one("job", "job", "show", job)) > 1 << 20, 60)
        self.pool.ctl("job", "cancel", job)
        until("the job has ended", lambda: self.pool.one("job", "job", "show", job)["phase"] == "cancelled", 60)
        self.assertEqual(self.vm.host(), here)
        self.vm.assert_one_running_copy()
        self.assertEqual(self.vm.guest.report()["memory_errors"], 0)

    def test_a_dry_run_changes_nothing(self):
        before = self.vm.show()
        self.assertIn("Predicted: ", self.pool.ctl("vm", "migrate", "mover", "--dry-run"))
        after = self.vm.show()
        self.assertEqual([before[k] for k in ("node", "epoch", "phase")], [after[k] for k in ("node", "epoch", "phase")])

    def test_drain_moves_it_away(self):
        here = self.vm.host()
        self.pool.ctl("node", "drain", f"host{here}", "--yes", timeout=300)
        self.addCleanup(self.pool.ctl, "node", "undrain", f"host{here}")
        self.assertEqual(self.vm.host(), 3 - here)
        self.vm.assert_one_running_copy()
        self.assertEqual(self.vm.guest.report()["memory_errors"], 0)

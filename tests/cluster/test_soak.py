"""A Debian guest under load, moved again and again, verified each time, while links are cut and daemons die at random.

After each move, whatever became of it, exactly one copy runs, the pool says where, and the guest is whole: the same boot,
no wrong word in memory or on disk, no clock that went back. VMPOOL_SOAK says how many moves (200 for the long run),
VMPOOL_SEED repeats the choices of a run."""

import collections
import os
import random
import time
import unittest

import cluster
from vm import Vm
from waiting import until

MOVES = int(os.environ.get("VMPOOL_SOAK", "4"))
SEED = int(os.environ.get("VMPOOL_SEED", "1"))
ENDED = ("done", "failed", "cancelled")


class Soak(unittest.TestCase):
    limit_s = 300 + 60 * MOVES

    @classmethod
    def setUpClass(cls):
        cls.pool = cluster.pool()
        cluster.testbed().exec(1, "truncate", "-s", "64M", "/srv/vmpool/soak.img")
        cls.vm = Vm.linux(cls.pool, "soak", host=1, cpus=2, memory="256M", disk="/srv/vmpool/soak.img")
        cls.addClassCleanup(cls.vm.remove)
        cls.vm.guest.ask("memory 48 16")
        cls.vm.guest.ask("disk /dev/vda")
        until("the disk is checked", lambda: cls.vm.guest.report()["disk_verified"] > 0, 120)

    def setUp(self):
        self.chance = random.Random(SEED)
        self.faults = [self.nothing, self.cut, self.kill_agent, self.kill_controller, self.kill_target]
        self.outcomes = collections.Counter()
        self.longest_gap_us = collections.Counter()

    def test_moves_with_faults_at_random(self):
        for turn in range(MOVES):
            fault = self.chance.choice(self.faults)
            wait_s = self.chance.uniform(0, 9)
            with self.subTest(turn=turn, fault=fault.__name__, wait_s=round(wait_s, 2)):
                self.move(turn, fault, wait_s)
        print("    outcomes: " + ", ".join(f"{name} {phase} {count}" for (name, phase), count
                                           in sorted(self.outcomes.items())))
        print("    longest gap in the guest's clock: " + ", ".join(
            f"{name} {us / 1000:.0f} ms" for name, us in sorted(self.longest_gap_us.items())))

    def move(self, turn, fault, wait_s):
        here = self.vm.host()
        before = self.vm.guest.ask("reset")
        self.job = self.vm.start_migration("--to", f"host{3 - here}", "--verify")
        time.sleep(wait_s)  # where in the migration it strikes is left to chance
        what = fault(here)
        self.pool.wait_nodes_up(2)
        phase = until("the job has ended", self.ended, 120, every_s=0.5)
        self.vm.assert_one_running_copy()
        after = until("the guest answers", self.vm.guest.report, 60)
        print(f"    {turn}: {what} after {wait_s:.1f} s: {phase}, on host{self.vm.host()}; gap "
              f"{after['longest_gap_us'] / 1000:.0f} ms", flush=True)
        name = fault.__name__
        self.outcomes[name, phase] += 1
        self.longest_gap_us[name] = max(self.longest_gap_us[name], after["longest_gap_us"])
        self.check_guest(before, after)
        if fault == self.nothing:
            self.assertEqual(phase, "done")

    def ended(self):
        shown = self.pool.one("job", "job", "show", self.job)
        return shown["phase"] if shown["phase"] in ENDED else None

    def check_guest(self, before, after):
        self.assertGreater(after["uptime_ms"], before["uptime_ms"], "the guest started anew")
        for what in ("memory_errors", "disk_errors", "clock_backwards"):
            self.assertEqual(after[what], 0, after)
        until("the guest works on", lambda: self.vm.guest.report()["memory_pages"] > after["memory_pages"], 60)

    # -- what goes wrong; each says what it did, and leaves daemons and links as they were --------------------------

    def nothing(self, _here):
        return "nothing"

    def cut(self, _here):
        host, cut_s = self.chance.choice((1, 2)), self.chance.choice((0.5, 2, 5, 20))
        self.pool.testbed("cut", host)
        time.sleep(cut_s)  # the fault itself
        self.pool.testbed("heal", host)
        return f"host{host} cut for {cut_s} s"

    def kill_agent(self, _here):
        host = self.chance.choice((1, 2))
        self.pool.kill_agent(host)
        self.pool.start_agent(host)
        return f"agent of host{host} killed"

    def kill_controller(self, _here):
        self.pool.kill_controller()
        self.pool.start_controller()
        return "controller killed"

    def kill_target(self, here):
        """Only early on: once the target runs it, its VMM is the VM."""
        shown = self.pool.one("job", "job", "show", self.job)
        if shown["phase"] in ENDED or (shown["migration"] or {}).get("round", 0) > 3:
            return "too late to kill the target's VMM"
        self.pool.kill_vmm(3 - here, "soak")
        return "target's VMM killed"

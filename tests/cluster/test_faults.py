"""Hosts lose power and links in a migration: afterwards one copy of the VM runs, or none where its only host died
before the handover, the controller's view is true, and nothing is left over."""

import os

import cluster
from fault_case import FaultCase
from waiting import until

# A phase: the fault point it is held at, the host whose VMM stops there, the host that loses power then, what becomes of
# the VM (None: what is left of the run folders decides). VMPOOL_FAULTS=all tries all, else the first two.
PHASES = (
    ("source.paused", 1, 2, "running"),
    ("source.gave-up", 1, 2, "running"),
    ("source.paused", 1, 1, "failed"),
    ("target.load", 2, 2, "running"),
    ("target.load", 2, 1, "failed"),
    ("source.gave-up", 1, 1, None),
    ("target.go", 2, 2, None),
    ("target.running", 2, 1, "running"),
)
CHOSEN = PHASES if os.environ.get("VMPOOL_FAULTS") == "all" else PHASES[:2]
FAULTS, FAULTS_LOG = "/srv/vmpool/faults", "/srv/vmpool/faults.log"


class PowerAndLinks(FaultCase):
    @classmethod
    def setUpClass(cls):
        cls.pool = cluster.pool()

    def mend(self, host):
        """A host that lost power, on again and in the pool."""
        self.bed("power-on", host, timeout=200)
        self.pool.start_agent(host)
        self.pool.wait_nodes_up(2)

    def test_target_loses_power_in_precopy(self):
        vm = self.bare("dst-power")
        job = self.in_precopy(vm)
        self.bed("power-off", 2)
        self.addCleanup(self.mend, 2)
        self.assertEqual(self.ended(job)["phase"], "failed")
        self.assertEqual(self.pool.vmms(1, vm.name) != [], True)
        self.assertEqual((vm.show()["phase"], vm.host()), ("running", 1))
        self.runs_whole(vm)

    def test_source_loses_power_in_precopy(self):
        vm = self.bare("src-power")
        job = self.in_precopy(vm)
        self.bed("power-off", 1)
        try:
            self.assertEqual(self.ended(job)["phase"], "failed")
            self.assertEqual(self.pool.vmms(2, vm.name), [], "the target must not run half a guest")
        finally:
            self.mend(1)
        self.assertEqual(vm.assert_settled(), "failed")

    def test_a_link_cut_for_thirty_seconds_in_precopy(self):
        vm = self.bare("cut")
        job = self.in_precopy(vm)
        self.bed("cut", 2)
        try:
            before = self.bed.exec(1, "date", "+%s").stdout
            until("30 s have passed in the host",
                  lambda: int(self.bed.exec(1, "date", "+%s").stdout) - int(before) >= 30, 90, every_s=2)
        finally:
            self.bed("heal", 2)
        self.ended(job, 180)
        vm.assert_one_running_copy()
        self.runs_whole(vm)


class PowerInEachPhase(FaultCase):
    limit_s = 120 * len(CHOSEN)

    @classmethod
    def setUpClass(cls):
        cls.pool = cluster.pool()
        cls.addClassCleanup(cls.pool.testbed.exec, 1, "rm", "-f", FAULTS, FAULTS_LOG)

    def test_power_lost_in_each_phase_of_the_handover(self):
        for number, (point, place, off, expected) in enumerate(CHOSEN):
            with self.subTest(point=point, off=f"host{off}"):
                phase = self.lose_power(f"phase{number}", point, place, off)
                print(f"    {point}, host{off} off: {phase}", flush=True)
                self.assertIn(phase, (expected,) if expected else ("running", "failed"))

    def lose_power(self, name, point, place, off):
        self.hold(place, point)
        vm = self.bare(name)
        job = vm.start_migration("--to", "host2")
        until(f"{point} is reached", lambda: point in self.bed.exec(place, "cat", FAULTS_LOG).stdout, 60)
        self.bed("power-off", off)
        self.bed.exec(3 - off, "truncate", "-s", "0", FAULTS)
        self.bed("power-on", off, timeout=200)
        self.pool.start_agent(off)
        if off != place:
            self.restart_agent(place)  # without fault points
        self.pool.wait_nodes_up(2)
        self.ended(job)
        phase = vm.assert_settled()
        if phase == "running":
            self.runs_whole(vm)
        vm.remove()
        return phase

    def hold(self, place, point):
        """VMMs that host @place starts from now on stop at @point."""
        self.bed.exec(place, "sh", "-c", f"umask 0; echo {point}=hold >{FAULTS}; : >{FAULTS_LOG}")
        self.restart_agent(place, VMPOOL_FAULTS=f"@{FAULTS}", VMPOOL_FAULTS_LOG=FAULTS_LOG)

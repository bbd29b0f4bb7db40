"""Daemons and VMMs are killed, and messages lost, in each phase of a migration: afterwards one copy of the VM runs, or
none where its VMM died before the handover, the controller's view is true, and nothing is left over. The hosts are
two namespaces of this machine; the VM is the freestanding guest, so what runs afterwards is also known to be whole."""

import pathlib
import tempfile

import local_pool
from fault_case import FaultCase


class Faults(FaultCase):
    @classmethod
    def setUpClass(cls):
        cls.pool = local_pool.pool()


class DaemonsKilled(Faults):
    def test_controller_in_precopy(self):
        vm = self.bare("ctl-precopy")
        job = self.in_precopy(vm)
        self.pool.kill_controller()
        self.pool.start_controller()
        self.pool.wait_nodes_up(2)
        self.ended(job)
        vm.assert_one_running_copy()
        self.runs_whole(vm)

    def test_source_agent_in_precopy(self):
        vm = self.bare("src-agent")
        job = self.in_precopy(vm)
        self.restart_agent(1)
        self.ended(job)
        vm.assert_one_running_copy()
        self.runs_whole(vm)

    def test_target_agent_in_precopy(self):
        vm = self.bare("dst-agent")
        job = self.in_precopy(vm)
        self.restart_agent(2)
        self.ended(job)
        vm.assert_one_running_copy()
        self.runs_whole(vm)

    def test_target_vmm_in_precopy(self):
        vm = self.bare("dst-vmm")
        job = self.in_precopy(vm)
        self.assertEqual(self.pool.kill_vmm(2, vm.name), 1)
        self.assertEqual(self.ended(job)["phase"], "failed")
        vm.assert_one_running_copy()
        self.assertEqual(vm.host(), 1)
        self.runs_whole(vm)

    def test_source_vmm_in_precopy(self):
        vm = self.bare("src-vmm")
        job = self.in_precopy(vm)
        self.assertEqual(self.pool.kill_vmm(1, vm.name), 1)
        self.assertEqual(self.ended(job)["phase"], "failed")
        self.assertEqual(vm.assert_settled(), "failed")
        self.assertEqual(vm.copies(), [])

    def test_an_agent_adopts_its_guests_again(self):
        vm = self.bare("adopted")
        pids = self.pool.vmms(1, vm.name)
        self.restart_agent(1)
        vm.assert_one_running_copy()
        self.assertEqual(self.pool.vmms(1, vm.name), pids)
        self.runs_whole(vm)


class HandoverSteps(Faults):
    """The VMM itself dies, or loses a message, right before each step of the protocol (migration/faults.h)."""

    limit_s = 900

    # None: what became of it depends on whether the source could still say that it had given up; one that died
    # without a word may have run on, so the controller must not run the target's older copy.
    SOURCE = {"source.round": "failed", "source.paused": "failed", "source.state": "failed",
              "source.ready": None, "source.gave-up": None, "source.go": "running", "source.running": "running"}
    # Once the guest ran at the target, the source's memory is older than the guest's disks: it must not run on.
    TARGET = {"target.accept": "running", "target.round-done": "running", "target.load": "running",
              "target.ready": "running", "target.go": "running", "target.run": "running", "target.running": "failed"}
    LOST = ("source.gave-up=drop", "source.running=drop", "target.ready=drop", "target.go=drop", "target.running=drop")

    def migrate_with(self, name, host, faults):
        """One migration with @faults in the VMM on @host; returns the VM once all has settled, and its phase."""
        acted = pathlib.Path(tempfile.mkstemp(prefix="vmpool-faults-")[1])
        acted.chmod(0o666)  # the VMM is nobody by then
        self.addCleanup(acted.unlink)
        self.restart_agent(host, VMPOOL_FAULTS=faults, VMPOOL_FAULTS_LOG=acted)
        self.addCleanup(self.restart_agent, host)
        vm = self.bare(name)
        self.ended(vm.start_migration("--to", "host2"), 180)
        phase = vm.assert_settled()
        self.assertIn(faults.partition("=")[0], acted.read_text().split(), "the fault never came")
        return vm, phase

    def check(self, vm, phase, expected):
        if expected is not None:
            self.assertEqual(phase, expected)
        if phase == "running":
            self.runs_whole(vm)

    def test_source_dies_before_each_step(self):
        for number, (point, expected) in enumerate(self.SOURCE.items()):
            with self.subTest(point=point):
                vm, phase = self.migrate_with(f"sk{number}", 1, f"{point}=kill")
                self.check(vm, phase, expected)
            self.doCleanups()

    def test_target_dies_before_each_step(self):
        for number, (point, expected) in enumerate(self.TARGET.items()):
            with self.subTest(point=point):
                vm, phase = self.migrate_with(f"tk{number}", 2, f"{point}=kill")
                self.check(vm, phase, expected)
            self.doCleanups()

    def test_each_message_is_lost(self):
        for number, faults in enumerate(self.LOST):
            with self.subTest(faults=faults):
                vm, phase = self.migrate_with(f"lost{number}", 1 if faults.startswith("source") else 2, faults)
                self.check(vm, phase, "running")
            self.doCleanups()

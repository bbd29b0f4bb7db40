"""Hosts lose power and links in a migration: afterwards one copy of the VM runs, or none where its only host died
before the handover, the controller's view is true, and nothing is left over."""

import cluster
from fault_case import FaultCase
from waiting import until


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

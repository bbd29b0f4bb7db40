"""Post-copy through the real controller and two real agents: daemons and VMMs are killed while the guest runs at its
target and pages of it are still at its source. Either the guest goes on whole, or the pool says with which host it was
lost; nothing is left over."""

import local_pool
from fault_case import FaultCase
from pool import PoolctlError
from vm import Vm
from waiting import until

# Dirties more than the capped link carries; all of the working set is lacking after the pause.
BUSY = "ws=24M fill=32M sweep=256"
SLOWLY = ("--mode", "postcopy", "--bandwidth", "30M", "--downtime-limit", "1s")


class PoolPostcopy(FaultCase):
    @classmethod
    def setUpClass(cls):
        cls.pool = local_pool.pool()

    def busy(self, name):
        vm = Vm.bare(self.pool, name, host=1, cmdline=BUSY)
        self.addCleanup(vm.remove)
        return vm

    def in_postcopy(self, vm):
        """A migration of @vm from host 1 to 2 that has handed over and fetches pages; returns the job's id."""
        job = vm.start_migration("--to", "host2", *SLOWLY)
        until("pages are fetched", lambda: "fetching" in self.job(job)["text"], 60, every_s=0.1)
        self.assertEqual(vm.host(), 2)
        self.assertEqual(sorted(vm.copies()), [1, 2])
        return job

    def goes_on(self, vm, job):
        shown = self.ended(job)
        self.assertEqual(shown["phase"], "done", shown["text"])
        vm.assert_one_running_copy()
        self.assertEqual(vm.host(), 2)
        self.runs_whole(vm)
        self.assertGreater(vm.show()["last_migration"]["postcopy"]["faults"], 0)


class GoesOn(PoolPostcopy):
    def test_by_itself(self):
        vm = self.busy("pc-plain")
        self.goes_on(vm, self.in_postcopy(vm))
        self.assertIn("post-copy", self.pool.ctl("vm", "show", vm.name))

    def test_though_the_controller_dies(self):
        vm = self.busy("pc-ctl")
        job = self.in_postcopy(vm)
        self.pool.kill_controller()
        self.pool.start_controller()
        self.pool.wait_nodes_up(2)
        self.goes_on(vm, job)

    def test_though_the_sources_agent_dies(self):
        vm = self.busy("pc-src")
        job = self.in_postcopy(vm)
        self.restart_agent(1)
        self.goes_on(vm, job)

    def test_though_the_targets_agent_dies(self):
        vm = self.busy("pc-dst")
        job = self.in_postcopy(vm)
        self.restart_agent(2)
        self.goes_on(vm, job)


class IsLost(PoolPostcopy):
    def lost(self, vm, job, words):
        self.assertEqual(self.ended(job)["phase"], "failed")
        self.assertEqual(vm.assert_settled(), "failed")
        self.assertEqual(vm.copies(), [])
        self.assertIn(words, vm.show()["text"])
        self.pool.ctl("vm", "start", vm.name)
        vm.assert_one_running_copy()

    def test_with_its_source(self):
        vm = self.busy("pc-lost-src")
        job = self.in_postcopy(vm)
        self.assertEqual(self.pool.kill_vmm(1, vm.name), 1)
        self.lost(vm, job, "its memory was lost with host host1 in post-copy")
        self.assertGreater(vm.show()["last_migration"]["postcopy"]["links_lost"], 0)

    def test_with_its_target(self):
        vm = self.busy("pc-lost-dst")
        job = self.in_postcopy(vm)
        self.assertEqual(self.pool.kill_vmm(2, vm.name), 1)
        self.lost(vm, job, "it was lost on host host2 in post-copy")


class OptOut(PoolPostcopy):
    def test_a_vm_made_without_is_moved_without(self):
        self.pool.ctl("vm", "create", "pc-never", "--image", "bare", "--memory", "64M", "--no-post-copy", "--cmdline",
                      "ws=1M fill=32M rate=2000")
        vm = Vm(self.pool, "pc-never")
        self.addCleanup(vm.remove)
        with self.assertRaises(PoolctlError) as caught:
            self.pool.ctl("vm", "migrate", vm.name, "--mode", "postcopy")
        self.assertEqual(caught.exception.status, 5)
        self.assertIn("--no-post-copy", caught.exception.text)
        self.assertTrue(vm.show()["spec"]["no_postcopy"])
        self.assertEqual(vm.migrate("--mode", "auto")["phase"], "done")

    def test_verify_excludes_it(self):
        vm = self.busy("pc-verify")
        with self.assertRaises(PoolctlError) as caught:
            self.pool.ctl("vm", "migrate", vm.name, "--mode", "postcopy", "--verify")
        self.assertEqual(caught.exception.status, 3)

"""What tests of bad days share: a VM of the freestanding guest, which checks its memory all the time, a migration that
is under way, and what must hold afterwards."""

import unittest

from vm import Vm
from waiting import until

# Slow enough that pre-copy of the 32 MiB the guest holds lasts some seconds.
SLOWLY = ("--bandwidth", "40M")


class FaultCase(unittest.TestCase):
    """Subclasses set cls.pool in setUpClass: two hosts, image `bare`."""

    limit_s = 300

    @property
    def bed(self):
        return self.pool.testbed

    def bare(self, name, host=1):
        vm = Vm.bare(self.pool, name, host=host)
        self.addCleanup(vm.remove)
        return vm

    def in_precopy(self, vm, *options):
        """A migration of @vm from host 1 to host 2 with pages flowing; returns the job's id."""
        job = vm.start_migration("--to", "host2", *(options or SLOWLY))
        until("pages flow", lambda: wire_bytes(self.job(job)) > 1 << 20, 60)
        return job

    def job(self, job):
        return self.pool.one("job", "job", "show", job)

    def ended(self, job, timeout_s=120):
        return until("the job has ended", lambda: self.finished(job), timeout_s, every_s=0.5)

    def finished(self, job):
        shown = self.job(job)
        return shown if shown["phase"] in ("done", "failed", "cancelled") else None

    def runs_whole(self, vm):
        """The guest goes on writing its dots and has found no wrong word."""
        text = vm.console()
        self.assertNotRegex(text, r"(?m)^\.*E \d")
        until("the guest writes on", lambda: vm.console() != text, 30)

    def restart_agent(self, host, **environment):
        self.pool.kill_agent(host)
        self.pool.start_agent(host, **environment)
        self.pool.wait_nodes_up(2)


def wire_bytes(job):
    """What its migration has sent; 0 while there is none yet."""
    return (job["migration"] or {}).get("wire_bytes", 0)

"""An unmodified Debian kernel in the pool: it starts, sees what it was given, powers off, leaves nothing behind."""

import unittest

import cluster
from vm import Vm
from waiting import until


class LinuxGuest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pool = cluster.pool()
        cls.bed = cluster.testbed()

    def test_it_lives_from_creation_to_removal(self):
        self.bed.exec(1, "truncate", "-s", "64M", "/srv/vmpool/life.img")
        vm = Vm.linux(self.pool, "life", cpus=2, disk="/srv/vmpool/life.img")
        self.addCleanup(vm.remove)
        report = vm.guest.report()
        self.assertEqual((report["cpus"], report["clocksource"]), (2, "kvm-clock"))
        vm.guest.ask("memory 32 20")
        vm.guest.ask("disk /dev/vda")
        until("both loads have checked themselves", lambda: loaded(vm.guest.report()), 60)
        self.assertIn("vmpool-guest: up", vm.console())
        vm.assert_one_running_copy()

        self.pool.ctl("vm", "stop", "life")
        self.assertEqual(vm.show()["phase"], "stopped")
        self.assertEqual(vm.copies(), [])
        host = 1 if not vm.show()["node"] else vm.host()
        self.pool.ctl("vm", "rm", "life", "--yes")
        for host in (1, 2):
            taps = self.bed.exec(host, "sh", "-c", "ls /sys/class/net; ls /run/vmpool/agent/vms 2>/dev/null").stdout
            self.assertEqual(sorted(set(taps.split()) - {"eth0", "eth1", "lo", "vmpool0"}), [], f"left on host{host}")
        self.assertEqual(self.pool.ctl("vm", "show", "life", check=False).returncode, 4)


def loaded(report):
    if report["memory_errors"] or report["disk_errors"]:
        raise AssertionError(f"the guest found errors: {report}")
    return report["memory_passes"] >= 2 and report["disk_verified"] >= 20

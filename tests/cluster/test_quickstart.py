"""The first command of the README, from its first line to its last trace."""

import os
import pathlib
import subprocess
import unittest

from pool import BIN
from testbed import PROJECT

QUICKSTART = PROJECT / "deploy" / "quickstart"
LINK = pathlib.Path("/usr/local/bin/poolctl")
LIMIT_S = 600


def quickstart(*words):
    return subprocess.run([QUICKSTART, *words], capture_output=True, text=True, timeout=LIMIT_S, check=False,
                          stdin=subprocess.DEVNULL, env={**os.environ, "VMPOOL_BIN": str(BIN)})


class Quickstart(unittest.TestCase):
    limit_s = 2 * LIMIT_S

    def test_up_use_and_down(self):
        if os.geteuid() != 0:
            self.skipTest("needs root")
        if pathlib.Path("/var/lib/vmpool-quickstart").exists():
            self.skipTest("a quickstart is up on this machine, and may be in use")
        self.addCleanup(quickstart, "down")
        up = quickstart()
        self.assertEqual(up.returncode, 0, up.stdout + up.stderr)
        for said in ("hosts: two", "first is on host", "first moved from host", "What the guest itself saw"):
            self.assertIn(said, up.stdout)
        if LINK.is_symlink() and LINK.resolve() == BIN / "poolctl":
            shown = subprocess.run(["poolctl", "vm", "ls", "-o", "csv"], capture_output=True, text=True, timeout=30,
                                   check=True).stdout
            self.assertIn("running", shown)
        again = quickstart("up")
        self.assertEqual(again.returncode, 1)
        self.assertIn("up already", again.stderr)

        self.assertEqual(quickstart("down").returncode, 0)
        self.assert_no_trace()

    def assert_no_trace(self):
        self.assertFalse(LINK.is_symlink() and LINK.resolve() == BIN / "poolctl")
        for left in ("/var/lib/vmpool-quickstart", "/var/lib/vmpool-testbed/quickstart", "/run/netns/vmpool-quickstart",
                     "/sys/class/net/vmpool-up"):
            self.assertFalse(pathlib.Path(left).exists(), left)
        running = subprocess.run(["pgrep", "-fa", "vmpool-quickstart"], capture_output=True, text=True, check=False)
        self.assertEqual(running.stdout, "")

"""The pool that tests of a run of tests/kvm share: two hosts in namespaces of this machine."""

import atexit
import functools
import os
import pathlib
import unittest

import pool as pool_module
from localhosts import LocalHosts


@functools.lru_cache(maxsize=None)
def pool():
    if os.geteuid() != 0:
        raise unittest.SkipTest("needs root")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise unittest.SkipTest("no /dev/kvm here")
    for left in pathlib.Path("/run/netns").glob("vmpool-kvm-*"):
        name = left.name.removeprefix("vmpool-").partition("-host")[0]
        if not pathlib.Path("/proc", name.removeprefix("kvm-")).exists():
            LocalHosts(name).down()  # of a run that was killed
    hosts = LocalHosts(f"kvm-{os.getpid()}")
    atexit.register(hosts.down)
    hosts.up(2)
    made = pool_module.Pool(hosts, 2)
    atexit.register(made.stop)
    made.start()
    made.ctl("image", "import", "bare", "--kernel", pool_module.BIN / "guest.elf")
    return made

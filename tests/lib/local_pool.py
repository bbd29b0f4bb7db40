"""The pools that tests of a run of tests/kvm share: two hosts each in namespaces of this machine."""

import atexit
import functools
import os
import pathlib
import unittest

import pool as pool_module
from localhosts import LocalHosts


@functools.lru_cache(maxsize=None)
def pool():
    """The one that most tests use."""
    return make(f"kvm-{os.getpid()}")


def make(name, hosts=2, **options):
    """A pool of its own, of that many hosts; @name begins with kvm-PID."""
    if os.geteuid() != 0:
        raise unittest.SkipTest("needs root")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise unittest.SkipTest("no /dev/kvm here")
    for left in pathlib.Path("/run/netns").glob("vmpool-kvm-*"):
        old = left.name.removeprefix("vmpool-").partition("-host")[0]
        if not pathlib.Path("/proc", old.split("-")[1]).exists():
            LocalHosts(old).down()  # of a run that was killed
    bed = LocalHosts(name)
    atexit.register(bed.down)
    bed.up(hosts)
    made = pool_module.Pool(bed, hosts, **options)
    atexit.register(made.stop)
    made.start()
    made.ctl("image", "import", "bare", "--kernel", pool_module.BIN / "guest.elf")
    return made

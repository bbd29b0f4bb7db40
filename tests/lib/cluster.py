"""The one testbed and the one pool that all tests of a run of tests/cluster share: hosts take a while to start.

A test that breaks a host mends it before it ends (`mended`), so that the next finds two hosts, up, in the pool."""

import atexit
import functools
import os
import pathlib
import subprocess
import unittest

import pool as pool_module
from testbed import PROJECT, Testbed

HOSTS, HOST_MIB = 2, 1536
_PREFIX = "tests-"


def _once(make):
    """Calls @make once; who asks again gets the same answer, or the same error at once instead of a second wait."""
    answers = []

    @functools.wraps(make)
    def ask():
        if not answers:
            try:
                answers.append((make(), None))
            except Exception as error:  # also unittest.SkipTest
                answers.append((None, error))
        answer, error = answers[0]
        if error is not None:
            raise error
        return answer

    return ask


@_once
def testbed():
    """Up from the first question on until the run ends."""
    if os.geteuid() != 0:
        raise unittest.SkipTest("needs root")
    _end_abandoned()
    bed = Testbed(f"{_PREFIX}{os.getpid()}")
    atexit.register(bed.down)
    bed.up(HOSTS, HOST_MIB)
    return bed


@_once
def pool():
    """A pool on it, with the stock Debian guest as image `debian` and the freestanding one as `bare`."""
    made = pool_module.Pool(testbed(), HOSTS)
    atexit.register(made.stop)
    made.start()
    folder = guest_image()
    made.ctl("image", "import", "debian", "--kernel", folder / "vmlinuz", "--initrd", folder / "initrd.cpio.gz",
             "--cmdline", "console=ttyS0 quiet")
    made.ctl("image", "import", "bare", "--kernel", pool_module.BIN / "guest.elf")
    return made


@_once
def guest_image():
    folder = pathlib.Path(os.environ.get("VMPOOL_CACHE", "/var/cache/vmpool")) / "guest-test"
    subprocess.run([PROJECT / "deploy" / "guest-image", "--output", folder], check=True, timeout=300,
                   env={**os.environ, "VMPOOL_BIN": str(pool_module.BIN)}, capture_output=True)
    return folder


def _end_abandoned():
    """Testbeds of runs that were killed."""
    for left in pathlib.Path("/var/lib/vmpool-testbed").glob(f"{_PREFIX}*"):
        if not pathlib.Path("/proc", left.name.removeprefix(_PREFIX)).exists():
            Testbed(left.name).down()

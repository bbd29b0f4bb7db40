"""One VM of a pool under test, and what must hold of it after anything at all."""

import itertools

from guest import Guest
from waiting import until

_addresses = itertools.count(50)


class Vm:
    """Made by linux() or bare(); remove() takes it away again, whatever became of it."""

    def __init__(self, pool, name, address=None):
        self.pool, self.name = pool, name
        self.guest = Guest(pool.testbed, address) if address else None

    @classmethod
    def linux(cls, pool, name, host=None, cpus=2, memory="256M", disk=None, cmdline=""):
        """The stock Debian guest, back once its userspace answers."""
        address = f"10.77.0.{next(_addresses)}"
        vm = cls(pool, name, address)
        vm._create("debian", host, cpus, memory, disk, f"vmpool.ip={address}/24 vmpool.report=0 {cmdline}")
        until(f"userspace of {name} is up", vm.guest.report, 90)
        return vm

    @classmethod
    def bare(cls, pool, name, host=None, memory="64M", cmdline="ws=1M fill=32M rate=2000"):
        """The freestanding guest, which is up at once and checks its memory (tests/guest/guest.c)."""
        vm = cls(pool, name)
        vm._create("bare", host, 1, memory, None, cmdline)
        ready = "R" if "rate=0" in cmdline else "R."
        until(f"{name} has filled its memory", lambda: ready in vm.console(), 30)
        return vm

    def _create(self, image, host, cpus, memory, disk, cmdline):
        words = ["vm", "create", self.name, "--image", image, "--cpus", cpus, "--memory", memory,
                 "--cmdline", cmdline]
        words += ["--on", f"host{host}"] if host else []
        words += ["--disk", disk] if disk else []
        self.pool.ctl(*words)

    def show(self):
        return self.pool.vm(self.name)

    def host(self):
        """The number of the host the controller says it is on."""
        return int(self.show()["node"].removeprefix("host"))

    def console(self):
        return self.pool.ctl("vm", "log", self.name)

    def migrate(self, *options, **kwargs):
        """Waits for the end of it; returns the job."""
        return self.pool.one("job", "vm", "migrate", self.name, *options, **kwargs)

    def start_migration(self, *options):
        return int(self.pool.ctl("vm", "migrate", self.name, "--no-wait", *options).split()[-1])

    def copies(self):
        """The hosts that have a VMM process of it, one entry each process."""
        return [host for host in range(1, self.pool.hosts + 1) for _ in self.pool.vmms(host, self.name)]

    def assert_one_running_copy(self, timeout_s=60):
        """Exactly one process of it in the pool, running, and the controller knows where."""

        def settled():
            shown = self.show()
            return shown["phase"] == "running" and self.copies() == [int(shown["node"].removeprefix("host"))]

        until(f"{self.name}: one copy, running where the controller says", settled, timeout_s, every_s=0.5)

    def remove(self):
        self.pool.ctl("vm", "rm", self.name, "--force", "--yes", check=False)
        until(f"nothing is left of {self.name}", lambda: not self.copies(), 60)

    def assert_settled(self, timeout_s=90):
        """What the controller says and what runs agree: one copy where it says, or none. Returns the phase."""

        def settled():
            shown, copies = self.show(), self.copies()
            if shown["phase"] == "running":
                return shown["phase"] if copies == [int(shown["node"].removeprefix("host"))] else None
            return shown["phase"] if shown["phase"] in ("failed", "stopped") and not copies else None

        return until(f"{self.name}: the controller's view is true", settled, timeout_s, every_s=0.5)

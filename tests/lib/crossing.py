"""One case of the crossing: a migration is held at a fault point, something goes wrong there, and afterwards all that
must hold is looked at. tests/kvm/test_crossing.py has the table of points and faults."""

import contextlib
import os
import pathlib
import shutil
import signal
import sqlite3
import tempfile
import threading
import time

import local_pool
from vcpus import VcpuWatch
from vm import Vm
from waiting import until

SOURCE, TARGET, CONTROLLER = 1, 2, "controller"
DOWNTIME_S = 0.5
# Beyond every timeout below: what a fault of time lasts.
LONG_S = 2.0
CONTROLLER_OPTIONS = ("--report-interval", "300ms", "--lost-after", "1s", "--command-timeout", "1500ms",
                      "--handover-grace", "300ms", "--rebalance", "off")
AGENT_OPTIONS = ("--vmm-timeout", "1s")
MIGRATE_OPTIONS = ("--to", "host2", "--downtime-limit", f"{DOWNTIME_S}s", "--stall-timeout", "1s")
SLOWLY = ("--bandwidth", "10M")
# How much later than promised the guest may run on where this machine is busy.
BUSY_S = 0.5
STORE_VM = 4


class Faults:
    """The fault points of one pool: a file for each host and the controller, which their processes read."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="vmpool-faults-"))
        self.folder.chmod(0o755)  # the VMMs are nobody
        self.log = self.folder / "log"
        for path in (self.log, *map(self._file, (SOURCE, TARGET, CONTROLLER))):
            path.touch()
            path.chmod(0o666)

    def _file(self, place):
        return self.folder / f"faults-{place}"

    def environment(self, place):
        return {"VMPOOL_FAULTS": f"@{self._file(place)}", "VMPOOL_FAULTS_LOG": str(self.log)}

    def set(self, place, **points):
        self.set_all(place, points)

    def set_all(self, place, points):
        """Replaces what was set there, in one step for those who read meanwhile."""
        fresh = self.folder / "fresh"
        fresh.write_text(",".join(f"{point}={action}" for point, action in points.items()))
        fresh.chmod(0o666)
        fresh.replace(self._file(place))

    def clear(self):
        for place in (SOURCE, TARGET, CONTROLLER):
            self.set_all(place, {})
        self.log.write_text("")

    def reached(self, point):
        return any(line.split()[0] == point for line in self.log.read_text().splitlines() if line)


class CrossingPool:
    def __init__(self, number):
        self.faults = Faults()
        self.cases, self.number = 0, number
        self.pool = local_pool.make(f"kvm-{os.getpid()}-{number}", controller_options=CONTROLLER_OPTIONS,
                                    agent_options=AGENT_OPTIONS, environment=self.faults.environment)

    def run(self, point, fault):
        """Raises what does not hold; returns a word on what became of the VM."""
        self.cases += 1
        case = Case(self, point, fault, f"x{self.number}-{self.cases}")
        try:
            return case.run()
        except Exception as error:
            raise AssertionError(f"{point.name} x {fault} ({case.vm.name}): {error}\n{case.story()}"
                                 f"\n{self.pool.logs()}") from error
        finally:
            case.mend()


class Case:
    def __init__(self, home, point, fault, name):
        self.home, self.pool, self.faults = home, home.pool, home.faults
        self.point, self.fault = point, fault
        self.vm, self.job, self.frozen, self.cut = Vm(self.pool, name), None, [], None
        self.killed_vmm, self.absent = None, False

    # -- the course of it ----------------------------------------------------------------------------

    def run(self):
        self.faults.clear()
        self.vm = Vm.bare(self.pool, self.vm.name, host=1, memory="64M", cmdline="ws=1M fill=8M rate=2000")
        with VcpuWatch(self.vm.name) as watch:
            self.arm()
            self.start()
            until(f"{self.point.name} is reached", lambda: self.faults.reached(self.point.reach), 20, every_s=0.01)
            watch.reset_silence()
            self.strike()
            outcome = self.settle(watch)
        self.vm.remove()
        self.nothing_left()
        return outcome

    def arm(self):
        way = {place: dict(points) for place, points in self.point.way.faults.items()}
        action = self.fault.action if self.fault.action else "hold"
        way.setdefault(self.point.place, {})[self.point.armed] = "hold" if self.point.then else action
        for place, points in way.items():
            self.faults.set_all(place, points)
        if self.point.then:
            self.second = threading.Thread(target=self.arm_second, args=(action,), daemon=True)
            self.second.start()

    def arm_second(self, action):
        """An answer is known by the command that came before it."""
        until(f"{self.point.armed} is reached", lambda: self.faults.reached(self.point.armed), 30, every_s=0.01)
        self.faults.set_all(self.point.place, {self.point.then: action})

    def start(self):
        way = self.point.way
        self.job = self.vm.start_migration(*MIGRATE_OPTIONS, *way.options)
        if way.cancel:
            until("it streams", lambda: self.shown()["text"].startswith("streaming"), 10, every_s=0.05)
            self.pool.ctl("job", "cancel", self.job)

    def strike(self):
        fault = self.fault
        if fault.action:
            self.release()
        else:
            getattr(self, fault.kind)(fault.victim)

    def release(self):
        for place in (SOURCE, TARGET, CONTROLLER):
            self.faults.set_all(place, {})

    def victims(self, victim):
        host = TARGET if victim.startswith("target") else SOURCE
        if victim == CONTROLLER:
            return [self.pool.controller.pid]
        pids = self.pool.vmms(host, self.vm.name) if victim.endswith("vmm") else self.pool.agents(host)
        self.absent = not pids
        return pids

    def kill(self, victim):
        pids = self.victims(victim)
        if victim.endswith("vmm"):
            self.killed_vmm = victim if pids else None
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        if victim == CONTROLLER:
            self.pool.controller.wait(10)
        self.release()
        if victim == CONTROLLER:
            self.pool.start_controller()
        elif victim.endswith("agent"):
            host = TARGET if victim.startswith("target") else SOURCE
            until("the agent is gone", lambda: not self.pool.agents(host), 10, every_s=0.02)
            self.pool.start_agent(host)

    def freeze(self, victim):
        self.frozen = self.victims(victim)
        for pid in self.frozen:
            os.kill(pid, signal.SIGSTOP)
        self.release()
        time.sleep(LONG_S)  # the fault itself
        self.thaw()

    def thaw(self):
        for pid in self.frozen:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass
        self.frozen = []

    def link(self, host):
        self.cut = host
        self.pool.testbed("cut", host)
        self.release()
        time.sleep(LONG_S)  # the fault itself
        self.heal()

    def heal(self):
        if self.cut:
            self.pool.testbed("heal", self.cut)
        self.cut = None

    # -- what must hold ------------------------------------------------------------------------------

    def shown(self):
        return self.pool.one("job", "job", "show", self.job)

    def ended(self):
        return self.shown()["phase"] in ("done", "failed", "cancelled")

    def settle(self, watch):
        self.pool.wait_nodes_up(2)
        until("the job has ended", self.ended, 30, every_s=0.1)
        phase = self.vm.assert_settled(30)
        assert not watch.twice, f"two copies ran at once: {watch.twice[:5]}"
        expected = self.expected()
        assert expected in (None, phase), f"it is {phase}, and must be {expected}: {self.vm.show()['text']}"
        if phase == "running":
            self.runs_whole()
        if self.limited():
            assert watch.silence_s <= DOWNTIME_S + BUSY_S, f"no copy ran for {watch.silence_s:.2f} s"
        return "without its process" if self.absent else phase

    def expected(self):
        if self.point.way.outcome:
            return self.point.way.outcome
        return self.point.outcome(self.killed_vmm)

    def limited(self):
        """Whether the protocol promises that the pause stays within the limit: as long as the source decides, unless it
        is the source itself that is slow."""
        slow = self.fault.victim == "source-vmm" or (self.fault.kind == "late" and self.point.place == SOURCE)
        return self.point.guest in ("runs", "paused") and not slow

    def runs_whole(self):
        text = self.vm.console()
        assert "\nE " not in text.replace(".E ", "\nE "), f"the guest found a wrong word: {text[-300:]}"
        until("the guest writes on", lambda: self.vm.console() != text, 20, every_s=0.1)

    def nothing_left(self):
        until("nothing is left", lambda: not self.leftovers() or self.say(self.leftovers()), 10, every_s=0.1)

    @staticmethod
    def say(left):
        raise RuntimeError(left)

    def leftovers(self):
        left = []
        for host in (SOURCE, TARGET):
            folder = pathlib.Path(self.pool.testbed.folder) / f"host{host}"
            left += [f"host{host}: process {pid}" for pid in self.pool.vmms(host)]
            left += [str(path) for path in (folder / "run" / "vms").glob("*")]
            left += [str(path) for path in (folder / "storage").glob("*-*-*-*-*")]
            links = self.pool.testbed("exec", host, "ip", "-o", "link").stdout
            left += [f"host{host}: {line}" for line in links.splitlines() if ": vp-" in line]
            sockets = self.pool.testbed("exec", host, "ss", "-Htln").stdout
            left += [f"host{host}: {line}" for line in sockets.splitlines() if ":74" in line]
        left += [str(path) for path in pathlib.Path("/sys/fs/cgroup").glob(f"{self.pool.testbed.netns}*/*-*-*-*-*")]
        return left + self.store_rows()

    def store_rows(self):
        """Of a copy: the controller has the store for itself."""
        with tempfile.TemporaryDirectory() as copy:
            for path in (self.pool.folder / "controller").glob("store.db*"):
                shutil.copy(path, copy)
            with contextlib.closing(sqlite3.connect(f"{copy}/store.db")) as store:
                rows = store.execute("SELECT key FROM record WHERE kind = ?", (STORE_VM,)).fetchall()
        return [f"store: VM {key}" for key, in rows]

    def story(self):
        try:
            return f"{self.pool.ctl('job', 'show', self.job)}\n{self.pool.ctl('events', '--last', 15)}"
        except Exception as error:  # pylint: disable=broad-except # it is told beside another failure
            return str(error)

    def mend(self):
        """Whatever happened: the pool is as it was for the next case."""
        self.thaw()
        self.heal()
        self.faults.clear()
        if self.pool.controller.poll() is not None:
            self.pool.start_controller()
        for host in (SOURCE, TARGET):
            if not self.pool.agents(host):
                self.pool.start_agent(host)
        self.pool.wait_nodes_up(2)
        self.vm.remove()

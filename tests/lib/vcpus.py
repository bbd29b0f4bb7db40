"""Which VMM processes of one VM let its vCPUs run, looked at all the time while a test goes on."""

import os
import pathlib
import threading
import time

WINDOW_S = 0.05
# A guest of tests/guest never idles; a vCPU that is stopped may still be woken to look around.
RUNS_NS = 2_000_000


class VcpuWatch(threading.Thread):
    """Use as a context. twice: what was seen of two copies that ran at once; silence_s: the longest time in which no
    copy ran."""

    def __init__(self, name):
        super().__init__(daemon=True)
        self.wanted = b"\0--name\0" + name.encode() + b"\0"
        self.twice, self.silence_s, self.silent = [], 0.0, threading.Event()
        self._over = threading.Event()
        self._threads = {}

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self.join(10)

    def reset_silence(self):
        self.silence_s, self._last_ran = 0.0, time.monotonic()

    def run(self):
        self._last_ran, before, turn, used = time.monotonic(), set(), 0, {}
        while not self._over.is_set():
            if turn % 4 == 0:
                self._find()
            turn += 1
            begun = time.monotonic()
            now = {pid: sum(_cpu_ns(thread) for thread in threads) for pid, threads in self._threads.items()}
            running = {pid for pid, ns in now.items() if pid in used and ns - used[pid] > RUNS_NS}
            # One window may hold the end of the one and the begin of the other.
            if len(running & before) > 1:
                self.twice.append(sorted(running))
            if running:
                self.silence_s = max(self.silence_s, begun - WINDOW_S - self._last_ran)
                self._last_ran = begun
            before, used = running, now
            self._over.wait(WINDOW_S)

    def _find(self):
        self._threads = {pid: _vcpus(pid) for pid in processes(self.wanted)}


def processes(wanted):
    """Pids of the pool-vmm processes with @wanted in their command line."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                line = pathlib.Path("/proc", entry, "cmdline").read_bytes()
            except OSError:
                continue
            if wanted in line and b"pool-vmm" in line.partition(b"\0")[0]:
                found.append(int(entry))
    return found


def _vcpus(pid):
    threads = []
    try:
        for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
            if (thread / "comm").read_text().startswith("vcpu-"):
                threads.append(thread / "schedstat")
    except OSError:
        pass
    return threads


def _cpu_ns(path):
    try:
        return int(path.read_text().split()[0])
    except (OSError, IndexError):
        return 0

"""deploy/testbed for Python: hosts that lose power and links, and sockets inside their network."""

import contextlib
import ctypes
import os
import pathlib
import socket
import subprocess
import threading

PROJECT = pathlib.Path(__file__).resolve().parent.parent.parent
SCRIPT = PROJECT / "deploy" / "testbed"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Testbed:
    """A testbed by its name. Hosts are numbers from 1; 10.77.0.N is host N, 10.77.0.254 this machine."""

    MACHINE = "10.77.0.254"

    def __init__(self, name):
        self.name = name

    def __call__(self, *words, timeout=120, check=True, **kwargs):
        """Runs deploy/testbed; returns the completed process, its output as text."""
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        done = subprocess.run([SCRIPT, "--name", self.name, *map(str, words)], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, errors="replace", timeout=timeout, check=False,
                              **kwargs)
        if check and done.returncode != 0:
            raise RuntimeError(f"testbed {' '.join(map(str, words))}: status {done.returncode}: {done.stderr.strip()}")
        return done

    def up(self, hosts, memory_mib):
        self("up", "--hosts", hosts, "--memory", memory_mib, timeout=400)

    def down(self):
        self("down", timeout=120)

    def exec(self, host, *words, **kwargs):
        return self("exec", host, *words, **kwargs)

    def start(self, host, log, *words):
        """Leaves a program running in a host; its output goes to the file @log there."""
        self.exec(host, "sh", "-c", 'log=$1; shift; setsid "$@" </dev/null >>"$log" 2>&1 &', "sh", log, *words)

    def kill(self, host, signal, pattern):
        """Signals the processes in a host whose command line matches; returns how many."""
        pids = self.processes(host, pattern)
        if pids:
            self.exec(host, "kill", f"-{signal}", *pids, check=False)
        return len(pids)

    def processes(self, host, pattern):
        return [int(pid) for pid in self.exec(host, "pgrep", "-f", pattern, check=False).stdout.split()]

    def agent_log(self, _host):
        return "/var/lib/vmpool/agent.log"

    def agent_options(self, _host):
        """What pool-agent must be told on such a host."""
        return ["--allow-disk-dir", "/srv/vmpool"]

    @property
    def netns(self):
        return f"vmpool-{self.name}"

    def popen(self, *words, **kwargs):
        """A program of this machine inside the hosts' network."""
        return subprocess.Popen(["ip", "netns", "exec", self.netns, *map(str, words)], **kwargs)

    def connect(self, address, port, timeout=5):
        """A TCP connection made inside the hosts' network, usable from here."""
        with inside(self.netns):
            return socket.create_connection((address, port), timeout)


@contextlib.contextmanager
def inside(netns):
    """This thread inside a network namespace. A socket belongs to where it was made, so it stays usable after."""
    with open(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net", "rb") as home, \
            open(f"/run/netns/{netns}", "rb") as there:
        _setns(there)
        try:
            yield
        finally:
            _setns(home)


def _setns(file):
    if _libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")

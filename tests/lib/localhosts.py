"""Hosts that are network namespaces of this machine, with the interface of testbed.Testbed: quick to have, and they
share this machine's /dev/kvm and kernel. They cannot lose power."""

import shutil
import subprocess
import tempfile

from testbed import PROJECT, Testbed

_LIB = PROJECT / "deploy" / "lib"
_SHELL = f"set -euo pipefail; . {_LIB}/common.sh; . {_LIB}/network.sh; . {_LIB}/local-hosts.sh; NETNS=$1; shift; \"$@\""


class LocalHosts(Testbed):
    def __init__(self, name):
        super().__init__(name)
        self.folder = tempfile.mkdtemp(prefix="vmpool-hosts-")

    def agent_log(self, host):
        return f"{self.folder}/agent{host}.log"

    def agent_options(self, host):
        folder = f"{self.folder}/host{host}"
        return ["--state-dir", f"{folder}/state", "--run-dir", f"{folder}/run", "--storage", f"{folder}/storage",
                "--cgroup", f"{self.netns}-host{host}", "--user", "nobody"]

    def _shell(self, *words):
        subprocess.run(["bash", "-c", _SHELL, "local-hosts", self.netns, *map(str, words)], check=True, timeout=60)

    def up(self, hosts, memory_mib=0):
        self._shell("local_hosts_up", *range(1, hosts + 1))

    def down(self):
        self._shell("local_hosts_down")
        self._shell("network_down")
        shutil.rmtree(self.folder, ignore_errors=True)

    def __call__(self, command, *words, timeout=120, check=True, **kwargs):
        if command in ("cut", "heal", "slow"):
            self._shell(f"network_{command}", *words)
            return None
        if command != "exec":
            raise ValueError(f"hosts in namespaces cannot {command}")
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        done = subprocess.run(["ip", "netns", "exec", f"{self.netns}-host{words[0]}", *map(str, words[1:])],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
                              timeout=timeout, check=False, **kwargs)
        if check and done.returncode != 0:
            raise RuntimeError(f"host{words[0]}: {' '.join(map(str, words[1:]))}: {done.stderr.strip()}")
        return done

    def processes(self, host, pattern):
        """Only those inside the host's namespace: all namespaces share this machine's process table."""
        here = subprocess.run(["ip", "netns", "pids", f"{self.netns}-host{host}"], capture_output=True, text=True,
                              check=True).stdout.split()
        return [pid for pid in super().processes(host, pattern) if str(pid) in here]

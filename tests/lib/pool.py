"""A pool on a testbed: controller on this machine inside the hosts' network, an agent in each host."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

from testbed import PROJECT
from waiting import until

BIN = pathlib.Path(os.environ.get("VMPOOL_BIN", PROJECT / "build-ci" / "bin")).resolve()


class PoolctlError(RuntimeError):
    """poolctl said no: status is its exit status, the text what it said."""

    def __init__(self, words, done):
        super().__init__(f"poolctl {' '.join(words)}: status {done.returncode}: {done.stderr.strip()[-600:]}")
        self.status, self.text = done.returncode, done.stderr


class Pool:
    """Controller and agents. Methods named as poolctl's commands; each raises PoolctlError on failure."""

    def __init__(self, testbed, hosts, controller_options=(), agent_options=(), environment=None):
        """@environment: of "controller" or of a host's agent, by its number; a function."""
        self.testbed, self.hosts = testbed, hosts
        self.controller_options, self.agent_options = controller_options, agent_options
        self.environment = environment or (lambda _place: {})
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="vmpool-pool-"))
        self.controller = None

    # -- daemons ------------------------------------------------------------------------------------

    def start(self, **agent_environment):
        self.start_controller()
        for host in range(1, self.hosts + 1):
            self.join(host, **agent_environment)
        self.wait_nodes_up(self.hosts)

    def start_controller(self, **environment):
        self.controller = self.testbed.popen(
            BIN / "pool-controller", "--state-dir", self.folder / "controller", "--listen", "0.0.0.0:7400",
            "--advertise", f"{self.testbed.MACHINE}:7400", "--pool-name", "test", *self.controller_options,
            stdin=subprocess.DEVNULL, stdout=self._log("controller"), stderr=subprocess.STDOUT,
            env={**os.environ, **self.environment("controller"), **environment})
        until("the controller answers", lambda: self.ctl("status"), 30)

    def _log(self, name):
        return open(self.folder / f"{name}.log", "ab")  # the child keeps it

    def kill_controller(self):
        self.controller.kill()
        self.controller.wait(10)

    def join(self, host, **environment):
        token = self.ctl("node", "token", "--valid", "10m", "-o", "name").strip()
        self._run_agent(host, environment, "--join", token)

    def start_agent(self, host, **environment):
        """Back once it is the agent, and no longer what is to become it: only then can kill_agent() find it."""
        self._run_agent(host, environment)
        until(f"the agent of host{host} has started", lambda: self.agents(host), 30)

    def _run_agent(self, host, environment, *options):
        environment = {**self.environment(host), **environment}
        words = [f"{name}={value}" for name, value in environment.items()]
        self.testbed.start(host, self.testbed.agent_log(host), "env", *words, BIN / "pool-agent",
                           "--name", f"host{host}", "--migration-address", f"10.77.0.{host}",
                           "--reserve-memory", "256M", "--bandwidth", "1G",
                           *self.testbed.agent_options(host), *self.agent_options, *options)

    def agents(self, host):
        return self.testbed.processes(host, "^[^ ]*pool-agent ")

    def kill_agent(self, host):
        """Back once it is gone: while it is not, its successor finds the run folder in use."""
        killed = self.testbed.kill(host, "KILL", "^[^ ]*pool-agent ")
        until(f"the agent of host{host} is gone", lambda: not self.agents(host), 30)
        return killed

    def vmms(self, host, name=""):
        """Pids of the VMMs in a host, of one VM where named."""
        return self.testbed.processes(host, f"^[^ ]*pool-vmm .*--name {name}")

    def kill_vmm(self, host, name):
        """Back once it is gone: a process with much memory takes a while to die."""
        killed = self.testbed.kill(host, "KILL", f"^[^ ]*pool-vmm .*--name {name}")
        until(f"the VMM of {name} on host{host} is gone", lambda: not self.vmms(host, name), 30)
        return killed

    def stop(self):
        """Ends the controller. The hosts and what runs in them end with the testbed."""
        if self.controller is not None and self.controller.poll() is None:
            self.controller.send_signal(signal.SIGTERM)
            try:
                self.controller.wait(20)
            except subprocess.TimeoutExpired:
                self.kill_controller()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- poolctl ------------------------------------------------------------------------------------

    def ctl(self, *words, timeout=180, check=True):
        words = [str(word) for word in words]
        done = subprocess.run(
            ["ip", "netns", "exec", self.testbed.netns, BIN / "poolctl", "--context",
             self.folder / "controller" / "admin.context", *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
            timeout=timeout, check=False)
        if not check:
            return done
        if done.returncode != 0:
            raise PoolctlError(words, done)
        return done.stdout

    def one(self, kind, *words, **kwargs):
        """The thing of that kind ("vm", "job", "status", ...) in the JSON the command prints."""
        return json.loads(self.ctl(*words, "-o", "json", **kwargs))[kind]

    def vm(self, name):
        return self.one("vm", "vm", "show", name)

    def wait_nodes_up(self, count, timeout_s=60):
        until(f"{count} nodes are up", lambda: self.one("status", "status")["nodes_up"] == count, timeout_s)

    def logs(self):
        """Every daemon's log, for the report of a failure."""
        texts = [f"--- controller\n{(self.folder / 'controller.log').read_text(errors='replace')[-4000:]}"]
        for host in range(1, self.hosts + 1):
            tail = self.testbed.exec(host, "tail", "-n", 40, self.testbed.agent_log(host), check=False).stdout
            texts.append(f"--- agent of host{host}\n{tail}")
        return "\n".join(texts)

"""The two machines that are compared: pool-vmm and QEMU microvm, each as a pair of processes of this machine."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests" / "lib"))
import vmm  # noqa: E402

import memory  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")
READY_TIMEOUT_S = 120
WARM_MORE = 512 << 20
MODES = {"auto": 0, "precopy": 1, "postcopy": 2}
COMPRESS = ("auto", "off", "lz4", "zstd")  # in the order of enum MigrationCompress
CODECS = ("none", "lz4", "zstd", "delta", "fill")
# Of MigrationPause, in the order of its fields. The announcement is not in the total: the guest runs already.
PAUSE_ITEMS = ("total", "stop", "last pages", "device state", "verify", "handover", "activate", "announce")


class BenchError(RuntimeError):
    pass


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Figures(dict):
    """What one migration came to. Seconds, bytes, milliseconds, as the names say."""


def _last(fields, number):
    return fields.get(number, [0])[-1]


def settle(options):
    """The guest is ready, and runs a while; then the target's memory is to come from memory in use a moment before."""
    time.sleep(options.settle_s)
    memory.warm(options.fill + WARM_MORE)


class PoolVmm:
    """pool-vmm to pool-vmm, by their control sockets."""

    def __init__(self, options):
        self.options = options
        self.name = "vmpool, encrypted" if options.encrypt else "vmpool"

    def migrate(self):
        options = self.options
        words = ["--memory", f"{options.memory >> 20}M", "--no-balloon", "--no-rng", "--epoch", 1]
        port = vmm.free_port()
        with vmm.Vmm(*words, "--cmdline", options.cmdline, kernel=options.payload) as source, \
                vmm.Vmm(*words, kernel=options.payload, port=port) as target:
            console = source.attach()
            vmm.read_until(console, b"R", READY_TIMEOUT_S)
            settle(options)
            limits = {"n1": options.downtime_ms, "n3": options.streams, "n40": MODES[options.mode]}
            if options.bandwidth:
                limits["n2"] = options.bandwidth
            if not options.encrypt:
                limits["n5"] = 1
            if options.verify:
                limits["n4"] = 1
            limits["n30"] = COMPRESS.index(options.compress)
            cpu = cpu_seconds(source.process.pid) + cpu_seconds(target.process.pid)
            vmm.migrate(source, target, port=port, **limits)
            over = (vmm.COMPLETED, vmm.MIGRATION_FAILED, vmm.CANCELLED)
            status = source.control.wait("the end", lambda s: s.phase in over, options.timeout_s)
            cpu = cpu_seconds(source.process.pid) + cpu_seconds(target.process.pid) - cpu
            if status.phase != vmm.COMPLETED:
                return Figures(failed=status.migration_text)
            _, reply = source.control.ask(vmm.QUERY)
            console.close()
        return self.read(vmm.parse(vmm.parse(reply[3][-1])[11][-1]), cpu)

    @staticmethod
    def read(progress, cpu):
        pause = vmm.parse(_last(progress, 14))
        rounds = [vmm.parse(data) for data in progress.get(15, [])]
        return Figures(total_s=_last(progress, 13) / 1e6, pause_ms=_last(pause, 1) / 1e3, wire=_last(progress, 5),
                       page_bytes=_last(progress, 50), streams=_last(progress, 18), postcopy=60 in progress,
                       predicted_pause_ms=_last(progress, 12) / 1e3, cpu_s=cpu, rounds=len(rounds),
                       pause_items_us={name: _last(pause, i + 1) for i, name in enumerate(PAUSE_ITEMS)},
                       round_list=[{"pages": _last(r, 2), "zero": _last(r, 3), "wire": _last(r, 4),
                                    "us": _last(r, 5), "dirtied": _last(r, 6), "page_bytes": _last(r, 30),
                                    "delta": _last(r, 31), "codec": CODECS[_last(r, 32)]} for r in rounds])


class Qmp:
    def __init__(self, path):
        end = time.monotonic() + 20
        self.socket = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.socket.connect(path)
                break
            except OSError:
                if time.monotonic() > end:
                    raise BenchError("QEMU did not start") from None
                time.sleep(0.02)
        self.file = self.socket.makefile("rw", encoding="utf-8")
        self.file.readline()
        self.ask("qmp_capabilities")

    def ask(self, command, **arguments):
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            answer = json.loads(self.file.readline())
            if "error" in answer:
                raise BenchError(f"QEMU: {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def close(self):
        self.file.close()
        self.socket.close()


class Qemu:
    """qemu-system-x86_64 -M microvm to itself; @channels of multifd, 0: one stream."""

    PROGRAM = "qemu-system-x86_64"
    UNLIMITED = 1 << 40

    def __init__(self, options, channels, auto_converge=False):
        self.options, self.channels, self.auto_converge = options, channels, auto_converge
        self.name = f"QEMU, multifd {channels}" if channels else "QEMU, one stream"
        if auto_converge:
            self.name += ", auto-converge"

    def start(self, folder, side, *more):
        options = self.options
        words = [self.PROGRAM, "-M", "microvm,isa-serial=on,auto-kernel-cmdline=off", "-accel", "kvm", "-smp", "1",
                 "-m", f"{options.memory >> 20}M", "-nodefaults", "-no-user-config", "-nographic", "-kernel",
                 str(options.payload), "-append", options.cmdline, "-serial", f"file:{folder}/{side}.serial",
                 "-qmp", f"unix:{folder}/{side}.qmp,server=on,wait=off", *more]
        with open(f"{folder}/{side}.log", "wb") as log:
            return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def migrate(self):
        with tempfile.TemporaryDirectory(prefix="vmpool-bench-") as folder:
            processes = [self.start(folder, "source"), self.start(folder, "target", "-incoming", "defer")]
            try:
                return self.run(folder, processes)
            finally:
                for process in processes:
                    process.kill()
                    process.wait()

    def run(self, folder, processes):
        options, port = self.options, vmm.free_port()
        source, target = Qmp(f"{folder}/source.qmp"), Qmp(f"{folder}/target.qmp")
        wait_ready(f"{folder}/source.serial")
        settle(options)
        capabilities = [{"capability": "multifd", "state": bool(self.channels)},
                        {"capability": "auto-converge", "state": self.auto_converge}]
        bandwidth = options.bandwidth // 8 if options.bandwidth else self.UNLIMITED
        for side in (source, target):
            side.ask("migrate-set-capabilities", capabilities=capabilities)
            side.ask("migrate-set-parameters", **{"max-bandwidth": bandwidth, "downtime-limit": options.downtime_ms},
                     **({"multifd-channels": self.channels} if self.channels else {}))
        target.ask("migrate-incoming", uri=f"tcp:127.0.0.1:{port}")
        cpu = sum(cpu_seconds(process.pid) for process in processes)
        source.ask("migrate", uri=f"tcp:127.0.0.1:{port}")
        end = time.monotonic() + options.timeout_s
        while True:
            info = source.ask("query-migrate")
            if info["status"] in ("failed", "cancelled") or info["status"] == "completed" and info["total-time"]:
                break  # it says "completed" a moment before it has its figures
            if time.monotonic() > end:
                source.ask("migrate_cancel")
                return Figures(failed=f"not ended after {options.timeout_s:.0f} s and "
                                      f"{info.get('ram', {}).get('transferred', 0) / 1e9:.1f} GB")
            time.sleep(0.02)
        cpu = sum(cpu_seconds(process.pid) for process in processes) - cpu
        source.close()
        target.close()
        if info["status"] != "completed":
            return Figures(failed=info.get("error-desc", info["status"]))
        return Figures(total_s=info["total-time"] / 1e3, pause_ms=info["downtime"], wire=info["ram"]["transferred"],
                       page_bytes=info["ram"]["normal-bytes"], cpu_s=cpu, rounds=info["ram"]["dirty-sync-count"])


def wait_ready(path):
    end = time.monotonic() + READY_TIMEOUT_S
    while True:
        try:
            text = pathlib.Path(path).read_bytes()
        except FileNotFoundError:
            text = b""
        if b"R" in text:
            return
        if time.monotonic() > end:
            raise BenchError(f"the payload did not become ready: {text[:100]!r}")
        time.sleep(0.02)

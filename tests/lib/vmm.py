"""pool-vmm as a test uses it: started, spoken to over its control socket, its console read."""

import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time

PROJECT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("VMPOOL_BIN", PROJECT / "build-ci" / "bin")).resolve()
VMM = BIN / "pool-vmm"
GUEST = BIN / "guest.elf"

# Fields of proto/vmm.proto and common.proto, by number.
QUERY, RUN, PAUSE, POWER_BUTTON, QUIT, BALLOON, OUT, CANCEL, IN, DIRTY = range(2, 12)
PREPARING, RUNNING, PAUSED, MIGRATING, INCOMING, READY, GAVE_UP, STOPPED, PANICKED, FAILED = range(1, 11)
COMPLETED, MIGRATION_FAILED, CANCELLED = 5, 6, 7
CONFLICT, USAGE = 5, 3


# ---- protobuf, as much as these messages need ----------------------------------------------------

def _varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def message(fields):
    """Encodes {number: int, bool, str, bytes or dict}."""
    out = b""
    for number, value in fields.items():
        if isinstance(value, dict):
            value = message(value)
        if isinstance(value, str):
            value = value.encode()
        if isinstance(value, bytes):
            out += _varint(number << 3 | 2) + _varint(len(value)) + value
        else:
            out += _varint(number << 3) + _varint(int(value))
    return out


def parse(data):
    """Decodes into {number: [values]}, lengths as bytes."""
    fields, at = {}, 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        value = varint()
        if key & 7 == 2:
            at, value = at + value, data[at:at + value]
        fields.setdefault(key >> 3, []).append(value)
    return fields


def _one(fields, number, default=0):
    return fields.get(number, [default])[-1]


class Status:
    """VmmStatus, with what tests look at under its name."""

    def __init__(self, data):
        fields = parse(data)
        self.vm_id = _one(fields, 2, b"").decode()
        self.epoch, self.state = _one(fields, 3), _one(fields, 4)
        self.text = _one(fields, 5, b"").decode()
        usage = parse(_one(fields, 10, b""))
        self.cpu_guest_us, self.memory_mib, self.overhead_kib = (_one(usage, n) for n in (1, 4, 9))
        migration = parse(_one(fields, 11, b""))
        self.phase, self.round, self.wire_bytes = (_one(migration, n) for n in (2, 3, 5))
        self.migration_text = _one(migration, 17, b"").decode()
        self.verified = bool(_one(migration, 16))
        self.pause_us = _one(parse(_one(migration, 14, b"")), 1)


class Refused(RuntimeError):
    def __init__(self, kind, text):
        super().__init__(text)
        self.kind, self.text = kind, text


class Control:
    """One connection to the control socket."""

    def __init__(self, path, timeout_s=20):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.connect(str(path))
        self.socket.settimeout(timeout_s)
        self.next_id, self.events = 1, []

    def close(self):
        self.socket.close()

    def receive(self):
        packet = self.socket.recv(1 << 16)
        if not packet:
            raise ConnectionError("the VMM closed the connection")
        return parse(packet)

    def ask(self, body, fields=None):
        """Sends one request; returns (status, reply), or raises Refused."""
        number, self.next_id = self.next_id, self.next_id + 1
        self.socket.send(message({1: number, body: fields or {}}))
        while True:
            reply = self.receive()
            if _one(reply, 1) == number:
                break
            self.events.append(Status(_one(reply, 3, b"")))
        if 2 in reply:
            failure = parse(reply[2][-1])
            raise Refused(_one(failure, 1), _one(failure, 2, b"").decode())
        return Status(_one(reply, 3, b"")), reply

    def status(self):
        return self.ask(QUERY)[0]

    def wait(self, what, test, timeout_s=30):
        """Waits for an event, or the status now, that @test likes."""
        status = self.status()
        end = time.monotonic() + timeout_s
        while not test(status):
            self.socket.settimeout(max(0.01, end - time.monotonic()))
            try:
                status = Status(_one(self.receive(), 3, b""))
            except TimeoutError:
                raise AssertionError(f"not within {timeout_s} s: {what} (state {status.state}, "
                                     f"phase {status.phase}, {status.text} {status.migration_text})") from None
        return status

    def wait_state(self, state, timeout_s=30):
        return self.wait(f"state {state}", lambda status: status.state == state, timeout_s)


class Vmm:
    """One pool-vmm process with sockets of its own. A context: what is left is killed at its end."""

    def __init__(self, *options, kernel=GUEST, vm_id="test", port=None, **environment):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="vmpool-vmm-"))
        self.log_path, self.consoles = self.folder / "log", []
        words = [str(VMM), "--id", vm_id, "--kernel", str(kernel), "--control", str(self.folder / "control"),
                 "--console", str(self.folder / "console"), *map(str, options)]
        if port is not None:
            words += ["--incoming", f"127.0.0.1:{port}"]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env={**os.environ, **environment})
        self.control = self._connect()

    def _connect(self):
        end = time.monotonic() + 20
        while True:
            try:
                return Control(self.folder / "control")
            except OSError:
                if self.process.poll() == 0:
                    return None  # its guest was done sooner than we could connect
                if self.process.poll() is not None or time.monotonic() > end:
                    raise AssertionError(f"pool-vmm did not start: {self.log()}") from None
                time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for one in (self.control, *self.consoles):
            if one:
                one.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        for path in self.folder.iterdir():
            path.unlink()
        self.folder.rmdir()

    def log(self):
        return self.log_path.read_text(errors="replace")

    def wait_exit(self, timeout_s=20):
        return self.process.wait(timeout_s)

    def attach(self, timeout_s=20):
        console = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        console.connect(str(self.folder / "console"))
        console.settimeout(timeout_s)
        self.consoles.append(console)
        return console


def read_until(console, wanted, timeout_s=20, enough=1):
    """Reads a console until @wanted came @enough times; returns all that was read."""
    end, seen = time.monotonic() + timeout_s, b""
    while seen.count(wanted) < enough:
        console.settimeout(max(0.01, end - time.monotonic()))
        try:
            piece = console.recv(65536)
        except TimeoutError:
            piece = b""
        if not piece:
            raise AssertionError(f"{wanted!r} did not come {enough} times; last: {seen[-300:]!r}")
        seen += piece
    return seen


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def migrate(source, target, epoch=1, key=b"k" * 32, migration_id="m1", port=None, **limits):
    """Starts a migration between two Vmm; limits by number as in MigrationLimits (n1=...)."""
    bounds = {int(name[1:]): value for name, value in limits.items()}
    target.control.ask(IN, {1: migration_id, 2: key, 3: epoch + 1, 4: bounds})
    source.control.ask(OUT, {1: migration_id, 2: "127.0.0.1", 3: port, 4: key, 5: epoch, 6: epoch + 1, 7: bounds})

"""The probe in a Linux guest (tests/guest/linux-probe), asked over the hosts' network."""

import json
import socket
import threading
import time

COMMAND_PORT, ECHO_PORT = 7000, 7001


class Guest:
    """One guest by its address."""

    def __init__(self, testbed, address):
        self.testbed, self.address = testbed, address

    def ask(self, command, timeout=10):
        with self.testbed.connect(self.address, COMMAND_PORT, timeout) as connection:
            connection.sendall(command.encode() + b"\n")
            with connection.makefile() as lines:
                answer = json.loads(lines.readline())
        if "error" in answer:
            raise RuntimeError(f"guest {self.address}: {command}: {answer['error']}")
        return answer

    def report(self):
        return self.ask("report")


class EchoStream:
    """One TCP connection into a guest that never pauses: numbered blocks out, the same blocks back."""

    BLOCK = 4096

    def __init__(self, guest):
        self.connection = guest.testbed.connect(guest.address, ECHO_PORT)
        self.connection.settimeout(60)
        self.blocks, self.error, self.longest_wait_s = 0, None, 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            while not self._stop.is_set():
                block = self.blocks.to_bytes(8, "big") * (self.BLOCK // 8)
                begun = time.monotonic()
                self.connection.sendall(block)
                if self._receive() != block:
                    raise ValueError(f"block {self.blocks} came back changed")
                self.longest_wait_s = max(self.longest_wait_s, time.monotonic() - begun)
                self.blocks += 1
        except (OSError, ValueError) as error:
            self.error = error

    def _receive(self):
        got = b""
        while len(got) < self.BLOCK:
            piece = self.connection.recv(self.BLOCK - len(got))
            if not piece:
                raise ConnectionResetError("the guest closed the connection")
            got += piece
        return got

    def end(self):
        """Stops it; raises what went wrong; returns the blocks that went round."""
        self._stop.set()
        self._thread.join(70)
        self.connection.shutdown(socket.SHUT_RDWR) if self.error is None else None
        self.connection.close()
        if self.error is not None:
            raise AssertionError(f"the connection into the guest broke after {self.blocks} blocks: {self.error!r}")
        return self.blocks

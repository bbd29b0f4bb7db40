"""What this machine can do at best: one TCP stream over loopback, and copying memory."""

import ctypes
import json
import shutil
import subprocess
import time

import guests

COPY_BYTES = 256 << 20


def iperf3_bps(seconds=3):
    """Bits a second of one iperf3 stream; None where there is no iperf3."""
    if not shutil.which("iperf3"):
        return None
    port = str(guests.vmm.free_port())
    with subprocess.Popen(["iperf3", "-s", "-1", "-p", port], stdout=subprocess.DEVNULL) as server:
        try:
            for _ in range(50):
                client = subprocess.run(["iperf3", "-c", "127.0.0.1", "-p", port, "-t", str(seconds), "-J"],
                                        capture_output=True, text=True, timeout=seconds + 20, check=False)
                # With -J it exits with 0 even where it was refused: only a sum is a success.
                received = json.loads(client.stdout or "{}").get("end", {}).get("sum_received")
                if received:
                    return received["bits_per_second"]
                time.sleep(0.1)  # the server is not listening yet
        finally:
            server.kill()
    return None


def memcpy_bps():
    """Bits a second of one core copying memory."""
    source, target = ctypes.create_string_buffer(COPY_BYTES), ctypes.create_string_buffer(COPY_BYTES)
    ctypes.memset(source, 1, COPY_BYTES)
    ctypes.memmove(target, source, COPY_BYTES)
    best = None
    for _ in range(3):
        begun = time.monotonic()
        ctypes.memmove(target, source, COPY_BYTES)
        took = time.monotonic() - begun
        best = took if best is None or took < best else best
    return COPY_BYTES * 8 / best

"""What the measurements ran on."""

import os
import pathlib
import platform
import shutil
import subprocess

import guests
import memory


def _first(path, key):
    with open(path, encoding="utf-8") as lines:
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "unknown")


def _version(program):
    if not shutil.which(program):
        return None
    out = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False).stdout
    return out.splitlines()[0] if out else None


def describe():
    """{name: text}; what is not known is left out."""
    virtual = "hypervisor" in _first("/proc/cpuinfo", "flags").split()
    ram_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    facts = {"CPU": f"{_first('/proc/cpuinfo', 'model name')}, {os.cpu_count()} CPUs",
             "memory": f"{ram_bytes / 2**30:.1f} GiB, {memory.available_bytes() / 2**30:.1f} available",
             "kernel": f"{platform.system()} {platform.release()}",
             "virtual machine": "yes: this host is itself a guest" if virtual else "no",
             "huge pages": _huge_pages(),
             "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
             "pool-vmm": _version(str(guests.vmm.VMM)),
             "QEMU": _version(guests.Qemu.PROGRAM),
             "iperf3": _version("iperf3")}
    return {name: text for name, text in facts.items() if text}


def _huge_pages():
    try:
        return pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="ascii").strip()
    except OSError:
        return None

"""pool-vmm on the machine's own /dev/kvm, with the freestanding guest."""

import contextlib
import os
import pathlib
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from vmm import (BALLOON, CANCEL, COMPLETED, CONFLICT, DIRTY, GAVE_UP, GUEST, IN, INCOMING, OUT, PANICKED, PAUSE, PAUSED,
                 MIGRATION_FAILED, PREPARING, QUIT, Control, Refused, RUN, RUNNING, USAGE, VMM, Vmm, free_port, message, migrate,
                 parse, read_until)

SMALL = ("--memory", "64M", "--cmdline", "ws=1M")


def setUpModule():
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise unittest.SkipTest("no usable /dev/kvm")


def run(*words, **more):
    return subprocess.run([str(VMM), *map(str, words)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=30, **more)


class CommandLine(unittest.TestCase):
    def refused(self, status, words, *options):
        done = run(*options)
        self.assertEqual(done.returncode, status, done.stderr)
        self.assertIn(words, done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)

    def test_usage_errors_are_one_sentence_and_status_3(self):
        self.refused(3, "--kernel is missing")
        self.refused(3, "no such option", "--colour")
        self.refused(3, "its value is missing", "--kernel")
        self.refused(3, "1 to 16", "--kernel", GUEST, "--cpus", 0)
        self.refused(3, "1 to 16", "--kernel", GUEST, "--cpus", 17)
        self.refused(3, "--memory", "--kernel", GUEST, "--memory", "1M")
        self.refused(3, "--mac", "--kernel", GUEST, "--mac", "01:00:00:00:00:00")
        self.refused(3, "needs --control", "--kernel", GUEST, "--paused")
        self.refused(3, "at most", "--kernel", GUEST, *["--disk", "x"] * 17)
        self.refused(3, "is too much", "--kernel", GUEST, "more")

    def test_files_that_are_no_kernel(self):
        self.refused(3, "neither a Linux bzImage nor an ELF", "--kernel", "/etc/passwd")
        self.refused(1, "No such file", "--kernel", "/nonexistent")
        self.refused(3, "below 1 MiB", "--kernel", "/bin/true", "--memory", "64M")
        self.refused(3, "not a regular file", "--kernel", "/dev/zero")

    def test_the_socket_of_a_running_vmm_is_not_taken(self):
        with Vmm(*SMALL) as vmm:
            self.refused(1, "in use by a running VMM", "--kernel", GUEST, "--control", vmm.folder / "control")
            self.assertEqual(vmm.control.status().state, RUNNING)

    def test_help_and_probe(self):
        self.assertIn("--kernel", run("--help").stdout)
        done = run("--probe")
        self.assertIn(done.returncode, (0, 1))
        self.assertEqual(done.stdout.startswith("yes"), done.returncode == 0)
        self.assertEqual(done.stdout.count("\n"), 1)


class Guest(unittest.TestCase):
    def test_runs_speaks_and_is_accounted(self):
        with Vmm(*SMALL) as vmm:
            console = vmm.attach()
            read_until(console, b"R")
            read_until(console, b".", enough=20)
            status = vmm.control.status()
            self.assertEqual((status.state, status.vm_id), (RUNNING, "test"))
            self.assertGreater(status.cpu_guest_us, 0)
            self.assertLess(status.memory_mib, 64)
            self.assertGreater(status.overhead_kib, 0)
            self.assertLess(status.overhead_kib, 16384, "the VMM's own memory")

    def test_pause_stops_it_and_run_lets_it_go(self):
        with Vmm(*SMALL, "--epoch", 3) as vmm:
            console = vmm.attach()
            read_until(console, b".", enough=3)
            with self.assertRaises(Refused) as stale:
                vmm.control.ask(PAUSE, {1: 2})
            self.assertEqual(stale.exception.kind, CONFLICT)
            for _ in range(2):  # a repeat is harmless
                self.assertEqual(vmm.control.ask(PAUSE, {1: 3})[0].state, PAUSED)
            console.settimeout(0.5)
            with self.assertRaises(TimeoutError):
                while console.recv(65536):
                    pass
            for _ in range(2):
                self.assertEqual(vmm.control.ask(RUN, {1: 4})[0].state, RUNNING)
            read_until(console, b".", enough=3)
            self.assertEqual(vmm.control.status().epoch, 4)

    def test_paused_at_start_runs_when_told_to(self):
        with Vmm(*SMALL, "--paused") as vmm:
            self.assertEqual(vmm.control.status().state, PREPARING)
            vmm.control.ask(RUN, {1: 7})
            read_until(vmm.attach(), b"R")
            self.assertEqual(vmm.control.status().epoch, 7)

    def test_several_cpus_start_and_stop(self):
        with Vmm(*SMALL, "--cpus", 16) as vmm:
            read_until(vmm.attach(), b".", enough=3)
            vmm.control.ask(PAUSE)
            vmm.control.ask(RUN)

    def test_quit_ends_it_with_status_0(self):
        with Vmm(*SMALL, "--epoch", 2) as vmm:
            with self.assertRaises(Refused):
                vmm.control.ask(QUIT, {1: 1})
            vmm.control.ask(QUIT, {1: 2})
            self.assertEqual(vmm.wait_exit(), 0, vmm.log())

    def test_a_guest_that_ends_in_a_triple_fault_is_reported_as_panicked(self):
        undefined = b"\x0f\x0b"  # and no IDT
        with kernel_file(undefined) as kernel, Vmm("--memory", "64M", kernel=kernel) as vmm:
            self.assertIn("triple fault", vmm.control.wait_state(PANICKED).text)
            with self.assertRaises(Refused):
                vmm.control.ask(RUN, {1: 9})

    def test_s5_and_reset_by_the_power_port(self):
        with kernel_file(out_byte(0x600, 0x34)) as kernel, Vmm("--memory", "64M", kernel=kernel) as vmm:
            self.assertEqual(vmm.wait_exit(), 0, vmm.log())
        # Says 'x', then resets: after a reset it says it again.
        code = out_byte(0x3F8, ord("x")) + out_byte(0x602, 1)
        with kernel_file(code) as kernel, Vmm("--memory", "64M", kernel=kernel) as vmm:
            read_until(vmm.attach(), b"x", enough=3)

    def test_the_panic_device(self):
        with kernel_file(out_byte(0x505, 1)) as kernel, Vmm("--memory", "64M", kernel=kernel) as vmm:
            self.assertIn("panicked", vmm.control.wait_state(PANICKED).text)

    def test_privileges_are_dropped(self):
        if os.geteuid() != 0:
            self.skipTest("needs root")
        with Vmm(*SMALL, "--user", "65534:65534") as vmm:
            read_until(vmm.attach(), b"R")
            fields = dict(line.split(":\t", 1) for line in
                          pathlib.Path(f"/proc/{vmm.process.pid}/status").read_text().splitlines() if ":\t" in line)
            self.assertEqual(fields["Uid"].split(), ["65534"] * 4)
            self.assertEqual(fields["Gid"].split(), ["65534"] * 4)
            self.assertEqual(fields["Groups"].strip(), "")
            self.assertEqual(fields["NoNewPrivs"], "1")
            for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                self.assertEqual(int(fields[name], 16), 0, name)


class ControlSocket(unittest.TestCase):
    def test_garbage_ends_its_connection_and_nothing_else(self):
        with Vmm(*SMALL) as vmm:
            for packet in (b"\xff" * 100, b"\0", b"x" * 65536, message({1: 5}), message({2: {}}), os.urandom(1000)):
                rude = Control(vmm.folder / "control")
                rude.socket.send(packet)
                with self.assertRaises(OSError):
                    rude.receive()
                rude.close()
            self.assertEqual(vmm.control.status().state, RUNNING)

    def test_clients_are_bounded_and_places_come_free(self):
        with Vmm(*SMALL) as vmm:
            many = [Control(vmm.folder / "control") for _ in range(40)]
            alive = 0
            for client in many:
                try:
                    alive += client.status().state == RUNNING
                except OSError:
                    pass
            self.assertEqual(alive, 31)
            for client in many:
                client.close()
            self.assertEqual(vmm.control.status().state, RUNNING)
            Control(vmm.folder / "control").status()

    def test_who_does_not_read_gets_no_more_than_fits(self):
        with Vmm(*SMALL) as vmm:
            deaf = Control(vmm.folder / "control")
            deaf.socket.setblocking(False)
            try:
                for number in range(1, 100000):
                    deaf.socket.send(message({1: number, 2: {}}))
            except OSError:
                pass
            self.assertEqual(vmm.control.status().state, RUNNING)
            self.assertLess(vmm.control.status().overhead_kib, 16384)
            deaf.close()

    def test_requests_that_make_no_sense_here(self):
        with Vmm(*SMALL, "--no-balloon") as vmm:
            for body, fields, kind in ((BALLOON, {1: 32}, None), (CANCEL, {1: "m"}, None),
                                       (IN, {1: "m", 2: b"k" * 32, 3: 9}, CONFLICT),
                                       (OUT, {1: "m", 2: "127.0.0.1", 3: 1, 4: b"short", 5: 0, 6: 1}, USAGE),
                                       (OUT, {1: "m", 2: "x" * 99, 3: 1, 4: b"k" * 32, 5: 0, 6: 1}, USAGE),
                                       (DIRTY, {1: 1 << 40}, USAGE)):
                with self.assertRaises(Refused) as refusal:
                    vmm.control.ask(body, fields)
                if kind:
                    self.assertEqual(refusal.exception.kind, kind, refusal.exception.text)
            self.assertEqual(vmm.control.status().state, RUNNING)


class Console(unittest.TestCase):
    def test_scrollback_is_replayed_to_everybody(self):
        with Vmm(*SMALL) as vmm:
            first = vmm.attach()
            seen = read_until(first, b".", enough=30)
            self.assertEqual(seen[:1], b"R")
            second = read_until(vmm.attach(), b".", enough=30)
            self.assertTrue(second.startswith(seen[:31]), second[:40])

    def test_too_many_are_turned_away(self):
        with Vmm(*SMALL) as vmm:
            attached = [vmm.attach() for _ in range(16)]
            for console in attached:
                read_until(console, b"R")
            self.assertIn(b"too many", read_until(vmm.attach(), b"console"))
            attached.pop().close()

    def test_stdio_is_the_console_of_a_vmm_run_by_hand(self):
        with kernel_file(out_byte(0x3F8, ord("H")) + out_byte(0x3F8, ord("i")) + out_byte(0x600, 0x34)) as kernel:
            done = run("--kernel", kernel, "--memory", "64M")
            self.assertEqual((done.returncode, done.stdout), (0, "Hi"), done.stderr)


class Migration(unittest.TestCase):
    OPTIONS = ("--memory", "128M", "--cmdline", "ws=8M fill=64M gap=1")

    def test_the_guest_moves_and_its_memory_is_whole(self):
        port = free_port()
        with Vmm(*self.OPTIONS, "--epoch", 1) as source, Vmm(*self.OPTIONS, port=port) as target:
            read_until(source.attach(), b".", enough=3)
            self.assertEqual(target.control.status().state, INCOMING)
            migrate(source, target, port=port, n4=1, n1=2000)
            there = target.control.wait_state(RUNNING, 60)
            self.assertEqual(there.epoch, 2)
            here = source.control.wait("completed", lambda status: status.phase == 5)
            self.assertEqual(here.state, GAVE_UP)
            self.assertTrue(here.verified)
            seen = read_until(target.attach(), b".", enough=20)
            self.assertNotIn(b"E", seen)
            for epoch in (1, 2):
                with self.assertRaises(Refused):
                    source.control.ask(RUN, {1: epoch})
            self.assertEqual(target.control.status().state, RUNNING)

    def test_back_and_forth(self):
        with contextlib.ExitStack() as vmms:
            source = vmms.enter_context(Vmm(*self.OPTIONS, "--epoch", 1))
            read_until(source.attach(), b".", enough=3)
            for epoch in range(1, 6):
                port = free_port()
                target = vmms.enter_context(Vmm(*self.OPTIONS, port=port))
                migrate(source, target, epoch=epoch, port=port, n1=2000)
                target.control.wait_state(RUNNING, 60)
                source.control.wait("completed", lambda status: status.phase == 5)
                source.control.ask(QUIT, {1: epoch + 1})
                source = target
            self.assertNotIn(b"E", read_until(source.attach(), b".", enough=20))

    def test_a_target_with_another_machine_refuses_and_the_source_runs_on(self):
        for options in (("--cpus", 2), ("--no-rng",)):
            port = free_port()
            with Vmm(*self.OPTIONS, "--epoch", 1) as source, Vmm(*self.OPTIONS, *options, port=port) as target:
                console = source.attach()
                read_until(console, b".", enough=3)
                migrate(source, target, port=port, n1=2000)
                status = source.control.wait("failed", lambda now: now.phase == 6, 60)
                self.assertEqual(status.state, RUNNING)
                read_until(console, b".", enough=20)

    def test_a_stranger_s_key_moves_nothing(self):
        port = free_port()
        with Vmm(*self.OPTIONS, "--epoch", 1) as source, Vmm(*self.OPTIONS, port=port) as target:
            read_until(source.attach(), b"R")
            target.control.ask(IN, {1: "m1", 2: b"a" * 32, 3: 2})
            source.control.ask(OUT, {1: "m1", 2: "127.0.0.1", 3: port, 4: b"b" * 32, 5: 1, 6: 2, 7: {6: 3000}})
            status = source.control.wait("failed", lambda now: now.phase in (6, 7), 60)
            self.assertEqual(status.state, RUNNING)
            self.assertNotEqual(target.control.status().state, RUNNING)

    def test_a_guest_that_outruns_the_link_is_slowed_and_arrives_whole(self):
        busy = ("--memory", "128M", "--epoch", 1, "--cmdline", "ws=32M fill=64M rate=20000")
        port = free_port()
        with Vmm(*busy) as source, Vmm(*busy, port=port) as target:
            read_until(source.attach(), b".", enough=2)
            migrate(source, target, port=port, n2=400_000_000, n30=1, n40=1)  # 50 MB/s, and the guest writes 80
            status = source.control.wait("the end", lambda s: s.phase in (COMPLETED, MIGRATION_FAILED), 60)
            self.assertEqual(status.phase, COMPLETED, status.migration_text)
            seen = read_until(target.attach(), b".", enough=3)
            self.assertNotIn(b"E", seen)

    def test_what_must_not_be_slowed_fails_instead(self):
        busy = ("--memory", "128M", "--epoch", 1, "--cmdline", "ws=32M fill=64M rate=20000")
        port = free_port()
        with Vmm(*busy) as source, Vmm(*busy, port=port) as target:
            read_until(source.attach(), b".", enough=2)
            migrate(source, target, port=port, n2=400_000_000, n20=1, n30=1, n40=1)
            status = source.control.wait("the end", lambda s: s.phase in (COMPLETED, MIGRATION_FAILED), 60)
            self.assertEqual(status.phase, MIGRATION_FAILED)
            self.assertIn("the link carries", status.migration_text)
            read_until(source.attach(), b".", enough=2)

    def test_the_dirty_rate_is_measured(self):
        with Vmm("--memory", "128M", "--cmdline", "ws=8M rate=2000") as vmm:
            read_until(vmm.attach(), b"R")
            _, reply = vmm.control.ask(DIRTY, {1: 1000})
            self.assertLess(abs(reply[4][-1] - 2000), 1000)


# ---- kernels of a few instructions ---------------------------------------------------------------

def out_byte(port, value):
    """mov dx, port; mov al, value; out dx, al (32-bit code)"""
    return b"\x66\xba" + port.to_bytes(2, "little") + b"\xb0" + bytes([value]) + b"\xee"


def kernel_bytes(code):
    """An ELF with a PVH entry at 1 MiB that runs @code and halts."""
    code += b"\xf4\xeb\xfd"
    note = b"".join(n.to_bytes(4, "little") for n in (4, 8, 18)) + b"Xen\0" + (1 << 20).to_bytes(8, "little")
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += b"".join(n.to_bytes(s, "little") for n, s in (
        (2, 2), (62, 2), (1, 4), (1 << 20, 8), (64, 8), (0, 8), (0, 4), (64, 2), (56, 2), (2, 2), (0, 2), (0, 2), (0, 2)))

    def segment(kind, offset, size):
        return b"".join(n.to_bytes(s, "little") for n, s in (
            (kind, 4), (5, 4), (offset, 8), (1 << 20, 8), (1 << 20, 8), (size, 8), (size, 8), (16, 8)))

    start = 64 + 2 * 56 + len(note)
    return header + segment(1, start, len(code)) + segment(4, 64 + 2 * 56, len(note)) + note + code


class kernel_file:
    """Such a kernel in a file of its own."""

    def __init__(self, code):
        self.path = pathlib.Path(f"/tmp/vmpool-kernel-{os.getpid()}.elf")
        self.path.write_bytes(kernel_bytes(code))

    def __enter__(self):
        return self.path

    def __exit__(self, *_):
        self.path.unlink(missing_ok=True)


if __name__ == "__main__":
    unittest.main()

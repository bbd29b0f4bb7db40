"""The pool as an operator uses it, from poolctl down to the guest: the real controller and two real agents in network
namespaces of this machine, the freestanding guest on its /dev/kvm. After each test nothing of its VMs may be left: no
process, no network interface, no file."""

import os
import pathlib
import subprocess
import time

import local_pool
from fault_case import FaultCase
from pool import PoolctlError
from waiting import until

# Hashing both copies is part of the pause, and the processors here are shared.
VERIFIED = ("--verify", "--downtime-limit", "2s")


class PoolCase(FaultCase):
    @classmethod
    def setUpClass(cls):
        cls.pool = local_pool.pool()

    def setUp(self):
        # Cleanups run in reverse, so this looks after everything the test made was removed.
        self.addCleanup(self.nothing_is_left)

    def leftovers(self):
        left = []
        for host in range(1, self.pool.hosts + 1):
            folder = pathlib.Path(self.bed.folder) / f"host{host}"
            left += [f"host{host}: process {pid}" for pid in self.pool.vmms(host)]
            left += [f"host{host}: {path}" for path in (folder / "run" / "vms").glob("*")]
            left += [f"host{host}: {path}" for path in (folder / "storage").glob("*-*-*-*-*")]
            links = self.bed("exec", host, "ip", "-o", "link").stdout
            left += [f"host{host}: {line}" for line in links.splitlines() if ": vp-" in line]
        return left

    def nothing_is_left(self):
        until("nothing is left", lambda: not self.leftovers() or self.fail_later(), 20)

    def fail_later(self):
        raise RuntimeError(self.leftovers())

    def refused(self, status, *words):
        with self.assertRaises(PoolctlError) as caught:
            self.pool.ctl(*words, "-q")
        self.assertEqual(caught.exception.status, status, caught.exception)
        self.assertEqual(len(caught.exception.text.strip().splitlines()), 1, "one clear sentence")
        return caught.exception.text

    def names(self):
        return self.pool.ctl("vm", "ls", "-o", "name").split()


class Operator(PoolCase):
    def test_create_look_use_move_stop_start_remove(self):
        self.pool.ctl("vm", "create", "dry", "--image", "bare", "--memory", "64M", "--dry-run")
        self.assertNotIn("dry", self.names())

        vm = self.bare("first", host=None)
        self.assertIn("first", self.names())
        self.assertEqual(vm.show()["phase"], "running")
        self.assertIn("exists", self.refused(5, "vm", "create", "first", "--image", "bare"))
        self.pool.ctl("vm", "console", "first", "--no-input", "--until", "..", "--timeout", "20s")

        before = vm.host()
        job = vm.migrate(*VERIFIED)
        self.assertEqual(job["phase"], "done")
        self.assertTrue(job["migration"]["verified"])
        self.assertEqual(vm.host(), 3 - before)
        vm.assert_one_running_copy()
        self.runs_whole(vm)

        # The freestanding guest has no power button to answer.
        self.refused(6, "vm", "stop", "first", "--timeout", "1s")
        self.assertEqual(vm.show()["phase"], "running")
        self.pool.ctl("vm", "stop", "first", "--timeout", "1s", "--force")
        self.assertEqual(vm.show()["phase"], "stopped")
        self.assertEqual(vm.copies(), [])
        self.pool.ctl("vm", "start", "first")
        vm.assert_one_running_copy()

        self.pool.ctl("vm", "kill", "first", "--yes")
        self.pool.ctl("vm", "rm", "first", "--yes")
        self.assertNotIn("first", self.names())

    def test_a_drain_moves_everything_and_keeps_it_whole(self):
        vms = [self.bare(f"drained{number}") for number in range(3)]
        self.addCleanup(self.pool.ctl, "node", "undrain", "host1", check=False)
        self.pool.ctl("node", "drain", "host1")
        for vm in vms:
            vm.assert_one_running_copy()
            self.assertEqual(vm.host(), 2)
            self.runs_whole(vm)
        self.assertEqual(self.pool.vmms(1), [])
        self.refused(2, "vm", "create", "late", "--image", "bare", "--memory", "64M", "--on", "host1")
        self.pool.ctl("node", "undrain", "host1")

    def test_there_and_back_many_times(self):
        vm = self.bare("shuttle")
        for turn in range(6):
            vm.migrate(*VERIFIED)
            self.assertEqual(vm.host(), 2 if turn % 2 == 0 else 1)
        self.runs_whole(vm)

    def test_a_vms_own_disk_lives_and_goes_with_it(self):
        self.pool.ctl("vm", "create", "disk", "--image", "bare", "--memory", "64M", "--on", "host1", "--disk", "8M")
        self.addCleanup(self.pool.ctl, "vm", "rm", "disk", "--force", "--yes", check=False)
        storage = pathlib.Path(self.bed.folder) / "host1" / "storage"
        disk, = storage.glob("*-*-*-*-*/disk-0.raw")
        self.assertEqual(disk.stat().st_size, 8 << 20)
        self.assertIn("do not move", self.refused(5, "vm", "migrate", "disk"))
        disk.write_bytes(b"kept" + bytes(disk.stat().st_size - 4))
        self.pool.ctl("vm", "kill", "disk", "--yes")
        self.pool.ctl("vm", "start", "disk")
        self.assertEqual(disk.open("rb").read(4), b"kept")
        self.pool.ctl("vm", "rm", "disk", "--force", "--yes")
        self.assertFalse(disk.exists())

    def test_what_a_node_cannot_do_is_said_and_leaves_nothing(self):
        text = self.refused(2, "vm", "create", "huge", "--image", "bare", "--memory", "64M", "--disk", "60T")
        self.assertIn("no space", text)
        text = self.refused(3, "vm", "create", "outside", "--image", "bare", "--memory", "64M",
                            "--on", "host1", "--disk", "/etc/passwd")
        self.assertIn("--allow-disk-dir", text)
        self.assertEqual([name for name in self.names() if name in ("huge", "outside")], [])

    def test_a_disk_has_one_vm(self):
        path = pathlib.Path(self.bed.folder) / "host1" / "storage" / "shared.raw"
        path.write_bytes(bytes(1 << 20))
        self.addCleanup(path.unlink)
        words = ("--image", "bare", "--memory", "64M", "--on", "host1", "--disk", str(path))
        self.pool.ctl("vm", "create", "holder", *words)
        self.addCleanup(self.pool.ctl, "vm", "rm", "holder", "--force", "--yes", check=False)
        self.assertIn("another VM uses it", self.refused(5, "vm", "create", "second", *words))
        self.pool.ctl("vm", "rm", "holder", "--force", "--yes")
        self.pool.ctl("vm", "create", "second", *words)
        self.pool.ctl("vm", "rm", "second", "--force", "--yes")


class Confinement(PoolCase):
    def test_a_vmm_is_nobody_and_holds_only_what_it_was_given(self):
        vm = self.bare("confined")
        pid, = self.pool.vmms(1, "confined")
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        self.assertRegex(status, r"(?m)^Uid:\t65534\t65534\t65534\t65534$")
        self.assertRegex(status, r"(?m)^CapEff:\t0+$")
        run = str(pathlib.Path(self.bed.folder) / "host1" / "run" / "vms" / vm.show()["id"])
        opened = [os.readlink(path) for path in pathlib.Path(f"/proc/{pid}/fd").iterdir()]
        files = {name for name in opened if name.startswith("/") and not name.startswith(("/dev/", "/memfd:"))}
        image, = {name for name in files if "/images/" in name}
        self.assertEqual(files, {image, f"{run}/vmm.log", f"{run}/status"})
        self.assertEqual(sum(name == "/dev/kvm" for name in opened), 1)
        self.assertIn("/dev/net/tun", opened)
        self.assertEqual(os.stat(run).st_mode & 0o777, 0o700)
        session = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3]
        self.assertEqual(int(session), pid, "it leads a session of its own")


class BadDays(PoolCase):
    def test_a_vmm_that_dies_is_seen_at_once_and_can_be_started_again(self):
        vm = self.bare("dies")
        began = time.monotonic()
        self.assertEqual(self.pool.kill_vmm(1, "dies"), 1)
        until("the VM has failed", lambda: vm.show()["phase"] == "failed", 10, every_s=0.05)
        self.assertLess(time.monotonic() - began, 3, "told by an event, not by a report")
        self.assertIn("signal 9", vm.show()["text"])
        self.pool.ctl("vm", "start", "dies")
        vm.assert_one_running_copy()

    def test_an_agent_killed_with_guests_finds_them_again(self):
        vms = [self.bare(f"kept{number}") for number in range(2)]
        pids = self.pool.vmms(1)
        self.restart_agent(1)
        for vm in vms:
            vm.assert_one_running_copy()
            self.runs_whole(vm)
        self.assertEqual(sorted(self.pool.vmms(1)), sorted(pids))

    def test_a_guest_whose_vmm_dies_while_no_agent_runs_is_told(self):
        vm = self.bare("unseen")
        self.pool.kill_agent(1)
        self.assertEqual(self.pool.kill_vmm(1, "unseen"), 1)
        self.pool.start_agent(1)
        until("the VM has failed", lambda: vm.show()["phase"] == "failed", 30)
        self.assertIn("while no agent ran", vm.show()["text"])

    def create_and(self, name, what):
        """Starts creating VM @name and does @what at once; the job must end, and the VM with it or not at all."""
        job = int(self.pool.ctl("vm", "create", name, "--image", "bare", "--memory", "64M", "--on", "host1",
                                "--cmdline", "ws=1M fill=32M rate=2000", "--no-wait").split()[-1])
        self.addCleanup(self.pool.ctl, "vm", "rm", name, "--force", "--yes", check=False)
        what()
        ended = self.ended(job)
        if ended["phase"] == "done":
            until("one copy", lambda: len(self.pool.vmms(1, name)) == 1, 20)
            until("it runs", lambda: self.pool.vm(name)["phase"] == "running", 20)
        else:
            until("no copy", lambda: not self.pool.vmms(1, name), 20)
        return ended["phase"]

    def test_an_agent_killed_while_it_creates(self):
        for turn, delay_s in enumerate((0, 0.02, 0.05, 0.1)):
            def kill(delay_s=delay_s):
                time.sleep(delay_s)  # the moment is what is varied: nothing is waited for
                self.restart_agent(1)
            with self.subTest(delay_s=delay_s):
                self.assertEqual(self.create_and(f"half{turn}", kill), "done")

    def test_a_controller_killed_while_it_creates(self):
        for turn, delay_s in enumerate((0, 0.02, 0.05, 0.1)):
            def kill(delay_s=delay_s):
                time.sleep(delay_s)
                self.restart_controller()
            with self.subTest(delay_s=delay_s):
                self.assertEqual(self.create_and(f"again{turn}", kill), "done")

    def restart_controller(self):
        self.pool.kill_controller()
        self.pool.start_controller()
        self.pool.wait_nodes_up(2)

    def test_a_controller_killed_while_it_removes(self):
        vm = self.bare("going")
        self.pool.ctl("vm", "rm", "going", "--force", "--yes", "--no-wait")
        self.restart_controller()
        until("it is gone", lambda: "going" not in self.names() and not vm.copies(), 30)

    def test_garbage_on_a_control_socket_ends_that_connection_only(self):
        vm = self.bare("tough")
        folder, = (pathlib.Path(self.bed.folder) / "host1" / "run" / "vms").glob("*")
        done = subprocess.run(
            ["/usr/bin/python3", "-c",
             "import os, socket, sys; os.chdir(sys.argv[1]); s = socket.socket(socket.AF_UNIX, "
             "socket.SOCK_SEQPACKET); s.settimeout(10); s.connect('control.sock'); s.send(b'\\xff' * 5000); "
             "sys.exit(0 if s.recv(100) == b'' else 1)", folder],
            timeout=30, check=False)
        self.assertEqual(done.returncode, 0, "the connection was closed")
        vm.assert_one_running_copy()
        self.runs_whole(vm)

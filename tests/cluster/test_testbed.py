"""The testbed itself: what it says it does to hosts is done to them, and it leaves nothing behind."""

import hashlib
import os
import pathlib
import signal
import subprocess
import time
import unittest

import cluster
from testbed import SCRIPT, Testbed
from waiting import until


def reaches(bed, host, address):
    """Whether @host gets an answer to one TCP handshake on @address (sshd or a refusal: both are answers)."""
    probe = f"exec 3<>/dev/tcp/{address}/9"
    done = bed.exec(host, "timeout", "3", "bash", "-c", probe, check=False)
    return "refused" in done.stderr


class Exec(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.bed = cluster.testbed()

    def test_status_and_words_arrive_as_they_are(self):
        done = self.bed.exec(2, "sh", "-c", 'printf "%s|" "$@"; exit 7', "sh", "it's", "a b", "$HOME", "", "*",
                             check=False)
        self.assertEqual((done.stdout, done.returncode), ("it's|a b|$HOME||*|", 7))

    def test_input_and_output_are_binary_safe(self):
        data = os.urandom(1 << 20)
        done = subprocess.run([SCRIPT, "--name", self.bed.name, "exec", "1", "cat"], input=data, capture_output=True,
                              timeout=60, check=True)
        self.assertEqual(hashlib.sha256(done.stdout).digest(), hashlib.sha256(data).digest())

    def test_many_at_once(self):
        running = [subprocess.Popen([SCRIPT, "--name", self.bed.name, "exec", str(1 + i % 2), "echo", str(i)],
                                    stdout=subprocess.PIPE, text=True) for i in range(12)]
        self.assertEqual([p.communicate(timeout=60)[0].strip() for p in running], [str(i) for i in range(12)])

    def test_each_host_has_its_own_kernel_with_kvm(self):
        boots = {self.bed.exec(h, "cat", "/proc/sys/kernel/random/boot_id").stdout for h in (1, 2)}
        self.assertEqual(len(boots), 2)
        for host in (1, 2):
            self.bed.exec(host, "test", "-c", "/dev/kvm")
            self.assertIn("memory", self.bed.exec(host, "cat", "/sys/fs/cgroup/cgroup.controllers").stdout)

    def test_the_hosts_share_a_folder_and_have_a_disk_each(self):
        self.bed.exec(1, "sh", "-c", "echo shared >/srv/vmpool/file; echo own >/var/lib/vmpool/file")
        self.assertEqual(self.bed.exec(2, "cat", "/srv/vmpool/file").stdout, "shared\n")
        self.assertNotEqual(self.bed.exec(2, "cat", "/var/lib/vmpool/file", check=False).returncode, 0)

    def test_an_unknown_host_is_refused(self):
        done = self.bed.exec(3, "true", check=False)
        self.assertEqual(done.returncode, 3)
        self.assertIn("no host '3'", done.stderr)


class Faults(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.bed = cluster.testbed()

    def test_a_cut_host_hears_nothing_but_takes_commands(self):
        self.assertTrue(reaches(self.bed, 1, "10.77.0.2"))
        self.bed("cut", 2)
        self.addCleanup(self.bed, "heal", 2)
        self.assertFalse(reaches(self.bed, 1, "10.77.0.2"))
        self.assertFalse(reaches(self.bed, 2, self.bed.MACHINE))
        self.assertFalse(reaches(self.bed, 1, "10.78.0.2"), "hosts reach each other around the cut")
        self.assertIn("cut", self.bed("status").stdout)
        self.bed("heal", 2)
        until("the healed host answers", lambda: reaches(self.bed, 1, "10.77.0.2"), 20)

    def test_a_slow_host_gets_its_rate(self):
        received = self.seconds_for_mebibyte(4, "8mbit")
        self.assertGreater(received, 3.0)  # 4 MiB at 8 Mbit/s are 4.2 s, less what the bucket holds
        self.assertLess(received, 15.0)

    def seconds_for_mebibyte(self, mib, rate):
        self.bed("slow", 2, rate)
        self.addCleanup(self.bed, "heal", 2)
        with self.bed.popen("python3", "-c", "import socket;s=socket.create_server(('', 5009));c,_=s.accept()\n"
                            "while c.recv(65536): pass", stdin=subprocess.DEVNULL) as sink:
            self.addCleanup(sink.kill)
            send = f"import socket;s=socket.create_connection(('10.77.0.254',5009));s.sendall(bytes({mib}<<20));" \
                   "s.shutdown(1);s.recv(1)"
            until("the sink listens", lambda: reaches_port(self.bed, 5009), 20)
            begun = time.monotonic()
            self.bed.exec(2, "python3", "-c", send)
            sink.wait(60)
            return time.monotonic() - begun

    def test_power_off_is_sudden_and_the_disk_survives(self):
        self.bed.exec(2, "sh", "-c", "echo kept >/var/lib/vmpool/kept; sync; echo gone >/etc/gone")
        boot = self.bed.exec(2, "cat", "/proc/sys/kernel/random/boot_id").stdout
        self.bed("power-off", 2)
        self.assertIn("host2\t10.77.0.2\toff", self.bed("status").stdout)
        self.assertEqual(self.bed("power-off", 2, check=False).returncode, 1)
        self.bed("power-on", 2, timeout=200)
        self.assertNotEqual(self.bed.exec(2, "cat", "/proc/sys/kernel/random/boot_id").stdout, boot)
        self.assertEqual(self.bed.exec(2, "cat", "/var/lib/vmpool/kept").stdout, "kept\n")
        self.bed.exec(2, "test", "!", "-e", "/etc/gone")


def reaches_port(bed, port):
    return f":{port} " in subprocess.run(["ip", "netns", "exec", bed.netns, "ss", "-ltn"], capture_output=True,
                                         text=True, check=True).stdout


class LeavesNothing(unittest.TestCase):
    """A second testbed beside the shared one."""

    def test_down_finds_all_after_the_script_was_killed(self):
        cluster.testbed()
        second = Testbed(f"second-{os.getpid()}")
        self.addCleanup(second.down)
        up = subprocess.Popen([SCRIPT, "--name", second.name, "up", "--hosts", "1", "--memory", "512"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        self.addCleanup(up.wait, 10)
        until("its QEMU runs", lambda: qemu_pids(second), 60)
        os.killpg(up.pid, signal.SIGKILL)
        second.down()
        self.assertEqual(qemu_pids(second), [])
        self.assertFalse(pathlib.Path("/var/lib/vmpool-testbed", second.name).exists())
        self.assertFalse(pathlib.Path("/run/netns", second.netns).exists())
        self.assertEqual(cluster.testbed().exec(1, "echo", "alive").stdout, "alive\n")


def qemu_pids(bed):
    return subprocess.run(["pgrep", "-f", f"name vmpool-{bed.name}-host"], capture_output=True, text=True,
                          check=False).stdout.split()

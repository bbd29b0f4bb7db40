"""migration-bench as its users run it: what it prints, writes and refuses."""

import html.parser
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

BENCH = pathlib.Path(__file__).resolve().parents[2] / "bench" / "migration-bench"
SMALL = ("--memory", "128M", "--fill", "32M", "--settle", "0")


def bench(*words, **environment):
    return subprocess.run([sys.executable, BENCH, *map(str, words)], capture_output=True, text=True, timeout=200, check=False,
                          **environment)


class Page(html.parser.HTMLParser):
    """What a page loads and runs, and which plots it has; fails where tags do not match."""


    def __init__(self, text):
        super().__init__()
        self.open, self.loads, self.plots = [], [], []
        self.feed(text)
        self.close()
        if self.open:
            raise AssertionError(f"not closed: {self.open}")

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.loads += [value for name, value in attrs.items() if name in ("src", "href")]
        if tag in ("script", "link", "img", "iframe"):
            self.loads.append(tag)
        if tag == "svg":
            self.plots.append(attrs["aria-label"])
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            raise AssertionError(f"</{tag}> is not open")


class DrainBenchTest(unittest.TestCase):
    def test_all_move_and_the_link_is_measured(self):
        if os.geteuid() != 0 or not os.access("/dev/kvm", os.R_OK | os.W_OK):
            self.skipTest("needs root and /dev/kvm")
        with tempfile.TemporaryDirectory() as folder:
            data = pathlib.Path(folder, "out.json")
            done = subprocess.run([sys.executable, BENCH.with_name("drain-bench"), "--vms", "3", "--memory", "64", "--busy", "1",
                                   "--alone", "1", "--link", "500mbit", "--json", data],
                                  capture_output=True, text=True, timeout=200, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertRegex(done.stdout, r"^3 of 3 VMs moved in \d+\.\d s, \d+ MiB; the link of 500mbit was \d+% full\n")
            result = json.loads(data.read_text(encoding="utf-8"))
            self.assertEqual(len(result["jobs"]), 3)
            self.assertGreater(result["utilisation"], 0.05)


class BenchTest(unittest.TestCase):
    def test_runs_are_reported_as_text_json_and_a_page(self):
        with tempfile.TemporaryDirectory() as folder:
            data, page = pathlib.Path(folder, "out.json"), pathlib.Path(folder, "out.html")
            done = bench(*SMALL, "--runs", 2, "--dirty-rate", 2000, "--content", "text", "--encrypt", "off", "--streams", 3,
                         "--verify", "--compress", "lz4", "--json", data, "--report", page)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertRegex(done.stdout, r"vmpool +\d\.\d+ s +\d+\.\d ms .* rounds")
            document = json.loads(data.read_text(encoding="utf-8"))
            self.assertEqual(document["schema"], 2)
            self.assertEqual(document["options"]["dirty_rate"], "2000")
            self.assertIs(document["options"]["encrypt"], False)
            runs = document["runs"]["vmpool"]
            self.assertEqual(len(runs), 2)
            for run in runs:
                items = dict(run["pause_items_us"])
                total = items.pop("total")
                self.assertAlmostEqual(total / 1000, run["pause_ms"])
                self.assertEqual(total, sum(items.values()) - items["announce"])
                self.assertGreater(items["verify"], 0)
                self.assertEqual((run["streams"], run["rounds"]), (3, len(run["round_list"])))
                self.assertGreaterEqual(run["page_bytes"], 32 << 20)
                self.assertLess(run["wire"], run["page_bytes"], "text gets smaller")
            seen = Page(page.read_text(encoding="utf-8"))
            self.assertEqual(seen.loads, [])
            self.assertIn("Rounds of run 2", seen.plots)
            self.assertIn("The pause of each run, itemised", seen.plots)

    def test_a_bandwidth_and_a_mode_are_kept(self):
        with tempfile.TemporaryDirectory() as folder:
            data = pathlib.Path(folder, "out.json")
            done = bench(*SMALL, "--runs", 1, "--bandwidth", "200M", "--compress", "off", "--mode", "postcopy", "--json", data)
            self.assertEqual(done.returncode, 0, done.stderr)
            run = json.loads(data.read_text(encoding="utf-8"))["runs"]["vmpool, encrypted"][0]
            self.assertTrue(run["postcopy"])
            self.assertGreater(run["total_s"], 0.8 * (32 << 20) * 8 / 200e6)

    def test_wrong_options_are_refused_in_one_sentence(self):
        for words in (("--memory", "3x"), ("--streams", 17), ("--bandwidth", "0"), ("--encrypt", "maybe"), ("--mode", "fast"),
                      ("--runs", 0), ("--payload", "/nowhere"), ("--working-set", "2G"), ("--fill", "1G"),
                      ("--dirty-rate", "-1"), ("--json", "/nowhere/x"), ("--report", "/"), ("--growth", "--dirty-rate", 5),
                      ("--mode", "postcopy", "--verify"), ("--nothing",), ("--timeout", "soon"), ("--memory",)):
            done = bench(*words)
            self.assertEqual(done.returncode, 2, words)
            self.assertRegex(done.stderr, r"\Amigration-bench: [^\n]+\n\Z", words)
            self.assertEqual(done.stdout, "", words)

    def test_without_qemu_it_says_so(self):
        with tempfile.TemporaryDirectory() as folder:
            done = bench("--versus-qemu", env={**os.environ, "PATH": folder})
            self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1), done.stderr)
            self.assertIn("qemu-system-x86_64, which is not installed", done.stderr)


if __name__ == "__main__":
    unittest.main()

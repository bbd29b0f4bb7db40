"""Runs the programs ctest knows under the label `unit` and counts each Criterion test in them."""

import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import tempfile
import xml.etree.ElementTree as ET

from results import FAILED, PASSED, SKIPPED, Results

_SKIPPED_STATUS = 77  # of a program that is not Criterion's
_STATUS = {"PASSED": PASSED, "SKIPPED": SKIPPED}


def programs(build):
    """(name, command, seconds it may take) of each unit test program."""
    listing = subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1", "-L", "unit"],
                             check=True, capture_output=True, text=True)
    for test in json.loads(listing.stdout)["tests"]:
        limits = [p["value"] for p in test.get("properties", []) if p["name"] == "TIMEOUT"]
        if "command" in test:
            yield test["name"], test["command"], float(limits[0]) if limits else 120.0


def list_tests(build, keyword):
    for name, command, limit_s in programs(build):
        yield from (test for test in _names(name, command, limit_s) if keyword in test)


def run(build, keyword):
    results = Results("unit")
    chosen = [p for p in programs(build) if not keyword or any(keyword in t for t in _names(*p))]
    with concurrent.futures.ThreadPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
        for batch in pool.map(lambda p: _run_program(*p), chosen):
            for test in batch:
                if keyword in test[0]:
                    results.add(*test)
    return results


def _names(name, command, limit_s):
    """The tests of one program; its own name where it is not a Criterion program."""
    listing = subprocess.run(command + ["--list"], capture_output=True, text=True, timeout=limit_s, check=False)
    suite, tests = "", []
    for line in listing.stdout.splitlines():
        if head := re.fullmatch(r"(\w+): \d+ tests?", line):
            suite = head[1]
        elif leaf := re.fullmatch(r"[├└]── (\w+)", line):
            tests.append(f"{name}.{suite}.{leaf[1]}")
    return tests or [name]


def _run_program(name, command, limit_s):
    """Its tests as (name, outcome, text, seconds). A program that dies or hangs is itself a failed test."""
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder) / "report.xml"
        try:
            done = subprocess.run(command + [f"--xml={report}"], stdin=subprocess.DEVNULL, timeout=limit_s,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                                  check=False)
        except subprocess.TimeoutExpired as late:
            output = late.stdout or b""
            return [(name, FAILED, f"{output.decode(errors='replace')}\nnot ended after {limit_s:.0f} s", limit_s)]
        tests = list(_cases(name, report, done.stdout)) if report.exists() else []
    if not tests and done.returncode == _SKIPPED_STATUS:
        return [(name, SKIPPED, done.stdout.strip().removeprefix("skipped: "), 0.0)]
    if not tests:
        return [(name, PASSED if done.returncode == 0 else FAILED, done.stdout, 0.0)]
    if done.returncode != 0 and not any(outcome == FAILED for _, outcome, _, _ in tests):
        tests.append((name, FAILED, f"{done.stdout}\nended with status {done.returncode}", 0.0))
    return tests


def _cases(program, report, output):
    reasons = dict(re.findall(r"\[SKIP\] (\w+::\w+): (.*)", re.sub(r"\x1b\[[0-9;]*m", "", output)))
    for suite in ET.parse(report).getroot().iter("testsuite"):
        for case in suite.iter("testcase"):
            outcome = _STATUS.get(case.get("status"), FAILED)
            text = output if outcome == FAILED else reasons.get(f"{suite.get('name')}::{case.get('name')}", "")
            yield (f"{program}.{suite.get('name')}.{case.get('name')}", outcome, text,
                   float(case.get("time") or 0))

"""Runs the unittest files of a folder (tests/kvm, tests/cluster) and counts each test in them."""

import signal
import sys
import time
import traceback
import unittest

from results import FAILED, PASSED, SKIPPED, Results

# A test that needs longer says so: limit_s = N in its class.
DEFAULT_LIMIT_S = 300


class Overdue(Exception):
    """The test took longer than it may."""


def load(folder, keyword):
    loader = unittest.TestLoader()
    if keyword:
        loader.testNamePatterns = [f"*{keyword}*"]
    return loader.discover(str(folder), pattern="test_*.py", top_level_dir=str(folder))


def each_test(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from each_test(test)
        else:
            yield test


def run(folder, part, keyword):
    suite = load(folder, keyword)
    names = [test.id() for test in each_test(suite)]
    recorder = _Recorder(part)
    signal.signal(signal.SIGALRM, _overdue)
    suite.run(recorder)
    recorder.spread(names)
    return recorder.results


def _overdue(_signal, _frame):
    raise Overdue("the test took longer than its limit_s")


class _Recorder(unittest.TestResult):
    """Writes one line a test as it ends. What is said of a whole class or module holds for its tests."""

    def __init__(self, part):
        super().__init__()
        self.results = Results(part)
        self.groups = {}  # "module.Class" or "module": (outcome, text)
        self.begun = time.monotonic()

    def startTest(self, test):
        super().startTest(test)
        self.begun = time.monotonic()
        signal.alarm(getattr(test, "limit_s", DEFAULT_LIMIT_S))

    def stopTest(self, test):
        signal.alarm(0)
        super().stopTest(test)
        outcome, _, seconds = self.results.tests.get(test.id(), (PASSED, "", 0.0))
        print(f"  {outcome:7} {test.id()} ({seconds:.1f} s)", flush=True)

    def _say(self, test, outcome, text=""):
        if isinstance(test, unittest.TestCase):
            self.results.add(test.id(), outcome, text, time.monotonic() - self.begun)
            return
        # "setUpClass (module.Class)" and the like
        group = test.id().partition("(")[2].rstrip(")")
        self.groups[group] = (outcome, text)
        if outcome == FAILED:
            print(f"  failed  {test.id()}\n{text}", file=sys.stderr, flush=True)

    def addSuccess(self, test):
        self._say(test, PASSED)

    def addSkip(self, test, reason):
        self._say(test, SKIPPED, reason)

    def addFailure(self, test, err):
        self._say(test, FAILED, "".join(traceback.format_exception(*err)))

    addError = addFailure

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self._say(test, FAILED, f"{subtest}\n" + "".join(traceback.format_exception(*err)))

    def addExpectedFailure(self, test, err):
        self._say(test, PASSED)

    def addUnexpectedSuccess(self, test):
        self._say(test, FAILED, "passes though it is marked as an expected failure")

    def spread(self, names):
        """Every test chosen has an outcome afterwards: one that never ran is what its class or module came to."""
        for name in names:
            for group, (outcome, text) in self.groups.items():
                if name.startswith(group + "."):
                    self.results.add(name, outcome, text)
            if name not in self.results.tests:
                self.results.add(name, FAILED, "it was chosen but did not run")
        for group, (outcome, text) in self.groups.items():
            if outcome == FAILED and not any(name.startswith(group + ".") for name in names):
                self.results.add(group or "module", outcome, text)

"""What each test came to, and how it is told: on the terminal, in JUnit XML, and as one line of counts."""

import sys
import xml.etree.ElementTree as ET

PASSED, SKIPPED, FAILED = "passed", "skipped", "failed"
# Where several things are said of one test, the worst counts.
_RANK = {PASSED: 0, SKIPPED: 1, FAILED: 2}


class Results:
    """The tests of one part, by name, in the order they were first heard of."""

    def __init__(self, part):
        self.part = part
        self.tests = {}  # name: (outcome, text, seconds)

    def add(self, name, outcome, text="", seconds=0.0):
        before = self.tests.get(name)
        if before is None or _RANK[outcome] > _RANK[before[0]]:
            self.tests[name] = (outcome, text, seconds)

    def count(self, outcome):
        return sum(1 for test in self.tests.values() if test[0] == outcome)

    def tell(self, out=sys.stdout):
        """Each failure with its text, each skipped test with its reason, then the part's counts."""
        for name, (outcome, text, _) in self.tests.items():
            if outcome == FAILED:
                print(f"FAILED  {name}\n{_indented(text)}", file=out)
        for name, (outcome, text, _) in self.tests.items():
            if outcome == SKIPPED:
                print(f"skipped {name}: {text or 'no reason given'}", file=out)
        print(f"{self.part}: {counts_line([self])}", file=out, flush=True)

    def write_junit(self, path):
        suite = ET.Element("testsuite", name=self.part, tests=str(len(self.tests)),
                           failures=str(self.count(FAILED)), skipped=str(self.count(SKIPPED)))
        for name, (outcome, text, seconds) in self.tests.items():
            group, _, short = name.rpartition(".")
            case = ET.SubElement(suite, "testcase", classname=group, name=short, time=f"{seconds:.3f}")
            if outcome != PASSED:
                tag = "failure" if outcome == FAILED else "skipped"
                ET.SubElement(case, tag, message=_first_line(text)).text = _printable(text)
        ET.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def counts_line(parts):
    total = {outcome: sum(part.count(outcome) for part in parts) for outcome in _RANK}
    return f"{total[PASSED]} passed, {total[FAILED]} failed, {total[SKIPPED]} skipped"


def _first_line(text):
    return _printable(text.strip().splitlines()[-1] if text.strip() else "")


def _printable(text):
    return "".join(char if char.isprintable() or char in "\n\t" else "?" for char in text)


def _indented(text):
    return "\n".join("    " + line for line in text.rstrip().splitlines())

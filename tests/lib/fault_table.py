"""Compares docs/handover.md's table of fault points with the code, the headers, the model and the crossing."""

import pathlib
import re
import sys

PROJECT = pathlib.Path(__file__).resolve().parents[2]
HEADERS = ("node-agent/migration/faults.h", "node-agent/agent/faults.h")
_NAME = r"(?:source|target|agent)\.[a-z.-]*[a-z]"


def check():
    """What does not fit, a sentence each."""
    documented, steps = _table()
    sets = {"docs/handover.md": documented, "the headers": _headers(), "the code": _code(), "the crossing": _crossing()}
    sets["tests/model/handover.pml"] = _model() | {"source.drop", "source.serve", "target.complete"}
    wrong = [f"{point} is in {one}, not in {other}" for one, points in sets.items() for other, others in sets.items()
             for point in sorted(points - others)]
    wrong += [f"the controller's steps differ: docs {sorted(steps)}, code {sorted(_steps())}"] * (steps != _steps())
    return wrong


def _read(path):
    return (PROJECT / path).read_text()


def _table():
    rows = [line for line in _read("docs/handover.md").splitlines() if line.startswith("| ")]
    cells = [row.strip("|").split("|") for row in rows[1:]]
    steps = {step for row in cells for step in re.findall(r"`([a-z-]+)`", row[4])}
    return {point for row in cells for cell in row[1:4] for point in re.findall(r"`([^`]+)`", cell)}, steps


def _headers():
    text = "".join(map(_read, HEADERS))
    found = set(re.findall(rf"(?m)^ \*   ({_NAME}) ", text))
    return found | {"agent.command." + name for name in ("prepare", "migrate-out", "cancel", "run", "discard")
                    if re.search(rf"[ *]{name}[,\n]", text)}


def _code():
    files = [path for folder in ("migration", "agent") for path in (PROJECT / "node-agent" / folder).glob("*.c")]
    found = {point for path in files for point in re.findall(rf'"({_NAME})"', path.read_text())}
    # Of a start and of commands that no migration has.
    return {point for point in found if "." in point} - {"agent.command.start", "agent.command.other"}


def _model():
    return set(re.findall(rf"\[({_NAME})\]", _read("tests/model/handover.pml")))


def _crossing():
    """An answer is one point in the code, and one for each command in the crossing."""
    return {re.sub(r"agent\.answer\..*", "agent.answer", point.name) for point in _crossing_module().POINTS if "job." not in point.name}


def _steps():
    table = re.search(r"steps\[\] = \{(.*?)\};", _read("controller/job_vm_migrate.c"), re.S)[1]
    crossed = {point.name.split(".")[2] for point in _crossing_module().POINTS if point.name.startswith("job.")}
    crossed |= _crossing_module().IN_PASSING
    steps = set(re.findall(r'\{"([a-z-]+)"', table)) | {"end"}
    return steps if steps == crossed else steps ^ crossed


def _crossing_module():
    sys.path.insert(0, str(PROJECT / "tests" / "kvm"))
    import test_crossing  # pylint: disable=import-outside-toplevel # its folder is no package
    return test_crossing

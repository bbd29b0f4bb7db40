"""The inside of tests/run: runs the parts asked for and ends with the counts. Called by tests/run alone."""

import argparse
import pathlib
import sys

import model_part
import unit_part
import unittest_part
from results import FAILED, counts_line

TESTS = pathlib.Path(__file__).resolve().parent.parent


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("-k", dest="keyword", default="")
    parser.add_argument("parts", nargs="+")
    args = parser.parse_args()
    if args.list:
        for part in args.parts:
            for name in list_part(part, args):
                print(name)
        return 0
    reports = pathlib.Path(args.build) / "test-results"
    reports.mkdir(exist_ok=True)
    done = []
    for part in args.parts:
        print(f"== {part}", flush=True)
        done.append(run_part(part, args))
        done[-1].tell()
        done[-1].write_junit(reports / f"{part}.xml")
    print(counts_line(done), flush=True)
    ran_any = any(part.tests for part in done)
    if not ran_any:
        print(f"no test matches '{args.keyword}'", file=sys.stderr)
    return 0 if ran_any and not any(part.count(FAILED) for part in done) else 1


def list_part(part, args):
    if part == "unit":
        return unit_part.list_tests(args.build, args.keyword)
    if part == "model":
        return model_part.list_tests(args.keyword)
    folder = TESTS / part
    return [test.id() for test in unittest_part.each_test(unittest_part.load(folder, args.keyword))]


def run_part(part, args):
    if part == "unit":
        return unit_part.run(args.build, args.keyword)
    if part == "model":
        return model_part.run(args.keyword)
    return unittest_part.run(TESTS / part, part, args.keyword)


if __name__ == "__main__":
    sys.exit(main())

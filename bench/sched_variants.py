#!/usr/bin/env python3
"""Runs every placement policy on variations of a trace, so that none is judged by one file.

usage: bench/sched_variants.py TRACE.csv[.gz] [--host 64c,128G,25Gbps] [--migrate 2%]

The variations: half and a fifth of the batches, each batch shifted by up to six hours, the second
half of the time before the first, lifetimes exchanged between batches, and hosts with more memory
or fewer cores. poolctl is found through VMPOOL_BIN (default build-ci/bin).
"""
import argparse
import csv
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile

COLUMNS = ("arrival_s", "lifetime_s", "vcpus", "memory_mib", "network_mbps", "batch")


def read(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", newline="") as file:
        return [tuple(row.get(name, "") for name in COLUMNS) for row in csv.DictReader(file)]


def in_order(rows):
    return sorted(rows, key=lambda row: int(row[0]))


def some_batches(rows, share, rng):
    kept = {batch for batch in sorted({row[5] for row in rows}) if rng.random() < share}
    return [row for row in rows if row[5] in kept]


def shifted(rows, rng):
    shift = {batch: rng.randrange(0, 21600, 300) for batch in sorted({row[5] for row in rows})}
    return in_order((int(row[0]) + shift[row[5]],) + row[1:] for row in rows)


def rotated(rows):
    end = int(rows[-1][0]) + 300
    return in_order(((int(row[0]) + end // 2) % end,) + row[1:] for row in rows)


def lives_exchanged(rows, rng):
    lives = {}
    for row in rows:
        lives.setdefault(row[5], []).append(row[1])
    others = dict(zip(lives, rng.sample(list(lives), len(lives))))
    seen = {}
    result = []
    for row in rows:
        at = seen[row[5]] = seen.get(row[5], -1) + 1
        other = lives[others[row[5]]]
        result.append((row[0], other[at % len(other)]) + row[2:])
    return result


def variants(rows, host):
    rng = random.Random(1)
    cpus, memory, bandwidth = host.split(",")
    size = int(memory.rstrip("G"))
    yield "as it is", rows, host
    yield "half of the batches", some_batches(rows, 0.5, rng), host
    yield "a fifth of the batches", some_batches(rows, 0.2, rng), host
    yield "batches shifted", shifted(rows, rng), host
    yield "second half first", rotated(rows), host
    yield "lifetimes exchanged", lives_exchanged(rows, rng), host
    yield "1.5 x the memory", rows, f"{cpus},{size * 3 // 2}G,{bandwidth}"
    yield "half the host", rows, f"{int(cpus[:-1]) // 2}c,{size // 2}G,{bandwidth}"


def simulate(rows, host, migrate):
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        file.write(",".join(COLUMNS) + "\n")
        file.writelines(",".join(map(str, row)) + "\n" for row in rows)
        file.flush()
        binary = os.path.join(os.environ.get("VMPOOL_BIN", "build-ci/bin"), "poolctl")
        command = [binary, "simulate", "--trace", file.name, "--host", host, "--policy", "all",
                   "-o", "json", "-q"]
        out = subprocess.run(command + (["--migrate", migrate] if migrate else []),
                             check=True, stdout=subprocess.PIPE).stdout
    return json.loads(out)["simulations"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trace")
    parser.add_argument("--host", default="64c,128G,25Gbps")
    parser.add_argument("--migrate")
    args = parser.parse_args()
    rows = read(args.trace)
    ratios = {}
    for name, some, host in variants(rows, args.host):
        results = simulate(some, host, args.migrate)
        if not ratios:
            print(f"{'':24}" + "".join(f"{r['policy']:>10}" for r in results))
        for result in results:
            ratios.setdefault(result["policy"], []).append(result["ratio"])
        print(f"{name:24}" + "".join(f"{r['ratio']:10.3f}" for r in results), flush=True)
    print(f"{'mean':24}" + "".join(f"{sum(m) / len(m):10.3f}" for m in ratios.values()))
    print(f"{'worst':24}" + "".join(f"{max(m):10.3f}" for m in ratios.values()))


if __name__ == "__main__":
    sys.exit(main())

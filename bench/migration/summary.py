"""What all runs of each machine come to: medians, and ours against QEMU's."""

import statistics

GIB = 1 << 30
COLUMNS = ("total", "pause", "rate", "on the wire", "rounds", "CPU s/GiB")
QUANTUM_MS = 1  # QEMU tells its pause in whole milliseconds


def median(runs, key):
    """None where any run lacks it: one that failed has no figures."""
    values = [run[key] for run in runs if key in run]
    return statistics.median(values) if len(values) == len(runs) and values else None


def failures(runs):
    return [run["failed"] for run in runs if "failed" in run]


def cpu_per_gib(runs):
    """CPU seconds of both processes for each GiB of pages sent, before they were encoded; None: too few to say."""
    cpu, sent = median(runs, "cpu_s"), median(runs, "page_bytes")
    return None if cpu is None or not sent or sent < GIB / 64 else cpu / (sent / GIB)


def show(value, form):
    return "–" if value is None else form.format(value)


def cells(runs):
    """The texts of COLUMNS."""
    total, wire = median(runs, "total_s"), median(runs, "wire")
    return (f"{total:.3f} s", f"{median(runs, 'pause_ms'):.1f} ms", f"{wire * 8 / total / 1e9:.2f} Gbit/s",
            f"{wire / 2**20:.0f} MiB", f"{median(runs, 'rounds'):.0f}", show(cpu_per_gib(runs), "{:.2f}"))


def ratios(ours, theirs):
    """Ours by @theirs: total time, pause, CPU; None each where either has none."""
    def ratio(mine, other):
        return None if mine is None or not other else mine / other
    pause = median(theirs, "pause_ms")
    return (ratio(median(ours, "total_s"), median(theirs, "total_s")),
            ratio(median(ours, "pause_ms"), None if pause is None else max(pause, QUANTUM_MS)),
            ratio(cpu_per_gib(ours), cpu_per_gib(theirs)))


def lines(results, iperf):
    """@results: {name: runs}, ours first."""
    for name, runs in results.items():
        failed = failures(runs)
        if failed:
            yield f"{name:32} {len(failed)} of {len(runs)} did not end: {failed[0]}"
        else:
            total, pause, rate, wire, rounds, cpu = cells(runs)
            yield f"{name:32} {total:>10} {pause:>12} {rate:>15} {wire:>10} {rounds:>4} rounds {cpu:>6} CPU s/GiB"
    ours, *qemus = results.values()
    ended = [runs for runs in qemus if median(runs, "total_s")]
    if median(ours, "total_s") is None:
        return
    if ended:
        faster = ratios(ours, min(ended, key=lambda runs: median(runs, "total_s")))
        shorter = ratios(ours, min(ended, key=lambda runs: median(runs, "pause_ms")))
        yield f"total time {faster[0]:.2f} x QEMU's faster mode, pause {shorter[1]:.2f} x its shorter"
    if iperf:
        yield f"rate {median(ours, 'wire') * 8 / median(ours, 'total_s') / iperf:.2f} x one iperf3 stream"

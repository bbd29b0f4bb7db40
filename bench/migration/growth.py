"""How a migration grows with its guest: idle guests of several sizes, of which only what was filled holds data, and
what was predicted of each. The pause is the engine's own prediction, as it began the pause. The time is a line
through other sizes, measured just before: what is fixed, and what each GiB adds."""

import copy
import sys

import memory
import summary

SIZES_GIB = (1, 2, 4, 8, 16)
CALIBRATION_GIB = (0.5, 3, 12)
CALIBRATION_RUNS = 7  # at least: what they are off by grows with the size that is predicted
TIME_WITHIN, PAUSE_WITHIN = 0.20, 0.30
GIB = 1 << 30


def _options_of(options, gib, runs):
    one = copy.copy(options)
    one.memory, one.runs = int(gib * GIB), runs
    return one


def _fits(options, gib, free):
    return gib * GIB <= free and options.fill < gib * GIB


def sizes(options):
    """Those this machine can hold, and a sentence for each that it cannot."""
    free, fitting, left_out = memory.available_bytes(), [], []
    for gib in SIZES_GIB:
        if _fits(options, gib, free):
            fitting.append(gib)
        else:
            left_out.append(f"{gib} GiB left out: {free / GIB:.1f} GiB of this machine's memory are available")
    return fitting, left_out


def _run(make_machines, options, gib, runs):
    """{name: runs} of guests of @gib."""
    machines = make_machines(_options_of(options, gib, runs))
    results = {machine.name: [] for machine in machines}
    for number in range(runs):
        for machine in machines:
            results[machine.name].append(machine.migrate())
            print(f"{gib} GiB, run {number + 1}/{runs} {machine.name}", file=sys.stderr, flush=True)
    return results


def error_of(predicted, real):
    return (predicted - real) / real if predicted and real else None


def _within(rows, key, bound):
    errors = [run[key] for row in rows for run in next(iter(row["runs"].values()))]
    return sum(1 for error in errors if error is not None and abs(error) <= bound), len(errors)


def _calibrate(options, make_ours):
    """[(GiB, s)] of the sizes that are measured before, as far as they fit."""
    free, points = memory.available_bytes(), []
    for gib in CALIBRATION_GIB:
        if _fits(options, gib, free):
            results = _run(make_ours, options, gib, max(options.runs, CALIBRATION_RUNS))
            points.append((gib, summary.median(next(iter(results.values())), "total_s")))
    return [(gib, total) for gib, total in points if total]


def _line(points):
    """The function that fits @points best (least squares); of fewer than two: nothing is predicted."""
    if len(points) < 2:
        return lambda _gib: None
    mean_gib, mean_s = (sum(values) / len(points) for values in zip(*points))
    slope = (sum((gib - mean_gib) * (total - mean_s) for gib, total in points)
             / sum((gib - mean_gib) ** 2 for gib, _ in points))
    return lambda gib: mean_s + slope * (gib - mean_gib)


def measure(options, make_machines, make_ours):
    """A list of {gib, predicted_s, predicted_pause_ms, runs: {name: runs}}; ours get time_error and pause_error."""
    fitting, left_out = sizes(options)
    calibration = _calibrate(options, make_ours)
    predict, rows = _line(calibration), []
    for gib in fitting:
        predicted = predict(gib)
        results = _run(make_machines, options, gib, options.runs)
        ours = next(iter(results.values()))
        for run in ours:
            run["time_error"] = error_of(predicted, run.get("total_s"))
            run["pause_error"] = error_of(run.get("predicted_pause_ms"), run.get("pause_ms"))
        rows.append({"gib": gib, "predicted_s": predicted,
                     "predicted_pause_ms": summary.median(ours, "predicted_pause_ms"), "runs": results})
    return {"rows": rows, "left_out": left_out,
            "calibration": [{"gib": gib, "total_s": total} for gib, total in calibration]}


HEADER = ("guest", "machine", "total", "predicted", "error", "pause", "predicted", "error", "CPU s/GiB of guest")


def table(grown):
    """Rows of texts under HEADER."""
    show = summary.show
    for row in grown["rows"]:
        for number, (name, runs) in enumerate(row["runs"].items()):
            failed = summary.failures(runs)
            if failed:
                yield (f"{row['gib']} GiB", name, "failed: " + failed[0], *("",) * 6)
                continue
            total, pause = summary.median(runs, "total_s"), summary.median(runs, "pause_ms")
            predicted, predicted_ms = (row["predicted_s"], row["predicted_pause_ms"]) if number == 0 else (None, None)
            yield (f"{row['gib']} GiB", name, f"{total:.3f} s", show(predicted, "{:.3f} s"),
                   show(error_of(predicted, total), "{:+.1%}"), f"{pause:.1f} ms", show(predicted_ms, "{:.1f} ms"),
                   show(error_of(predicted_ms, pause), "{:+.1%}"), f"{summary.median(runs, 'cpu_s') / row['gib']:.3f}")


def remarks(grown):
    time_hits, pause_hits = (_within(grown["rows"], *key) for key in
                             (("time_error", TIME_WITHIN), ("pause_error", PAUSE_WITHIN)))
    yield (f"prediction within {100 * TIME_WITHIN:.0f} % of the time in {time_hits[0]} of {time_hits[1]}, "
           f"within {100 * PAUSE_WITHIN:.0f} % of the pause in {pause_hits[0]} of {pause_hits[1]}")
    yield from grown["left_out"]


def lines(grown):
    rows = [HEADER, *table(grown)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    for row in rows:
        yield "  ".join(text.rjust(width) if column > 1 else text.ljust(width)
                        for column, (text, width) in enumerate(zip(row, widths))).rstrip()
    yield from remarks(grown)

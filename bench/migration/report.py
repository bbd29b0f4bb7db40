"""The page of --report: one HTML file that loads nothing and runs nothing. Its plots are of svg.py."""

import growth
import summary
import svg

ROUNDS_SHOWN = 12
PAGE_BITS = 4096 * 8
PAUSE_PARTS = ("stop", "last pages", "device state", "verify", "handover", "activate", "announce")

STYLE = """
:root{color-scheme:light dark;--ink:#1f2328;--soft:#59636e;--paper:#fff;--grid:#d8dee4;--card:#f6f8fa;
--c0:#1f6feb;--c1:#d29922;--c2:#2da44e;--c3:#cf222e;--c4:#8250df;--c5:#57606a;--c6:#bf3989}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9198a1;--paper:#0d1117;--grid:#30363d;--card:#161b22;
--c0:#58a6ff;--c1:#e3b341;--c2:#56d364;--c3:#ff7b72;--c4:#bc8cff;--c5:#8b949e;--c6:#f778ba}}
body{font:14px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:960px;margin:2em auto;
padding:0 1em}
h1{font-size:1.7em;margin:0}h2{font-size:1.2em;margin:2em 0 .3em}h3{font-size:1em;margin:1.2em 0 0}
p,.soft{color:var(--soft);margin:.2em 0 .8em}
svg{width:100%;height:auto}svg text{font-size:11.5px;fill:var(--ink)}svg .inside{fill:#fff}
.grid{stroke:var(--grid)}.limit{stroke:var(--soft);stroke-dasharray:4 3}.median{stroke:var(--ink);stroke-width:2}
.run{fill-opacity:.6}.pale{fill-opacity:.35}.dashed{stroke-dasharray:5 4}
polyline{fill:none;stroke-width:2}.stroke2{stroke-width:2.5}
table{border-collapse:collapse;width:100%}td,th{padding:3px 8px;white-space:nowrap;text-align:right;border-bottom:1px solid var(--grid)}
th{color:var(--soft);font-weight:600}td:first-child,th:first-child{text-align:left}
.scroll{overflow-x:auto}.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(380px,1fr));gap:0 2em;
background:var(--card);padding:.8em 1em;border-radius:6px}.facts div{display:flex;gap:1em}.facts dt{color:var(--soft);
min-width:8em}.facts dd{margin:0;overflow-wrap:anywhere}dl{margin:0}
code{font-size:13px;overflow-wrap:anywhere}.failed{color:var(--c3)}@media print{body{max-width:none}}
""" + "".join(f".fill{i}{{fill:var(--c{i})}}.stroke{i}{{stroke:var(--c{i})}}" for i in range(svg.SERIES))


def _table(header, rows):
    head = "".join(f"<th>{svg.escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{svg.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _facts(facts):
    cells = "".join(f"<div><dt>{svg.escape(name)}</dt><dd>{svg.escape(text)}</dd></div>"
                    for name, text in facts.items())
    return f'<dl class="facts">{cells}</dl>'


def _mib(count):
    return f"{count / 2**30:g} GiB" if count >= 2**30 else f"{count / 2**20:g} MiB"


def _settings(options):
    within = f"in {_mib(options.working_set)}, a {options.write} of each page"
    rewrites = {"0": "nothing", "max": f"as fast as it can, {within}"}
    return {"guest": ("idle guests of several sizes" if options.growth else _mib(options.memory)) +
                     f", {_mib(options.fill)} filled with {options.content} contents",
            "it rewrites": rewrites.get(options.dirty_rate, f"{options.dirty_rate} pages/s, {within}"),
            "streams": str(options.streams or "as the engine chooses"),
            "bandwidth": f"{options.bandwidth / 1e9:g} Gbit/s" if options.bandwidth else "no cap",
            "limit of the pause": f"{options.downtime_ms} ms",
            "encryption": "AES-256-OCB (QEMU: none)" if options.encrypt else "none",
            "mode": options.mode, "compression": options.compress,
            "verified": "all RAM hashed at both ends, in the pause" if options.verify else "no",
            "payload": options.payload.name, "runs": f"{options.runs} of each, in turn"}


def _ended(runs):
    return [run for run in runs if "failed" not in run]


def _summary(document):
    results = document["runs"]
    ours = next(iter(results.values()))
    rows = []
    for name, runs in results.items():
        if summary.failures(runs):
            rows.append((name, f"{len(summary.failures(runs))} of {len(runs)} did not end", *("",) * 8))
            continue
        versus = (None,) * 3 if runs is ours else summary.ratios(ours, runs)
        rows.append((name, *summary.cells(runs), *(summary.show(ratio, "{:.2f}") for ratio in versus)))
    header = ("median", *summary.COLUMNS, "total ×", "pause ×", "CPU ×")
    yield "<h2>Summary</h2>" + _table(header, rows)
    for name, runs in results.items():
        for failed in sorted(set(summary.failures(runs))):
            yield f'<p class="failed">{svg.escape(name)}: {svg.escape(failed)}</p>'
    yield ("<p>× is ours divided by that row's. CPU seconds are of both processes together, for each GiB of pages sent, before they were encoded. "
           "QEMU tells its pause in whole milliseconds.</p>")


def _limits(document, ours):
    """The time in which what ours sent passes at the machine's best."""
    sent = summary.median(ours, "page_bytes")
    if not sent:
        return []
    limits = [("one iperf3 stream", document["iperf3_bps"]), ("memcpy", document["memcpy_bps"])]
    return [(f"{name}: {rate / 1e9:.1f} Gbit/s", sent * 8 / rate) for name, rate in limits if rate]


def _dots(document):
    results = document["runs"]
    ours = next(iter(results.values()))
    total = [(name, [run["total_s"] for run in _ended(runs)]) for name, runs in results.items()]
    pause = [(name, [run["pause_ms"] for run in _ended(runs)]) for name, runs in results.items()]
    yield "<h2>Total time</h2><p>Each run is a dot, the stroke is the median. Dashed: in what time this machine would "
    yield "at best carry or copy what ours sent.</p>"
    yield svg.dots("Total time of each run", "s", total, _limits(document, ours))
    yield "<h2>Pause</h2>" + svg.dots("Pause of each run", "ms", pause)


def _pauses(ours):
    rows = [(f"run {number}", run["pause_items_us"]) for number, run in enumerate(ours, 1) if "failed" not in run]
    if not rows:
        return
    yield "<h2>What the pause is made of</h2><p>Ours, in microseconds. The number is the pause; the announcement to "
    yield "the network comes after it, when the guest runs already.</p>"
    yield svg.stacked("The pause of each run, itemised", "µs", PAUSE_PARTS, rows, apart=("announce",))


def _steps(run):
    for number, one in enumerate(run["round_list"], 1):
        us = max(one["us"], 1)
        yield (us, one["wire"], one["dirtied"] * PAGE_BITS * 1e6 / us, one["wire"] * 8 * 1e6 / us, f"round {number}")


def _rounds(ours):
    ended = [(number, run) for number, run in enumerate(ours, 1) if "failed" not in run and run["round_list"]]
    if not ended:
        return
    yield "<h2>Rounds over time</h2><p>Each bar is a round: as wide as it took, as high as the link carried, so that "
    yield "its area is its bytes. The line is what the guest dirtied meanwhile; the last round is in the pause.</p>"
    for number, run in ended[:ROUNDS_SHOWN]:
        yield f"<h3>Run {number}</h3>" + svg.rounds(f"Rounds of run {number}", list(_steps(run)))
    if len(ended) > ROUNDS_SHOWN:
        yield f"<p>{len(ended) - ROUNDS_SHOWN} more runs are in the JSON.</p>"


def _growth(grown):
    rows = grown["rows"]
    yield "<h2>Growth</h2>" + _table(growth.HEADER, growth.table(grown))
    yield "".join(f"<p>{svg.escape(remark)}</p>" for remark in growth.remarks(grown))
    names = list(rows[0]["runs"]) if rows else []
    for key, unit, title, predicted in (("total_s", "s", "Total time", "predicted_s"),
                                        ("pause_ms", "ms", "Pause", "predicted_pause_ms")):
        series = [(name, [(row["gib"], summary.median(row["runs"][name], key)) for row in rows], False)
                  for name in names]
        series.append(("predicted of ours", [(row["gib"], row[predicted]) for row in rows], True))
        series = [(name, [point for point in points if point[1] is not None], dashed)
                  for name, points, dashed in series]
        yield f"<h3>{title} by the guest's size</h3>" + svg.growth(title, unit, series)
    yield "<p>The time is predicted from idle guests of "
    yield " and ".join(f"{one['gib']} GiB" for one in grown["calibration"])
    yield ", measured just before: what is fixed, and what each GiB adds. The pause is what the engine predicted as it "
    yield "began it.</p>"


def _body(document, options, command):
    iperf = document["iperf3_bps"]
    limits = {"one iperf3 stream": f"{iperf / 1e9:.1f} Gbit/s" if iperf else "no iperf3",
              "memcpy": f"{document['memcpy_bps'] / 8e9:.1f} GB/s, one core"}
    yield f'<h1>Live migrations, measured</h1><p>{svg.escape(document["when"])}</p>'
    yield "<h2>What was run</h2>" + _facts({**document["machine"], **limits, **_settings(options)})
    yield f"<p><code>{svg.escape(command)}</code></p>"
    if document.get("growth"):
        yield from _growth(document["growth"])
    else:
        ours = next(iter(document["runs"].values()))
        yield from _summary(document)
        yield from _dots(document)
        yield from _pauses(ours)
        yield from _rounds(ours)


def page(document, options, command):
    """The whole page of what --json would hold."""
    return ('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
            'content="width=device-width,initial-scale=1"><title>vmpool: migrations measured</title>'
            f"<style>{STYLE}</style></head><body>\n" + "".join(_body(document, options, command)) +
            "\n</body></html>\n")

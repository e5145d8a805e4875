"""The figures of a day, written into docs/performance.md between its markers, and the plots beside the figures.

Again without measuring: `python -m tests.benchmarks.report [FOLDER [PAGE]]`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from . import plots
from .contestants import FLOOR, HERE, PEERS
from .limits import TRIALS
from .results import FOLDER, Record, load, middle, ratio
from .targets import by, findings
from .throughput import RACES

PAGE = HERE.parent.parent / "docs" / "performance.md"
TITLES = {
    "zero": "Zero latency, 64 at once",
    "slow64": "200 ms, 64 at once",
    "slow256": "200 ms, 256 at once",
    "slow1000": "200 ms, 1,000 at once",
    "mixed": "10 to 400 ms with 5 % refusals, 64 at once",
    "rate500": "500 requests a second allowed",
    "rate1200": "1,200 requests a minute allowed",
    "tokens": "600,000 tokens a minute allowed",
    "knee": "A server that takes 32 at once and queues the rest silently",
    "refusing": "A server that takes 32 at once and refuses the rest",
    "outage": "40 at once, others refused, and six seconds away",
    "start": "Start-up",
    "first": "The first request",
    "memory": "Memory of whole runs",
    "resume": "Going on with a finished run",
    "controller": "`--concurrency auto` on servers drawn at random",
    "journal": "The journal by itself",
}
NOTES = {
    "slow64": "Ideal is rows · 0.2 s / 64; whole waves alone cost 1.02. Peers run 2,000 rows, the others 10,000.",
    "mixed": "Ideal counts every refusal as one more trip, and no wait. Floors do not retry and stay out.",
    "first": "Seconds from the start of the process until the server saw a request; the process is ended three seconds later.",
    "resume": "The seed is a whole run with the answers from memory instead of HTTP; the rest is the installed command.",
    "knee": "`in flight` is the server's own count when a request arrives; more than its capacity means that requests queue.",
}


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, the first column left, the others right."""
    rule = "|---|" + "--:|" * (len(head) - 1)
    return "\n".join(["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(row) + " |" for row in rows)])


def shown(value: float | None, form: str = "{:,.2f}") -> str:
    """A figure, or a dash."""
    return "–" if value is None else form.format(value)


def _names(runs: list[Record]) -> list[str]:
    return list(dict.fromkeys(run["contestant"] for run in runs))


def _kind(runs: list[Record], name: str) -> str:
    return next(str(run["kind"]) for run in runs if run["contestant"] == name)


def _label(runs: list[Record], name: str) -> str:
    return f"**{name}**" if _kind(runs, name) == "ours" else name


def _rounds(runs: list[Record], name: str, rows: int | None = None) -> str:
    """How many rounds went well, of how many."""
    own = [run for run in runs if run["contestant"] == name and rows in (None, run.get("rows"))]
    good = sum(run.get("ok", True) for run in own)
    return str(good) if good == len(own) else f"{good} of {len(own)}"


def _race(runs: list[Record]) -> str:
    floor = any(run["contestant"] == FLOOR for run in runs)
    ideal = any(run.get("stretch") for run in runs)
    refused = any("429" in run.get("served", {}) for run in runs)
    head = ["", "rows", "req/s", "CPU ms/req", *(["CPU x", "wall x"] if floor else []), *(["wall / ideal"] if ideal else [])]
    head += [*(["requests", "of them refused"] if refused else []), "peak MiB", "rounds"]
    rows = []
    for name in sorted(_names(runs), key=lambda name: middle(by(runs, name), "cpu_ms") or 1e9):
        own = by(runs, name)
        cells = [_label(runs, name), shown(middle(own, "rows"), "{:,.0f}"), shown(middle(own, "rate"), "{:,.0f}")]
        cells.append(shown(middle(own, "cpu_ms")))
        if floor:
            same = middle(own, "rows") == middle(by(runs, FLOOR), "rows")
            cells += [shown(ratio(runs, name, FLOOR, "cpu_ms")), shown(ratio(runs, name, FLOOR, "wall_s") if same else None)]
        if ideal:
            cells.append(shown(middle(own, "stretch"), "{:.3f}"))
        if refused:
            sent = [{"all": sum(run["served"].values()), "refused": run["served"].get("429", 0)} for run in own]
            cells += [shown(middle(sent, "all"), "{:,.0f}"), shown(middle(sent, "refused"), "{:,.0f}")]
        rows.append([*cells, shown(middle(own, "peak_mib"), "{:,.0f}"), _rounds(runs, name)])
    return table(head, rows)


def _trial(runs: list[Record]) -> str:
    columns = {
        "requests": ("requests", "{:,.0f}"),
        "refused": ("refused", "{:,.0f}"),
        "used": ("rate used", "{:.2%}"),
        "worst_second": ("worst second", "{:,.0f}"),
        "in_flight_most": ("most in flight", "{:,.0f}"),
        "in_flight_median": ("median in flight", "{:,.0f}"),
    }
    present = [name for name in columns if any(name in run["server"] for run in runs)]
    head = ["", "rows", "rows/s", *(columns[name][0] for name in present), "CPU ms/row", "rounds"]
    rows = []
    for name in _names(runs):
        own = by(runs, name)
        server = [run["server"] for run in own]
        cells = [shown(middle(server, column), columns[column][1]) for column in present]
        counts = [shown(middle(own, "rows"), "{:,.0f}"), shown(middle(own, "rate"), "{:,.1f}")]
        rows.append([_label(runs, name), *counts, *cells, shown(middle(own, "cpu_ms")), _rounds(runs, name)])
    return table(head, rows)


def _start(runs: list[Record]) -> str:
    rows = [[_label(runs, name), shown(middle(by(runs, name), "wall_s"), "{:.3f}")] for name in _names(runs)]
    return table(["", "s"], rows)


def _first(runs: list[Record]) -> str:
    counts = sorted({run["rows"] for run in runs})
    head = ["", *(f"{count:,} rows, s" for count in counts), *(f"peak MiB at {count:,}" for count in counts)]
    rows = []
    for name in _names(runs):
        times = [shown(middle(by(runs, name, count), "first_s")) for count in counts]
        peaks = [shown(middle(by(runs, name, count), "early_peak_mib"), "{:,.0f}") for count in counts]
        rows.append([_label(runs, name), *times, *peaks])
    return table(head, rows)


def _sizes(runs: list[Record]) -> str:
    rows = []
    for name in _names(runs):
        for count in sorted({run["rows"] for run in runs if run["contestant"] == name}):
            own = by(runs, name, count)
            cells = [f"{count:,}", shown(middle(own, "wall_s"), "{:,.1f}"), shown(middle(own, "cpu_ms"), "{:.3f}")]
            rows.append([_label(runs, name), *cells, shown(middle(own, "peak_mib"), "{:,.0f}"), _rounds(runs, name, count)])
    return table(["", "rows", "s", "CPU ms/row", "peak MiB", "rounds"], rows)


def _drawing(name: str, runs: list[Record]) -> str | None:
    """The scenario's plot, where one says more than the table."""
    if name in RACES:
        figure, form, words = (
            ("stretch", "{:.2f}", "wall / ideal") if RACES[name].latency else ("cpu_ms", "{:.2f}", "CPU ms a request")
        )
        values = [(who, middle(by(runs, who), figure), _kind(runs, who)) for who in _names(runs)]
        bars = sorted(((who, value, kind) for who, value, kind in values if value is not None), key=lambda bar: bar[1])
        return plots.bars(f"{TITLES[name]}: {words}", bars, form, 1.0 if RACES[name].latency else None) if bars else None
    good = [run for run in runs if run.get("ok", True)]
    if name in {"rate500", "rate1200"} and good:
        series = [("", run["server"]["histogram"][:-1], "ours") for run in good]
        return plots.lines(f"{TITLES[name]}: requests in each second", series, "seconds", good[0]["allowed"]["rate"])
    if name in {"knee", "refusing"} and good:
        values = [(who, middle(by(runs, who), "rate"), "ours" if who == "auto" else "floor") for who in _names(runs)]
        return plots.bars(f"{TITLES[name]}: rows/s", [(who, value, kind) for who, value, kind in values if value], "{:,.0f}")
    return None


def _section(name: str, document: dict[str, Any], folder: Path) -> str:
    runs: list[Record] = document["runs"]
    if name not in RACES and runs and "text" in runs[0]:
        body = "\n".join(["```", *(run["text"].rstrip() for run in runs), "```"])
    elif name in RACES:
        body = _race(runs)
    elif name in TRIALS:
        body = _trial(runs)
    else:
        body = {"start": _start, "first": _first}.get(name, _sizes)(runs)
    parts = [f"### {TITLES[name]}", f"`{name}`, {document['taken']}. {NOTES.get(name, '')}".rstrip(), body]
    if drawing := _drawing(name, runs):
        (folder / f"{name}.svg").write_text(drawing)
        parts.append(f"![{TITLES[name]}]({os.path.relpath(folder / f'{name}.svg', PAGE.parent)})")
    failed = [run for run in runs if not run.get("ok", True)]
    if failed and "text" not in failed[0]:
        lost = [f"{run['contestant']}, round {run['round'] + 1}: {_why(run)}" for run in failed]
        parts.append(
            "Left out of the medians, because a row was not asked exactly once or has no answer:\n\n- " + "\n- ".join(lost)
        )
    return "\n\n".join(parts)


def _why(run: Record) -> str:
    served = ", ".join(f"{count:,} answered {status}" for status, count in sorted(run.get("served", {}).items()))
    words = [f"exit {run['code']}" if "code" in run else "could not be installed", served]
    if run.get("answered") is not None:
        words.append(f"{run['answered']:,} of {run['rows']:,} rows with an answer")
    return "; ".join(word for word in words if word)


def targets(figures: dict[str, list[Record]]) -> str:
    """The table of targets, and the misses by name."""
    rows: list[str] = []
    missed: list[str] = []
    short: list[str] = []
    for target, finding in findings(figures):
        if finding is None:
            verdict, text = "not measured", "–"
        else:
            text = finding.text
            verdict = "aim met" if finding.aim and finding.must else "must met" if finding.must else "**missed**"
            (missed if not finding.must else short if not finding.aim else []).append(f"{target.metric}: {text}")
        rows.append(f"| {target.metric} | {target.must} | {target.aim} | {text} | {verdict} |")
    parts = ["\n".join(["| metric | must | aim | measured | |", "|---|---|---|---|---|", *rows])]
    for words, those in (("Missed", missed), ("Short of the aim", short)):
        if those:
            parts.append(f"{words}:\n\n- " + "\n- ".join(those))
    return "\n\n".join(parts)


def setting(documents: dict[str, dict[str, Any]]) -> str:
    """Machine, dates and versions."""
    one = next(iter(documents.values()))
    machine, versions = one["machine"], one["versions"]
    days = sorted({document["taken"][:10] for document in documents.values()})
    pins = {peer.name: _pin(peer.name) for peer in PEERS}
    floors = [line.strip() for line in (HERE / "floors.txt").read_text().splitlines()]
    clients = [line.replace("==", " ") for line in floors if line.startswith(("aiohttp=", "pycurl=", "requests=", "urllib3="))]
    library = ", ".join(f"{name} {versions[name]}" for name in ("requests", "urllib3", "pandas") if name in versions)
    lines = [
        f"Taken {' and '.join(days)} on {machine['cores']} cores ({machine['processor']}), {machine['memory_gib']} GiB, "
        f"{machine['system']}, CPython {machine['python']}, target {machine['target']}.",
        f"ails-batch {versions.get('ails-batch', '?')} with {library}; clients: {', '.join(clients)}; "
        f"peers: {', '.join(f'{name} {version}' for name, version in pins.items())}.",
    ]
    if any(document["quick"] for document in documents.values()):
        lines.append("**These are figures of a quick run, which shows that everything works and measures nothing.**")
    return "\n\n".join(lines)


def _pin(peer: str) -> str:
    package = {"curator": "bespokelabs-curator"}.get(peer, peer)
    lines = (HERE / "peers" / f"{peer.replace('-', '_')}.txt").read_text().splitlines()
    return next(line.split("==")[1] for line in lines if line.startswith(f"{package}=="))


def between(page: str, marker: str, text: str) -> str:
    """The page with everything between a pair of markers replaced."""
    start, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    before, rest = page.split(start, 1)
    return f"{before}{start}\n{text}\n{end}{rest.split(end, 1)[1]}"


def write(folder: Path, page: Path = PAGE) -> None:
    """Fill the page with the figures of a folder."""
    documents = load(folder)
    if not documents:
        raise SystemExit(f"no figures in {folder}: run python -m tests.benchmarks")
    figures = {name: document["runs"] for name, document in documents.items()}
    text = page.read_text(encoding="utf-8")
    text = between(text, "setting", setting(documents))
    text = between(text, "targets", targets(figures))
    text = between(
        text, "figures", "\n\n".join(_section(name, documents[name], folder) for name in TITLES if name in documents)
    )
    page.write_text(text, encoding="utf-8")
    print(f"{page} from {folder}", file=sys.stderr)


def latest() -> Path:
    """The newest day's folder."""
    days = sorted(path for path in FOLDER.glob("*") if path.is_dir())
    if not days:
        raise SystemExit(f"no figures in {FOLDER}: run python -m tests.benchmarks")
    return days[-1]


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else latest(), Path(sys.argv[2]) if len(sys.argv) > 2 else PAGE)

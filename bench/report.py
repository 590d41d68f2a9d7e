"""What was measured as tables and a plot, and the page of the docs that shows them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import orjson

from bench import cases
from bench.figures import middle, paired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "explanation" / "performance.md"
PLOT = PAGE.with_suffix(".svg")
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

_MIB = 1024 * 1024
_SIZES = ("1k", "32k", "256k")

# What the project set itself, as (what, case, to which, size, at most so many times).
GOALS: tuple[tuple[str, str, str, float], ...] = (
    ("pass-through", "nginx proxy", "1k", 2.5),
    ("pass-through", "nginx proxy", "32k", 2.5),
    ("pass-through", "nginx proxy", "256k", 2.5),
    ("miss, stored", "sglang-router", "32k", 0.7),
    ("miss, stored", "sglang-router", "256k", 0.7),
    ("hit by door", "nginx cache hit", "32k", 0.75),
    ("hit by door", "nginx cache hit, digest", "256k", 0.5),
    ("hit from Redis", "hit by full parse", "1k", 1.5),
    ("hit from Redis", "hit by full parse", "32k", 1.5),
    ("hit from Redis", "hit by full parse", "256k", 1.5),
)


class Rows:
    """The rows of one result, asked by case and size."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self._rows = rows

    def values(self, kind: str, case: str, size: str | None, figure: str) -> list[float]:
        """One figure of a case, round by round."""
        return [
            row[figure]
            for row in self._rows
            if row["kind"] == kind
            and row["case"] == case
            and row.get("size") == size
            and row.get(figure) is not None
        ]

    def middle(self, kind: str, case: str, size: str | None, figure: str) -> float | None:
        return middle(self.values(kind, case, size, figure))

    def times(self, kind: str, case: str, to: str, size: str | None, figure: str) -> float | None:
        """The median of the ratios of two cases in the same round."""
        return paired(self.values(kind, case, size, figure), self.values(kind, to, size, figure))

    def cases(self, kind: str) -> list[str]:
        """Every case of the kind, in the order of the run."""
        return list(dict.fromkeys(row["case"] for row in self._rows if row["kind"] == kind))


def markdown(result: dict[str, Any]) -> str:
    """The tables of a result."""
    rows = Rows(result["rows"])
    told = [case for case in rows.cases("requests") if "traces" not in case]
    method = result["method"]
    parts = [
        f"Taken {result['taken']}: {method['rounds']} interleaved rounds of {method['seconds']} s; "
        + ", ".join(f"{name} {value}" for name, value in result["machine"].items())
        + "".join(f", {name}" for name in result["peers"])
        + ".",
    ]
    if told:
        parts += [
            "\n### CPU per request\n",
            "Microseconds of one core, and in brackets how many times nginx's as plain proxy.\n",
            _table(told, lambda case, size: _cpu(rows, case, size)),
            "\n### Requests per second\n",
            f"At {method['connections']} connections, the server on one core.\n",
            _table(told, lambda case, size: _plain(rows, case, size, "per_s")),
            "\n### Added latency\n",
            "Microseconds beyond going direct, at one connection: p50 / p99.\n",
            _table([c for c in told if c != "direct"], lambda case, size: _added(rows, case, size)),
        ]
    streams = rows.cases("streams")
    if streams:
        parts += ["\n### Paced streams\n", _stream_table(rows, streams, method)]
    traced = [v for v in cases.TELEMETRY if any(f"traces {v}" in c for c in rows.cases("requests"))]
    if traced:
        parts += ["\n### Tracing\n", _telemetry_table(rows, traced)]
    parts += ["\n### Memory and start\n", _facts_table(result["facts"])]
    if goals := list(_goals(rows)):
        parts += [
            "\n### Goals\n",
            "| CPU per request | at most | measured | |",
            "| --- | --- | --- | --- |",
        ]
        parts += goals
    parts += [
        f"\nNot measured: {case}: {problem}" for case, problem in sorted(result["refused"].items())
    ]
    return "\n".join(parts) + "\n"


def write(result: dict[str, Any], text: str) -> None:
    """Keep the raw result, and show it in the docs."""
    RESULTS.mkdir(exist_ok=True)
    raw = orjson.dumps(result, option=orjson.OPT_APPEND_NEWLINE)
    # A line for each row: small, and its changes can be read.
    raw = raw.replace(b'{"kind"', b'\n{"kind"')
    (RESULTS / f"{result['taken']}.json").write_bytes(raw)
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")
    PLOT.write_text(plot(Rows(result["rows"]), "32k"), encoding="utf-8")


def _table(names: Iterable[str], cell: Callable[[str, str], str]) -> str:
    lines = ["| | 1 KB | 32 KB | 256 KB |", "| --- | ---: | ---: | ---: |"]
    lines += [
        f"| {name} | " + " | ".join(cell(name, size) for size in _SIZES) + " |" for name in names
    ]
    return "\n".join(lines)


def _cpu(rows: Rows, case: str, size: str) -> str:
    value = rows.middle("requests", case, size, "cpu_us")
    times = rows.times("requests", case, "nginx proxy", size, "cpu_us")
    if value is None:
        return "-"
    return f"{value:.0f} ({times:.1f}x)" if times is not None else f"{value:.0f}"


def _plain(rows: Rows, case: str, size: str, figure: str) -> str:
    value = rows.middle("requests", case, size, figure)
    return "-" if value is None else f"{value:,.0f}"


def _added(rows: Rows, case: str, size: str) -> str:
    told = []
    for figure in ("p50_us", "p99_us"):
        value = rows.middle("requests", case, size, figure)
        direct = rows.middle("requests", "direct", size, figure)
        if value is None or direct is None:
            return "-"
        told.append(f"{value - direct:.0f}")
    return " / ".join(told)


def _stream_table(rows: Rows, names: Sequence[str], method: dict[str, Any]) -> str:
    lines = [
        (
            f"{method['streams']} streams at once, {method['events']} events each, 20 ms apart. Lateness: "
            "from the stub's write to the client's read, in microseconds.\n"
        ),
        "| | CPU per event, us | x nginx | first byte p50 | lateness p50 | p99 | p99/p50 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in names:
        cpu = rows.middle("streams", name, None, "cpu_us")
        times = rows.times("streams", name, "nginx proxy", None, "cpu_us")
        spread = paired(
            rows.values("streams", name, None, "p99_us"),
            rows.values("streams", name, None, "p50_us"),
        )
        figures = [
            rows.middle("streams", name, None, f) for f in ("first_p50_us", "p50_us", "p99_us")
        ]
        cells = [_one(cpu, 1), _one(times, 2), *(_one(f, 0) for f in figures), _one(spread, 1)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _telemetry_table(rows: Rows, variants: Sequence[str]) -> str:
    lines = [
        "CPU per request at 32 KB, as a ratio to no traces.\n",
        "| traces | hit by door | miss, stored |",
        "| --- | ---: | ---: |",
    ]
    for variant in variants:
        cells = []
        for what in ("hit", "miss"):
            names = f"{what}, traces {variant}", f"{what}, traces off"
            times = rows.times("requests", *names, "32k", "cpu_us")
            cells.append("-" if times is None else f"{times:.2f}x")
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _facts_table(facts: dict[str, dict[str, float]]) -> str:
    lines = ["| | start, s | idle, MiB | after load, MiB |", "| --- | ---: | ---: | ---: |"]
    for name, known in facts.items():
        if "traces" in name:
            continue
        idle, loaded = known.get("rss_idle_bytes"), known.get("rss_loaded_bytes")
        cells = [
            _one(known.get("start_s"), 2),
            _one(idle / _MIB if idle else None, 0),
            _one(loaded / _MIB if loaded else None, 0),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _goals(rows: Rows) -> Iterable[str]:
    for case, to, size, most in GOALS:
        times = rows.times("requests", case, to, size, "cpu_us")
        if times is not None:
            verdict = "reached" if times <= most else "**not reached**"
            yield f"| {case} to {to}, {size} | {most}x | {times:.2f}x | {verdict} |"
    for case in ("pass-through", "miss, stored"):
        times = rows.times("streams", case, "nginx proxy", None, "cpu_us")
        if times is not None:
            verdict = "reached" if times <= 2 else "**not reached**"
            yield f"| {case} to nginx proxy, per event | 2x | {times:.2f}x | {verdict} |"
    for what in ("hit", "miss"):
        # Spans are made either way: what a dead collector adds is what it adds to a live one.
        names = f"{what}, traces dead collector", f"{what}, traces 100 %"
        times = rows.times("requests", *names, "32k", "cpu_us")
        if times is not None:
            verdict = "reached" if times <= 1.05 else "**not reached**"
            yield f"| {what}, a dead collector to a live one, 32k | 1.05x | {times:.2f}x | {verdict} |"


def _one(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def plot(rows: Rows, size: str) -> str:
    """Bars of the CPU time per request, as SVG; the scale is linear up to the longest."""
    bars = [
        (name, value)
        for name in rows.cases("requests")
        if "traces" not in name
        and (value := rows.middle("requests", name, size, "cpu_us")) is not None
    ]
    longest = max((value for _, value in bars), default=1.0)
    # The slowest peers would press all others into one pixel: their bars are cut, and say so.
    limit = min(longest, 8 * sorted(value for _, value in bars)[len(bars) // 2]) if bars else 1.0
    height = 24 * len(bars) + 48
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}" '
            'font-family="sans-serif" font-size="13">'
        ),
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="10" y="20" font-weight="bold">CPU per request at {size}, microseconds</text>',
    ]
    for number, (name, value) in enumerate(bars):
        top = 34 + 24 * number
        width = max(1.0, min(value, limit) / limit * 440)
        own = not name.startswith(("nginx", "direct", "floor")) and name in {
            c.name for c in cases.PLAIN
        }
        cut = " (cut)" if value > limit else ""
        lines += [
            f'<text x="200" y="{top + 13}" text-anchor="end">{escape(name)}</text>',
            (
                f'<rect x="208" y="{top}" width="{width:.1f}" height="18" '
                f'fill="{"#c2410c" if own else "#94a3b8"}"/>'
            ),
            f'<text x="{214 + width:.1f}" y="{top + 13}">{value:,.0f}{cut}</text>',
        ]
    return "\n".join([*lines, "</svg>\n"])

"""What a bench found, as one page with plots that needs nothing from the network."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from gateway.benchcmd.report import head, notes, rows

if TYPE_CHECKING:
    from collections.abc import Sequence

Json = dict[str, Any]

_WIDTH, _LABEL, _BAR = 860, 130, 26

_STYLE = """
:root { color-scheme: light dark; --ink: #111; --paper: #fff; --pale: #555; --rule: #ddd;
  --now: #2563eb; --was: #9ca3af }
@media (prefers-color-scheme: dark) { :root { --ink: #e5e7eb; --paper: #111418; --pale: #9ca3af;
  --rule: #374151; --now: #60a5fa; --was: #6b7280 } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 900px; padding: 0 1rem;
  color: var(--ink); background: var(--paper) }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0;
  display: block; overflow-x: auto }
td, th { padding: .15rem .7rem; text-align: right; border-bottom: 1px solid var(--rule);
  white-space: nowrap }
td:first-child, th:first-child { text-align: left }
svg { display: block; margin: 1rem 0; max-width: 100%; height: auto }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink) }
.now { fill: var(--now) } .was { fill: var(--was) }
.spread { stroke: var(--ink); stroke-width: 1.5; fill: none }
.note { color: var(--pale) }
"""


def as_page(found: Json, before: Json | None) -> str:
    """A whole HTML document."""
    said = "".join(f"<br>{escape(note)}" for note in notes(found))
    legend = "<br>The paler bars are what was measured before." if before is not None else ""
    inner = "\n".join(_section(found, name, before) for name in found["cases"])
    return (
        "<!doctype html>\n<html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width">'
        f"<title>Bench of {escape(found['model'])}</title><style>{_STYLE}</style>\n"
        f"<h1>{escape(found['model'])}</h1>\n<p class=note>{escape(head(found))}, "
        f"{escape(found['began'])}{said}{legend}</p>\n{inner}\n</html>\n"
    )


def _section(found: Json, name: str, before: Json | None) -> str:
    case = found["cases"][name]
    ratios = "".join(
        f"<p><b>{escape(what)}: {ratio:.2f}</b></p>" for what, ratio in case["ratios"].items()
    )
    failed = "".join(f"<p class=note>{escape(why)}</p>" for why in case["failures"])
    refused = "".join(
        f"<p class=note>{escape(row)}: refused: {escape(told['refused'])}</p>"
        for row, told in case["rows"].items()
        if told["refused"]
    )
    rate = any(row["tokens_per_s_together"] for row in case["rows"].values())
    plots = [_bars(case, _rows_before(before, name), "ttft_s", "Seconds to the first token")]
    if name == "max-tokens" or rate:
        plots.append(_bars(case, _rows_before(before, name), "tokens_per_s", "Tokens a second"))
    return (
        f"<h2>{escape(case['title'])}</h2>\n{ratios}{''.join(plots)}\n"
        f"{_table(list(rows(found, name, before)))}{failed}{refused}"
    )


def _table(shown: Sequence[tuple[str, ...]]) -> str:
    first, *rest = shown
    top = "".join(f"<th>{escape(cell)}" for cell in first)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) for row in rest)
    return f"<table><tr>{top}{body}</table>"


def _rows_before(before: Json | None, name: str) -> Json:
    case = (before or {}).get("cases", {}).get(name)
    told = case.get("rows") if isinstance(case, dict) else None
    return told if isinstance(told, dict) else {}


def _bars(case: Json, were: Json, what: str, title: str) -> str:
    """One bar for each row, with its middle half, and below it what it was before."""
    bars: list[tuple[str, str, Json]] = []
    for name, row in case["rows"].items():
        if row[what]:
            bars.append((name, "now", row[what]))
        was = were.get(name)
        if isinstance(was, dict) and _is_spread(was.get(what)):
            bars.append(("" if row[what] else name, "was", was[what]))
    if not bars:
        return ""
    most = max(spread["q3"] for _, _, spread in bars) or 1.0
    scale = (_WIDTH - _LABEL - 110) / most
    parts = []
    for number, (name, kind, spread) in enumerate(bars):
        y = number * _BAR
        low, middle, high = (_LABEL + scale * spread[of] for of in ("q1", "median", "q3"))
        parts.append(
            f'<text x="{_LABEL - 8}" y="{y + 17}" text-anchor="end">{escape(name)}</text>'
            f'<rect class="{kind}" x="{_LABEL}" y="{y + 4}" width="{middle - _LABEL:.1f}" height="18"/>'
            f'<path class="spread" d="M{low:.1f} {y + 13}H{high:.1f}"/>'
            f'<text x="{high + 8:.1f}" y="{y + 17}">{spread["median"]:,.4g}</text>'
        )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {len(bars) * _BAR}" width="{_WIDTH}" role="img" '
        f'aria-label="{title}"><title>{title}</title>{"".join(parts)}</svg>'
        f"<p class=note>{title}</p>"
    )


def _is_spread(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(name), int | float) for name in ("q1", "median", "q3")
    )

"""What replays found, as one page with plots that needs nothing from the network."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from gateway.lab.replay_report import HEAD, rows
from gateway.providers.prices import PER_USD

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.lab.cache_replay import Outcome

_COLOURS = ("#6b7280", "#d97706", "#2563eb", "#7c3aed", "#059669")
_WIDTH, _BAR, _LABEL = 860, 26, 130
_HEIGHT, _MARGIN = 260, 60
_POINTS = 400
"""Of a line, at most: a pixel has room for no more."""

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 900px; color: #111 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0 }
td, th { padding: .15rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left }
svg { display: block; margin: 1rem 0; max-width: 100% }
svg text { font: 12px system-ui, sans-serif }
.note { color: #555 }
"""


def as_page(outcomes: Sequence[Outcome]) -> str:
    """A whole HTML document."""
    inner = "\n".join(_section(outcome) for outcome in outcomes)
    return (
        "<!doctype html>\n<html lang=en><meta charset=utf-8><title>Replay</title>"
        f"<style>{_STYLE}</style>\n<h1>What the prompts would have cost</h1>\n"
        "<p>Input only. The dashed line is the optimum, had the future been known.</p>\n"
        f"{inner}\n</html>\n"
    )


def _section(outcome: Outcome) -> str:
    notes = "".join(f"<br>{escape(note)}" for note in outcome.notes)
    return (
        f"<h2>{escape(outcome.trace)}</h2>\n<p class=note>against {escape(outcome.against)}: "
        f"{outcome.requests:,} requests, {outcome.input_tokens:,} input tokens{notes}</p>\n"
        f"{_table(outcome)}\n{_bars(outcome)}\n{_lines(outcome)}"
    )


def _table(outcome: Outcome) -> str:
    head = "".join(f"<th>{escape(cell)}" for cell in HEAD)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) for row in rows(outcome))
    return f"<table><tr>{head}{body}</table>"


def _bars(outcome: Outcome) -> str:
    """One bar for each policy, as long as its cost."""
    costs = [("without cache", float(outcome.without_cache))]
    costs += [(name, float(spent.cost)) for name, spent in outcome.policies.items()]
    most = max((cost for _, cost in costs), default=0.0) or 1.0
    room = _WIDTH - _LABEL - 100
    parts = []
    for row, (name, cost) in enumerate(costs):
        y = row * _BAR
        colour = "#d1d5db" if not row else _COLOURS[(row - 1) % len(_COLOURS)]
        width = room * cost / most
        parts.append(
            f'<text x="{_LABEL - 8}" y="{y + 17}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{_LABEL}" y="{y + 4}" width="{width:.1f}" height="18" fill="{colour}"/>'
            f'<text x="{_LABEL + width + 6:.1f}" y="{y + 17}">{cost / PER_USD:,.4f} USD</text>'
        )
    best = _LABEL + room * outcome.optimum / most
    height = len(costs) * _BAR
    parts.append(
        f'<path d="M{best:.1f} 0V{height}" stroke="#dc2626" stroke-dasharray="4 3" fill="none"/>'
    )
    return _svg(height, "Cost of each policy", parts)


def _lines(outcome: Outcome) -> str:
    """What was spent until each moment, for every policy but the dearest that caches nothing."""
    drawn = {name: line for name, line in outcome.timeline.items() if line and name != "none"}
    if not drawn:
        return ""
    last = max(line[-1][0] for line in drawn.values()) or 1.0
    most = max(line[-1][1] for line in drawn.values()) or 1
    room, top = _WIDTH - _MARGIN - 120, 16
    parts = []
    for number, (name, line) in enumerate(drawn.items()):
        colour = _COLOURS[(list(outcome.policies).index(name)) % len(_COLOURS)]
        points = " ".join(
            f"{_MARGIN + room * at / last:.1f},{_HEIGHT - 30 - (_HEIGHT - 30 - top) * cost / most:.1f}"
            for at, cost in _thinned(line)
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
            f'<text x="{_WIDTH - 110}" y="{top + 16 * number + 4}" fill="{colour}">'
            f"{escape(name)}</text>"
        )
    parts.append(
        f'<path d="M{_MARGIN} {top}V{_HEIGHT - 30}H{_MARGIN + room}" fill="none" stroke="#999"/>'
        f'<text x="{_MARGIN - 6}" y="{top + 4}" text-anchor="end">{most / PER_USD:,.2f}</text>'
        f'<text x="{_MARGIN - 6}" y="{_HEIGHT - 26}" text-anchor="end">0 USD</text>'
        f'<text x="{_MARGIN + room}" y="{_HEIGHT - 10}" text-anchor="end">{last / 3600:,.1f} h</text>'
    )
    return _svg(_HEIGHT, "Spent over time", parts)


def _thinned(line: Sequence[tuple[float, int]]) -> Iterator[tuple[float, int]]:
    step = max(1, len(line) // _POINTS)
    yield from line[:-1:step]
    yield line[-1]


def _svg(height: int, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img" '
        f'aria-label="{title}"><title>{title}</title>{"".join(parts)}</svg>'
    )

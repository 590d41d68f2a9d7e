"""What replays of routing found, as one page with plots that needs nothing from the network."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

from gateway.lab.route_report import ROUTE_HEAD, route_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.lab.route_replay import Routed, RouteOutcome

_WIDTH, _BAR, _LABEL, _VALUE = 860, 24, 130, 110
_OURS = "prefix"

_STYLE = """
:root { color-scheme: light dark; --ink: #111; --page: #fff; --soft: #555; --rule: #ddd;
  --bar: #9ca3af; --ours: #059669; --ideal: #dc2626 }
@media (prefers-color-scheme: dark) { :root { --ink: #e5e7eb; --page: #111827; --soft: #9ca3af;
  --rule: #374151; --bar: #6b7280; --ours: #34d399; --ideal: #f87171 } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 900px; padding: 0 1rem;
  color: var(--ink); background: var(--page) }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0 }
td, th { padding: .15rem .7rem; text-align: right; border-bottom: 1px solid var(--rule) }
td:first-child, th:first-child { text-align: left }
svg { display: block; margin: .3rem 0 1.2rem; max-width: 100%; height: auto }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink) }
svg rect { fill: var(--bar) } svg rect.ours { fill: var(--ours) }
svg path { stroke: var(--ideal); fill: none; stroke-dasharray: 4 3 }
svg path.shared { stroke: var(--soft) }
h3 { margin: 1rem 0 0; font-size: 1rem }
.note { color: var(--soft) }
"""


class _Line(NamedTuple):
    """A dashed one, at what no policy can surpass."""

    value: float
    kind: str


class _Plot(NamedTuple):
    """One bar for each policy."""

    title: str
    value: Callable[[Routed], float]
    spelled: Callable[[float], str]
    lines: tuple[_Line, ...] = ()


def routes_page(outcomes: Sequence[RouteOutcome]) -> str:
    """A whole HTML document."""
    inner = "\n".join(_section(outcome) for outcome in outcomes)
    return (
        "<!doctype html>\n<html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width"><title>Routing replay</title>'
        f"<style>{_STYLE}</style>\n<h1>Who gets the request</h1>\n"
        "<p>The same traffic past each policy. The dashed line in red is a cache that never forgets "
        "anything and that all engines share, the grey one a shared cache as large as all of theirs "
        "together; in the other plots, the best that can be: no difference, no waiting. Times are "
        "for comparing policies, not for predicting an engine's.</p>\n"
        f"{inner}\n</html>\n"
    )


def _section(outcome: RouteOutcome) -> str:
    notes = "".join(f"<br>{escape(note)}" for note in outcome.notes)
    plots = (
        _Plot(
            "Prompt tokens that were cached",
            lambda routed: routed.hit,
            lambda value: f"{value:.2f} %",
            (_Line(outcome.ideal_hit, "ideal"), _Line(outcome.shared_lru_hit, "shared")),
        ),
        _Plot(
            "Imbalance: tokens computed by the busiest engine, over the mean",
            lambda routed: routed.imbalance,
            lambda value: f"{value:.2f}",
            (_Line(1.0, "ideal"),),
        ),
        _Plot("Time to first token, median", lambda routed: routed.ttft_p50_s, _seconds),
        _Plot("Time to first token, 90th percentile", lambda routed: routed.ttft_p90_s, _seconds),
    )
    drawn = "\n".join(_drawn(plot, outcome) for plot in plots)
    return (
        f"<h2>{escape(outcome.trace)}</h2>\n<p class=note>{outcome.requests:,} requests, "
        f"{outcome.input_tokens:,} input tokens<br>{escape(outcome.setting)}{notes}</p>\n"
        f"{_table(outcome)}\n{drawn}"
    )


def _table(outcome: RouteOutcome) -> str:
    head = "".join(f"<th>{escape(cell)}" for cell in ROUTE_HEAD)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) for row in route_rows(outcome)
    )
    return f"<table><tr>{head}{body}</table>"


def _drawn(plot: _Plot, outcome: RouteOutcome) -> str:
    values = {name: plot.value(routed) for name, routed in outcome.policies.items()}
    most = max((*values.values(), *(line.value for line in plot.lines)), default=0.0) or 1.0
    room = _WIDTH - _LABEL - _VALUE
    height = len(values) * _BAR
    parts = []
    for row, (name, value) in enumerate(values.items()):
        y = row * _BAR
        width = room * value / most
        kind = ' class="ours"' if name == _OURS else ""
        parts.append(
            f'<text x="{_LABEL - 8}" y="{y + 16}" text-anchor="end">{escape(name)}</text>'
            f'<rect{kind} x="{_LABEL}" y="{y + 3}" width="{width:.1f}" height="18"/>'
            f'<text x="{_LABEL + room + 8}" y="{y + 16}">{escape(plot.spelled(value))}</text>'
        )
    for line in plot.lines:
        x = _LABEL + room * line.value / most
        parts.append(f'<path class="{line.kind}" d="M{x:.1f} 0V{height}"/>')
    title = escape(plot.title)
    return (
        f'<h3>{title}</h3><svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" aria-label="{title}"><title>{title}</title>{"".join(parts)}</svg>'
    )


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value < 100 else f"{value:,.0f} s"

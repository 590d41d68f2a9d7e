"""What a replay of routing found, as a table and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.lab.route_replay import RouteOutcome

ROUTE_HEAD = ("", "hit", "imbalance", "TTFT p50", "TTFT p90", "moves")


def routes_as_json(outcome: RouteOutcome) -> dict[str, Any]:
    """One object for one trace: hits in percent, times in seconds."""
    return {
        "trace": outcome.trace,
        "requests": outcome.requests,
        "ideal_hit": round(outcome.ideal_hit, 2),
        "shared_lru_hit": round(outcome.shared_lru_hit, 2),
        "policies": {
            name: {
                "hit": round(routed.hit, 2),
                "imbalance": round(routed.imbalance, 3),
                "ttft_p50_s": round(routed.ttft_p50_s, 3),
                "ttft_p90_s": round(routed.ttft_p90_s, 3),
                "moves": routed.moves,
            }
            for name, routed in outcome.policies.items()
        },
    }


def routes_as_table(outcome: RouteOutcome) -> str:
    """A table for people, with a line for each policy, and for what no policy can surpass."""
    shown = [ROUTE_HEAD, *route_rows(outcome)]
    widths = [max(len(row[i]) for row in shown) for i in range(len(ROUTE_HEAD))]
    lines = [
        f"{outcome.trace}: {outcome.requests:,} requests, {outcome.input_tokens:,} input tokens",
        outcome.setting,
        *(f"({note})" for note in outcome.notes),
    ]
    for row in shown:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def route_rows(outcome: RouteOutcome) -> Iterator[tuple[str, ...]]:
    """The table's lines as text, in the order of ROUTE_HEAD."""
    for name, routed in outcome.policies.items():
        yield (
            name,
            f"{routed.hit:.2f} %",
            f"{routed.imbalance:.2f}",
            f"{routed.ttft_p50_s:.2f} s",
            f"{routed.ttft_p90_s:.2f} s",
            f"{routed.moves:,}",
        )
    empty = ("",) * 4
    yield ("one cache as large as all", f"{outcome.shared_lru_hit:.2f} %", *empty)
    yield ("one cache without end", f"{outcome.ideal_hit:.2f} %", *empty)

"""What a replay found, as a table and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.providers.prices import PER_USD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.lab.cache_replay import Outcome

HEAD = ("", "USD", "of optimum", "saved", "read", "write 5m", "write 1h", "uncached", "rejected")


def as_json(outcome: Outcome) -> dict[str, Any]:
    """One object for one trace."""
    return {
        "trace": outcome.trace,
        "provider": outcome.against,
        "requests": outcome.requests,
        "input_tokens": outcome.input_tokens,
        "optimum_usd": outcome.optimum / PER_USD,
        "optimum_is": outcome.optimum_is,
        "policies": {
            name: {
                "cost_usd": spent.usd,
                "read_tokens": spent.read,
                "write_5m_tokens": spent.write_5m,
                "write_1h_tokens": spent.write_1h,
                "uncached_tokens": spent.uncached,
                "rejected": spent.rejected,
            }
            for name, spent in outcome.policies.items()
        },
    }


def as_table(outcome: Outcome) -> str:
    """A table for people, with a line for each policy, and for nothing and the best possible."""
    shown = [HEAD, *rows(outcome)]
    widths = [max(len(row[i]) for row in shown) for i in range(len(HEAD))]
    lines = [
        (
            f"{outcome.trace} against {outcome.against}: {outcome.requests:,} requests, "
            f"{outcome.input_tokens:,} input tokens"
        ),
        *(f"({note})" for note in outcome.notes),
    ]
    for row in shown:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def rows(outcome: Outcome) -> Iterator[tuple[str, ...]]:
    """The table's lines as text, in the order of HEAD."""
    base, best = outcome.without_cache, outcome.optimum
    total = max(1, outcome.input_tokens)
    empty = ("",) * 5
    yield ("without cache", _usd(base), _ratio(base, best), "", *empty)
    for name, spent in outcome.policies.items():
        yield (
            name,
            _usd(spent.cost),
            _ratio(spent.cost, best),
            _share(base - spent.cost, base),
            _share(spent.read, total),
            _share(spent.write_5m, total),
            _share(spent.write_1h, total),
            _share(spent.uncached, total),
            str(spent.rejected),
        )
    word = "optimum" if outcome.optimum_is == "exact" else "lower bound"
    yield (word, _usd(best), _ratio(best, best), _share(base - best, base), *empty)


def _usd(picodollars: float) -> str:
    return f"{picodollars / PER_USD:,.4f}"


def _ratio(cost: float, best: float) -> str:
    return f"{cost / best:.4f}" if best else ""


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.2%}" if whole else ""

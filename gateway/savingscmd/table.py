"""As people read it: a table of 80 columns, what saved it, and what is not known."""

from __future__ import annotations

from typing import Any

WIDTH = 80
_AMOUNTS = ("calls", "answers", "paid $", "saved $", "others $", "without $")
_NUMBER = 9
_SHARE = 6
_LEAST = 0.00005
"""Dollars that four digits show."""
# So many rows fit a screen; more are there for programs.
MOST_ROWS = 1000


def as_table(told: dict[str, Any]) -> str:
    """The rows, the sum under them, and notes."""
    by = told["by"]
    room = WIDTH - len(_AMOUNTS) * (_NUMBER + 1) - _SHARE - 1
    lines = [f"{told['since']} to {told['until']} (UTC), kept in {told['kept_in']}", ""]
    lines += _head(by, room)
    lines += [_line(_named(row, by), row, room) for row in told["rows"][:MOST_ROWS]]
    hidden = len(told["rows"]) - MOST_ROWS
    if hidden > 0:
        lines.append(f"({hidden:,} rows more: --csv has all)")
    lines += ["-" * WIDTH, _line("total", told["total"], room), ""]
    lines += _saved_by(told["total"])
    lines += _notes(told)
    return "\n".join(lines) + "\n"


def dollars(value: float | None, *, partly: bool = False) -> str:
    """With cents; four digits more below a dollar, and a `+` for a lower bound."""
    if value is None:
        return "unknown"
    value += 0.0  # (-0.0 is no amount)
    if 0 < abs(value) < _LEAST:
        return ("<0.0001" if value > 0 else "-0.0000") + "+" * partly
    digits = 2 if abs(value) >= 100 or value == 0 else 4
    text = f"{value:,.{digits}f}"
    if len(text) > _NUMBER - partly:
        text = f"{value:,.0f}"
    if len(text) > _NUMBER - partly:
        text = f"{value / 1e6:,.1f}M"
    return text + "+" * partly


def _count(number: int) -> str:
    text = f"{number:,}"
    return text if len(text) <= _NUMBER else f"{number / 1e6:,.1f}M"


def _head(by: list[str], room: int) -> list[str]:
    name = ", ".join(by) or "all"
    cells = "".join(f" {each:>{_NUMBER}}" for each in _AMOUNTS)
    return [f"{_fitted(name, room)}{cells} {'share':>{_SHARE}}"]


def _line(name: str, row: dict[str, Any], room: int) -> str:
    unknown = row["unknown"]
    partly = bool(unknown["calls"] or unknown["unpriced_calls"])
    hits = bool(unknown["answers"] or unknown["unpriced_answers"])
    cells = [
        _count(row["calls"]),
        _count(row["answers"]),
        dollars(row["paid_usd"], partly=partly and row["paid_usd"] is not None),
        dollars(row["saved_usd"], partly=hits and row["saved_usd"] is not None),
        dollars(row["others_usd"]),
        dollars(row["without_usd"], partly=(partly or hits) and row["without_usd"] is not None),
    ]
    # (Of one cause alone it would always be all.)
    share = "" if row["share"] is None or "cause" in row else f"{row['share']:.1%}"
    told = "".join(f" {cell:>{_NUMBER}}" for cell in cells)
    # A long name stands on a line of its own.
    if len(name) > room:
        return f"{name[:WIDTH]}\n{' ' * room}{told} {share:>{_SHARE}}"
    return f"{name:<{room}}{told} {share:>{_SHARE}}"


def _named(row: dict[str, Any], by: list[str]) -> str:
    return " ".join(row[name] or "-" for name in by) or "all"


def _fitted(text: str, room: int) -> str:
    return f"{text:<{room}}" if len(text) <= room else f"{text}\n{' ' * room}"


def _saved_by(total: dict[str, Any]) -> list[str]:
    if total["saved_usd"] is None:
        return []
    by, others = total["saved_by"], total["others_by"]
    written = f"{dollars(-by['written'])} more for what was written"
    served, renewed = dollars(by["served"]), dollars(-by["revalidated"])
    automatic = f"{dollars(others['automatic'])} by providers themselves"
    lines = [
        f"saved  {dollars(by['response_hit'])} by {total['answers']:,} answers from the cache:",
        f"       {served} not paid again, {renewed} for asking anew behind stale ones",
        f"       {dollars(by['ours'])} by our markers: {dollars(by['read'])} less for what was read,",
        f"       {written}, {dollars(-by['kept_warm'])} for keeping it warm",
        f"others {dollars(others['client'])} by clients' markers, {automatic}: not our doing",
    ]
    engine = total["spared_tokens"]["engine"]
    if engine:
        lines.append(
            f"engine {engine:,} tokens not computed again, about {total['engine_s']:,.1f} s"
        )
    return lines


def _notes(told: dict[str, Any]) -> list[str]:
    unknown = told["total"]["unknown"]
    notes = []
    if unknown["unpriced_calls"] or unknown["unpriced_answers"]:
        notes.append(
            f"{unknown['unpriced_tokens']:,} tokens of {unknown['unpriced_calls']:,} calls and "
            f"{unknown['unpriced_answers']:,} answers have no known price"
        )
    if unknown["own_calls"]:
        notes.append(f"{unknown['own_calls']:,} calls of our own: less was saved than told")
    if unknown["calls"]:
        notes.append(f"{unknown['calls']:,} calls didn't say what they took")
    if unknown["answers"]:
        notes.append(f"{unknown['answers']:,} answers have no recorded usage")
    if unknown["untimed_tokens"]:
        notes.append(f"{unknown['untimed_tokens']:,} tokens of engines whose speed is not known")
    if notes:
        notes = ["unknown, and in no amount (+: at least):", *(f"  {note}" for note in notes)]
    if told["missing_days"]:
        notes.append(f"lost by the store, and in no amount: {', '.join(told['missing_days'])}")
    if not told["lasting"]:
        notes.append("kept in memory: it forgets when the gateway stops")
    lines = told["unwritten"]["lines"]
    if lines:
        notes.append(f"not written yet, and in no amount: {lines:,} lines of this gateway")
    return ["", *notes] if notes else []

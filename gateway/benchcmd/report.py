"""What a bench found: as JSON, as a table, and beside an earlier one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from gateway.benchcmd.asker import Trouble
from gateway.benchcmd.figures import told

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gateway.benchcmd.asker import Asker
    from gateway.benchcmd.figures import Case

Json = dict[str, Any]

VERSION = 1
_HEAD = ("", "n", "first token, s", "whole, s", "tokens/s", "prompt", "cached")
_WAS = ("was", "now is")


def as_json(asker: Asker, cases: Sequence[Case], about: Mapping[str, Any]) -> Json:
    """One object. `about` is what was asked for."""
    return {
        "version": VERSION,
        **about,
        "tells_usage": asker.tells_usage,
        "tells_cached": asker.tells_cached,
        "streams": asker.streams,
        "cases": {
            case.name: {
                "title": case.title,
                "rows": {row.name: told(row, tells_cached=asker.tells_cached) for row in case.rows},
                "ratios": {name: round(value, 4) for name, value in case.ratios.items()},
                "failures": _failures(case),
            }
            for case in cases
        },
    }


def _failures(case: Case) -> list[str]:
    """Each reason once."""
    return list(dict.fromkeys(f"{row.name}: {why}" for row in case.rows for why in row.failures))


def earlier(name: str) -> Json:
    """What an earlier bench wrote with --json. Raises Trouble."""
    try:
        read = orjson.loads(Path(name).read_bytes())
    except OSError as problem:
        raise Trouble(f"{name}: {problem.strerror or problem}") from problem
    except ValueError as problem:
        raise Trouble(f"{name}: {problem}") from problem
    if not isinstance(read, dict) or not isinstance(read.get("cases"), dict):
        raise Trouble(f"{name}: this is not what `gateway bench --json` prints")
    if read.get("version") != VERSION:
        raise Trouble(f"{name}: of another version of `gateway bench`: measure it again")
    return read


def compared(now: Json, before: Json) -> Json:
    """What became of each row that both have: now / before, of its medians."""
    found: Json = {}
    for case, told_now in now["cases"].items():
        rows_before = _at(before, "cases", case, "rows")
        for name, row in told_now["rows"].items():
            ratios = {
                what: round(new / old, 6)
                for what in ("ttft_s", "seconds", "tokens_per_s")
                if (new := _median(row, what)) and (old := _median(rows_before, name, what))
            }
            if ratios:
                found.setdefault(case, {})[name] = ratios
    return found


def _median(value: Any, *path: str) -> float | None:
    found = _at(value, *path, "median")
    return found if isinstance(found, int | float) else None


def _at(value: Any, *path: str) -> Any:
    """What lies there, or None: the file is somebody else's."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def as_table(found: Json, before: Json | None) -> str:
    """Tables for people, one for each case."""
    lines = [head(found)]
    for name, case in found["cases"].items():
        lines += ["", case["title"]]
        lines += _aligned(list(rows(found, name, before)))
        lines += [f"  {what}: {ratio:.2f}" for what, ratio in case["ratios"].items()]
        lines += [f"  failed: {why}" for why in case["failures"]]
        lines += [
            f"  {row}: refused: {told_of['refused']}"
            for row, told_of in case["rows"].items()
            if told_of["refused"]
        ]
    lines += ["", *notes(found)]
    return "\n".join(lines).rstrip() + "\n"


def head(found: Json) -> str:
    """What was measured, in a line."""
    return (
        f"{found['model']} at {found['base_url']}: {found['runs']} runs each, median [middle half]"
    )


def notes(found: Json) -> Iterator[str]:
    """What the figures don't say."""
    if not found["streams"]:
        yield "Answers did not come as streams: the first token is the whole answer."
    if not found["tells_usage"]:
        yield "The server tells no usage: tokens are the parts that came, prompts are not known."
    elif not found["tells_cached"]:
        yield "The server does not tell how many prompt tokens were cached."


def rows(found: Json, case: str, before: Json | None) -> Iterator[tuple[str, ...]]:
    """A case's table as text, its head first."""
    was = before is not None
    together = any(row["tokens_per_s_together"] for row in found["cases"][case]["rows"].values())
    yield (*_HEAD, *(("together",) if together else ()), *(_WAS if was else ()))
    ratios = compared(found, before).get(case, {}) if before is not None else {}
    for name, row in found["cases"][case]["rows"].items():
        cells = [
            name,
            str(row["requests"]) + (f" ({row['failed']} failed)" if row["failed"] else ""),
            _spread(row["ttft_s"], 3),
            _spread(row["seconds"], 3),
            _spread(row["tokens_per_s"], 1),
            _number(row["prompt_tokens"]),
            _share(row),
        ]
        if together:
            cells.append(_plain(row["tokens_per_s_together"], 1))
        if was:
            cells.append(_plain(_median(before, "cases", case, "rows", name, "ttft_s"), 3))
            ratio = _at(ratios, name, "ttft_s")
            cells.append("" if ratio is None else f"x {ratio:.2f}")
        yield tuple(cells)


def _aligned(shown: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    made = []
    for row in shown:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        made.append("  " + "  ".join(cells).rstrip())
    return made


def _spread(of: Json | None, digits: int) -> str:
    if of is None:
        return ""
    return f"{of['median']:.{digits}f} [{of['q1']:.{digits}f}-{of['q3']:.{digits}f}]"


def _share(row: Json) -> str:
    if row["cached_tokens"] is None:
        return ""
    share = f" ({row['cached_share']:.0%})" if row["cached_share"] is not None else ""
    return f"{row['cached_tokens']:,}{share}"


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _plain(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"

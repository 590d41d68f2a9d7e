"""As programs read it: JSON, and CSV with one line for each row."""

from __future__ import annotations

import csv
import io
from typing import Any

import orjson

_PLAIN = ("calls", "failed_calls", "answers")
_DOLLARS = ("paid_usd", "saved_usd", "others_usd", "without_usd")
_NESTED = ("tokens", "spared_tokens", "saved_by", "others_by", "unknown")


def as_json(told: dict[str, Any]) -> str:
    """The whole object."""
    return orjson.dumps(told, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def as_csv(told: dict[str, Any]) -> str:
    """A head and the rows; what has parts has a column for each, `tokens.read`. What is not known is
    empty.
    """
    columns = [*told["by"], *_PLAIN, *_DOLLARS, "share"]
    columns += [f"{name}.{part}" for name in _NESTED for part in told["total"][name]]
    columns += ["engine_s", "paid_pd", "saved_pd", "others_pd"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in told["rows"]:
        cells = [_safe(row[name]) for name in told["by"]]
        writer.writerow(cells + [_cell(row, column) for column in columns[len(cells) :]])
    return out.getvalue()


def _cell(row: dict[str, Any], column: str) -> object:
    name, _, part = column.partition(".")
    value = row[name][part] if part else row[name]
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.12f}".rstrip("0").rstrip(".") or "0"
    return value


def _safe(name: str) -> str:
    """A spreadsheet would compute what begins so; names come from requests."""
    return f"'{name}" if name[:1] in set("=+-@") else name

"""Exceptions as they are told: where, and of what kind, never in their own words.

What an exception says is made of what failed: a parser quotes the text, a client the URL, a store the
command. So of the words only those are told that nobody outside chose.
"""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from types import TracebackType
    from typing import TypeAlias

    ExcInfo: TypeAlias = tuple[
        type[BaseException] | None, BaseException | None, TracebackType | None
    ]

_MOST_FRAMES = 40
"""Of one exception, the last ones."""
_MOST_LINKS = 8
"""Exceptions that are told with one: what caused it, and what it is a group of."""


def kind(problem: BaseException) -> str:
    """The kind of an exception in one line: `TimeoutError`, `OSError: Connection refused`."""
    of = type(problem)
    name = of.__qualname__ if of.__module__ == "builtins" else f"{of.__module__}.{of.__qualname__}"
    word = _word(problem) if of.__module__.partition(".")[0] == "gateway" else ""
    if not word and isinstance(problem, OSError) and isinstance(problem.errno, int):
        # The system's words for the number, and not those that it was raised with.
        word = os.strerror(problem.errno) if problem.errno > 0 else ""
    return f"{name}: {word}" if word else name


def _word(problem: BaseException) -> str:
    """One of few, that our own errors have: for programs, and for metrics."""
    word = getattr(problem, "code", None) or getattr(problem, "reason", None)
    return str(word) if isinstance(word, str) else ""


def told(problem: BaseException | None) -> str:
    """The exception and what caused it, with the frames of each: as Python prints them, without
    their messages.
    """
    if problem is None:
        return ""
    parts: list[str] = []
    each: BaseException | None = problem
    seen: set[int] = set()
    while each is not None and id(each) not in seen and len(parts) < _MOST_LINKS:
        seen.add(id(each))
        parts.append(_one(each))
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
    return "\n\nwhich came of:\n\n".join(parts)


def _one(problem: BaseException) -> str:
    frames = traceback.extract_tb(problem.__traceback__)
    left_out = max(0, len(frames) - _MOST_FRAMES)
    lines = ["Traceback (most recent call last):\n"]
    if left_out:
        lines.append(f"  ({left_out} frames left out)\n")
    lines += traceback.format_list(frames[left_out:])
    lines.append(kind(problem))
    if isinstance(problem, BaseExceptionGroup):
        inner = ", ".join(kind(each) for each in problem.exceptions[:_MOST_LINKS])
        lines.append(f" of {inner}")
    return "".join(lines)


def as_text(exc_info: ExcInfo) -> str:
    """For structlog's renderer of exceptions."""
    return told(exc_info[1])


def to_terminal(out: TextIO, exc_info: ExcInfo) -> None:
    """For its renderer on a terminal."""
    out.write("\n" + told(exc_info[1]))

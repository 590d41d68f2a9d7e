"""What a check of prompts can find, how bad it is and what mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from gateway.core.volatile import Kind

EXCERPT = 60
"""Characters of a prompt that a finding shows at most."""


class Shape(StrEnum):
    """What changes between requests although no pattern gives it away."""

    TOOL_ORDER = "tool-order"
    SCHEMA_ORDER = "schema-order"
    TOOLS_CHANGED = "tools-changed"
    CHANGING_TEXT = "changing-text"
    SYSTEM_CHANGED = "system-changed"
    HISTORY_REWRITTEN = "history-rewritten"
    RESERIALISED = "reserialised-json"


What: TypeAlias = Kind | Shape


class Grade(StrEnum):
    """A fault costs money; a note may, or costs little."""

    FAULT = "fault"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of one place, however many requests show it."""

    what: What
    grade: Grade
    path: str
    """JSON path in the body of request `first`."""
    excerpt: str
    """The volatile text; of a change that was seen: before and after."""
    seen: bool
    """Whether two requests were seen to differ here; else a pattern made us suspect it."""
    first: int
    """Index of the first request that shows it."""
    requests: int
    lost_tokens: int
    """Estimate of the tokens behind it that the provider reads anew, in the worst request."""
    lost_total: int
    """The same, added up over the requests."""

    @property
    def mend(self) -> str:
        """What to do about it."""
        return MENDS[self.what]


_LAST = "put it into the last user message, behind everything stable"

MENDS: dict[What, str] = {
    Kind.TIMESTAMP: f"{_LAST}, or round it to the day",
    Kind.DATE: f"costs one cache write a day; if that matters, {_LAST}",
    Kind.UUID: f"leave it out (send it as a header or `metadata`), or {_LAST}",
    Kind.ID: f"leave it out (send it as a header or `metadata`), or {_LAST}",
    Kind.COUNTER: _LAST,
    Kind.SEED: "leave it out; for other answers use temperature, `seed` or the cache's own samples",
    Kind.TEMP_PATH: "use the same path every time, or a relative one",
    Kind.PROCESS: f"use a fixed port and no process id, or {_LAST}",
    Kind.GIT: "put it into the first user message, behind everything that conversations share",
    Kind.ENVIRONMENT: "put it into the first user message, behind everything that machines share",
    Kind.BILLING_HEADER: "set CLAUDE_CODE_ATTRIBUTION_HEADER=0 for upstreams other than Anthropic",
    Shape.TOOL_ORDER: "sort the tools by name, from the first turn on",
    Shape.SCHEMA_ORDER: "build the schema with its members in one fixed order",
    Shape.TOOLS_CHANGED: "send all tools in every request and restrict them with `tool_choice`",
    Shape.CHANGING_TEXT: "move what changes behind what stays the same",
    Shape.SYSTEM_CHANGED: "leave the system prompt as it is; say what is new in the last message",
    Shape.HISTORY_REWRITTEN: "replay earlier messages unchanged; compact rarely and in big steps",
    Shape.RESERIALISED: "keep the original text of arguments; don't decode and encode it again",
}


def shortened(text: str) -> str:
    """The text on one line, with at most EXCERPT characters."""
    line = " ".join(text[: 4 * EXCERPT].split())
    return line if len(line) <= EXCERPT else line[: EXCERPT - 1] + "…"


def change(before: str, after: str) -> str:
    """Both sides of a change on one line, with at most EXCERPT characters."""
    half = (EXCERPT - 4) // 2
    sides = [" ".join(side[: 4 * EXCERPT].split()) or "(nothing)" for side in (before, after)]
    return " -> ".join(s if len(s) <= half else s[: half - 1] + "…" for s in sides)

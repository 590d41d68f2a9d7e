"""What one look showed, and what to mend."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class Verdict(StrEnum):
    """How it stands with what was looked at."""

    OK = "ok"
    LOOK = "look"
    """It works, and is perhaps not as it is meant to be."""
    MEND = "mend"
    """Something does not work, or will not."""
    SKIPPED = "skipped"
    """Not looked at; why is said."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    check: str
    """Dotted: `upstream.openai.tls`."""
    verdict: Verdict
    said: str
    mend: str = ""
    """What to do; empty where there is nothing to do."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Numbers for programs, plain JSON values; names end in their unit."""


def fine(check: str, said: str, **facts: Any) -> Finding:
    """As it should be."""
    return Finding(check, Verdict.OK, said, facts=facts)


def look(check: str, said: str, mend: str, **facts: Any) -> Finding:
    """It works, but."""
    return Finding(check, Verdict.LOOK, said, mend, facts)


def mend(check: str, said: str, how: str, **facts: Any) -> Finding:
    """It does not work."""
    return Finding(check, Verdict.MEND, said, how, facts)


def skipped(check: str, why: str) -> Finding:
    """Nothing was looked at."""
    return Finding(check, Verdict.SKIPPED, why)

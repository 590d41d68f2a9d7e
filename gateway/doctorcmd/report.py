"""The findings as people read them, and as programs do; and the exit status.

Rule 1: no secret of the config is printed, whoever put it into a message: all text goes through `Blot`.
Rule 2: nothing that a server said can move a terminal's cursor or make a line of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import orjson

from gateway import __version__
from gateway.config.redaction import MASK
from gateway.doctorcmd.finding import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.doctorcmd.finding import Finding

FORMAT = 1
"""Raised when a member of the JSON changes its meaning or goes."""
_SHOWN = {
    Verdict.OK: "ok     ",
    Verdict.LOOK: "look   ",
    Verdict.MEND: "MEND   ",
    Verdict.SKIPPED: "skipped",
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


class Blot:
    """Blots secrets out of text."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """`secrets` as they are; empty ones are nothing."""
        # The longest first: one may contain another.
        found = sorted(filter(None, secrets), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, found))) if found else None

    def text(self, text: str) -> str:
        """One line without any of them."""
        plain = _CONTROL.sub(" ", text)
        return self._pattern.sub(MASK, plain) if self._pattern else plain

    def value(self, value: Any) -> Any:
        """The same for every text in a plain JSON value."""
        match value:
            case str():
                return self.text(value)
            case dict():
                return {self.text(str(name)): self.value(each) for name, each in value.items()}
            case list() | tuple():
                return [self.value(each) for each in value]
            case _:
                return value


def as_text(findings: Sequence[Finding], blot: Blot, *, quiet: bool = False) -> str:
    """A line for each finding, what to mend under it, and how many there are of each. `quiet`: only
    those that want something.
    """
    lines: list[str] = []
    width = min(32, max((len(each.check) for each in findings), default=0))
    for each in findings:
        if quiet and each.verdict in (Verdict.OK, Verdict.SKIPPED):
            continue
        lines.append(f"{_SHOWN[each.verdict]}  {each.check:<{width}}  {blot.text(each.said)}")
        if each.mend:
            lines.append(f"         -> {blot.text(each.mend)}")
    count = Counter(each.verdict for each in findings)
    words = {"to mend": Verdict.MEND, "to look at": Verdict.LOOK, "fine": Verdict.OK}
    words["skipped"] = Verdict.SKIPPED
    lines += ["", ", ".join(f"{count[verdict]} {word}" for word, verdict in words.items())]
    return "\n".join(lines) + "\n"


def as_json(findings: Sequence[Finding], blot: Blot, status: int) -> str:
    """One object."""
    count = Counter(each.verdict for each in findings)
    told = {
        "format": FORMAT,
        "version": __version__,
        "ok": count[Verdict.MEND] == 0,
        "status": status,
        "counts": {verdict.value: count[verdict] for verdict in Verdict},
        "findings": [
            {
                "check": each.check,
                "verdict": each.verdict.value,
                "said": blot.text(each.said),
                "mend": blot.text(each.mend) or None,
                "facts": blot.value(dict(each.facts)),
            }
            for each in findings
        ],
    }
    return orjson.dumps(told, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def status_of(findings: Iterable[Finding], *, strict: bool) -> int:
    """1 where there is something to mend (`strict`: or to look at), 2 where the config can't be read,
    else 0.
    """
    found = list(findings)
    if any(each.check == "config" and each.verdict is Verdict.MEND for each in found):
        return 2
    bad = {Verdict.MEND, Verdict.LOOK} if strict else {Verdict.MEND}
    return int(any(each.verdict in bad for each in found))

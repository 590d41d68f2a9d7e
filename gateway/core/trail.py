"""A prompt as a router sees it: how far two of them are the same, and how many tokens that is."""

from __future__ import annotations

from typing import NamedTuple


class Trail(NamedTuple):
    """The steps of a prompt from its first token on: messages, and fixed blocks of long ones."""

    prints: tuple[int, ...] = ()
    """The chained fingerprint of all up to the end of each step: equal prints, equal prompts up to
    there."""
    ends: tuple[int, ...] = ()
    """Tokens up to the end of each step, estimated, or as the trace tells; never going down."""
    is_open: bool = False
    """The last step may be continued (text that is cut anywhere), so that a prompt that goes on from
    this one need not have its print. False where it ends with a message."""

    @property
    def tokens(self) -> int:
        """Of the whole prompt."""
        return self.ends[-1] if self.ends else 0

    def until(self, depth: int) -> int:
        """Tokens of the first `depth` steps."""
        return self.ends[depth - 1] if depth else 0

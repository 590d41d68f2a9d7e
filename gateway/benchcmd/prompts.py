"""Texts of a wanted length that nobody has seen before.

Each begins with a number that was never used, so that no cache anywhere, of answers or of prompts,
has any part of it behind the template's own head.
"""

from __future__ import annotations

import random
import secrets

_WORDS = """
water house paper light river stone morning table garden window letter music winter bread
market silver bridge forest number pocket engine candle mirror island button carpet ladder
pencil rocket saddle tunnel valley wagon anchor basket copper dragon feather glacier hammer
jacket kettle lemon marble needle orange pepper quarry ribbon sailor temple umbrella velvet
walnut yellow zipper and the of under beside before after while because against toward
""".split()  # noqa: SIM905 - a list would be a page long

USUAL_BYTES = 5.0
"""Of a token of such text, blank included, until the server has said what it counts."""
QUESTION = "Tell me a long story about what you have read."


class Prompts:
    """Texts in tokens of a model that is not known."""

    def __init__(self, seed: str | None = None) -> None:
        # What is drawn must differ from every earlier run's, not be unguessable.
        self._seed = seed or secrets.token_hex(6)
        self._made = 0
        self.bytes_per_token = USUAL_BYTES

    def learn(self, text_bytes: int, tokens: int | None) -> None:
        """What the server counted for a text of such words."""
        if tokens:
            self.bytes_per_token = min(16.0, max(0.5, text_bytes / tokens))

    def text(self, tokens: int) -> str:
        """About so many tokens that were never sent."""
        return self.sized(int(tokens * self.bytes_per_token))

    def sized(self, wanted: int) -> str:
        """The same in bytes."""
        self._made += 1
        draw = random.Random(f"{self._seed}{self._made}")  # noqa: S311 - no secret
        nonce = f"{draw.getrandbits(64):016x}"
        parts, size = [nonce], len(nonce)
        while size < wanted:
            word = draw.choice(_WORDS)
            parts.append(word)
            size += len(word) + 1
        return " ".join(parts)

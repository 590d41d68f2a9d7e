"""What is known of one cache: of one model, at one provider, under one credential.

Counts and times only. Who asks is `core.planner`.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from gateway.core.blocks import BYTES_PER_TOKEN, Section
from gateway.core.experience import Experience, Told
from gateway.core.prefix import Kind
from gateway.core.prefix_tree import PrefixTree
from gateway.core.recurrence import Awaited, Odds, Recurrence, Waiting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.core.model import Usage
    from gateway.core.prefix import CachePrompt
    from gateway.core.prefix_tree import Detail

PRIORS = {
    # Odds of being continued within a minute, five minutes, half an hour, an hour. Those of kinds
    # that are likely one-shot lie below what a marker needs (0.22 at 1.25x and 0.1x), so that the
    # first of them costs nothing; those of agents far above.
    "bare": Odds(0.04, 0.08, 0.1, 0.1),
    "asked": Odds(0.2, 0.3, 0.305, 0.305),
    "armed": Odds(0.5, 0.6, 0.605, 0.605),
    "turn": Odds(0.45, 0.65, 0.66, 0.66),
    "tool": Odds(0.85, 0.92, 0.925, 0.925),
    "head": Odds(0.15, 0.24, 0.26, 0.26),
}
"""By kind of boundary: the end of a first request without system prompt and tools (`bare`), with
a system prompt (`asked`), with tools (`armed`); of a later one that a person wrote (`turn`) or a
tool answered (`tool`); and the end of what several conversations could share (`head`)."""

_OWN_WEIGHT = 16.0
_PRIOR_WEIGHT = 6.0
_MOST_AWAITED = 4096
_DOMAIN_BYTES = 8 * 1024
_AWAITED_BYTES = 160
"""What a domain takes that has seen nothing, and each request that may still be continued."""

_PROVEN = 4.0
"""Observations of a kind after which its odds are believed."""

_MISHAPS = 3
"""Prefixes in a row of which nothing was kept, until they are taken to be too short."""

_LEARNING = 0.2
_RECOVERY = 0.004
_TRUSTED = 0.35

_DEEP = 3
"""Turns from which on conversations are told apart no more by how far they have come."""


class CacheDomain:
    """Everything that was learned about one cache."""

    def __init__(self, budget_bytes: int, experience: Experience | None = None) -> None:
        self._experience = experience or Experience()
        self._told: dict[str, Told] = {}
        self.tree = PrefixTree(budget_bytes)
        self._waiting = Waiting(_MOST_AWAITED)
        self._kinds: dict[str, Recurrence] = {}
        self._tokens_per_byte = 1.0 / BYTES_PER_TOKEN
        self._calibrated = 0.0
        self.least_tokens = 0
        """The length that turned out to be too short for an entry, where the documents say less."""
        self._kept_nothing = 0
        self._longest_unkept = 0
        self._reliability = 1.0
        self.requests = 0
        self.counted_bytes = 0
        """Of its size, what its planner has counted."""

    @property
    def size_bytes(self) -> int:
        """About what it takes."""
        return _DOMAIN_BYTES + self.tree.size_bytes + _AWAITED_BYTES * len(self._waiting)

    # --- tokens ------------------------------------------------------------------------------

    @property
    def tokens_per_byte(self) -> float:
        """What a byte of this model's prompts takes, as far as answers have told."""
        return self._tokens_per_byte

    def calibrate(self, tokens: int, size: int) -> None:
        """A prompt of `size` bytes took so many tokens."""
        if tokens <= 0 or size <= 0:
            return
        weight = min(20_000.0, float(tokens))
        old = min(self._calibrated, 200_000.0)
        measured = tokens / size
        self._tokens_per_byte = (old * self._tokens_per_byte + weight * measured) / (old + weight)
        self._calibrated = old + weight

    def kept_nothing(self, tokens: int) -> None:
        """Nothing was kept of a prefix that was to be, so long or longer. Once may be a mishap at
        the provider, or an answer that doesn't say what it wrote; several times is a minimum.
        """
        self._kept_nothing += 1
        self._longest_unkept = max(self._longest_unkept, tokens)
        if self._kept_nothing >= _MISHAPS:
            self.least_tokens = max(self.least_tokens, tokens)

    def kept(self, tokens: int) -> None:
        """A prefix of that length was written or read: the minimum is no larger."""
        if tokens <= self._longest_unkept:
            self._kept_nothing = self._longest_unkept = 0
        self.least_tokens = min(self.least_tokens, tokens)

    # --- odds --------------------------------------------------------------------------------

    def kind(self, name: str) -> Recurrence:
        """How things of a kind go on, over the whole domain."""
        found = self._kinds.get(name)
        if found is None:
            found = self._kinds[name] = Recurrence()
        return found

    def odds(self, name: str, family: Detail | None = None) -> Odds:
        """Of a kind in general, or among those that share a beginning."""
        prior = PRIORS[name.partition(" ")[0]]
        expected = self._experience.expected(name, self._told_of(name), prior)
        general = self.kind(name).odds(expected, _PRIOR_WEIGHT)
        if family is None or family.classes is None or name not in family.classes:
            return general
        return family.classes[name].odds(general, _OWN_WEIGHT)

    def tellers(self, name: str, family: Detail | None) -> tuple[Recurrence, ...]:
        """Who is to hear how one of a kind goes on."""
        everybody = (self.kind(name), *self._experience.tellers(name, self._told_of(name)))
        if family is None:
            return everybody
        if family.classes is None:
            family.classes = {}
        own = family.classes.setdefault(name, Recurrence())
        return (*everybody, own)

    def _told_of(self, name: str) -> Told:
        found = self._told.get(name)
        if found is None:
            found = self._told[name] = Told()
        return found

    def expect(self, awaited: Awaited) -> None:
        """Wait for one more."""
        self._waiting.add(awaited)

    def pass_time(self, now: float) -> None:
        """Count what did not come."""
        self._waiting.pass_time(now)

    # --- trust -------------------------------------------------------------------------------

    def may_risk(self, name: str, premium: float) -> bool:
        """May so much be spent on a kind of request? On one that has proved nothing, here or in
        other caches, only as much as all of them together may risk.
        """
        here, others = self.kind(name), self._experience.of_others(name, self._told_of(name))
        # What never came again leaves odds above what pays for a dozen requests: no proof.
        proved = here.returns + others.returns >= 1.0 and here.weight + others.weight >= _PROVEN
        return proved or self._experience.may_risk(premium)

    def risk(self, premium: float) -> None:
        """So much (or, negative, so much less) is out unproven."""
        self._experience.risk(premium)

    def asked(self, tokens: int) -> None:
        """One more request of so many tokens."""
        self.requests += 1
        self._experience.asked(tokens)
        self._reliability = min(1.0, self._reliability + _RECOVERY)

    @property
    def reliability(self) -> float:
        """The share of expected reads that came true lately; 0 while too few do."""
        return self._reliability if self._reliability > _TRUSTED else 0.0

    def judge(self, expected: int, usage: Usage) -> None:
        """An answer tells whether what was to be read was."""
        share = min(1.0, usage.cache_read / expected)
        self._reliability += _LEARNING * (share - self._reliability)


def kind_of(prompt: CachePrompt, *, continues: bool) -> str:
    """What kind of request it is, as far as that tells whether it will be continued: one of
    PRIORS, and how far the conversation has come. `continues`: it goes on from an earlier one.
    """
    turns = 0
    before = ""
    messages = 0
    for block in prompt.blocks:
        if block.section is Section.MESSAGES:
            messages += 1
            if block.role == "assistant" and before != "assistant":
                turns += 1
                if turns == _DEEP:
                    break
            before = block.role
    if not turns and continues:
        # A prompt that is only known by hashes doesn't say who spoke.
        turns = min(max(1, messages - 1), _DEEP)
    last = prompt.blocks[-1]
    is_tool = last.kind is Kind.TOOL_RESULT or last.role == "tool"
    if turns or is_tool:
        return f"{'tool' if is_tool else 'turn'} {turns}"
    first = prompt.blocks[0].section
    if first is Section.TOOLS:
        return "armed"
    return "asked" if first is Section.SYSTEM else "bare"


def cumulative(sizes: Iterable[int], tokens_per_byte: float) -> list[int]:
    """Tokens up to the end of each block."""
    return [int(total * tokens_per_byte + 0.5) for total in accumulate(sizes)]

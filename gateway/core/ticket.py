"""One planned request on its way: what is expected of it, and what its answer teaches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.core.prefix import SIZE

if TYPE_CHECKING:
    from gateway.core.cache_domain import CacheDomain
    from gateway.core.model import Usage
    from gateway.core.plan import Mark, Plan
    from gateway.core.prefix import CachePrompt
    from gateway.core.prefix_tree import Held
    from gateway.providers.prompt_cache import CacheRules

_HALF = 0.5
"""Of what was expected: with less read than this, the entry was not there."""

_ALIKE = 1.02
"""Two counts of tokens that differ by no more may be of the same prefix."""

_LONGEST_MINIMUM = 4
"""By how many times the documented minimum a real one may exceed it."""


@dataclass(slots=True)
class Ticket:
    """A planned request. `plan` is what to do; the rest is for `begun` and `learn`."""

    plan: Plan
    prompt: CachePrompt
    rules: CacheRules | None
    chain: list[int] = field(default_factory=list)
    """Fingerprint of the prefix at the end of each block."""
    tokens: list[int] = field(default_factory=list)
    """Estimated, cumulative, at the end of each block."""
    at: float = 0.0
    marks: tuple[Mark, ...] = ()
    """All that stand in the forwarded request, the client's and automatic ones included."""
    read: int = -1
    """The deepest block whose prefix is expected to be read; -1 for none."""
    written: tuple[tuple[int, int, int], ...] = ()
    """Block, lifetime in seconds and form of each entry that it is expected to make."""
    domain: CacheDomain | None = None
    has_begun: bool = False

    def begun(self, now: float) -> None:
        """The answer's first byte came: what was written can be read from now on."""
        if self.has_begun:
            return
        self.has_begun = True
        for block, ttl_s, form in self.written:
            held = self._entry(block, ttl_s, form)
            if held is not None and held.used_at == self.at:
                held.ready_at = now

    def learn(self, usage: Usage | None, now: float) -> None:
        """What the answer said; None where it failed or said nothing."""
        known, rules = self.domain, self.rules
        if known is None or rules is None:
            return
        if usage is None or not usage.input:
            if not self.has_begun:
                self._forget()
            return
        self.begun(now)
        if self.prompt.text_only:
            known.calibrate(usage.input, sum(map(SIZE, self.prompt.blocks)))
        size = self.tokens[-1]
        scale = usage.input / size if size else 1.0
        expected = int(self.tokens[self.read] * scale) if self.read >= 0 else 0
        if expected >= rules.minimum_tokens:
            known.judge(expected, usage)
            if usage.cache_read < _HALF * expected:
                self._lose(usage.cache_read / scale)
        wrote = usage.cache_write_5m + usage.cache_write_1h
        if usage.cache_read or wrote:
            known.kept(usage.cache_read + wrote)
        if self.written and not wrote and usage.cache_read < _HALF * usage.input:
            # Nothing was kept of it: too short for this model, whatever its documents say.
            if not usage.cache_read:
                length = int(self.tokens[self.written[-1][0]] * scale) + 1
                most = _LONGEST_MINIMUM * rules.minimum_tokens
                known.kept_nothing(min(length, most))
            self._forget()

    def _entry(self, block: int, ttl_s: int, form: int) -> Held | None:
        assert self.domain is not None
        node = self.domain.tree.find(self.chain[block])
        if node is None or node.detail is None:
            return None
        return next((h for h in node.detail.held if h.ttl_s == ttl_s and h.form == form), None)

    def _forget(self) -> None:
        """What this request was to write has not come about."""
        assert self.domain is not None
        for block, ttl_s, form in self.written:
            held = self._entry(block, ttl_s, form)
            node = self.domain.tree.find(self.chain[block])
            if held is None or node is None or node.detail is None or held.used_at != self.at:
                continue
            node.detail.held.remove(held)

    def _lose(self, read_tokens: float) -> None:
        """What was expected to be read was not there: nor is anything deeper than what was."""
        assert self.domain is not None
        for index in range(self.read, -1, -1):
            if self.tokens[index] <= _ALIKE * read_tokens:
                return
            node = self.domain.tree.find(self.chain[index])
            if node is not None and node.detail is not None:
                node.detail.held = [h for h in node.detail.held if h.used_at > self.at]

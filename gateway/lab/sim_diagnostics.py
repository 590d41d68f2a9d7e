"""What providers say of a request beside an earlier one that it names, as they document it.

Rule 1: two requests are compared as they were sent, whatever was read of them: a prefix that is the
same and has expired is no difference.
Rule 2: what changes a prompt without being in it (`tool_choice`, thinking) Anthropic does not name,
and says `unavailable`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.core.blocks import Section
from gateway.lab import sim_openai_rules

if TYPE_CHECKING:
    from gateway.core.model import Usage
    from gateway.lab.sim_prompt import Rendered

Json = dict[str, Any]

_REMEMBERED = 1024
_UNAVAILABLE: Json = {"type": "unavailable"}


class _Known(NamedTuple):
    """One request as it is remembered: fingerprints and counts."""

    body: Json
    """Members that are named in a reason."""
    digests: dict[Section, tuple[int, ...]]
    seeds: dict[Section, int]
    chain: tuple[int, ...]
    tokens: tuple[int, ...]

    @property
    def total(self) -> int:
        """Tokens of the prompt."""
        return self.tokens[-1] if self.tokens else 0

    def shared(self, other: _Known) -> int:
        """Tokens of the beginning that both have."""
        found = 0
        for mine, theirs, tokens in zip(self.chain, other.chain, self.tokens, strict=False):
            if mine != theirs:
                break
            found = tokens
        return found


class Diagnostics:
    """Remembers what requests it may be asked about. For one simulated provider."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Diagnostics {len(self._known)} answers>"

    def anthropic(self, scope: str, body: Json, prompt: Rendered, answer: str) -> Json | None:
        """The answer's `diagnostics`; None: nothing parts the two, or none is named. Only requests
        that ask for it are remembered.
        """
        named = (body.get("diagnostics") or {}).get("previous_message_id")
        before, now = self._exchange(scope, named, answer, _known(body, prompt))
        if named is None:
            return None
        if before is None:
            return {"cache_miss_reason": {"type": "previous_message_not_found"}}
        reason = _reason_of_anthropic(before, now)
        if reason is None:
            return None
        if reason == "unavailable":
            return {"cache_miss_reason": _UNAVAILABLE}
        missed = before.total - before.shared(now)
        return {"cache_miss_reason": {"type": reason, "cache_missed_input_tokens": missed}}

    def openai(
        self, scope: str, body: Json, prompt: Rendered, answer: str, usage: Usage
    ) -> Json | None:
        """The answer's `prompt_cache_diagnostics`; None where nothing is asked. Every answer may be
        named later.
        """
        named = (body.get("prompt_cache_options") or {}).get("comparison_response_id")
        before, now = self._exchange(scope, named, answer, _known(body, prompt))
        if named is None:
            return None
        if not sim_openai_rules.takes_breakpoints(body["model"]):
            return _UNAVAILABLE
        if before is None:
            return {"type": "comparison_response_not_found"}
        reason = _reason_of_openai(before, now)
        if reason is not None:
            missed = now.total - now.shared(before)
            return {"type": "cache_miss", "reason": reason, "cache_missed_tokens": missed}
        return {"type": "cache_hit"} if usage.cache_read else _UNAVAILABLE

    def _exchange(
        self, scope: str, named: str | None, answer: str, now: _Known
    ) -> tuple[_Known | None, _Known]:
        before = None if named is None else self._known.get((scope, named))
        self._known[scope, answer] = now
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return before, now


_NAMED = ("model", "speed", "prompt_cache_key", "service_tier", "text", "reasoning")


def _known(body: Json, prompt: Rendered) -> _Known:
    digests = {
        section: tuple(block.digest for block in prompt.blocks if block.section is section)
        for section in Section
    }
    members = {name: body[name] for name in _NAMED if name in body}
    return _Known(members, digests, prompt.seeds, tuple(prompt.chain), tuple(prompt.tokens))


def _reason_of_anthropic(before: _Known, now: _Known) -> str | None:
    if any(before.body.get(name) != now.body.get(name) for name in ("model", "speed")):
        return "model_changed"
    for section in (Section.TOOLS, Section.SYSTEM):
        if before.digests[section] != now.digests[section]:
            return f"{section}_changed"
    if before.seeds != now.seeds:
        return "unavailable"
    return None if _goes_on(before, now, Section.MESSAGES) else "messages_changed"


def _reason_of_openai(before: _Known, now: _Known) -> str | None:
    for name in ("model", "prompt_cache_key", "service_tier"):
        if before.body.get(name) != now.body.get(name):
            return f"{name}_changed"
    if before.digests[Section.TOOLS] != now.digests[Section.TOOLS]:
        return "tools_changed"
    for reason, name, member in (
        ("text_format_changed", "text", "format"),
        ("reasoning_effort_changed", "reasoning", "effort"),
        ("verbosity_changed", "text", "verbosity"),
    ):
        if (before.body.get(name) or {}).get(member) != (now.body.get(name) or {}).get(member):
            return reason
    inputs = (Section.SYSTEM, Section.MESSAGES)
    if before.digests[inputs[0]] != now.digests[inputs[0]] or not _goes_on(before, now, inputs[1]):
        return "input_changed"
    return None


def _goes_on(before: _Known, now: _Known, section: Section) -> bool:
    """Was nothing changed in what was there, and at most something appended?"""
    earlier = before.digests[section]
    return now.digests[section][: len(earlier)] == earlier

"""What a simulated provider bills: each answer's usage, as it states it, at the price list.

Counted from the usage as the wire spells it, by arithmetic of its own: neither the gateway's reading of
usages (`core.usage`) nor its sums (`core.money`, `core.ledger`) come into it, so that these can be held
to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from gateway.core import sse
from gateway.providers.prices import price

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.lab.stub_answers import Reply

_APIS = {
    "/v1/messages": ("anthropic", "anthropic_messages"),
    "/v1/chat/completions": ("openai", "openai_chat"),
    "/v1/completions": ("openai", "openai_completions"),
    "/v1/responses": ("openai", "openai_responses"),
    "/v1/embeddings": ("openai", "openai_embeddings"),
}


class Taken(NamedTuple):
    """Tokens of one answer, as they are billed."""

    uncached: int
    read: int
    write_5m: int
    write_1h: int
    output: int

    @property
    def prompt(self) -> int:
        """All of the prompt."""
        return self.uncached + self.read + self.write_5m + self.write_1h


class Meter:
    """Adds up. Amounts are picodollars."""

    def __init__(self) -> None:
        self.answers = 0
        """That were billed."""
        self.paid_pd = 0
        self.without_pd = 0
        """What the same answers would have cost, had nothing been cached."""
        self.unpriced = 0
        self.unpriced_tokens = 0
        """Of models without a price."""
        self.cut = 0
        self.cut_pd = 0
        """Answers that broke off in the middle (a closed connection, an error event): perhaps billed,
        and nobody was told.
        """
        self.untold = 0
        """Answers that say nothing of what they cost, to us neither: the stub's own."""

    def __repr__(self) -> str:
        return f"<Meter {self.answers} answers, {self.paid_pd} pd, {self.unpriced} without a price>"

    def saw(self, path: str, reply: Reply) -> None:
        """An answer goes out. What fails is not billed."""
        if reply.status != 200 or path not in _APIS:
            return
        billed = reply.billed
        if billed is None and not reply.events:
            billed = orjson.loads(reply.body)
        if billed is None or not billed.get("usage"):
            self.untold += 1
            return
        provider, api = _APIS[path]
        taken = _exclusive(billed["usage"]) if provider == "anthropic" else _inclusive(billed)
        listed = price(provider, api, billed["model"], _terms(provider, billed))
        if listed is None:
            self.unpriced += 1
            self.unpriced_tokens += taken.prompt + taken.output
            return
        rates = listed.at(taken.prompt)
        cost = taken.output * rates.output + taken.uncached * rates.input + taken.read * rates.read
        cost += taken.write_5m * rates.write_5m + taken.write_1h * rates.write_1h
        if reply.cut or _fails(reply):
            self.cut += 1
            self.cut_pd += cost
            return
        self.answers += 1
        self.paid_pd += cost
        self.without_pd += taken.output * rates.output + taken.prompt * rates.input


def _fails(reply: Reply) -> bool:
    """Is the last event of a stream an error?"""
    if not reply.events:
        return False
    *_, last = sse.parse(reply.events[-1])
    told = orjson.loads(last.data) if last.data.startswith("{") else {}
    return bool(told.get("error")) or told.get("type") == "error"


def _exclusive(usage: Mapping[str, Any]) -> Taken:
    written = usage.get("cache_creation") or {}
    return Taken(
        usage["input_tokens"],
        usage.get("cache_read_input_tokens", 0),
        written.get("ephemeral_5m_input_tokens", 0),
        written.get("ephemeral_1h_input_tokens", 0),
        usage["output_tokens"],
    )


def _inclusive(billed: Mapping[str, Any]) -> Taken:
    usage = billed["usage"]
    name = "input" if "input_tokens" in usage else "prompt"
    told = usage.get(f"{name}_tokens_details") or {}
    read, written = told.get("cached_tokens", 0), told.get("cache_write_tokens", 0)
    output = usage.get("output_tokens", usage.get("completion_tokens", 0))
    return Taken(usage[f"{name}_tokens"] - read - written, read, written, 0, output)


def _terms(provider: str, billed: Mapping[str, Any]) -> tuple[str, ...]:
    names = ("service_tier", "inference_geo", "speed")
    if provider == "anthropic":
        told = [billed["usage"].get(name) for name in names]
    else:
        told = [billed.get("service_tier")]
    return tuple(each for each in told if isinstance(each, str))

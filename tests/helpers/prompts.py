"""Prompts as a cache sees them, made of nothing but sizes and numbers; and a provider for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.core.blocks import Section
from gateway.core.plan import Markers
from gateway.core.planner import CachePlanner
from gateway.core.prefix import CachePrompt, Kind, PrefixBlock
from gateway.lab.cache_sim import CacheSim, rendered_chain
from gateway.providers.prompt_cache_rules import cache_rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.model import Usage
    from gateway.core.ticket import Ticket
    from gateway.providers.prompt_cache import CacheRules


def block(
    digest: int,
    tokens: int,
    section: Section = Section.MESSAGES,
    kind: Kind = Kind.TEXT,
    role: str = "user",
    *,
    can_mark: bool = True,
    client_ttl_s: int = 0,
    ends_message: bool = True,
    until: int = 0,
) -> PrefixBlock:
    """A block of so many tokens, at four bytes each."""
    return PrefixBlock(
        section,
        kind,
        role,
        (section.value, digest),
        4 * tokens,
        digest,
        can_mark,
        client_ttl_s,
        ends_message,
        until,
    )


def tools(digest: int, tokens: int) -> PrefixBlock:
    """A tool's definition."""
    return block(digest, tokens, Section.TOOLS, Kind.TOOL, "", ends_message=False)


def system(digest: int, tokens: int, *, until: int = 0) -> PrefixBlock:
    """A system prompt, or a piece of one."""
    return block(digest, tokens, Section.SYSTEM, Kind.TEXT, "system", until=until)


def said(digest: int, tokens: int) -> PrefixBlock:
    """What a person says."""
    return block(digest, tokens)


def answered(digest: int, tokens: int) -> PrefixBlock:
    """What the model answers: a call of a tool."""
    return block(digest, tokens, kind=Kind.TOOL_USE, role="assistant")


def returned(digest: int, tokens: int) -> PrefixBlock:
    """What the tool answers."""
    return block(digest, tokens, kind=Kind.TOOL_RESULT)


def prompt(*blocks: PrefixBlock, model: str = "claude-sonnet-4-5") -> CachePrompt:
    """A prompt for Anthropic's Messages API."""
    return CachePrompt("anthropic_messages", model, blocks, 1, 2)


def rules(model: str = "claude-sonnet-4-5", provider: str = "anthropic") -> CacheRules:
    """A model's rules. Fails where there are none."""
    api = "anthropic_messages" if provider == "anthropic" else "openai_chat"
    found = cache_rules(provider, api, model)
    assert found is not None
    return found


@dataclass
class Provider:
    """A simulated provider behind a planner: each call is planned, billed and learned from."""

    rules: CacheRules = field(default_factory=rules)
    planner: CachePlanner = field(default_factory=CachePlanner)
    markers: Markers = Markers.AUTO
    takes_s: float = 1.0
    spent: float = 0.0
    """In tokens at the price of uncached input."""
    asked: int = 0

    def __post_init__(self) -> None:
        self.sim = CacheSim(self.rules)

    def ask(
        self, blocks: Sequence[PrefixBlock], now: float, *, answers: bool = True
    ) -> tuple[Ticket, Usage]:
        """One request at `now`, its answer begun and learned before the next."""
        asked = prompt(*blocks)
        ticket = self.planner.plan(b"domain", asked, self.rules, self.markers, now)
        split = {*ticket.plan.splits, *(mark.block for mark in ticket.plan.marks)}
        # What is split off is a block of its own for the provider.
        sent = asked._replace(
            blocks=tuple(
                each._replace(until=0) if index in split else each
                for index, each in enumerate(asked.blocks)
            )
        )
        cumulative, total = [], 0
        for each in asked.blocks:
            total += each.size // 4
            cumulative.append(total)
        client = [(i, each.client_ttl_s) for i, each in enumerate(blocks) if each.client_ttl_s]
        usage = self.sim.request(
            now,
            "scope",
            rendered_chain(sent),
            cumulative,
            blocks=sent.blocks,
            marks=[*client, *((mark.block, mark.ttl_s) for mark in ticket.plan.marks)],
            mode=ticket.plan.mode,
            first_byte_at=now + self.takes_s if answers else None,
        )
        if answers:
            self.planner.begun(ticket, now + self.takes_s)
        self.planner.learn(ticket, usage if answers else None, now + 2 * self.takes_s)
        self.asked += total
        self.spent += (
            usage.uncached_input
            + self.rules.read * usage.cache_read
            + self.rules.lifetimes[0].write * usage.cache_write_5m
            + self.rules.lifetimes[-1].write * usage.cache_write_1h
        )
        return ticket, usage

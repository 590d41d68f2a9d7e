"""A gateway before a simulated provider, with one clock for both, and what its prompts cost."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from gateway.cache import Clock
from gateway.lab.provider_sim import ProviderSim
from tests.helpers.doorway import Doorway
from tests.helpers.gateway_here import gateway_here

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from gateway.core.model import Usage

WORDS = "The harbour has ships, tides, a master and his book of rules. "
"""62 bytes."""
MARK = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}


class Time:
    """Seconds, as far as somebody lets them pass."""

    def __init__(self) -> None:
        self.now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


class Behind(Doorway):
    """A doorway whose upstream is a simulation."""

    stub: ProviderSim
    time: Time

    @property
    def sent(self) -> list[Any]:
        """The bodies that reached the provider, parsed."""
        return [orjson.loads(each.body) for each in self.stub.received]

    @property
    def raw(self) -> list[bytes]:
        """The bodies that reached the provider."""
        return [each.body for each in self.stub.received]

    async def tell(self, path: str, body: Any, after_s: float = 10.0, **headers: str) -> Any:
        """Ask so long after the last time; the answer's document. It must be one."""
        self.time.now += after_s
        told = await self.ask(path, body, **headers)
        assert told.status == 200, told.raw
        return None if told.raw.startswith((b"event:", b"data:")) else told.document


@asynccontextmanager
async def behind(
    *,
    openai: str = "openai",
    anthropic: str = "anthropic",
    sim: ProviderSim | None = None,
    **more: Any,
) -> AsyncIterator[Behind]:
    """`openai` and `anthropic` are whose tables hold for the two APIs; `more` are sections of the
    config. Answers are not cached, so that every request reaches the provider.
    """
    time = Time()
    sim = sim or ProviderSim(clock=time, remember=500)
    async with sim, aiohttp.ClientSession() as session:
        base = f"{sim.url}/v1"
        upstreams = {
            "openai": {"base_url": base, "provider": openai},
            "anthropic": {"base_url": base, "provider": anthropic},
        }
        for name, settings in more.pop("upstreams", {}).items():
            upstreams[name] |= settings
        sections = {"cache": {"when": "off"}, "upstreams": upstreams, **more}
        async with gateway_here(sim.url, Clock(now=time, monotonic=time), **sections) as gateway:
            made = Behind(sim, gateway, session)
            made.time = time
            yield made


def cost(usages: Iterable[Usage], read: float = 0.1) -> float:
    """In uncached tokens: 1.25 for what is written for minutes, 2 for an hour."""
    return sum(
        used.uncached_input
        + read * used.cache_read
        + 1.25 * used.cache_write_5m
        + 2.0 * used.cache_write_1h
        for used in usages
    )


def marks(body: Any) -> list[tuple[str, str]]:
    """Where an Anthropic request is marked, in the order of processing, and for how long."""
    found: list[tuple[str, str]] = []

    def look(holder: Any, where: str) -> None:
        if isinstance(holder, dict) and holder.get("cache_control"):
            found.append((where, holder["cache_control"].get("ttl") or "5m"))

    for i, tool in enumerate(body.get("tools", [])):
        look(tool, f"tools.{i}")
    system = body.get("system", [])
    for i, block in enumerate(system if isinstance(system, list) else []):
        look(block, f"system.{i}")
    for i, message in enumerate(body["messages"]):
        content = message["content"]
        for j, block in enumerate(content if isinstance(content, list) else []):
            look(block, f"messages.{i}.{j}")
            inner = block.get("content")
            for k, part in enumerate(inner if isinstance(inner, list) else []):
                look(part, f"messages.{i}.{j}.content.{k}")
    look(body, "automatic")
    return found


def tool(name: str, **more: Any) -> dict[str, Any]:
    """A tool of about 70 tokens."""
    schema = {"type": "object", "properties": {"q": {"type": "string"}}}
    return {"name": name, "description": WORDS * 3, "input_schema": schema, **more}


def agent(turns: int, model: str = "claude-sonnet-4-5", *, parallel: int = 1, **more: Any) -> Any:
    """An agent's request after so many turns with tool calls; each turn has its predecessors' text."""
    messages: list[Any] = [{"role": "user", "content": WORDS * 5}]
    for turn in range(turns):
        uses = [
            {
                "type": "tool_use",
                "id": f"toolu_{turn}_{i}",
                "name": "look",
                "input": {"q": f"{turn}"},
            }
            for i in range(parallel)
        ]
        results = [
            {
                "type": "tool_result",
                "tool_use_id": f"toolu_{turn}_{i}",
                "content": [{"type": "text", "text": f"{turn}: {WORDS * 15}"}],
            }
            for i in range(parallel)
        ]
        messages += [{"role": "assistant", "content": uses}, {"role": "user", "content": results}]
    body = {"model": model, "max_tokens": 50, "system": WORDS * 100, "tools": [tool("look")]}
    return {**body, "messages": messages, **more}

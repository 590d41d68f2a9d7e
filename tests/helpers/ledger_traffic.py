"""Mixed traffic through gateways that share a store, before a provider that bills: what the ledger says
of it is held to that bill.

Time is told: both sides read one clock, which goes on between two waves of requests.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

import aiohttp
import orjson
from multidict import CIMultiDict

from gateway.cache import Clock
from gateway.lab import stub_anthropic
from gateway.lab.provider_sim import NOW_HEADER, ProviderSim
from tests.helpers.doorway import CHAT, EMBEDDINGS, MESSAGES, RESPONSES
from tests.helpers.gateway_here import gateway_here
from tests.helpers.scripted_upstream import serve_app

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

    from gateway.app import RunningGateway
    from gateway.core.records import RequestRecord
    from gateway.lab.sim_bill import Meter
    from gateway.lab.stub_answers import Reply

EPOCH = 1_795_305_600.0
"""2026-11-22, in UTC."""
WAVE = 24
BETWEEN_S = 7.0
TTFT_S = 0.2

REFUSES = "claude-opus-4-1"
"""Of this model the provider takes no markers."""
_WORDS = ("harbour", "ledger", "tide", "anchor", "crane", "pilot", "manifest", "berth", "cargo")
_CLAUDES = ("claude-sonnet-4-5", "claude-opus-5-5", "claude-haiku-5-5", REFUSES)
_GPTS = ("gpt-4o", "gpt-5.6-sol", "gpt-5-mini")
_UNKNOWN = ("gpt-nobody-knows", "claude-unheard-of")


class ToldTime:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def clock(self) -> Clock:
        return Clock(now=lambda: EPOCH + self.now, monotonic=lambda: self.now)


class Asked(NamedTuple):
    """A request of a client."""

    path: str
    body: bytes
    key: str


class Billing(ProviderSim):
    """Refuses markers for one model."""

    def reply_to(self, request: web.Request, body: dict[str, Any], request_id: str) -> Reply:
        if body.get("model") == REFUSES and b"cache_control" in orjson.dumps(body):
            said = "system.0.cache_control: Extra inputs are not permitted"
            return stub_anthropic.error(400, said, request_id)
        return super().reply_to(request, body, request_id)


@dataclass
class Seen:
    """What clients and gateways saw."""

    statuses: dict[int, int] = field(default_factory=dict)
    caches: dict[str, int] = field(default_factory=dict)
    cut: int = 0
    paid_pd: int = 0
    saved_pd: int = 0
    """As each request's own record says."""
    asked: list[tuple[float, Asked]] = field(default_factory=list)
    restarts: int = 0

    def record(self, record: RequestRecord) -> None:
        self.paid_pd += record.paid_pd or 0
        self.saved_pd += record.saved_pd or 0


class Traffic:
    """Requests as agents, chats, searches and impatient people send them. The same for a seed."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._talks: list[dict[str, Any]] = []
        self._lately: list[Asked] = []
        self._number = 0

    def wave(self, size: int) -> list[Asked]:
        """Requests that are sent at once."""
        found: list[Asked] = []
        while len(found) < size:
            dice = self._dice.random()
            if dice < 0.25 and self._lately:
                found.append(self._dice.choice(self._lately))
                continue
            one = self._one(dice)
            # Some come several times at once.
            found += [one] * (3 if self._dice.random() < 0.1 else 1)
            self._lately = [*self._lately[-300:], one]
        return found[:size]

    def _one(self, dice: float) -> Asked:
        self._number += 1
        key = f"sk-{self._dice.randrange(6)}"
        if dice < 0.55:
            return self._turn(key)
        if dice < 0.63:
            texts = [self._text(6) for _ in range(self._dice.choice((1, 1, 3)))]
            if self._lately and self._dice.random() < 0.5:
                # One that was embedded before, among others.
                for each in reversed(self._lately):
                    if each.path == EMBEDDINGS:
                        texts.append(orjson.loads(each.body)["input"][0])
                        key = each.key
                        break
            body = {"model": "text-embedding-3-small", "input": texts}
            return Asked(EMBEDDINGS, orjson.dumps(body), key)
        if dice < 0.69:
            word = self._dice.choice(("[error 429]", "[error 500]", "[error in stream]", "[cut]"))
            return self._chat(key, f"{word} {self._text(4)}", stream=self._dice.random() < 0.5)
        if dice < 0.74:
            model = self._dice.choice(_UNKNOWN)
            if model.startswith("gpt"):
                return self._chat(key, self._text(9), model=model)
            return self._message(key, self._text(9), model)
        if dice < 0.82:
            asked = {"model": "gpt-5.6-sol", "input": self._text(20), "stream": dice < 0.78}
            return Asked(RESPONSES, orjson.dumps(asked), key)
        return self._chat(key, self._text(12), stream=self._dice.random() < 0.5)

    def _turn(self, key: str) -> Asked:
        """The next turn of a conversation of an agent, or the first of a new one."""
        if len(self._talks) < 12 or self._dice.random() < 0.1:
            model = self._dice.choice((*_CLAUDES, *_GPTS))
            lead = self._text(900)
            body: dict[str, Any] = {"model": model, "messages": [], "key": key}
            if model.startswith("claude"):
                body |= {"max_tokens": 64, "system": [{"type": "text", "text": lead}]}
                if model != REFUSES and self._dice.random() < 0.3:
                    body["system"][0]["cache_control"] = {"type": "ephemeral"}
            else:
                body["messages"] = [{"role": "system", "content": lead}]
            self._talks = [*self._talks[-30:], body]
        talk = self._dice.choice(self._talks)
        messages = talk["messages"]
        if messages and messages[-1]["role"] == "user":
            messages.append({"role": "assistant", "content": self._text(40)})
        messages.append({"role": "user", "content": self._text(60)})
        if len(messages) > 30:
            self._talks.remove(talk)
        sent = {name: value for name, value in talk.items() if name != "key"}
        if self._dice.random() < 0.4:
            sent["stream"] = True
        path = MESSAGES if talk["model"].startswith("claude") else CHAT
        return Asked(path, orjson.dumps(sent), talk["key"])

    def _chat(self, key: str, text: str, model: str = "gpt-4o", *, stream: bool = False) -> Asked:
        body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}]}
        # What is deterministic may be answered by another one's call.
        body |= {"temperature": 0} if self._dice.random() < 0.5 else {}
        if stream:
            body["stream"] = True
            if self._dice.random() < 0.5:
                body["stream_options"] = {"include_usage": True}
        return Asked(CHAT, orjson.dumps(body), key)

    def _message(self, key: str, text: str, model: str) -> Asked:
        body: dict[str, Any] = {"model": model, "max_tokens": 32}
        body["messages"] = [{"role": "user", "content": text}]
        return Asked(MESSAGES, orjson.dumps(body), key)

    def _text(self, words: int) -> str:
        told = " ".join(self._dice.choice(_WORDS) for _ in range(words))
        return f"{self._number} {told}"


class Fleet:
    """So many gateways on one store, before one provider."""

    def __init__(self, url: str, replicas: int, time: ToldTime, **sections: Any) -> None:
        self.time = time
        self.sim = Billing(clock=lambda: time.now, ttft_s=TTFT_S)
        self.seen = Seen()
        self._url = url
        self._count = replicas
        self._sections = sections
        self._stack = AsyncExitStack()
        self._own: list[AsyncExitStack] = []
        self._base = ""
        self._session: aiohttp.ClientSession
        self.gateways: list[RunningGateway] = []

    async def __aenter__(self) -> Self:
        self._base = await self._stack.enter_async_context(serve_app(self.sim.app()))
        timeout = aiohttp.ClientTimeout(total=60)
        connector = aiohttp.TCPConnector(limit=0)
        self._session = await self._stack.enter_async_context(
            aiohttp.ClientSession(timeout=timeout, connector=connector)
        )
        for _ in range(self._count):
            await self._start(None)
        return self

    async def __aexit__(self, *_: object) -> None:
        for each in self._own:
            await each.aclose()
        await self._stack.aclose()

    async def _start(self, place: int | None) -> None:
        own = AsyncExitStack()
        store = {"url": self._url, "deadline_ms": 2000, **self._sections.get("store", {})}
        sections = {**self._sections, "store": store}
        gateway = await own.enter_async_context(
            gateway_here(self._base, self.time.clock(), **sections)
        )
        # (Instead of the page's memory: the last one told is enough here.)
        gateway._assembled.telling.on_record = self.seen.record
        if place is None:
            self._own.append(own)
            self.gateways.append(gateway)
        else:
            self._own[place], self.gateways[place] = own, gateway

    async def restart(self, place: int) -> None:
        """Stop it as SIGTERM does, and start another one in its place."""
        await self._own[place].aclose()
        await self._start(place)
        self.seen.restarts += 1

    async def run(self, traffic: Traffic, requests: int, *, restarts: int = 0) -> None:
        """So many requests in waves, each to any of the gateways."""
        dice = random.Random(requests)
        sent = 0
        due = [requests * (n + 1) // (restarts + 1) for n in range(restarts)]
        while sent < requests:
            wave = traffic.wave(min(WAVE, requests - sent))
            sent += len(wave)
            self.time.now += BETWEEN_S
            self.seen.asked += [(self.time.now, each) for each in wave]
            # Those that come several times go to one gateway: it makes one call of them.
            places = {each: dice.randrange(self._count) for each in wave}
            await asyncio.gather(*(self._ask(each, places[each]) for each in wave))
            for gateway in self.gateways:
                # (Calls for what was served stale, and what is written behind answers.)
                await gateway._calls.idle()
                await gateway.background.idle()
            if due and sent >= due[0]:
                due.pop(0)
                await self.restart(dice.randrange(self._count))

    async def _ask(self, asked: Asked, place: int) -> None:
        seen = self.seen
        headers = {"content-type": "application/json", "authorization": f"Bearer {asked.key}"}
        url = self.gateways[place].api_url + asked.path
        try:
            async with self._session.post(url, data=asked.body, headers=headers) as response:
                seen.statuses[response.status] = seen.statuses.get(response.status, 0) + 1
                said = response.headers.get("x-gateway-cache", "")
                seen.caches[said] = seen.caches.get(said, 0) + 1
                await response.read()
        except aiohttp.ClientPayloadError:
            seen.cut += 1

    async def savings(self, *by: str) -> dict[str, Any]:
        """The ledger, after every gateway has written."""
        for gateway in self.gateways:
            assert await gateway._assembled.accounts.flush()
        return await self.gateways[0]._assembled.accounts.savings("2026-11-01", "2026-12-31", by)


class _Direct:
    """As much of a request as the simulation looks at."""

    def __init__(self, path: str, headers: Mapping[str, str]) -> None:
        self.path = path
        self.headers = CIMultiDict(headers)


def directly(asked: list[tuple[float, Asked]]) -> Meter:
    """What the same requests would have cost, had each been sent to the provider as it is: clients'
    own markers, and what the provider caches by itself, as ever.
    """
    sim = ProviderSim(clock=lambda: 0.0, ttft_s=TTFT_S, remember=1)
    for now, each in asked:
        told = {"authorization": f"Bearer {each.key}", NOW_HEADER: str(now)}
        request = cast("web.Request", _Direct(each.path, told))
        sim.reply_to(request, orjson.loads(each.body), "req_direct")
    return sim.meter

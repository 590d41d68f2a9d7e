"""No answer crosses a scope: 100 credentials ask the same questions over every door.

Every answer carries a mark of the credential that fetched it, see `tests/helpers/telltale.py`.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.helpers.gateway_here import gateway_here
from tests.helpers.telltale import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    MESSAGES,
    RESPONSES,
    TellTale,
    ask,
    credential_headers,
    mark,
    tellers,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from gateway.app import RunningGateway
    from tests.helpers.redis_servers import RedisServer

pytestmark = pytest.mark.timeout(300)

PEOPLE = [f"sk-{number:03}" for number in range(100)]
TENANTS = 10
AT_ONCE = 16

WORDS = "what do you know of me?"
TALK = [{"role": "user", "content": WORDS}]
SHORT = {"model": "text-embedding-3-small", "encoding_format": "float", "dimensions": 4}
QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"model": "gpt-4o", "messages": TALK}),
    (CHAT, {"model": "gpt-4o", "messages": TALK, "stream": True}),
    (MESSAGES, {"model": "claude-haiku-5-5", "max_tokens": 300, "messages": TALK}),
    (MESSAGES, {"model": "claude-haiku-5-5", "max_tokens": 300, "messages": TALK, "stream": True}),
    (COMPLETIONS, {"model": "gpt-3.5-turbo-instruct", "prompt": WORDS, "max_tokens": 300}),
    (RESPONSES, {"model": "gpt-4o", "input": WORDS, "store": False}),
    (RESPONSES, {"model": "gpt-4o", "input": WORDS, "store": False, "stream": True}),
    (EMBEDDINGS, {**SHORT, "input": ["one", "two", "three"]}),
    # Known in parts from the batch before it.
    (EMBEDDINGS, {**SHORT, "input": ["three", "four", "one"]}),
    (EMBEDDINGS, {**SHORT, "input": ["two"]}),
]
KEPT: tuple[str, dict[str, Any]] = (RESPONSES, {"model": "gpt-4o", "input": WORDS})


class House:
    """Some gateways before one upstream, and all who ask."""

    def __init__(
        self, upstream: TellTale, gateways: Sequence[RunningGateway], session: aiohttp.ClientSession
    ) -> None:
        self.upstream = upstream
        self.gateways = gateways
        self.session = session

    async def settled(self) -> None:
        """Answers are written behind the response."""
        for gateway in self.gateways:
            await gateway.background.idle()

    async def round(
        self,
        question: tuple[str, dict[str, Any]],
        told: Callable[[str], dict[str, str]],
        may_be_told_by: Callable[[str], set[str]],
        *,
        at: int = 0,
        people: Sequence[str] = PEOPLE,
    ) -> list[str]:
        """Everybody asks it at replica `at`, many at once, and checks whose answer it is; returns
        what the cache said to each.
        """
        path, body = question
        turn = asyncio.Semaphore(AT_ONCE)
        url = self.gateways[at].api_url

        async def one(who: str) -> str:
            async with turn:
                status, cache, raw = await ask(self.session, url, path, body, who, **told(who))
            assert status == 200, raw
            found = tellers(path, body, raw, PEOPLE)
            assert found, (path, who, raw)
            assert found <= {mark(each) for each in may_be_told_by(who)}, (path, who, found)
            return cache

        results = await asyncio.gather(*map(one, people))
        await self.settled()
        return list(results)


@asynccontextmanager
async def house(
    store_url: str = "memory://", replicas: int = 1, refused: Sequence[str] = (), **sections: Any
) -> AsyncIterator[House]:
    upstream = TellTale(refused)
    sections = {"store": {"url": store_url, "deadline_ms": 5000}, **sections}
    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(upstream.serve())
        gateways = [
            await stack.enter_async_context(gateway_here(base, **sections)) for _ in range(replicas)
        ]
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield House(upstream, gateways, session)


def nothing(who: str) -> dict[str, str]:
    return {}


def forged(who: str) -> dict[str, str]:
    """All claim to be of one tenant."""
    return {"x_gateway_tenant": "acme"}


def tenant(who: str) -> str:
    return f"tenant-{int(who[3:]) % TENANTS}"


def named(who: str) -> dict[str, str]:
    """What a proxy says that knows them."""
    return {"x_gateway_tenant": tenant(who)}


def oneself(who: str) -> set[str]:
    return {who}


def colleagues(who: str) -> set[str]:
    return {each for each in PEOPLE if tenant(each) == tenant(who)}


def anybody(who: str) -> set[str]:
    return set(PEOPLE)


async def nothing_crosses(at_home: House, told: Callable[[str], dict[str, str]]) -> None:
    """Each of 100 credentials gets its own answers: as misses, as hits, and from every replica."""
    last = len(at_home.gateways) - 1
    for question in [*QUESTIONS, KEPT]:
        first = await at_home.round(question, told, oneself)
        assert set(first) <= {"miss", "hit"}
        before = at_home.upstream.asked.total()
        again = await at_home.round(question, told, oneself, at=last)
        assert set(again) == {"hit"}
        # The bytes are the same now: the door knows the request.
        assert set(await at_home.round(question, told, oneself, at=last)) == {"hit"}
        assert at_home.upstream.asked.total() == before
    # One call for each credential and meaning: nobody was served what another one fetched.
    per_path = {
        path: {n for (at, _), n in at_home.upstream.asked.items() if at == path}
        for path, _ in QUESTIONS
    }
    assert per_path == {CHAT: {1}, MESSAGES: {1}, COMPLETIONS: {1}, RESPONSES: {2}, EMBEDDINGS: {2}}
    assert len({who for _, who in at_home.upstream.asked}) == len(PEOPLE)


@pytest.mark.parametrize("door_entries", [0, 100_000], ids=["door closed", "door open"])
async def test_no_answer_crosses_from_one_credential_to_another_in_memory(
    door_entries: int,
) -> None:
    async with house(cache={"door_entries": door_entries}) as h:
        await nothing_crosses(h, nothing)


@pytest.mark.parametrize("memory_bytes", [0, 64 << 20], ids=["file only", "memory before it"])
async def test_no_answer_crosses_from_one_credential_to_another_in_sqlite(
    tmp_path: Path, memory_bytes: int
) -> None:
    store = {
        "url": f"sqlite:///{tmp_path}/cache.db",
        "memory_bytes": memory_bytes,
        "deadline_ms": 5000,
    }
    async with house(store=store) as h:
        await nothing_crosses(h, nothing)


async def test_no_answer_crosses_from_one_credential_to_another_at_two_replicas_on_one_redis(
    redis_server: RedisServer,
) -> None:
    async with house(redis_server.url, replicas=2) as h:
        await nothing_crosses(h, nothing)


async def test_a_tenant_header_from_an_untrusted_peer_opens_no_door() -> None:
    trusted = {"trusted_proxies": ["10.0.0.0/8"]}
    async with house(cache={"scope": "tenant"}, server=trusted) as h:
        await nothing_crosses(h, forged)


async def test_a_tenant_header_means_nothing_in_credential_scope() -> None:
    trusted = {"trusted_proxies": ["127.0.0.0/8"]}
    async with house(server=trusted) as h:
        await nothing_crosses(h, forged)


async def accept_everybody(at_home: House) -> None:
    """An upstream has accepted each credential, at every replica."""
    for gateway in at_home.gateways:
        for path in (CHAT, MESSAGES):
            for who in PEOPLE:
                headers = credential_headers(path, who)
                # The model itself was asked: a model list says nothing about a credential.
                url, body = f"{gateway.api_url}{path}", {**dict(QUESTIONS)[path], "top_p": 0.5}
                headers["cache-control"] = "no-cache, no-store"
                async with at_home.session.post(url, headers=headers, json=body) as response:
                    assert response.status == 200


async def test_in_tenant_scope_colleagues_share_and_no_answer_leaves_the_tenant(
    redis_server: RedisServer,
) -> None:
    trusted = {"trusted_proxies": ["127.0.0.0/8"]}
    async with house(redis_server.url, 2, cache={"scope": "tenant"}, server=trusted) as h:
        await accept_everybody(h)
        for question in QUESTIONS:
            # The first of each tenant asks for all of it.
            await h.round(question, named, colleagues, people=PEOPLE[:TENANTS])
            for at in (0, 1):
                assert set(await h.round(question, named, colleagues, at=at)) == {"hit"}
        # What the provider keeps stays with the one credential that made it.
        assert set(await h.round(KEPT, named, oneself)) == {"miss"}
        assert set(await h.round(KEPT, named, oneself, at=1)) == {"hit"}


async def test_in_shared_scope_all_accepted_share_and_kept_responses_stay_their_owners(
    redis_server: RedisServer,
) -> None:
    async with house(redis_server.url, 2, cache={"scope": "shared"}) as h:
        await accept_everybody(h)
        for question in QUESTIONS:
            await h.round(question, nothing, anybody, people=PEOPLE[:1])
            for at in (0, 1):
                assert set(await h.round(question, nothing, anybody, at=at)) == {"hit"}
        assert set(await h.round(KEPT, nothing, oneself)) == {"miss"}
        assert set(await h.round(KEPT, nothing, oneself, at=1)) == {"hit"}


@pytest.mark.parametrize("scope", ["shared", "tenant"])
async def test_a_credential_that_was_never_accepted_gets_no_hit(scope: str) -> None:
    strangers = [f"sk-stranger-{number}" for number in range(20)]
    trusted = {"trusted_proxies": ["127.0.0.0/8"]}
    async with house(refused=strangers, cache={"scope": scope}, server=trusted) as h:
        url = h.gateways[0].api_url
        for path, body in [*QUESTIONS, KEPT]:
            assert (await ask(h.session, url, path, body, PEOPLE[0], **forged("")))[0] == 200
            await h.settled()
            for stranger in strangers:
                for _ in range(2):
                    status, cache, raw = await ask(
                        h.session, url, path, body, stranger, **forged("")
                    )
                    assert (status, cache) == (401, "miss")
                    assert b"no such key" in raw
                told = {**forged(""), "cache_control": "only-if-cached"}
                status, _, raw = await ask(h.session, url, path, body, stranger, **told)
                assert status == 504
        # One whom the upstream would accept, but hasn't yet: asked for, and its own.
        path, body = QUESTIONS[0]
        status, cache, raw = await ask(h.session, url, path, body, PEOPLE[1], **forged(""))
        assert (status, cache) == (200, "miss")
        assert tellers(path, body, raw, ()) == {mark(PEOPLE[1])}
        assert (await ask(h.session, url, path, body, PEOPLE[1], **forged("")))[1] == "hit"


async def test_what_an_upstream_answers_to_anybody_proves_no_credential() -> None:
    async with house(cache={"scope": "shared"}) as h:
        url, (path, body) = h.gateways[0].api_url, QUESTIONS[0]
        assert (await ask(h.session, url, path, body, PEOPLE[0]))[0] == 200
        await h.settled()
        headers = credential_headers(path, "sk-invented")
        for method, target in (("OPTIONS", path), ("GET", "/v1/models"), ("HEAD", "/v1/models")):
            async with h.session.request(method, f"{url}{target}", headers=headers) as response:
                assert response.status == 200
        status, cache, raw = await ask(h.session, url, path, body, "sk-invented")
        assert (status, cache) == (200, "miss")
        assert tellers(path, body, raw, ()) == {mark("sk-invented")}

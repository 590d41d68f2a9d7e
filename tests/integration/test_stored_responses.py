"""Responses that the provider keeps: their id stays, only their owner gets them, deletion counts."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from openai import AsyncOpenAI

from gateway.app import start
from gateway.config import load
from gateway.lab.stub_provider import StubProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.helpers.redis_servers import RedisServer


@asynccontextmanager
async def worlds(store_url: str, replicas: int = 1, **settings: str) -> AsyncIterator[Any]:
    async with StubProvider() as stub:
        gateways, clients = [], []
        for _ in range(replicas):
            environ = {
                "GATEWAY_UPSTREAMS__OPENAI__BASE_URL": stub.v1_url,
                "GATEWAY_UPSTREAMS__OPENAI__PROVIDER": "openai",
                "GATEWAY_SERVER__PORT": "0",
                "GATEWAY_SERVER__PROBE_PORT": "0",
                "GATEWAY_STORE__URL": store_url,
                "GATEWAY_STORE__DEADLINE_MS": "1000",
                **settings,
            }
            gateway = await start(load(None, environ), environ)
            gateways.append(gateway)
            clients.append(
                AsyncOpenAI(api_key="sk-1", base_url=f"{gateway.api_url}/v1", max_retries=0)
            )
        try:
            yield stub, clients
        finally:
            for client, gateway in zip(clients, gateways, strict=True):
                await client.close()
                await gateway.stop()


async def ask(client: AsyncOpenAI, **options: Any) -> tuple[str, Any]:
    options = {"model": "gpt-4o", "input": "What is kept?", **options}
    raw = await client.responses.with_raw_response.create(**options)
    return raw.headers["x-gateway-cache"], raw.parse()


async def test_a_kept_response_keeps_its_id_and_a_discarded_one_gets_a_fresh_one() -> None:
    async with worlds("memory://") as (stub, [client]):
        miss, first = await ask(client)
        hit, second = await ask(client)
        assert ("miss", "hit") == (miss, hit)
        assert first.model_dump() == second.model_dump()
        _, fresh = await ask(client, store=False)
        hit, renewed = await ask(client, store=False)
        assert hit == "hit"
        assert fresh.id != renewed.id
        assert fresh.output_text == renewed.output_text
        assert stub.calls["/v1/responses"] == 2


async def test_only_the_credential_that_made_it_gets_a_kept_response_in_any_scope() -> None:
    async with worlds("memory://", GATEWAY_CACHE__SCOPE="shared") as (_, [client]):
        other = client.with_options(api_key="sk-2")
        for store, expected in ((True, "miss"), (False, "hit")):
            await ask(client, store=store)
            # Proves the other credential to the upstream first: a hit needs that.
            await other.models.list()
            assert (await ask(other, store=store))[0] == expected


async def test_the_previous_response_is_part_of_the_question() -> None:
    async with worlds("memory://") as (_, [client]):
        _, first = await ask(client)
        asked = {"input": "And then?"}
        assert (await ask(client, previous_response_id=first.id, **asked))[0] == "miss"
        assert (await ask(client, previous_response_id=first.id, **asked))[0] == "hit"
        assert (await ask(client, previous_response_id="resp_other", **asked))[0] == "miss"
        assert (await ask(client, **asked))[0] == "miss"


async def test_a_deletion_that_passes_through_purges_the_entry_at_every_replica(
    redis_server: RedisServer,
) -> None:
    async with worlds(redis_server.url, replicas=2) as (stub, [client, elsewhere]):
        _, kept = await ask(client)
        # Writing goes on behind the response.
        while (await ask(elsewhere))[0] != "hit":
            pass
        assert (await ask(client))[0] == "hit"
        await client.responses.delete(kept.id)
        calls = stub.calls["/v1/responses"]
        while (await ask(elsewhere, extra_headers={"Cache-Control": "no-store"}))[0] == "hit":
            pass
        assert stub.calls["/v1/responses"] > calls


async def test_what_the_provider_remembers_by_itself_is_never_cached() -> None:
    async with worlds("memory://") as (_, [client]):
        for options in (
            {"conversation": "conv_1"},
            {"background": True},
            {"prompt": {"id": "pmpt_1"}},
            {"tools": [{"type": "web_search"}]},
        ):
            for _ in range(2):
                assert (await ask(client, **options))[0] == "pass", options

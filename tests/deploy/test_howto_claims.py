"""What the guides for operators say that the gateway does, it does."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import redis
import yaml
from aiohttp import web

from bench.redis_sizes import CASES, measure, measure_ledger
from gateway.lab.engine_server import EngineServer
from gateway.lab.stub_provider import StubProvider
from tests.deploy.newcomer import GUIDES, OF_OPERATORS, blocks
from tests.helpers.gateway_here import gateway_here
from tests.helpers.redis_servers import RedisServer, binary
from tests.helpers.required import missing
from tests.helpers.scripted_upstream import serve_app

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from aiohttp.typedefs import Handler

    from gateway.app import RunningGateway

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
KEY = {"Authorization": "Bearer sk-somebody"}
TABLE_ROW = re.compile(r"^\| (.+?) \| (.+) \|$", re.MULTILINE)


def guide(name: str) -> str:
    return (GUIDES / "how-to" / name).read_text(encoding="utf-8")


def settings_under(name: str, heading: str) -> dict[str, Any]:
    """The first block of YAML in a section of a guide."""
    section = guide(name).split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    found: dict[str, Any] = yaml.safe_load(section.split("```yaml\n", 1)[1].split("```", 1)[0])
    return found


class Client:
    """Asks a gateway as an app with a key does."""

    def __init__(self, gateway: RunningGateway, session: aiohttp.ClientSession) -> None:
        self._gateway, self._session = gateway, session

    async def ask(
        self,
        body: Mapping[str, Any] = CHAT,
        path: str = "/v1/chat/completions",
        **headers: str,
    ) -> str:
        """What `x-gateway-cache` says."""
        sent = {**KEY, **{name.replace("_", "-"): value for name, value in headers.items()}}
        url = f"{self._gateway.api_url}{path}"
        async with self._session.post(url, json=body, headers=sent) as answer:
            assert answer.status == 200, await answer.text()
            return answer.headers["x-gateway-cache"]


def headings(file: Path) -> set[str]:
    """What links may name in a page."""
    text = re.sub(
        r"^```.*?^```", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).strip().replace(" ", "-") for each in found}


@pytest.mark.parametrize("name", OF_OPERATORS)
def test_links_lead_to_headings_that_are_there(name: str) -> None:
    page = GUIDES / name
    links = re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", page.read_text(encoding="utf-8"))
    lost = [
        f"{target}#{anchor}"
        for target, anchor in links
        if anchor not in headings((page.parent / target) if target else page)
    ]
    assert lost == []


# -- a container, the first page


def test_what_may_change_is_mounted_as_a_folder() -> None:
    # A mounted file stays the one that was there, whatever is moved to its place.
    mounts = re.findall(r"--volume ([^\s:]+):(/[^\s:`]+)", guide("docker.md"))
    assert {place for _, place in mounts} == {
        *("/var/lib/warmgate", "/etc/warmgate", "/run/secrets")
    }
    assert [source for source, _ in mounts if "." in source.removeprefix("./")] == []


async def test_the_first_pages_request_prints_what_is_shown() -> None:
    readme = (GUIDES.parent / "README.md").read_text(encoding="utf-8")
    (typed, shown) = re.findall(r"^\$ (curl (?:.*\\\n)*.*)\n((?:.+\n)+?)```", readme, re.MULTILINE)[
        0
    ]
    if shutil.which("curl") is None:
        missing("curl", "is not installed")
    printed = ""
    async with StubProvider() as provider, gateway_here(provider.url) as gateway:
        for _ in range(2):
            process = await asyncio.create_subprocess_shell(
                typed.replace("http://127.0.0.1:8080", gateway.api_url),
                env={"PATH": os.environ["PATH"], "OPENAI_API_KEY": "sk-somebody"},
                stdout=asyncio.subprocess.PIPE,
            )
            printed = (await process.communicate())[0].decode()

    def names(text: str) -> list[str]:
        return [line.partition(":")[0] for line in text.splitlines()]

    assert names(printed) == names(shown)


# -- coming from others


def test_what_things_become_is_there() -> None:
    reference = "\n".join(
        (GUIDES / "reference" / name).read_text(encoding="utf-8")
        for name in ("settings.md", "headers.md", "commands.md", "metrics.md")
    )
    rows = TABLE_ROW.findall(guide("migrate.md"))
    assert len(rows) > 40
    here = {name for _, right in rows for name in re.findall(r"`([^`]+)`", right)}
    # (A header with a value is looked for without what stands for the value.)
    named = {re.sub(r"(: |=).*$", "", name) for name in here}
    places = re.compile(r"/v1/\.\.\.|/u/NAME/v1/\.\.\.|NAME|timeout|max_retries|/livez|/readyz")
    unknown = {
        name
        for name in named
        if not places.fullmatch(name) and re.sub(r" --\w+$", "", name) not in reference
    }
    assert unknown == set()


async def test_keys_of_others_would_reach_the_provider() -> None:
    async with StubProvider() as provider, gateway_here(provider.url) as gateway:
        async with aiohttp.ClientSession() as session:
            await Client(gateway, session).ask(Helicone_Auth="Bearer sk-helicone")
        assert provider.received[-1].header("Helicone-Auth") == "Bearer sk-helicone"


async def test_directives_mean_what_the_tables_say() -> None:
    async with (
        StubProvider() as provider,
        gateway_here(provider.url) as gateway,
        aiohttp.ClientSession() as session,
    ):
        client = Client(gateway, session)
        # Helicone-Cache-Enabled: false
        assert await client.ask(Cache_Control="no-cache, no-store") != "hit"
        assert await client.ask() == "miss"
        assert await client.ask(Cache_Control="max-age=604800") == "hit"
        # Helicone-Cache-Read alone, and LiteLLM's no-store: what is there is served.
        assert await client.ask(Cache_Control="no-store") == "hit"
        # Helicone-Cache-Save alone, x-portkey-cache-force-refresh: asked anew, and stored.
        before = provider.total_calls
        assert await client.ask(Cache_Control="no-cache") != "hit"
        assert provider.total_calls == before + 1
        assert await client.ask() == "hit"


async def test_what_litellm_is_told_in_the_body_is_part_of_the_question() -> None:
    async with (
        StubProvider() as provider,
        gateway_here(provider.url) as gateway,
        aiohttp.ClientSession() as session,
    ):
        client = Client(gateway, session)
        assert await client.ask() == "miss"
        assert await client.ask({**CHAT, "cache": {"ttl": 300}}) == "miss"
        assert provider.received[-1].json()["cache"] == {"ttl": 300}


async def test_an_old_header_may_go_on_to_divide_the_cache() -> None:
    shown = settings_under("migrate.md", "Namespaces")
    async with (
        StubProvider() as provider,
        gateway_here(provider.url, **shown) as gateway,
        aiohttp.ClientSession() as session,
    ):
        client = Client(gateway, session)
        first = await client.ask(Helicone_Cache_Seed="one")
        assert first == "miss"
        assert provider.received[-1].header("Helicone-Cache-Seed") is None
        assert await client.ask(Helicone_Cache_Seed="one") == "hit"
        assert await client.ask(Helicone_Cache_Seed="two") == "miss"
        assert await client.ask() == "miss"
        # Another key is served what its namespace holds once the provider has taken the key.
        other = "Bearer sk-another"
        question = {**CHAT, "seed": 1}
        await client.ask(question, Helicone_Cache_Seed="one", Authorization=other)
        assert await client.ask(Helicone_Cache_Seed="one", Authorization=other) == "hit"


async def test_only_what_the_routes_name_is_cached() -> None:
    shown = settings_under("migrate.md", "Cache only what asks for it")
    embedding = {"model": "text-embedding-3-small", "input": "Hello"}
    async with (
        StubProvider() as provider,
        gateway_here(provider.url, **shown) as gateway,
        aiohttp.ClientSession() as session,
    ):
        client = Client(gateway, session)
        small = {**CHAT, "model": "gpt-4o-mini"}
        assert [await client.ask() for _ in range(2)] == ["pass", "pass"]
        assert [await client.ask(small) for _ in range(2)] == ["miss", "hit"]
        asked = [await client.ask(embedding, "/v1/embeddings") for _ in range(2)]
        assert asked == ["miss", "hit"]


async def test_the_example_in_python_works(monkeypatch: pytest.MonkeyPatch) -> None:
    openai = pytest.importorskip("openai")
    (block,) = (b for b in blocks("how-to/migrate.md") if b.language == "python")
    async with StubProvider() as provider, gateway_here(provider.url) as gateway:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-somebody")
        # The same call, by the client of this library that shares the test's loop.
        text = (
            block.text.replace("http://127.0.0.1:8080", gateway.api_url)
            .replace("OpenAI", "AsyncOpenAI")
            .replace("client.chat", "call = client.chat")
        )
        names: dict[str, Any] = {}
        exec(text, names)
        async with names["client"]:
            answer = await names["call"]
        assert isinstance(answer, openai.types.chat.ChatCompletion)
        assert provider.received[-1].header("Cache-Control") == "no-cache"


# -- an inference gateway


async def test_an_inference_gateway_is_asked_for_nothing_that_it_does_not_have() -> None:
    asked: list[tuple[str, set[str]]] = []
    probed = asyncio.Event()

    @web.middleware
    async def noted(request: web.Request, handler: Handler) -> web.StreamResponse:
        asked.append((request.path, {name.lower() for name in request.headers}))
        return await handler(request)

    async def models(_: web.Request) -> web.Response:
        # The first of them may come before the gateway listens.
        if [path for path, _ in asked].count("/v1/models") > 3:
            probed.set()
        return web.json_response({"object": "list", "data": []})

    async def chat(_: web.Request) -> web.Response:
        return web.json_response(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1,
                "model": "m",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": "Hi"},
                        "finish_reason": "stop",
                    }
                ],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }
        )

    app = web.Application(middlewares=[noted])
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/chat/completions", chat)
    (values,) = (
        block.documents[0]
        for block in blocks("how-to/inference-gateway.md")
        if block.file_name == "values.yaml"
    )
    config = values["config"]
    upstream = config["upstreams"]["models"]
    async with serve_app(app) as base:
        upstream["backends"] = [f"{base}/v1"]
        upstream["health"]["interval_s"] = 0.02
        async with (
            gateway_here("http://127.0.0.1:9", **config) as gateway,
            aiohttp.ClientSession() as session,
        ):
            client = Client(gateway, session)
            said = {**CHAT, "model": "meta-llama/Llama-3.1-8B-Instruct"}
            for seed in (1, 2):
                told = await client.ask(
                    {**said, "seed": seed},
                    x_gateway_inference_objective="batch",
                    x_llm_d_inference_objective="batch",
                    x_gateway_cache_samples="1",
                )
                assert told == "miss"
            async with asyncio.timeout(10):
                await probed.wait()
            async with session.get(f"{gateway.admin_url}/admin/backends") as answer:
                (replica,) = (await answer.json())["upstreams"]["models"]["backends"]
            assert replica["state"] == "ready"
    assert {path for path, _ in asked} <= {"/v1/models", "/v1/chat/completions"}
    (names, *_) = (names for path, names in asked if path == "/v1/chat/completions")
    assert "x-llm-d-inference-objective" in names
    assert "x-gateway-inference-objective" in names
    assert "x-gateway-cache-samples" not in names


# -- what Redis holds


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    # (Valkey takes less.)
    executable = binary("redis")
    if executable is None:
        missing("redis", "is not installed")
    server = RedisServer(executable)
    server.start()
    yield server.url
    server.close()


async def test_every_key_is_in_the_table(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        async with (
            EngineServer(name="e", prefill_rate=1e6, decode_s=0.0) as engine,
            gateway_here(
                "http://127.0.0.1:9",
                store={"url": redis_url},
                upstreams={"openai": {"engine": "vllm", "backends": [engine.v1_url]}},
            ) as gateway,
            aiohttp.ClientSession() as session,
        ):
            asked = Client(gateway, session)
            assert await asked.ask({**CHAT, "model": "simulated"}) == "miss"
            purge = {"tags": ["handbook"], "dry_run": False}
            url = f"{gateway.admin_url}/admin/cache/purge"
            async with session.post(url, json=purge) as answer:
                assert answer.status == 200, await answer.text()
        # (What was told to the store is there when the gateway has stopped.)
        keys = {key.decode() for key in client.scan_iter()}
    rows = guide("redis-sizing.md").split("\n| Key | ")[1].split("\n\n")[0]
    cells = [name for row in TABLE_ROW.findall(rows) for name in re.findall(r"`([^`]+)`", row[0])]
    kinds = {
        r"warmgate:[0-9a-f]{64}": "warmgate:<64 digits>",
        r"warmgate:\{ledger\}:\d{4}-\d\d-\d\d": "warmgate:{ledger}:<day>",
        r"warmgate:\{ledger\}:days": "warmgate:{ledger}:days",
        r"warmgate:\{ledger\}:by:\w+": ":by:<gateway>",
        r"warmgate:route:\w+": "warmgate:route:<pool>",
        r"warmgate:purges": "warmgate:purges",
        r"warmgate:scope-secret": "warmgate:scope-secret",
    }
    found = {name for key in keys for kind, name in kinds.items() if re.fullmatch(kind, key)}
    assert [k for k in keys if not any(re.fullmatch(kind, k) for kind in kinds)] == []
    assert found == set(kinds.values())
    assert set(kinds.values()) == {name for name in cells if "<" in name or "warmgate" in name}


def sizes_shown() -> dict[str, tuple[float, float]]:
    """Of the guide: bytes as sent, and as held."""
    table = guide("redis-sizing.md").split("<!-- measured: answers -->")[1].split("<!-- end -->")[0]
    rows = re.findall(r"^\| (.+?) \| ([\d,]+) \| ([\d,]+) \|", table, re.MULTILINE)
    return {
        name: (float(sent.replace(",", "")), float(held.replace(",", "")))
        for name, sent, held in rows
    }


@pytest.mark.parametrize("name", CASES)
async def test_an_answer_takes_what_the_guide_says(name: str, redis_url: str) -> None:
    sent, held = await measure(redis_url, CASES[name](1_000))
    shown = sizes_shown()[name]
    assert sent == pytest.approx(shown[0], rel=0.1)
    # (Redis's own tables grow by leaps.)
    assert held == pytest.approx(shown[1], rel=0.15)


async def test_a_line_of_the_ledger_takes_what_the_guide_says(redis_url: str) -> None:
    assert "560 bytes for each line" in guide("redis-sizing.md")
    assert await measure_ledger(redis_url, 1_000) == pytest.approx(560, rel=0.15)


def test_the_sum_is_right() -> None:
    held = sizes_shown()["8,192 bytes"][1]
    text = guide("redis-sizing.md")
    shown = re.search(r"5 x 86,400 x ([\d,]+) x 1\.3 =\s+([\d.]+) GB", text)
    assert shown
    assert float(shown[1].replace(",", "")) == held
    assert 5 * 86_400 * held * 1.3 / 1e9 == pytest.approx(float(shown[2]), abs=0.05)
    assert "67 MB" in text
    assert 300 * 560 * 400 / 1e6 == pytest.approx(67, abs=0.5)

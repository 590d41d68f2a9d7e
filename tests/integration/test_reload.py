"""Another config while requests run: it holds as a whole, or not at all, and nobody's request notices."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import weakref
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import yaml
from aiohttp import web

from gateway.config.redaction import MASK
from gateway.reloading import Outcome
from tests.helpers.gateway_here import gateway_here, settings
from tests.helpers.gateway_process import GatewayProcess
from tests.helpers.raw_client import fetch
from tests.helpers.reloaded import gateway_in_file
from tests.helpers.scripted_upstream import serve_app

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.app import RunningGateway

CHAT = "/v1/chat/completions"
_JSON = [("Content-Type", "application/json"), ("Authorization", "Bearer sk-client")]


class Upstream:
    """Answers with its own name, whole or as a stream of some events."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked = 0
        self.keys: list[str] = []
        self.pause_s = 0.0
        self.at_work = asyncio.Event()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        self.at_work.set()
        self.keys.append(request.headers.get("Authorization", ""))
        asked = await request.json()
        if asked.get("stream"):
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            for number in range(5):
                delta = {"content": f"{self.name}{number}"}
                await response.write(_event({"choices": [{"index": 0, "delta": delta}]}))
                await asyncio.sleep(self.pause_s)
            last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
            await response.write(_event(last) + b"data: [DONE]\n\n")
            return response
        await asyncio.sleep(self.pause_s)
        message = {"role": "assistant", "content": self.name}
        return web.json_response(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1,
                "model": asked["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
            }
        )

    def app(self) -> web.Application:
        """What serves."""
        app = web.Application()
        app.router.add_post(CHAT, self._chat)
        return app


def _event(delta: dict[str, Any]) -> bytes:
    whole = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", **delta}
    return b"data: " + orjson.dumps(whole) + b"\n\n"


def body(text: str, *, stream: bool = False) -> bytes:
    return orjson.dumps(
        {
            "model": "gpt-4o",
            "messages": [{"role": "user", "content": text}],
            "stream": stream,
            "temperature": 0,
        }
    )


async def ask(url: str, text: str) -> str:
    """Who answered."""
    answer = await fetch(url, "POST", CHAT, body(text), _JSON)
    assert answer.status == 200, answer
    told: str = orjson.loads(answer.body)["choices"][0]["message"]["content"]
    return told


async def test_a_proxy_is_turned_over_under_load_and_no_request_fails(tmp_path: Path) -> None:
    one, two = Upstream("one"), Upstream("two")
    one.pause_s = two.pause_s = 0.002
    stop, some = asyncio.Event(), asyncio.Event()
    answered: dict[str, int] = {"one": 0, "two": 0}
    broken: list[str] = []

    async def client(number: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            stream = turn % 2 == 0
            text = f"{number} {turn % 7} {turn if turn % 3 else ''}"
            answer = await fetch(url, "POST", CHAT, body(text, stream=stream), _JSON)
            whole = answer.body
            ends = b"data: [DONE]" in whole if stream else whole.endswith(b"}")
            names = [name for name in ("one", "two") if name.encode() in whole]
            if answer.status != 200 or not ends or len(names) != 1:
                broken.append(f"{answer.status} {whole!r}")
            else:
                answered[names[0]] += 1
                if sum(answered.values()) % 8 == 0:
                    some.set()

    async with (
        serve_app(one.app()) as first,
        serve_app(two.app()) as second,
        gateway_in_file(tmp_path / "gateway.yaml", first) as there,
    ):
        url = there.gateway.api_url
        async with asyncio.TaskGroup() as clients:
            for number in range(16):
                clients.create_task(client(number))
            for turn in range(40):
                base = (second, first)[turn % 2]
                done = await there.say(
                    upstreams={"openai": {"base_url": f"{base}/v1", "provider": "openai"}},
                    cache={"ttl_s": 60 + turn, "coalesce": ("all", "off")[turn % 2]},
                    prompt_cache={"hints": bool(turn % 2)},
                )
                assert done.outcome is Outcome.APPLIED, done
                some.clear()
                async with asyncio.timeout(5):
                    await some.wait()
            stop.set()

    assert not broken
    assert min(answered.values()) > 50


async def test_a_config_with_faults_changes_nothing_and_every_fault_is_told(tmp_path: Path) -> None:
    upstream = Upstream("one")
    async with (
        serve_app(upstream.app()) as base,
        gateway_in_file(tmp_path / "gateway.yaml", base) as there,
    ):
        before = there.gateway._assembled

        refused = await there.say(cache={"ttl_s": -1}, server={"nonsense": 1})

        assert refused.outcome is Outcome.REFUSED
        assert {"cache.ttl_s", "server.nonsense"} == {each.path for each in refused.faults}
        assert there.gateway._assembled is before
        assert await ask(there.gateway.api_url, "hello") == "one"
        metrics = (await fetch(there.gateway.probe_url, "GET", "/metrics")).body.decode()
        assert 'gateway_config_reloads_total{outcome="refused"} 1.0' in metrics
        assert "gateway_config_refused 1.0" in metrics


# --- what stays known ----------------------------------------------------------------------------


def pool(*bases: str, **settings: Any) -> dict[str, Any]:
    return {
        "openai": {
            "engine": "openai",
            "backends": [
                {"name": name, "url": f"{base}/v1"}
                for name, base in zip(("a", "b", "c"), bases, strict=False)
            ],
            "health": {"interval_s": 0},
            **settings,
        }
    }


async def test_what_another_config_does_not_touch_stays_known(tmp_path: Path) -> None:
    one, two = Upstream("one"), Upstream("two")
    async with (
        serve_app(one.app()) as first,
        serve_app(two.app()) as second,
        gateway_in_file(
            tmp_path / "gateway.yaml",
            first,
            upstreams=pool(first, second),
            cache={"scope": "shared"},
        ) as there,
    ):
        url, before = there.gateway.api_url, there.gateway._assembled
        # Long enough to have a way of its own, so that a replica is remembered for it.
        long = "once more " * 2000
        await ask(url, long)
        router = before.routing.pools["openai"].router
        mirrored = {name: each.get("mirror_tokens") for name, each in router.told().items()}
        before.pools.drain("openai", "b")
        asked = one.asked + two.asked

        done = await there.say(
            cache={"scope": "shared", "ttl_s": 7, "auth_ttl_s": 30},
            upstreams=pool(first, second, routing={"break_s": 3}),
            server={"memory_budget_bytes": 1 << 28, "body_limit_bytes": 1 << 20},
        )
        after = there.gateway._assembled

        assert done.outcome is Outcome.APPLIED
        assert any(mirrored.values())
        assert after.proxy is not before.proxy
        assert after.routing.pools["openai"] is before.routing.pools["openai"]
        assert mirrored == {n: each.get("mirror_tokens") for n, each in router.told().items()}
        assert (router.affinity.settings.break_s, router.replicas["b"].draining) == (3, True)
        assert after.planning.learned is before.planning.learned
        assert after.recognition is before.recognition
        assert (after.lasting.budget.limit_bytes, after.lasting.acceptance.ttl_s) == (1 << 28, 30)
        # The credential was accepted before, and the answer stored: nobody is asked again.
        assert await ask(url, long) in {"one", "two"}
        assert one.asked + two.asked == asked


async def test_a_replica_that_is_taken_out_ends_what_it_has_and_one_that_joins_is_asked(
    tmp_path: Path,
) -> None:
    one, two = Upstream("one"), Upstream("two")
    one.pause_s = 0.2
    async with (
        serve_app(one.app()) as first,
        serve_app(two.app()) as second,
        gateway_in_file(tmp_path / "gateway.yaml", first, upstreams=pool(first)) as there,
    ):
        url = there.gateway.api_url
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(
                fetch(url, "POST", CHAT, body("stream it", stream=True), _JSON)
            )
            backend = there.gateway._assembled.pools["openai"]["a"]
            await one.at_work.wait()
            upstreams = pool(first, second)
            upstreams["openai"]["backends"].pop(0)
            done = await there.say(upstreams=upstreams)
            assert done.outcome is Outcome.APPLIED
            assert (backend.draining, backend.in_flight) == (True, 1)
            assert await ask(url, "who?") == "two"
        assert b"data: [DONE]" in running.result().body
        assert backend.in_flight == 0
        replicas = there.gateway._assembled.pools["openai"]
        replicas.sweep()
        assert [each.name for each in replicas] == ["b"]


async def test_a_stream_ends_on_an_upstream_that_is_not_in_the_config_any_more(
    tmp_path: Path,
) -> None:
    one, two = Upstream("one"), Upstream("two")
    one.pause_s = 0.1
    async with serve_app(one.app()) as first, serve_app(two.app()) as second:
        extra = {"gone": pool(first)["openai"], **settings(second)["upstreams"]}
        async with gateway_in_file(tmp_path / "gateway.yaml", second, upstreams=extra) as there:
            url = there.gateway.api_url
            path = f"/u/gone{CHAT}"
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(
                    fetch(url, "POST", path, body("stream", stream=True), _JSON)
                )
                await one.at_work.wait()
                there.tree["upstreams"].pop("gone")
                done = await there.say()
                assert done.applied == ("upstreams.gone",)
                assert list(there.gateway._assembled.pools) == []
            assert b"data: [DONE]" in running.result().body
            assert (await fetch(url, "POST", path, body("again"), _JSON)).status == 404


async def test_an_upstream_becomes_a_pool_and_one_address_again(tmp_path: Path) -> None:
    one, two = Upstream("one"), Upstream("two")
    async with (
        serve_app(one.app()) as first,
        serve_app(two.app()) as second,
        gateway_in_file(tmp_path / "gateway.yaml", first) as there,
    ):
        url = there.gateway.api_url
        single = there.tree["upstreams"]
        assert await ask(url, "1") == "one"
        for turn in range(3):
            assert (await there.say(upstreams=pool(second))).outcome is Outcome.APPLIED
            assert await ask(url, f"pool {turn}") == "two"
            metrics = (await fetch(there.gateway.probe_url, "GET", "/metrics")).body.decode()
            assert 'gateway_route_ready{backend="a",upstream="openai"} 1.0' in metrics
            assert (await there.say(upstreams=single)).outcome is Outcome.APPLIED
            assert await ask(url, f"one {turn}") == "one"


async def test_a_key_in_a_file_is_rotated(tmp_path: Path) -> None:
    one, key = Upstream("one"), tmp_path / "key"
    key.write_text("sk-old")
    environ = {"GATEWAY_UPSTREAMS__OPENAI__API_KEY_FILE": str(key)}
    async with (
        serve_app(one.app()) as base,
        gateway_in_file(tmp_path / "gateway.yaml", base, environ) as there,
    ):
        url = there.gateway.api_url
        await ask(url, "first")
        key.write_text("sk-new\n")
        done = await there.reloading.reload()
        # The same bytes as before: the door knew them, with the old key.
        answer = await fetch(
            url, "POST", CHAT, body("first"), [*_JSON, ("Cache-Control", "no-cache")]
        )

        assert answer.status == 200
        assert done.applied == ("upstreams.openai.api_key",)
        assert one.keys == ["Bearer sk-old", "Bearer sk-new"]
        _, _, shown = await operate(there.gateway, "GET", "config")
        assert shown["config"]["upstreams"]["openai"]["api_key"] == MASK
        assert "sk-" not in str(shown)


async def test_whom_a_configured_key_let_in_is_not_let_in_without_it(tmp_path: Path) -> None:
    class Strict(Upstream):
        async def _chat(self, request: web.Request) -> web.StreamResponse:
            if request.headers.get("Authorization") not in {"Bearer sk-ours", "Bearer sk-good"}:
                return web.json_response({"error": {"message": "no such key"}}, status=401)
            return await super()._chat(request)

    async with serve_app(Strict("one").app()) as base:
        file = tmp_path / "gateway.yaml"
        upstream = {"base_url": f"{base}/v1", "provider": "openai"}
        with_key = {"openai": {**upstream, "api_key": "sk-ours"}}
        sections: dict[str, Any] = {"cache": {"scope": "shared"}, "upstreams": with_key}
        async with gateway_in_file(file, base, **sections) as there:

            async def told(text: str, key: str) -> tuple[int, str]:
                headers = [_JSON[0], ("Authorization", f"Bearer {key}")]
                url = there.gateway.api_url
                answer = await fetch(url, "POST", CHAT, body(text), headers)
                await there.gateway.background.idle()
                return answer.status, answer.head.get("x-gateway-cache")

            assert await told("first", "sk-bad") == (200, "miss")
            assert await told("first", "sk-bad") == (200, "hit")
            assert (await there.say(upstreams={"openai": upstream})).outcome is Outcome.APPLIED
            assert await told("second", "sk-good") == (200, "miss")
            assert await told("second", "sk-good") == (200, "hit")
            assert (await told("second", "sk-bad"))[0] == 401


async def test_a_hundred_reloads_leave_nothing_behind(tmp_path: Path) -> None:
    one = Upstream("one")
    async with (
        serve_app(one.app()) as base,
        gateway_in_file(
            tmp_path / "gateway.yaml",
            base,
            upstreams=pool(base),
            store={"url": f"sqlite:///{tmp_path}/entries.db"},
        ) as there,
    ):
        url = there.gateway.api_url
        gone: list[weakref.ref[Any]] = []
        await ask(url, "before")
        before: tuple[int, int] | None = None
        for turn in range(100):
            assembled = there.gateway._assembled
            gone += [weakref.ref(assembled.proxy), weakref.ref(assembled.routing)]
            gone += [weakref.ref(assembled.planning), weakref.ref(assembled.explaining)]
            del assembled
            upstreams = pool(base, routing={"break_s": 1 + turn})
            upstreams[f"more-{turn % 3}"] = {**pool(base)["openai"], "engine": "vllm"}
            done = await there.say(
                upstreams=upstreams,
                cache={"door_entries": 1000 + turn, "ttl_s": 60},
                prompt_cache={"tree_bytes": (1 << 20) + turn},
            )
            assert done.outcome is Outcome.APPLIED
            await ask(url, f"at {turn}")
            if turn == 10:
                await settled()
                before = len(asyncio.all_tasks()), threads()
        await settled()
        gc.collect()

        assert before is not None
        assert len(asyncio.all_tasks()) <= before[0] + 1
        assert threads() <= before[1] + 1
        # The last generation serves; the first one was told of by the fixture's own frame at most.
        assert sum(each() is not None for each in gone) == 0


def threads() -> int:
    """Without those of the loop's own pool, of which there may be some more or fewer."""
    return sum(not each.name.startswith("asyncio_") for each in threading.enumerate())


async def settled() -> None:
    """Until what ends has ended."""
    ending = [t for t in asyncio.all_tasks() if t.get_name() == "settling another config"]
    if ending:
        await asyncio.wait(ending, timeout=10)


# --- operators -----------------------------------------------------------------------------------


async def operate(
    gateway: RunningGateway, method: str, path: str, body: bytes | None = None, known: str = ""
) -> tuple[int, str, Any]:
    """Status, ETag and document."""
    headers = {"If-None-Match": known} if known else {}
    if body is not None:
        headers["Content-Type"] = "application/json"
    url = f"{gateway.admin_url}/admin/{path}"
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, data=body, headers=headers) as answer,
    ):
        read = await answer.read()
        told = orjson.loads(read) if read else None
        return answer.status, answer.headers.get("ETag", ""), told


async def test_operators_see_the_config_and_have_it_read_again(tmp_path: Path) -> None:
    one, again = Upstream("one"), "config/reload"
    async with (
        serve_app(one.app()) as base,
        gateway_in_file(tmp_path / "gateway.yaml", base) as there,
    ):
        gateway = there.gateway
        status, tag, _ = await operate(gateway, "GET", "config")
        assert (status, bool(tag)) == (200, True)
        same = await operate(gateway, "GET", "config", known=tag)
        assert same == (304, tag, None)

        there.write(cache={"ttl_s": 11}, store={"url": "memory://", "memory_bytes": 1})
        status, _, told = await operate(gateway, "POST", again, b"{}")
        assert (status, told["outcome"]) == (200, "applied")
        assert (told["applied"], told["waiting"]) == (["cache.ttl_s"], ["store.memory_bytes"])

        there.write(cache={"ttl_s": "never"})
        status, _, refused = await operate(gateway, "POST", again, b"{}")
        assert (status, [each["path"] for each in refused["faults"]]) == (422, ["cache.ttl_s"])

        _, later, shown = await operate(gateway, "GET", "config")
        assert later != tag
        assert shown["config"]["cache"]["ttl_s"] == 11
        assert shown["origins"]["cache.ttl_s"].startswith(str(tmp_path / "gateway.yaml"))
        assert (shown["waiting"], shown["last"]) == (["store.memory_bytes"], refused)
        status, _, _ = await operate(gateway, "POST", again, b'{"cache": {}}')
        assert status == 400


async def test_a_gateway_that_has_nothing_to_read_says_so() -> None:
    one = Upstream("one")
    async with serve_app(one.app()) as base, gateway_here(base) as gateway:
        status, _, told = await operate(gateway, "POST", "config/reload", b"{}")

        assert (status, told["error"]["code"]) == (409, "nothing_to_read")


async def test_sighup_reads_the_file_again_and_a_bad_one_leaves_the_process_serving() -> None:
    one = Upstream("one")
    async with serve_app(one.app()) as base:
        tree = settings(base, log={"level": "warning", "format": "json"})
        async with GatewayProcess(tree) as gateway:
            said = yaml.safe_load(gateway.file.read_text())

            def write(**sections: Any) -> None:
                gateway.file.write_text(yaml.safe_dump({**said, **sections}))

            write(log={"level": "info", "format": "json"})
            os.kill(gateway.pid or 0, signal.SIGHUP)
            await gateway.says("another config holds")
            assert await ask(gateway.api_url, "one") == "one"
            await gateway.says('"event":"request"')
            write(cache={"ttl_s": -5})
            os.kill(gateway.pid or 0, signal.SIGHUP)
            await gateway.says("the config was refused")
            assert "cache.ttl_s" in gateway.output()
            assert await ask(gateway.api_url, "two") == "one"

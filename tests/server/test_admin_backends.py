"""Replicas through the admin port: seen, added, drained and deleted while requests run."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest

from gateway.telemetry.logs import setup_logging
from tests.helpers.gateway_here import gateway_here
from tests.helpers.raw_client import fetch
from tests.helpers.scripted_upstream import ScriptedUpstream, response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from gateway.app import RunningGateway

ALL = "/admin/backends"
ASK = "/u/vllm/v1/chat/completions"
ANSWER = orjson.dumps({"id": "chatcmpl-1", "object": "chat.completion", "choices": []})
TOKEN = "an-admin-token-of-32-characters!"
DEADLINE_S = 10


class World:
    """A gateway before a pool of two, and its operator."""

    def __init__(
        self,
        gateway: RunningGateway,
        session: aiohttp.ClientSession,
        replicas: list[ScriptedUpstream],
    ) -> None:
        self.gateway = gateway
        self.session = session
        self.replicas = replicas
        self.headers: dict[str, str] = {}

    async def operate(
        self, method: str, path: str, body: Any = None, **query: str
    ) -> tuple[int, Any]:
        url = f"{self.gateway.admin_url}{path}"
        async with self.session.request(
            method, url, json=body, params=query, headers=self.headers
        ) as answer:
            return answer.status, orjson.loads(await answer.read())

    async def backends(self) -> dict[str, Any]:
        _, told = await self.operate("GET", ALL)
        return {each["name"]: each for each in told["upstreams"]["vllm"]["backends"]}

    async def until(self, name: str, **members: Any) -> dict[str, Any]:
        """The backend, as soon as it is so."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                found = (await self.backends()).get(name, {})
                if all(found.get(member) == value for member, value in members.items()):
                    return dict(found)


@asynccontextmanager
async def world(
    policy: str = "round_robin", admin: Mapping[str, Any] | None = None, **upstream: Any
) -> AsyncIterator[World]:
    async with (
        ScriptedUpstream() as one,
        ScriptedUpstream() as two,
        ScriptedUpstream() as three,
        aiohttp.ClientSession() as session,
    ):
        pool = {
            "engine": "vllm",
            "backends": [
                {"name": "one", "url": f"{one.url}/v1"},
                {"name": "two", "url": f"{two.url}/v1"},
            ],
            "routing": {"policy": policy},
            # Nobody else takes the answers that are meant for clients.
            "health": {"interval_s": 0},
            "metrics_interval_s": 0,
            **upstream,
        }
        replicas = [one, two, three]
        for each in replicas:
            each.otherwise(response(ANSWER))
        async with gateway_here(
            one.url, upstreams={"vllm": pool}, cache={"when": "off"}, admin=admin or {}
        ) as gateway:
            yield World(gateway, session, replicas)


def question(number: int) -> bytes:
    return orjson.dumps({"model": "m", "messages": [{"role": "user", "content": f"{number}"}]})


async def test_it_tells_what_is_known_of_each_replica() -> None:
    async with world() as there:
        status, told = await there.operate("GET", ALL)
        pool = told["upstreams"]["vllm"]
        assert (status, pool["engine"], pool["policy"]) == (200, "vllm", "round_robin")
        assert pool["states"]["ready"] == 2
        assert pool["backends"][0] == {
            "name": "one",
            "url": f"{there.replicas[0].url}/v1",
            "weight": 1.0,
            "source": "config",
            "state": "ready",
            "leaving": False,
            "in_flight": 0,
            "recent": {"requests": 0, "failed": 0},
            "failures_in_a_row": 0,
            "last_failure": None,
            "ejected_for_s": 0.0,
        }


async def test_one_is_added_weighed_drained_brought_back_and_deleted() -> None:
    async with world() as there:
        url = f"{there.replicas[2].url}/v1"
        status, told = await there.operate("PUT", f"{ALL}/vllm/three", {"url": url, "weight": 2})
        assert (status, told["name"], told["source"], told["weight"]) == (201, "three", "admin", 2)
        status, told = await there.operate("PUT", f"{ALL}/vllm/three", {"url": url})
        assert (status, told["weight"]) == (200, 1)
        status, told = await there.operate("POST", f"{ALL}/vllm/three/drain", {})
        assert (status, told["state"]) == (200, "draining")
        status, told = await there.operate("POST", f"{ALL}/vllm/three/undrain", {})
        assert (status, told["state"]) == (200, "ready")
        status, told = await there.operate("DELETE", f"{ALL}/vllm/three")
        assert (status, told["deleted"]) == (200, True)
        assert set(await there.backends()) == {"one", "two"}


async def test_who_is_deleted_while_it_answers_answers_to_the_end() -> None:
    async with world() as there:
        gates = [asyncio.Event(), asyncio.Event()]
        for replica, gate in zip(there.replicas, gates, strict=False):
            replica.answer((gate, response(ANSWER)))
        asking = [
            asyncio.create_task(fetch(there.gateway.api_url, "POST", ASK, question(number), []))
            for number in range(2)
        ]
        await there.until("one", in_flight=1)
        await there.until("two", in_flight=1)
        status, told = await there.operate("DELETE", f"{ALL}/vllm/one")
        assert (status, told["deleted"], told["leaving"]) == (202, False, True)
        assert told["in_flight"] == 1
        for number in range(2, 6):
            got = await fetch(there.gateway.api_url, "POST", ASK, question(number), [])
            assert got.head.get("x-gateway-backend") == "two"
        for gate in gates:
            gate.set()
        answers = await asyncio.wait_for(asyncio.gather(*asking), DEADLINE_S)
        assert [each.head.status for each in answers] == [200, 200]
        async with asyncio.timeout(DEADLINE_S):
            while set(await there.backends()) != {"two"}:
                """It is looked for once in a second."""


async def test_deleted_at_once_it_is_forgotten_and_still_answers_to_the_end() -> None:
    async with world() as there:
        await there.operate("DELETE", f"{ALL}/vllm/two")
        gate = asyncio.Event()
        there.replicas[0].answer((gate, response(ANSWER)))
        asking = asyncio.create_task(fetch(there.gateway.api_url, "POST", ASK, question(0), []))
        await there.until("one", in_flight=1)
        status, told = await there.operate("DELETE", f"{ALL}/vllm/one", now="1")
        assert (status, told["deleted"]) == (200, True)
        assert await there.backends() == {}
        gate.set()
        assert (await asyncio.wait_for(asking, DEADLINE_S)).head.status == 200


async def test_without_anybody_to_ask_a_request_is_refused_and_the_port_says_why() -> None:
    async with world() as there:
        for name in ("one", "two"):
            await there.operate("POST", f"{ALL}/vllm/{name}/drain", {})
        got = await fetch(there.gateway.api_url, "POST", ASK, question(0), [])
        assert got.head.status in {502, 503}
        _, told = await there.operate("GET", ALL)
        assert told["upstreams"]["vllm"]["states"]["draining"] == 2


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "told"),
    [
        ("PUT", "/vllm/x", {}, 400, "url: "),
        ("PUT", "/vllm/x", {"url": "gpu:8000"}, 400, "url: is not an absolute http"),
        ("PUT", "/vllm/x", {"url": "http://u:p@gpu/v1"}, 400, "url: holds a user name"),
        ("PUT", "/vllm/x", {"url": "http://gpu/v1", "weight": 0}, 400, "weight: "),
        ("PUT", "/vllm/x", {"url": "http://gpu/v1", "weight": True}, 400, "weight: is true"),
        ("PUT", "/vllm/x", {"url": "http://gpu/v1", "size": 1}, 400, "size: is not a member"),
        ("PUT", "/vllm/x", {"url": "http://gpu/v1", "name": "y"}, 400, "name: is said by the path"),
        ("PUT", "/vllm/a%20b", {"url": "http://gpu/v1"}, 400, "name: is not a name"),
        ("PUT", "/vllm/one", {"url": "http://gpu/v1"}, 400, "url: one is http://"),
        ("PUT", "/vllm/x", [], 400, "not an object"),
        ("PUT", "/other/x", {"url": "http://gpu/v1"}, 404, "no pool 'other'; there is: vllm"),
        ("PUT", "/openai/x", {"url": "http://gpu/v1"}, 404, "no pool 'openai'"),
        ("POST", "/vllm/x/drain", {}, 404, "has no backend 'x'"),
        ("POST", "/vllm/x/undrain", {}, 404, "has no backend 'x'"),
        ("POST", "/vllm/one/drain", {"why": "so"}, 400, "unknown member 'why'"),
        ("POST", "/vllm/one/explode", {}, 404, "/admin/stats, /admin/backends"),
        ("DELETE", "/vllm/x", None, 404, "has no backend 'x'"),
        ("DELETE", "/vllm/one?now=yes", None, 400, "now: is 1"),
        ("DELETE", "/vllm/one?later=1", None, 400, "now: is 1"),
    ],
)
async def test_a_mistake_is_told_by_its_field_in_the_ports_one_shape(
    method: str, path: str, body: Any, status: int, told: str
) -> None:
    async with world() as there:
        answered, error = await there.operate(method, f"{ALL}{path}", body)
        assert (answered, set(error["error"])) == (status, {"code", "message"})
        assert told in error["error"]["message"]
        assert set(await there.backends()) == {"one", "two"}


async def test_a_change_needs_what_every_other_request_to_the_port_needs() -> None:
    async with world(admin={"token": TOKEN}) as there:
        changes = [
            ("GET", ALL, None),
            ("PUT", f"{ALL}/vllm/x", {"url": "http://gpu/v1"}),
            ("POST", f"{ALL}/vllm/one/drain", {}),
            ("DELETE", f"{ALL}/vllm/one", None),
        ]
        for method, path, body in changes:
            status, told = await there.operate(method, path, body)
            assert (status, told["error"]["code"]) == (401, "unauthorized")
        there.headers = {"Authorization": f"Bearer {TOKEN}"}
        assert (await there.backends())["one"]["state"] == "ready"
        there.headers["Origin"] = "http://evil.example"
        for method, path, body in changes:
            status, told = await there.operate(method, path, body)
            assert (status, told["error"]["code"]) == (403, "browser")


async def test_a_form_drains_nobody() -> None:
    async with world() as there:
        url = f"{there.gateway.admin_url}{ALL}/vllm/one/drain"
        async with there.session.post(url, data={"a": "b"}) as answer:
            assert answer.status == 415
        assert (await there.backends())["one"]["state"] == "ready"


async def test_each_change_is_one_line_with_who_and_how_it_ended(
    capfd: pytest.CaptureFixture[str],
) -> None:
    setup_logging("error", "json")
    async with world() as there:
        capfd.readouterr()
        there.headers = {"x-gateway-operator": "jo"}
        url = f"{there.replicas[2].url}/v1"
        await there.operate("PUT", f"{ALL}/vllm/three", {"url": url})
        await there.operate("PUT", f"{ALL}/vllm/four", {"url": url})
        await there.operate("POST", f"{ALL}/vllm/three/drain", {})
        await there.operate("POST", f"{ALL}/vllm/three/undrain", {})
        await there.operate("DELETE", f"{ALL}/vllm/three")
        await there.operate("GET", ALL)
        lines = [orjson.loads(line) for line in capfd.readouterr().err.splitlines()]
    audits = [line for line in lines if line.get("event") == "audit"]
    assert [(each["action"], each["backend"], each["result"]) for each in audits] == [
        ("add backend", "three", "added"),
        ("add backend", "four", "refused: url: is the address of three"),
        ("drain backend", "three", "draining"),
        ("undrain backend", "three", "back"),
        ("delete backend", "three", "deleted"),
    ]
    assert {(each["who"], each["upstream"]) for each in audits} == {("loopback (jo)", "vllm")}

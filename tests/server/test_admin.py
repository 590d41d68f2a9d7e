"""The admin port, as operators, strangers and web pages meet it."""

from __future__ import annotations

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

CHAT = "/v1/chat/completions"
TOKEN = "an-admin-token-of-32-characters!"
SECRET_TEXT = "what was answered"
ANSWER = orjson.dumps(
    {
        "id": "chatcmpl-123456789",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-4o-2024",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": SECRET_TEXT},
                "finish_reason": "stop",
            }
        ],
    }
)


def question(number: int) -> bytes:
    messages = [{"role": "user", "content": f"asked {number}"}]
    return orjson.dumps({"model": "gpt-4o", "messages": messages})


class World:
    """A gateway with two tagged answers and one without, and somebody who asks its admin port."""

    def __init__(self, gateway: RunningGateway, session: aiohttp.ClientSession) -> None:
        self.gateway = gateway
        self.session = session

    async def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        data: bytes | None = None,
    ) -> tuple[int, Any]:
        url = f"{self.gateway.admin_url}{path}"
        async with self.session.request(
            method, url, headers=headers, json=body, data=data
        ) as answer:
            text = await answer.read()
            if answer.content_type == "application/json":
                return answer.status, orjson.loads(text)
            return answer.status, text

    async def result(self, number: int, tags: str = "") -> str:
        told = [("x-gateway-cache-tags", tags)] if tags else []
        got = await fetch(self.gateway.api_url, "POST", CHAT, question(number), told)
        await self.gateway.background.idle()
        return got.head.get("x-gateway-cache")


@asynccontextmanager
async def world(**sections: Any) -> AsyncIterator[World]:
    async with (
        ScriptedUpstream() as upstream,
        gateway_here(upstream.url, **sections) as gateway,
        aiohttp.ClientSession() as session,
    ):
        upstream.otherwise(response(ANSWER))
        there = World(gateway, session)
        assert [await there.result(n, "a, b" if n < 2 else "") for n in range(3)] == ["miss"] * 3
        yield there


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Any) -> dict[str, Any]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/cache.db"
    return {"url": url, "deadline_ms": 5000}


async def test_it_tells_what_lies_in_the_cache_and_shows_no_answer(store: dict[str, Any]) -> None:
    async with world(store=store) as there:
        while (await there.ask("GET", "/admin/stats"))[1]["entries"] < 3:
            """SQLite writes behind."""
        status, told = await there.ask("GET", "/admin/stats")
        assert (status, told["entries"], told["exact"]) == (200, 3, True)
        assert (told["by_tag"], told["by_model"]) == ({"a": 2, "b": 2}, {"gpt-4o-2024": 3})
        assert told["memory"]["entries"] == 3
        assert told["purges"]["fresh"] is True
        status, listed = await there.ask("GET", "/admin/cache/entries?tag=a")
        assert (status, len(listed["entries"])) == (200, 2)
        key = listed["entries"][0]["key"]
        _, shown = await there.ask("GET", f"/admin/cache/entries/{key}")
        _, short = await there.ask("GET", f"/admin/cache/entries/{key[:8]}")
        assert [each["key"] for each in shown["entries"]] == [key]
        assert short["entries"] == shown["entries"] or short["entries"][0]["key"] == key
        assert SECRET_TEXT not in str((told, listed, shown))
        status, payload = await there.ask("GET", f"/admin/cache/entries/{key}?payload")
        assert (status, SECRET_TEXT.encode() in payload) == (200, True)


async def test_a_purge_is_a_rehearsal_unless_it_is_meant(store: dict[str, Any]) -> None:
    async with world(store=store) as there:
        while (await there.ask("GET", "/admin/stats"))[1]["entries"] < 3:
            """SQLite writes behind."""
        status, told = await there.ask("POST", "/admin/cache/purge", body={"tags": ["a"]})
        assert (status, told["entries"], told["dry_run"]) == (200, 2, True)
        assert [await there.result(n) for n in range(3)] == ["hit"] * 3
        meant = {"tags": ["a"], "dry_run": False}
        status, told = await there.ask("POST", "/admin/cache/purge", body=meant)
        assert (status, told["entries"], told["what"]) == (200, 2, "tag:a")
        status, told = await there.ask("POST", "/admin/cache/reclaim", body={})
        assert status == 200
        assert told["deleted"] >= 1 or store["url"] == "memory://"
        assert [await there.result(n) for n in range(3)] == ["miss", "miss", "hit"]


@pytest.mark.parametrize(
    "asked",
    [{"all": True}, {"models": ["gpt-4o-2024"]}, {"older_than_s": 0}],
    ids=["all", "model", "age"],
)
async def test_it_purges_by_more_than_tags(asked: dict[str, Any]) -> None:
    async with world() as there:
        status, _ = await there.ask("POST", "/admin/cache/purge", body={**asked, "dry_run": False})
        assert status == 200
        assert [await there.result(n) for n in range(3)] == ["miss"] * 3


async def test_it_purges_by_the_key_of_the_log_line() -> None:
    async with world() as there:
        _, listed = await there.ask("GET", "/admin/cache/entries?tag=a")
        identity = listed["entries"][0]["identity"]
        asked = {"keys": [identity], "dry_run": False}
        assert (await there.ask("POST", "/admin/cache/purge", body=asked))[0] == 200
        assert sorted([await there.result(n) for n in range(3)]) == ["hit", "hit", "miss"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "bad_selection"),
        ({"all": True, "tags": ["a"]}, "bad_selection"),
        ({"tags": ["two words"]}, "bad_selection"),
        ({"keys": ["xyz"]}, "bad_selection"),
        ({"older_than_s": -5}, "bad_selection"),
        ({"older_than_s": True}, "bad_request"),
        ({"tags": "a"}, "bad_request"),
        ({"tags": ["a"], "dry_run": "no"}, "bad_request"),
        ({"tag": ["a"]}, "bad_request"),
        ([], "bad_request"),
    ],
)
async def test_a_purge_of_nothing_or_nonsense_is_refused(body: Any, code: str) -> None:
    async with world() as there:
        status, told = await there.ask("POST", "/admin/cache/purge", body=body)
        assert (status, told["error"]["code"]) == (400, code)
        assert told["error"]["message"]


class TestWhoMayAsk:
    @pytest.mark.parametrize(
        ("headers", "code"),
        [
            ({"Origin": "http://evil.example"}, "browser"),
            ({"Origin": "null"}, "browser"),
            ({"Origin": "http://127.0.0.1:9181"}, "browser"),
            ({"Sec-Fetch-Site": "cross-site"}, "browser"),
            ({"Sec-Fetch-Site": "same-origin"}, "browser"),
            ({"Host": "evil.example:9181"}, "host"),
            ({"Host": "127.0.0.1.evil.example"}, "host"),
            ({"Host": "localhost.evil.example"}, "host"),
            ({"Host": "10.0.0.1"}, "host"),
        ],
    )
    async def test_a_web_page_is_refused(self, headers: dict[str, str], code: str) -> None:
        async with world() as there:
            for method, path in (("GET", "/admin/stats"), ("POST", "/admin/cache/purge")):
                status, told = await there.ask(method, path, headers=headers)
                assert (status, told["error"]["code"]) == (403, code)

    @pytest.mark.parametrize("host", ["localhost", "localhost:80", "127.0.0.1", "[::1]:9181"])
    async def test_a_name_of_this_host_is_fine(self, host: str) -> None:
        async with world() as there:
            assert (await there.ask("GET", "/admin/stats", headers={"Host": host}))[0] == 200

    async def test_a_form_is_refused(self) -> None:
        async with world() as there:
            for kind in ("application/x-www-form-urlencoded", "text/plain"):
                status, told = await there.ask(
                    "POST",
                    "/admin/cache/purge",
                    headers={"Content-Type": kind},
                    data=b'{"all": true, "dry_run": false}',
                )
                assert (status, told["error"]["code"]) == (415, "content_type")
            assert await there.result(0) == "hit"

    @pytest.mark.parametrize(
        "given",
        [None, "", TOKEN, f"Basic {TOKEN}", "Bearer ", f"Bearer {TOKEN}x", "Bearer caf\u00e9"],
    )
    async def test_without_the_token_nothing_is_told(self, given: str | None) -> None:
        async with world(admin={"token": TOKEN}) as there:
            headers = {} if given is None else {"Authorization": given}
            for method, path in (
                ("GET", "/admin/stats"),
                ("POST", "/admin/cache/purge"),
                ("GET", "/nothing"),
            ):
                status, told = await there.ask(method, path, headers=headers)
                assert (status, told["error"]["code"]) == (401, "unauthorized")

    async def test_with_the_token_any_name_is_fine_but_no_web_page(self) -> None:
        async with world(admin={"token": TOKEN, "host": "0.0.0.0"}) as there:
            there.gateway.admin_url = (there.gateway.admin_url or "").replace(
                "0.0.0.0", "127.0.0.1"
            )
            sent = {"Authorization": f"bearer {TOKEN}", "Host": "gateway.internal"}
            assert (await there.ask("GET", "/admin/stats", headers=sent))[0] == 200
            sent["Origin"] = "http://gateway.internal"
            assert (await there.ask("GET", "/admin/stats", headers=sent))[0] == 403


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/admin/else", 404),
        ("GET", "/metrics", 404),
        ("DELETE", "/admin/stats", 404),
        ("GET", "/admin/stats?limit=0", 400),
        ("GET", "/admin/stats?limit=many", 400),
        ("GET", "/admin/cache/entries/xyz", 400),
        ("GET", "/admin/cache/entries/0011aabb", 404),
        ("GET", "/admin/cache/entries/0011aabb?payload", 400),
        ("GET", f"/admin/cache/entries/{'0' * 64}?payload", 404),
    ],
)
async def test_every_error_has_one_shape(method: str, path: str, status: int) -> None:
    async with world() as there:
        answered, told = await there.ask(method, path)
        assert answered == status
        assert set(told["error"]) == {"code", "message"}


async def test_a_purge_is_told_in_one_line_with_who_and_how_many(
    capfd: pytest.CaptureFixture[str],
) -> None:
    setup_logging("error", "json")
    async with world() as there:
        capfd.readouterr()
        sent = {"x-gateway-operator": "jo"}
        asked = {"tags": ["a"], "dry_run": False}
        await there.ask("POST", "/admin/cache/purge", body={"tags": ["a"]}, headers=sent)
        await there.ask("POST", "/admin/cache/purge", body=asked, headers=sent)
        lines = [orjson.loads(line) for line in capfd.readouterr().err.splitlines()]
    (line,) = [line for line in lines if line.get("event") == "audit"]
    assert (line["action"], line["who"], line["what"]) == ("purge", "loopback (jo)", "tag:a")
    assert (line["entries"], line["exact"], line["result"]) == (2, True, "purged")


async def test_a_port_that_is_taken_keeps_nobody_from_serving() -> None:
    async with world() as there:
        port = int((there.gateway.admin_url or "").rpartition(":")[2])
        async with world(admin={"port": port}) as other:
            assert other.gateway.admin_url is None
            assert await other.result(0) == "hit"

"""The data that the page asks for, as it goes over the wire."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from gateway.core.miss import CacheOutcome, Miss, MissCause
from gateway.core.model import Reason, Result
from gateway.core.records import Step
from gateway.core.route import Branch
from gateway.server.page_file import page_file
from gateway.server.page_records import decisions, row, whole
from tests.helpers.gateway_here import gateway_here
from tests.helpers.records import any_record, record
from tests.helpers.scripted_upstream import ScriptedUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.app import RunningGateway
    from gateway.core.records import RequestRecord

ROOT = Path(__file__).parents[2]
FETCHED = {
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-Mode": "same-origin",
    "Sec-Fetch-Dest": "empty",
}


class World:
    """A gateway, and who asks its admin port."""

    def __init__(self, gateway: RunningGateway, session: aiohttp.ClientSession) -> None:
        self.gateway = gateway
        self._session = session

    def remember(self, *records: RequestRecord) -> None:
        told = self.gateway._assembled.telling.on_record
        assert told is not None
        for each in records:
            told(each)

    async def ask(
        self, path: str, headers: dict[str, str] | None = None, method: str = "GET"
    ) -> tuple[int, Any, aiohttp.ClientResponse]:
        url = f"{self.gateway.admin_url}{path}"
        async with self._session.request(
            method, url, headers=headers, allow_redirects=False
        ) as got:
            is_json = got.content_type == "application/json"
            return got.status, await got.json() if is_json else await got.text(), got


@asynccontextmanager
async def world(**sections: Any) -> AsyncIterator[World]:
    async with (
        ScriptedUpstream() as upstream,
        gateway_here(upstream.url, **sections) as gateway,
        aiohttp.ClientSession() as session,
    ):
        yield World(gateway, session)


async def test_the_page_is_one_file_that_trusts_nothing_but_itself() -> None:
    async with world() as there:
        status, text, got = await there.ask("/admin/")
        assert (status, got.content_type) == (200, "text/html")
        policy = got.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert re.search(r"script-src 'sha256-[\w+/=]{44}'; style-src 'sha256-[\w+/=]{44}'", policy)
        assert got.headers["Cache-Control"] == "no-store"
        # Nothing of it lies elsewhere (the one URL names what SVG is).
        urls = set(re.findall(r"https?://[^\s'\"]+", text)) - {"http://127.0.0.1:8080/v1"}
        assert urls == {"http://www.w3.org/2000/svg"}
        assert not re.search(r"\son\w+=|\sstyle=|innerHTML|\beval\(", text)
        assert (await there.ask("/admin/", method="HEAD"))[0] == 200
        status, _, got = await there.ask("/admin")
        assert (status, got.headers["Location"]) == (308, "/admin/")


async def test_a_summary_that_is_known_already_is_not_sent_again() -> None:
    async with world() as there:
        there.remember(record(1))
        status, told, got = await there.ask("/admin/page/summary?window=86400", FETCHED)
        assert (status, told["recent"]) == (200, {"version": 1, "kept": 1})
        known = {**FETCHED, "If-None-Match": got.headers["ETag"]}
        assert (await there.ask("/admin/page/summary?window=86400", known))[0] == 304
        assert (await there.ask("/admin/page/summary?window=3600", known))[0] == 200
        there.remember(record(2))
        assert (await there.ask("/admin/page/summary?window=86400", known))[0] == 200


async def test_requests_are_paged_filtered_and_found_by_their_id() -> None:
    async with world() as there:
        there.remember(*(any_record(n, 1_700_000_000.0 + n) for n in range(2500)))
        _, first, _ = await there.ask("/admin/page/requests?most=50", FETCHED)
        assert [each["number"] for each in first["requests"]] == list(range(2500, 2450, -1))
        _, second, _ = await there.ask(f"/admin/page/requests?most=50&before={first['next']}")
        assert second["requests"][0]["number"] == 2450
        _, hits, _ = await there.ask("/admin/page/requests?result=hit&model=gpt-5.6&most=500")
        assert {(each["result"], each["model"]) for each in hits["requests"]} == {
            ("hit", "gpt-5.6")
        }
        _, newer, _ = await there.ask("/admin/page/requests?after=2498")
        assert [each["number"] for each in newer["requests"]] == [2500, 2499]
        wanted = first["requests"][7]["id"]
        status, one, _ = await there.ask(f"/admin/page/requests/{wanted}", FETCHED)
        assert (status, one["id"], one["number"]) == (200, wanted, 2493)
        assert (await there.ask("/admin/page/requests/gw_none"))[0] == 404
        _, names, _ = await there.ask("/admin/page/names")
        assert set(names["upstream"]) == {"anthropic", "openai", "vllm"}


@pytest.mark.parametrize(
    "query",
    [
        "requests?most=501", "requests?most=-1", "requests?before=x", "requests?after=1e3",
        "requests?before=99999999999999999999", f"requests?text={513 * 'x'}",
        "summary?window=86401", "summary?window=",
    ],
)  # fmt: skip
async def test_a_query_that_makes_no_sense_is_refused_in_words(query: str) -> None:
    async with world() as there:
        status, told, _ = await there.ask(f"/admin/page/{query}")
        assert (status, told["error"]["code"]) == (400, "bad_request")


async def test_where_nothing_is_to_be_remembered_nothing_is() -> None:
    async with world(admin={"recent_requests": 0}) as there:
        assert there.gateway._assembled.telling.on_record is None
        assert (await there.ask("/admin/page/summary"))[1]["recent"] is None
        assert (await there.ask("/admin/page/requests"))[1]["requests"] == []
        assert (await there.ask("/admin/page/requests/gw_1"))[0] == 404
        assert (await there.ask("/admin/page/names"))[1] == {}


async def test_the_token_guards_the_data_and_the_page_needs_none() -> None:
    async with world(admin={"token": "an-admin-token-of-32-characters!"}) as there:
        there.remember(record(1, model="PRIVATE"))
        opened = {
            "Sec-Fetch-Site": "none",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "document",
        }
        status, text, _ = await there.ask("/admin/", opened)
        assert (status, "PRIVATE" in text) == (200, False)
        for path in ("summary", "requests", "names", "backends", "prefixes", "savings", "breakers"):
            assert (await there.ask(f"/admin/page/{path}", FETCHED))[0] == 401
        sent = {**FETCHED, "Authorization": "Bearer an-admin-token-of-32-characters!"}
        assert (await there.ask("/admin/page/requests", sent))[1]["requests"][0][
            "model"
        ] == "PRIVATE"


async def test_a_strangers_name_for_this_address_gets_not_even_the_page() -> None:
    async with world() as there:
        for path in ("/admin/", "/admin/page/summary"):
            status, told, _ = await there.ask(path, {**FETCHED, "Host": "evil.example"})
            assert (status, told["error"]["code"]) in ((403, "host"), (403, "browser"))
        status, told, _ = await there.ask(
            "/admin/page/summary", {**FETCHED, "Host": "evil.example"}
        )
        assert (status, told["error"]["code"]) == (403, "host")


async def test_savings_have_a_row_for_each_day_and_say_when_they_are_off() -> None:
    async with world() as there:
        _, told, _ = await there.ask("/admin/page/savings", FETCHED)
        assert len({each["day"] for each in told["rows"]}) == len(told["rows"]) == 14
        assert told["rows"][0]["saved_by"].keys() == told["total"]["saved_by"].keys()
    async with world(ledger={"enabled": False}) as there:
        assert (await there.ask("/admin/page/savings", FETCHED))[1].keys() == {"off"}


def stages(each: RequestRecord) -> list[str]:
    return [told["stage"] for told in decisions(each)]


def test_a_decision_is_told_for_each_stage_that_was_come_to() -> None:
    missed = CacheOutcome(900, 0, 0, Miss(MissCause.EVICTED, 700))
    through = ["recognised", "keyed", "lookup", "plan", "route", "answer", "prompt cache", "kept"]
    assert stages(record(prompt_cache=missed)) == through
    assert stages(record(result=Result.HIT, plan=None, stored=None)) == [*through[:3], "answer"]
    assert stages(record(api=None, result=Result.PASS, plan=None, stored=None)) == [
        "recognised", "lookup", "route", "answer",
    ]  # fmt: skip
    assert stages(record(api=None, upstream=None, result=None, plan=None, stored=None)) == [
        "recognised", "answer",
    ]  # fmt: skip
    told = {each["stage"]: each for each in decisions(record(prompt_cache=missed))}
    assert (told["prompt cache"]["outcome"], told["prompt cache"]["tone"]) == ("evicted", "bad")
    pooled = list(decisions(record(backend="a", branch=Branch.EXTENDED, stored=Reason.STATUS)))
    assert {"stage": "route", "outcome": "a", "why": "extended", "tone": "plain"} in pooled
    assert pooled[-1] == {
        "stage": "kept",
        "outcome": "not stored",
        "why": "status",
        "tone": "plain",
    }
    broken = list(decisions(record(aborted="client", stored=None)))
    assert broken[-1] == {
        "stage": "answer", "outcome": "broken off", "why": "by the client", "tone": "bad",
    }  # fmt: skip


def test_the_step_of_storing_is_told_though_it_came_behind_the_answer() -> None:
    steps: list[Step] = []
    kept = record(1, steps=steps)
    steps.append(Step("store", 0.6, 0.001))
    assert whole(1, kept)["steps"] == [{"name": "store", "at_ms": 600.0, "took_ms": 1.0}]


def test_a_table_shows_the_beginning_of_a_long_path_and_the_request_all_of_it() -> None:
    long = record(1, path="/" + 1000 * "x", model=400 * "m")
    assert (len(row(1, long)["path"]), len(row(1, long)["model"])) == (300, 300)
    assert (whole(1, long)["path"], whole(1, long)["model"]) == (long.path, long.model)


def test_the_wheel_has_the_page(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "uv", "build", "--wheel", "--offline", "-q", "-o", tmp_path, ROOT],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as inside:
        assert inside.read("gateway/server/page.html") == page_file().body

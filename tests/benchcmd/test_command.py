"""`gateway bench` against endpoints of every manner."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiohttp import web

from gateway.benchcmd import progress
from gateway.benchcmd.arguments import CASE_NAMES
from gateway.benchcmd.asker import _rate
from gateway.benchcmd.cases import CASES
from gateway.benchcmd.command import base, run
from gateway.cli import _parser, main
from gateway.lab.provider_sim import ProviderSim
from tests.helpers.gateway_here import gateway_here
from tests.helpers.scripted_upstream import serve_app

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Json = dict[str, Any]
WINDOW = 20_000


class Fake:
    """An engine that computes nothing, but tells what of a prompt it has seen before."""

    def __init__(
        self,
        *,
        streams: bool = True,
        tells_usage: bool = True,
        refuses: str = "",
        breaks_from: int = 1 << 30,
    ) -> None:
        self.streams, self.tells_usage, self.refuses = streams, tells_usage, refuses
        self.breaks_from = breaks_from
        self.bodies: list[Json] = []
        self.headers: list[dict[str, str]] = []
        self._seen: list[str] = []

    def app(self) -> web.Application:
        app = web.Application(client_max_size=16 << 20)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        return app

    async def _models(self, _request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "fake-1"}, {"id": "fake-2"}]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body: Json = orjson.loads(await request.read())
        self.bodies.append(body)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if self.refuses and self.refuses in body:
            said = f"unknown member '{self.refuses}'"
            if self.refuses == "max_tokens":
                said += ", use 'max_completion_tokens' instead"
            return web.json_response({"error": {"message": said}}, status=400)
        if len(self.bodies) >= self.breaks_from:
            return web.json_response({"error": {"message": "no GPU is left"}}, status=500)
        prompt = "\n".join(message["content"] for message in body["messages"])
        tokens = len(prompt) // 4
        if tokens > WINDOW:
            said = "the request exceeds the available context size"
            return web.json_response({"error": {"message": said}}, status=400)
        cached = max((_common(prompt, seen) for seen in self._seen), default=0) // 4
        self._seen.append(prompt)
        limit = body.get("max_tokens") or body["max_completion_tokens"]
        usage = {
            "prompt_tokens": tokens,
            "completion_tokens": limit,
            "total_tokens": tokens + limit,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        told = {"usage": usage} if self.tells_usage else {}
        if not self.streams:
            choice = {"index": 0, "message": {"role": "assistant", "content": "word " * limit}}
            return web.json_response({"choices": [choice], **told})
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        for number in range(limit):
            delta = {"content": f"word{number} "}
            event = {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
            await answer.write(b"data: " + orjson.dumps(event) + b"\n\n")
        if told and body.get("stream_options"):
            await answer.write(b"data: " + orjson.dumps({"choices": [], **told}) + b"\n\n")
        await answer.write(b"data: [DONE]\n\n")
        return answer


def _common(one: str, other: str) -> int:
    for at, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return at
    return min(len(one), len(other))


async def bench(url: str, *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout, stderr."""
    parsed = _parser().parse_args(["bench", "--base-url", url, *arguments])
    out, err = io.StringIO(), io.StringIO()
    status = await asyncio.to_thread(run, parsed, out, err, {})
    return status, out.getvalue(), err.getvalue()


async def measured(url: str, *arguments: str) -> Json:
    status, out, err = await bench(url, "--quick", "--json", *arguments)
    assert (0, "") == (status, err)
    found: Json = orjson.loads(out)
    return found


async def test_all_cases_are_measured_and_say_what_was_cached() -> None:
    fake = Fake()
    async with serve_app(fake.app()) as url:
        found = await measured(url)
        asked = len(fake.bodies)

    assert list(CASE_NAMES) == list(found["cases"])
    assert ("fake-1", True, True, True) == (
        found["model"],
        found["streams"],
        found["tells_usage"],
        found["tells_cached"],
    )
    rows = {name: case["rows"] for name, case in found["cases"].items()}
    assert asked == 1 + sum(
        row["requests"]
        for name, case in rows.items()
        for key, row in case.items()
        if (name, key) != ("cold-start", "first request")
    ) + len(["with", "with"])  # what warms up is in no row
    for case, row in (
        ("cold-start", "fresh prompts"),
        ("warm-cache", "first time"),
        ("context", "long, cold"),
        ("conversation", "first message"),
        ("prefill", "head is new"),
        ("independent", "following"),
        ("warm-up", "without"),
        ("concurrency", "4 at once"),
    ):
        # Two texts may begin alike: what was drawn at the start of the bench.
        assert rows[case][row]["cached_tokens"] < 10, (case, row)
    for case, row in (
        ("warm-cache", "again"),
        ("context", "long, warm"),
        ("conversation", "following"),
        ("prefill", "head is known"),
        ("warm-up", "with"),
    ):
        assert rows[case][row]["cached_share"] > 0.9, (case, row)
    assert {"25 tokens": 25, "50 tokens": 50, "100 tokens": 100, "150 tokens": 150} == {
        name: row["output_tokens"] for name, row in rows["max-tokens"].items()
    }
    spread = rows["prefill"]["head is new"]["ttft_s"]
    assert 0 < spread["min"] <= spread["q1"] <= spread["median"] <= spread["q3"] <= spread["max"]
    assert "speed-up" in found["cases"]["conversation"]["ratios"]


async def test_prompts_have_the_length_they_are_said_to_have() -> None:
    async with serve_app(Fake().app()) as url:
        found = await measured(url, "--only", "context")

    rows = found["cases"]["context"]["rows"]
    assert 1024 == pytest.approx(rows["medium, cold"]["prompt_tokens"], rel=0.05)
    assert 8192 == pytest.approx(rows["long, cold"]["prompt_tokens"], rel=0.05)


async def test_no_two_runs_ask_the_same() -> None:
    fake = Fake()
    async with serve_app(fake.app()) as url:
        await measured(url, "--only", "independent")
        await measured(url, "--only", "independent")

    asked = [body["messages"][0]["content"][:8] for body in fake.bodies]
    assert len(asked) == len(set(asked))


async def test_what_does_not_fit_is_said_and_is_no_failure() -> None:
    async with serve_app(Fake().app()) as url:
        status, out, _ = await bench(url, "--only", "context", "--runs", "1", "--json")

    rows = orjson.loads(out)["cases"]["context"]["rows"]
    assert 0 == status
    assert "exceeds the available context size" in rows["32k, cold"]["refused"]
    assert (0, 0) == (rows["32k, warm"]["requests"], rows["32k, cold"]["failed"])


@pytest.mark.parametrize("member", ["stream_options", "temperature", "max_tokens"])
async def test_a_member_that_the_server_refuses_is_left_out_from_then_on(member: str) -> None:
    fake = Fake(refuses=member)
    async with serve_app(fake.app()) as url:
        found = await measured(url, "--only", "max-tokens")

    assert [True] + [False] * (len(fake.bodies) - 1) == [member in body for body in fake.bodies]
    assert 25 == found["cases"]["max-tokens"]["rows"]["25 tokens"]["output_tokens"]


async def test_without_usage_tokens_are_the_parts_that_came() -> None:
    async with serve_app(Fake(tells_usage=False).app()) as url:
        found = await measured(url, "--only", "max-tokens")
        _, table, _ = await bench(url, "--only", "max-tokens", "--quick")

    row = found["cases"]["max-tokens"]["rows"]["50 tokens"]
    assert (50, None, None) == (row["output_tokens"], row["prompt_tokens"], row["cached_tokens"])
    assert not found["tells_usage"]
    assert "The server tells no usage" in table


async def test_an_answer_in_one_piece_is_measured_to_its_end() -> None:
    async with serve_app(Fake(streams=False).app()) as url:
        found = await measured(url, "--only", "prefill")

    row = found["cases"]["prefill"]["rows"]["head is known"]
    assert not found["streams"]
    assert row["cached_share"] > 0.9
    assert row["tokens_per_s"] is None


async def test_an_endpoint_that_fails_on_the_way_leaves_what_was_measured() -> None:
    async with serve_app(Fake(breaks_from=6).app()) as url:
        status, out, err = await bench(url, "--quick", "--json")

    found = orjson.loads(out)
    assert 1 == status
    assert "gateway bench: broke off: 5 requests in a row failed" in err
    assert "status 500: no GPU is left" in err
    assert 2 == found["cases"]["cold-start"]["rows"]["fresh prompts"]["requests"]
    assert ["again: status 500: no GPU is left"] == found["cases"]["warm-cache"]["failures"]


@pytest.mark.parametrize(
    ("fake", "said"),
    [
        (Fake(breaks_from=1), "gives no answer: status 500: no GPU is left"),
        (Fake(refuses="messages"), "does not take a plain question: status 400: unknown member"),
    ],
    ids=["fails", "refuses"],
)
async def test_an_endpoint_that_gives_no_first_answer_is_trouble(fake: Fake, said: str) -> None:
    async with serve_app(fake.app()) as url:
        status, out, err = await bench(url)

    assert (2, "") == (status, out)
    assert said in err


async def test_an_endpoint_that_is_not_there_is_trouble(unused_tcp_port: int) -> None:
    status, _, err = await bench(f"http://127.0.0.1:{unused_tcp_port}", "--model", "any")

    assert 2 == status
    assert "gives no answer: Cannot connect to host 127.0.0.1" in err


async def test_an_endpoint_that_never_answers_is_given_up_in_time() -> None:
    async def silent(_request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    app = web.Application()
    app.router.add_post("/v1/chat/completions", silent)
    async with serve_app(app) as url:
        status, _, err = await bench(url, "--model", "any", "--timeout", "0.2")

    assert 2 == status
    assert "no answer within 0.2 s" in err


async def test_a_gateway_on_the_way_does_not_answer_from_its_cache() -> None:
    fake = Fake()
    async with serve_app(fake.app()) as url, gateway_here(url) as gateway:
        found = await measured(gateway.api_url, "--only", "warm-cache")

    assert 3 == found["cases"]["warm-cache"]["rows"]["again"]["requests"]
    # The first of all, the first time, and three times again.
    assert 5 == len(fake.bodies)
    assert {"no-cache, no-store"} == {headers["cache-control"] for headers in fake.headers}


async def test_anthropics_api_is_measured_with_its_markers() -> None:
    sim = ProviderSim(provider="anthropic")
    await sim.start("127.0.0.1", 0)
    try:
        url = f"{sim.url}/v1"
        only = ("--only", "prefill", "--only", "conversation")
        found = await measured(url, "--api", "anthropic", "--model", "claude-sonnet-4-5", *only)
    finally:
        await sim.stop()

    rows = found["cases"]["prefill"]["rows"]
    assert 0 == rows["head is new"]["cached_tokens"]
    assert rows["head is known"]["cached_share"] > 0.9
    assert found["cases"]["conversation"]["rows"]["following"]["cached_share"] > 0.9


async def test_it_is_compared_with_what_was_measured_before(tmp_path: Path) -> None:
    async with serve_app(Fake().app()) as url:
        before = await measured(url, "--only", "prefill", "--only", "max-tokens")
        row = before["cases"]["prefill"]["rows"]["head is new"]
        row["ttft_s"] = dict.fromkeys(row["ttft_s"], 1000.0)
        file = tmp_path / "before.json"
        file.write_bytes(orjson.dumps(before))
        now = await measured(url, "--only", "prefill", "--compare", str(file))
        page = tmp_path / "page.html"
        status, table, _ = await bench(
            *(url, "--quick", "--only", "prefill", "--compare", str(file), "--html", str(page))
        )

    assert ["prefill"] == list(now["compared"])
    ratio = now["compared"]["prefill"]["head is new"]["ttft_s"]
    median = now["cases"]["prefill"]["rows"]["head is new"]["ttft_s"]["median"]
    assert median / 1000 == pytest.approx(ratio, abs=1e-3)
    assert 0 == status
    line = next(line for line in table.splitlines() if "head is new" in line)
    assert line.endswith("1,000.000  x 0.00")
    drawn = page.read_text(encoding="utf-8")
    assert 'class="was"' in drawn
    assert "prefers-color-scheme: dark" in drawn
    assert "http" not in drawn.replace(url, "").replace("http://www.w3.org", "")


async def test_what_was_measured_is_printed_though_its_page_has_nowhere_to_go_and_before_is_foreign(
    tmp_path: Path,
) -> None:
    before = tmp_path / "before.json"
    before.write_bytes(
        b'{"version": 1, "cases": {"prefill": {"rows": {"head is new": {"ttft_s": {"median": "1"}}}}}}'
    )
    async with serve_app(Fake().app()) as url:
        status, table, said = await bench(
            *(url, "--quick", "--only", "prefill", "--compare", str(before)),
            *("--html", str(tmp_path / "nowhere" / "page.html")),
        )

    assert 2 == status
    assert "head is known" in table
    assert "page.html: No such file" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        (b"{", "before.json"),
        (b'{"requests": 1}', "is not what `gateway bench --json` prints"),
        (b'{"version": 0, "cases": {}}', "of another version"),
    ],
    ids=["missing", "no-json", "other", "old"],
)
async def test_a_comparison_that_cannot_be_read_is_trouble(
    text: bytes | None, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "before.json"
    if text is not None:
        file.write_bytes(text)

    status, out, err = await bench("http://127.0.0.1:1", "--compare", str(file))

    assert (2, "") == (status, out)
    assert said in err


async def test_headers_and_key_are_sent_with_every_request() -> None:
    fake = Fake()
    async with serve_app(fake.app()) as url:
        await measured(url, "--only", "prefill", "--api-key", "k", "--header", "x-team: a: b")

    assert {("Bearer k", "a: b")} == {(h["authorization"], h["x-team"]) for h in fake.headers}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--base-url", "localhost:8000"], "no base URL"),
        (["--base-url", "http://[::1"], "no base URL"),
        (["--base-url", "http://h/v1?x=1"], "has no query"),
        (["--base-url", "http://h", "--header", "x"], "must be NAME:VALUE"),
    ],
)
def test_wrong_usage_is_said(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 2 == main(["bench", *arguments])
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("http://h:1", "http://h:1/v1"),
        ("http://h:1/", "http://h:1/v1"),
        ("http://h/v1/", "http://h/v1"),
        ("https://h/u/pool/v1", "https://h/u/pool/v1"),
        ("https://h/api/v3", "https://h/api/v3"),
    ],
)
def test_a_base_url_is_taken_as_sdks_take_it(given: str, asked: str) -> None:
    assert asked == base(given)


@pytest.mark.parametrize(
    ("tokens", "pieces", "rate"),
    [(11, 11, 10.0), (20, 5, 16.0), (5, 1, None), (1, 1, None), (0, 0, None)],
    ids=["one each", "four each", "at once", "one", "none"],
)
def test_the_rate_is_of_what_comes_behind_the_first_piece(
    tokens: int, pieces: int, rate: float | None
) -> None:
    assert rate == _rate(tokens, pieces, 1.0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_to_who_looks_and_to_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def drawn(err: io.StringIO) -> str:
        with progress.showing(4, err) as bar:
            bar.at("prefill")
            for _ in range(4):
                bar.step()
        return err.getvalue()

    assert "prefill" in drawn(Terminal())
    assert not drawn(io.StringIO())
    monkeypatch.setattr(progress, "find_spec", lambda _name: None)
    plain = drawn(Terminal())
    assert "[###############...............] 2/4 prefill" in plain
    assert "[##############################] 4/4 prefill" in plain
    assert plain.endswith("\r")


def test_every_case_that_can_be_named_is_there() -> None:
    assert list(CASE_NAMES) == list(CASES)


async def test_each_request_moves_the_bar_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, steps, totals = Fake(), [0], [0]

    class Counting:
        def at(self, what: str) -> None:
            pass

        def step(self) -> None:
            steps[0] += 1

    def showing(total: int, _err: object) -> Any:
        totals[0] = total
        return _context(Counting)

    monkeypatch.setattr("gateway.benchcmd.command.showing", showing)
    async with serve_app(fake.app()) as url:
        status, _, _ = await bench(url)

    assert 0 == status
    assert totals == steps


class _context:  # noqa: N801 - what a context manager is named
    def __init__(self, make: Callable[[], Any]) -> None:
        self._made = make()

    def __enter__(self) -> Any:
        return self._made

    def __exit__(self, *_: object) -> None:
        pass

"""Recorded traffic as the replay of routing takes it: prompts in blocks, and whose they are."""

from __future__ import annotations

import gzip
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.core.trail import Trail
from gateway.lab.engine_sim import Prompt
from gateway.lab.route_trace import (
    HASHED_RATE,
    TEXT_RATE,
    RouteTrace,
    RouteWanted,
    conversations_of,
    read_routes,
    rendered,
    text_prompt,
)
from gateway.lab.trace import TraceError
from gateway.wire.trail import trail
from tests.helpers.mooncake import whole_trace

DATA = Path(__file__).parents[1] / "data"
TRACES = DATA / "traces"
TAU = DATA / "taubench_airline_gpt4o.json.gz"
TIMED = {"mooncake", "claude", "pi"}


def got(path: Path, **wanted: Any) -> RouteTrace:
    return read_routes(str(path), RouteWanted(**wanted))


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    file = folder / "trace.jsonl"
    file.write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    return file


@pytest.mark.parametrize("path", [*sorted(TRACES.glob("*.jsonl.gz")), TAU], ids=lambda p: p.name)
def test_each_format_is_read_in_blocks_that_add_up(path: Path) -> None:
    trace = got(path, limit=20)
    assert trace.asks
    assert trace.is_timed == (path.name.partition("_")[0] in TIMED)
    assert trace.rate == (HASHED_RATE if trace.is_hashed else TEXT_RATE)
    for ask in trace.asks:
        prints, sizes, tokens = ask.prompt
        assert len(prints) == len(sizes) > 0
        assert sum(sizes) == tokens
        assert ask.trail.prints
        assert list(ask.trail.ends) == sorted(ask.trail.ends)
    if trace.is_timed:
        times = [ask.at for ask in trace.asks]
        assert times == sorted(times)


def test_the_whole_of_mooncake_is_kept_in_blocks_of_512_tokens(tmp_path: Path) -> None:
    trace = got(whole_trace(tmp_path))
    assert len(trace.asks) == 12_031
    assert sum(ask.prompt.tokens for ask in trace.asks) == 144_793_823
    for ask in trace.asks[:500]:
        assert set(ask.prompt.sizes[:-1]) <= {512}
        assert 0 < ask.prompt.sizes[-1] <= 512
        # What is told in tokens is what the gateway compares, too; it may be cut anywhere.
        assert ask.trail == Trail(ask.prompt.prints, tuple(accumulate(ask.prompt.sizes)), True)


def test_sessions_share_a_head_only_where_one_is_wanted() -> None:
    path = TRACES / "claude_code_8_sessions.jsonl.gz"
    bare, headed = got(path), got(path, head_tokens=1300)
    for ask, longer in zip(bare.asks, headed.asks, strict=True):
        assert longer.prompt.tokens == ask.prompt.tokens + 1300
        assert longer.prompt.sizes[:3] == (512, 512, 276)
        assert longer.conversation == ask.conversation
    firsts = {ask.conversation: ask.prompt.prints for ask in headed.asks}
    assert len(firsts) == 10  # eight sessions, and two sub-agents of one
    # One head for each model that the sessions asked.
    heads = {prints[:3] for prints in firsts.values()}
    assert len(heads) < len(firsts)
    assert len({ask.prompt.prints[0] for ask in bare.asks}) > len(heads)


def test_requests_of_one_conversation_only_grow() -> None:
    trace = got(TAU, limit=5)
    assert {ask.conversation for ask in trace.asks} == set(range(5))
    for before, after in pairwise(trace.asks):
        if before.conversation == after.conversation:
            whole = len(before.prompt.prints) - 1
            assert before.prompt.prints[:whole] == after.prompt.prints[:whole]
            steps = len(before.trail.prints)
            assert before.trail.prints == after.trail.prints[:steps]


def test_the_engine_keeps_what_is_rendered_and_not_what_is_set() -> None:
    body = {
        "model": "m",
        "temperature": 1,
        "messages": [{"role": "user", "content": "Hello, you", "name": "x"}],
        "tools": [{"type": "function"}],
    }
    assert rendered(body) == b'{"type":"function"}{"role":"user","content":"Hello, you"}'
    assert text_prompt(body) == text_prompt({**body, "temperature": 0})
    assert text_prompt(body).prints != text_prompt({**body, "model": "n"}).prints


def test_a_text_is_kept_in_blocks_of_128_bytes_chained() -> None:
    body = {"model": "m", "prompt": "a" * 300}
    prompt = text_prompt(body)
    assert prompt.sizes == (32, 32, 11)  # 302 bytes with its quotes
    assert len(set(prompt.prints)) == 3
    other = text_prompt({"model": "m", "prompt": "a" * 290 + "b" * 10})
    assert other.prints[:2] == prompt.prints[:2]
    assert other.prints[2] != prompt.prints[2]


def test_plain_bodies_are_read_as_the_gateway_reads_them(tmp_path: Path) -> None:
    first: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x" * 200}]}
    more = [*first["messages"], {"role": "assistant", "content": "y"}]
    second: dict[str, Any] = {
        "model": "m",
        "messages": [*more, {"role": "user", "content": "z" * 200}],
    }
    path = written(
        tmp_path,
        {"t": 12, "route": "/v1/chat/completions", "body": second},
        {"t": 10, "route": "/v1/chat/completions?x=1", "body": first},
        {"t": 11, "route": "/v1/embeddings", "body": {"model": "m", "input": "x"}},
    )
    trace = got(path)
    assert [ask.at for ask in trace.asks] == [0, 2]
    assert [ask.trail for ask in trace.asks] == [
        trail("openai_chat", first),
        trail("openai_chat", second),
    ]
    assert "1 bodies without a prompt are left out" in trace.notes


def test_who_reuses_all_full_blocks_of_a_prompt_continues_its_conversation() -> None:
    def prompt(*prints: int, last: int = 512) -> Prompt:
        sizes = (*(512,) * (len(prints) - 1), last)
        return Prompt(prints, sizes, sum(sizes))

    prompts = [
        prompt(1, 2, 3, last=7),  # its full blocks: 1, 2
        prompt(1, 2, 4, 5),  # goes on from there
        prompt(1, 6),  # shares the first block only
        prompt(1, 2, 4, 5, 8),  # goes on from the second
        prompt(9),
    ]
    assert conversations_of(prompts, 512) == [0, 0, 1, 0, 2]


@pytest.mark.parametrize(
    ("rows", "wanted", "problem"),
    [
        (
            [{"timestamp": 0, "input_length": 5, "output_length": 1, "hash_ids": [1]}],
            {"system": ("x",)},
            "--system: .*say how many tokens all prompts share with --shared-system-tokens",
        ),
        (
            [{"t": 0, "route": "/v1/messages", "body": {"messages": []}}],
            {"system": ("x",)},
            "replayed as they were sent: leave the flag away",
        ),
        (
            [{"t": 0, "route": "/v1/embeddings", "body": {}}],
            {},
            "no answered request",
        ),
        (
            [{"timestamp": 0, "input_length": 5, "hash_ids": [1]}],
            {},
            "trace.jsonl:1: output_length: missing in this Mooncake trace",
        ),
    ],
)
def test_what_cant_be_replayed_is_refused_with_a_mend(
    rows: list[dict[str, Any]], wanted: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(TraceError, match=problem):
        got(written(tmp_path, *rows), **wanted)


def test_a_trace_may_be_compressed(tmp_path: Path) -> None:
    rows = gzip.decompress((TRACES / "mooncake_conversation_200.jsonl.gz").read_bytes())
    plain = tmp_path / "plain.jsonl"
    plain.write_bytes(rows)
    assert got(plain).asks == got(TRACES / "mooncake_conversation_200.jsonl.gz").asks

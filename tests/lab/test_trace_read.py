"""Every format of recorded traffic, told by its shape and brought into calls."""

from __future__ import annotations

import gzip
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from gateway.core.blocks import Section
from gateway.core.prefix import Kind
from gateway.lab.trace import Call, Times, Trace, TraceError
from gateway.lab.trace_chats import tau_bench
from gateway.lab.trace_read import Wanted, arrivals, read
from gateway.providers.prompt_cache_rules import cache_rules
from gateway.wire.prompt_blocks import cache_prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

DATA = Path(__file__).parents[1] / "data"
TRACES = DATA / "traces"
MODELS = {"anthropic_messages": "claude-sonnet-4-5", "openai_chat": "gpt-5.6-sol"}


def got(
    path: Path | str,
    api: str = "anthropic_messages",
    *,
    seed: int = 1,
    system: Sequence[str] = (),
    limit: int | None = None,
    known: Sequence[float] = (),
) -> Trace:
    times = Times(seed, 120.0, known)
    return read(str(path), Wanted(api, MODELS[api], times, system, limit))


@pytest.mark.parametrize("api", MODELS)
@pytest.mark.parametrize("path", sorted(TRACES.glob("*.jsonl.gz")), ids=lambda path: path.name)
def test_each_sample_is_read_in_order_of_time(path: Path, api: str) -> None:
    trace = got(path, api)
    assert trace.calls
    times = [call.at for call in trace.calls]
    assert times == sorted(times)
    assert all(0 < call.begins_s <= call.ends_s for call in trace.calls)
    assert trace.exact_tokens == all(call.body is None for call in trace.calls)


@pytest.mark.parametrize("api", MODELS)
@pytest.mark.parametrize(
    "name",
    [
        "swe_agent_3_trajectories.jsonl.gz",
        "bfcl_live_multiple_60.jsonl.gz",
        "pi_mono_first_120_rows.jsonl.gz",
    ],
)
def test_bodies_are_of_the_api_that_is_asked_for_and_only_grow(name: str, api: str) -> None:
    trace = got(TRACES / name, api)
    provider = {"anthropic_messages": "anthropic", "openai_chat": "openai"}[api]
    rules = cache_rules(provider, api, MODELS[api])
    prompts = [cache_prompt(api, call.body, rules) for call in trace.calls]
    for call, prompt in zip(trace.calls, prompts, strict=True):
        assert call.body is not None
        assert prompt.blocks
        assert call.body["messages"][-1]["role"] != "assistant"
        assert not prompt.marked_by_client
    if name.startswith("pi"):
        for before, after in pairwise(prompts):
            digests = [block.digest for block in before.blocks]
            assert digests == [block.digest for block in after.blocks][: len(digests)]


def test_tool_calls_become_tool_uses_and_their_results_one_message() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Two flights?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": f"c{n}", "function": {"name": "find", "arguments": f'{{"n": {n}}}'}}
                for n in range(2)
            ],
        },
        {"role": "tool", "tool_call_id": "c0", "name": "find", "content": "one"},
        {"role": "tool", "tool_call_id": "c1", "name": "find", "content": "two"},
        {"role": "assistant", "content": "Here."},
        {"role": "user", "content": "Thanks"},
        {"role": "assistant", "content": "Bye."},
    ]
    calls = _tau([messages], "anthropic_messages")
    assert [len(body["messages"]) for body in calls] == [1, 3, 5]
    last = calls[-1]
    assert last["system"] == "Be brief."
    assert last["tools"][0]["input_schema"]["properties"] == {"n": {"type": "number"}}
    assert last["messages"][1:3] == [
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "c0", "name": "find", "input": {"n": 0}},
                {"type": "tool_use", "id": "c1", "name": "find", "input": {"n": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c0", "content": "one"},
                {"type": "tool_result", "tool_use_id": "c1", "content": "two"},
            ],
        },
    ]
    for body in _tau([messages], "openai_chat"):
        assert body["messages"] == messages[: len(body["messages"])]


def _tau(conversations: list[list[dict[str, Any]]], api: str) -> list[dict[str, Any]]:
    rows = [{"traj": messages} for messages in conversations]
    return [
        asked.body
        for conversation in tau_bench(rows)
        for asked in conversation.requests(api, MODELS[api])
    ]


def test_tau_bench_has_one_call_for_each_answer() -> None:
    trace = got(DATA / "taubench_airline_gpt4o.json.gz")
    assert len(trace.calls) == 2454
    assert all("tools" in (call.body or {}) for call in trace.calls)


def test_claude_code_sessions_keep_their_tokens_and_share_what_they_share() -> None:
    path = TRACES / "claude_code_8_sessions.jsonl.gz"
    rows = [orjson.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    flat: list[dict[str, Any]] = []
    for row in rows:
        for request in row["requests"]:
            inner = request["type"] == "subagent"
            flat.extend(request["requests"] if inner else [request])
    trace = got(path)
    assert len(trace.calls) == len(flat)
    sizes = sorted(sum(block.size for block in call.blocks) // 4 for call in trace.calls)
    assert sizes == sorted(request["in"] for request in flat)

    session = next(row for row in rows if len(row["requests"]) > 20)
    path_of_one = session["requests"]
    first = path_of_one[0]
    calls = [c for c in trace.calls if c.blocks[-1].size and _total(c) == first["in"]]
    blocks = calls[0].blocks
    assert [block.section for block in blocks[:2]] == [Section.TOOLS, Section.SYSTEM]
    assert blocks[0].size == session["tool_tokens"] * 4
    assert blocks[1].size == session["system_tokens"] * 4


def _total(call: Call) -> int:
    return sum(block.size for block in call.blocks) // 4


def hashed(tmp_path: Path, requests: list[dict[str, Any]]) -> Trace:
    row = {
        "id": "x",
        "block_size": 64,
        "tool_tokens": 128,
        "system_tokens": 64,
        "requests": [
            {"type": "n", "model": "m", "input_types": ["tool_result"], "t": float(n), **request}
            for n, request in enumerate(requests)
        ],
    }
    file = tmp_path / "session.jsonl"
    file.write_bytes(orjson.dumps(row))
    return got(file)


def test_a_turn_adds_one_block_and_an_edit_parts_from_the_last_shared_boundary(
    tmp_path: Path,
) -> None:
    trace = hashed(
        tmp_path,
        [
            {"in": 650, "hash_ranges": [[1, 10]]},
            {"in": 900, "hash_ranges": [[1, 14]]},
            {"in": 1200, "hash_ranges": [[1, 18]]},
            {"in": 1000, "hash_ranges": [[1, 12], [50, 52]]},
            {"in": 1000, "hash_ranges": [[1, 12], [50, 52]]},
        ],
    )
    ends = [[block.size // 4 for block in call.blocks] for call in trace.calls]
    assert ends == [
        [128, 64, 458],
        [128, 64, 458, 250],
        [128, 64, 458, 250, 300],
        [128, 64, 458, 350],
        [128, 64, 458, 350],
    ]
    digests = [[block.digest for block in call.blocks] for call in trace.calls]
    assert digests[0] == digests[1][:3] == digests[3][:3]
    assert digests[1] == digests[2][:4]
    assert digests[3] == digests[4]
    assert digests[3][3] != digests[1][3]
    assert {call.blocks[-1].kind for call in trace.calls} == {Kind.TOOL_RESULT}


def test_mooncake_prompts_are_cut_where_they_part(tmp_path: Path) -> None:
    rows = [
        {"timestamp": 0, "input_length": 2000, "output_length": 5, "hash_ids": [0, 1, 2, 3]},
        {"timestamp": 1500, "input_length": 2500, "output_length": 5, "hash_ids": [0, 1, 2, 9, 8]},
    ]
    file = tmp_path / "m.jsonl"
    file.write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    first, second = got(file).calls
    assert [block.size // 4 for block in first.blocks] == [512, 1024, 464]
    assert [block.size // 4 for block in second.blocks] == [512, 1024, 964]
    assert first.blocks[:2] == second.blocks[:2]
    assert second.at == 1.5


def test_plain_bodies_keep_their_times_scopes_and_bytes(tmp_path: Path) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    rows = [
        {"t": 20, "route": "/v1/messages", "scope": "b", "body": body},
        {"t": 5.5, "route": "/v1/chat/completions", "body": body},
    ]
    file = tmp_path / "any.name"
    file.write_bytes(b"\n\n".join(orjson.dumps(row) for row in rows))
    first, second = got(file).calls
    assert (first.at, first.scope, first.route) == (0.0, "default", "/v1/chat/completions")
    assert (second.at, second.scope, second.body) == (14.5, "b", body)


def test_the_same_seed_draws_the_same_times_whatever_is_left_out() -> None:
    path = TRACES / "swe_agent_3_trajectories.jsonl.gz"
    whole = [call.at for call in got(path).calls]
    assert whole == [call.at for call in got(path).calls]
    assert whole != [call.at for call in got(path, seed=2).calls]
    first = [call.at for call in got(path, limit=1).calls]
    assert set(first) <= set(whole)


def test_starts_can_be_those_of_an_azure_trace() -> None:
    known = arrivals(str(TRACES / "azure_llm_2023_conv_1000.csv.gz"))
    assert len(known) == 1000
    assert known[0] == 0.0
    assert known == sorted(known)
    trace = got(TRACES / "arena_hard_40_questions.jsonl.gz", known=known)
    assert {call.at for call in trace.calls} <= set(known)
    many = Times(1, 1.0, known).starts(2500)
    assert len(many) == 2500
    assert many == sorted(many)


@pytest.mark.parametrize("api", MODELS)
def test_one_system_prompt_is_put_before_every_prompt(api: str) -> None:
    trace = got(TRACES / "swe_agent_3_trajectories.jsonl.gz", api, system=["Shared."])
    for call in trace.calls:
        prompt = cache_prompt(api, call.body, cache_rules("anthropic", api, MODELS[api]))
        assert prompt.blocks[0].section is Section.SYSTEM
        assert prompt.blocks[0].size == len("Shared.")


PLAIN = {"t": 1, "route": "/v1/messages", "body": {}}
HASHED = {"timestamp": 0, "input_length": 500, "output_length": 1, "hash_ids": [1]}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", ":1: no request in it"),
        (b"{nonsense", ":1: not JSON"),
        (b'{"a": 1}', ":1: no known format: its members are a; known are"),
        (b"[1]", ":1: [0]: not a JSON object"),
        (b'{"a": 1}\n3', ":2: the line: not a JSON object"),
        (orjson.dumps(PLAIN) + b"\n{", ":2: not JSON"),
        (orjson.dumps(PLAIN) + b'\n{"t": 1}', ":2: body: missing in this bodies trace"),
        (orjson.dumps({**PLAIN, "t": "x"}), ":1: t: not a number of seconds"),
        (orjson.dumps({**PLAIN, "route": 3}), ":1: route: not a path"),
        (orjson.dumps({**PLAIN, "body": []}), ":1: body: not a JSON object"),
        (orjson.dumps({**PLAIN, "scope": 1}), ":1: scope: not a string"),
        (b'{"history": []}', ":1: history: no messages"),
        (b'{"traj": [{"role": "user"}, {}]}', ":1: traj[1].role: missing"),
        (
            b'{"block_size": 64, "tool_tokens": 1, "system_tokens": 1, "id": "x", "requests": [{"t": 0}]}',
            ":1: requests[0].hash_ranges: missing",
        ),
        (
            b'{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": []}',
            ":1: hash_ids: empty",
        ),
        *(
            (orjson.dumps({**HASHED, **wrong}), f":1: {problem}")
            for wrong, problem in (
                ({"hash_ids": 3}, "hash_ids: empty"),
                ({"hash_ids": [-1]}, "hash_ids: not all numbers"),
                ({"hash_ids": ["a"]}, "hash_ids: not all numbers"),
                ({"input_length": 10.5}, "input_length: not a number"),
                ({"output_length": -5}, "output_length: not a number"),
                ({"input_length": 513}, "input_length: not what 1 blocks"),
                ({"hash_ids": [1, 2, 3]}, "input_length: not what 3 blocks"),
            )
        ),
        (b'{"type": "session", "timestamp": "x"}', "no answered request"),
        (
            b'{"uid": 1, "prompt": "x"}\n{"uid": 1, "prompt": "x"}\n{"uid": 2}',
            ":3: prompt: missing in this arena-hard trace",
        ),
        (
            b'{"question": [[{"role": "user"}]], "function": [{"name": "f"}]}',
            ":1: parameters: missing in this BFCL trace",
        ),
        (b'{"question": 3, "function": []}', ":1: misshapen: "),
        (b"TIMESTAMP,ContextTokens\n", "give the file to --arrivals"),
        (b"\x1f\x8bnonsense", ": damaged gzip"),
    ],
)
def test_what_is_wrong_with_a_trace_is_said_with_file_line_and_field(
    tmp_path: Path, text: bytes, problem: str
) -> None:
    file = tmp_path / "trace"
    file.write_bytes(text)
    with pytest.raises(TraceError) as raised:
        got(file)
    assert str(raised.value).startswith(str(file))
    assert problem in str(raised.value)


def test_a_missing_file_and_bad_arrivals_are_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="nowhere: No such file"):
        got("nowhere")
    file = tmp_path / "a.csv"
    for text, problem in (
        (b"x\n", ":1: no arrivals"),
        (b"TIMESTAMP,x\n", ":2: no arrival in it"),
        (b"TIMESTAMP,x\nyesterday,1\n", ":2: TIMESTAMP: "),
    ):
        file.write_bytes(text)
        with pytest.raises(TraceError, match=problem):
            arrivals(str(file))


def test_hashes_take_no_system_prompt() -> None:
    with pytest.raises(TraceError, match="no text"):
        got(TRACES / "claude_code_8_sessions.jsonl.gz", system=["x"])

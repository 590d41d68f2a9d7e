"""Recorded traffic past every policy: what is billed, and what reports say."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import orjson
import pytest

from gateway.cli import main
from gateway.core.planner import CachePlanner
from gateway.lab import cache_replay
from gateway.lab.cache_replay import POLICY_NAMES, Against, Options, Outcome, replay
from gateway.lab.cache_sim import CacheSim, MarksRefused
from gateway.lab.replay_page import as_page
from gateway.lab.replay_report import as_json, as_table
from gateway.lab.trace import Times, Trace
from gateway.lab.trace_read import Wanted, read
from gateway.providers.prices import price
from gateway.providers.prompt_cache_rules import cache_rules

TRACES = Path(__file__).parents[1] / "data" / "traces"
MODELS = {"anthropic": "claude-sonnet-4-5", "openai": "gpt-5.6-sol"}
APIS = {"anthropic": "anthropic_messages", "openai": "openai_chat"}


def against(provider: str, model: str = "") -> Against:
    model = model or MODELS[provider]
    rules, costs = (
        cache_rules(provider, APIS[provider], model),
        price(provider, APIS[provider], model),
    )
    assert rules
    assert costs
    return Against(provider, model, APIS[provider], rules, costs)


def trace(name: str, provider: str = "anthropic", seed: int = 1) -> Trace:
    times = Times(seed, 120.0)
    return read(str(TRACES / name), Wanted(APIS[provider], MODELS[provider], times))


SAMPLES = [
    "arena_hard_40_questions.jsonl.gz",
    "bfcl_live_multiple_60.jsonl.gz",
    "claude_code_8_sessions.jsonl.gz",
    "mooncake_conversation_200.jsonl.gz",
    "pi_mono_first_120_rows.jsonl.gz",
    "swe_agent_3_trajectories.jsonl.gz",
]


@pytest.mark.parametrize("provider", MODELS)
@pytest.mark.parametrize("name", SAMPLES)
def test_no_policy_is_refused_or_below_the_optimum_and_tokens_add_up(
    name: str, provider: str
) -> None:
    outcome = replay(trace(name, provider), against(provider), POLICY_NAMES)
    assert list(outcome.policies) == list(POLICY_NAMES)
    assert outcome.optimum <= outcome.without_cache
    for spent in outcome.policies.values():
        assert spent.rejected == 0
        assert spent.cost >= outcome.optimum * (1 - 1e-9)
        counted = spent.read + spent.write_5m + spent.write_1h + spent.uncached
        # A text that is split may be a token longer or shorter.
        assert counted == pytest.approx(outcome.input_tokens, rel=1e-3)
    assert outcome.policies["none"].cost == outcome.without_cache


def test_the_same_seed_gives_the_same_outcome() -> None:
    name = "swe_agent_3_trajectories.jsonl.gz"
    once, again = (
        as_json(replay(trace(name), against("anthropic"), POLICY_NAMES)) for _ in range(2)
    )
    assert once == again


def test_older_models_of_openai_read_the_same_whatever_is_done() -> None:
    name = "swe_agent_3_trajectories.jsonl.gz"
    outcome = replay(trace(name, "openai"), against("openai", "gpt-4o"), POLICY_NAMES)
    reads = {spent.read for spent in outcome.policies.values()}
    assert len(reads) == 1
    assert reads.pop() > 0
    assert all(not spent.write_5m for spent in outcome.policies.values())


def test_long_prompts_are_charged_their_own_rates() -> None:
    name = "claude_code_8_sessions.jsonl.gz"
    here = against("anthropic", "claude-haiku-5-5")
    outcome = replay(trace(name), here, ["none"])
    expected = 0
    for call in trace(name).calls:
        total = sum(block.size for block in call.blocks) // 4
        expected += total * here.price.at(total).input
    assert outcome.policies["none"].cost == outcome.without_cache == expected


def test_a_refused_request_is_counted_and_billed_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise MarksRefused("no")

    monkeypatch.setattr(CacheSim, "request", refuse)
    outcome = replay(trace(SAMPLES[0]), against("anthropic"), ["system_last"])
    assert outcome.policies["system_last"].rejected == 40
    assert outcome.policies["system_last"].cost == outcome.without_cache


def test_restarts_and_replicas_begin_anew_and_stay_above_the_optimum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[CachePlanner] = []

    def making() -> CachePlanner:
        made.append(CachePlanner())
        return made[-1]

    monkeypatch.setattr(cache_replay, "CachePlanner", making)
    calls = trace("bfcl_live_multiple_60.jsonl.gz")
    here = against("anthropic")
    counts = []
    for options in (
        Options(),
        Options(restart_every_s=600.0),
        Options(seed=3, replicas=4),
        Options(seed=3, replicas=4),
    ):
        made.clear()
        outcome = replay(calls, here, ["gateway"], options)
        counts.append((len(made), as_json(outcome)))
        assert outcome.policies["gateway"].cost >= outcome.optimum
    span = calls.calls[-1].at
    assert counts[0][0] == 1
    assert 1 < counts[1][0] <= span // 600 + 1
    assert counts[2] == counts[3]
    assert counts[2][0] == 4


def test_scopes_are_caches_of_their_own(tmp_path: Path) -> None:
    text = "Rules are to be kept. " * 400
    body = {
        "model": "claude-sonnet-4-5",
        "max_tokens": 10,
        "system": text,
        "messages": [{"role": "user", "content": "x"}],
    }
    file = tmp_path / "t.jsonl"

    def reads(scopes: str) -> int:
        rows = [
            {"t": n * 10, "route": "/v1/messages", "scope": scope, "body": body}
            for n, scope in enumerate(scopes)
        ]
        file.write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
        wanted = Wanted("anthropic_messages", "claude-sonnet-4-5", Times(1, 1.0))
        found = replay(read(str(file), wanted), against("anthropic"), ["system_last"])
        return found.policies["system_last"].read

    assert reads("aa") > 2000
    assert reads("ab") == 0


def one(name: str = SAMPLES[0]) -> Outcome:
    return replay(trace(name), against("anthropic"), POLICY_NAMES)


def test_the_table_has_a_line_for_each_policy() -> None:
    text = as_table(one())
    assert "40 requests" in text
    for name in (*POLICY_NAMES, "without cache", "optimum"):
        assert f"\n{name} " in text


def test_the_page_is_whole_and_asks_nobody_for_anything() -> None:
    outcome = one("swe_agent_3_trajectories.jsonl.gz")
    outcome.trace = "<b>&"
    page = as_page([outcome, one()])
    assert "<b>&" not in page
    assert "&lt;b&gt;&amp;" in page
    assert "http" not in page
    assert "src=" not in page
    plots = page.split("<svg")[1:]
    assert len(plots) == 4
    for plot in plots:
        drawn = ET.fromstring("<svg" + plot.split("</svg>")[0] + "</svg>")
        assert len(drawn) > 3
        numbers = [float(n) for rect in drawn.iter("rect") for n in (rect.get("width") or "0",)]
        assert all(0 <= number <= 860 for number in numbers)


def command(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main(["replay", *arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


ANTHROPIC = ("--provider", "anthropic:claude-sonnet-4-5")


def test_json_is_one_object_of_the_documented_shape(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(TRACES / "bfcl_live_multiple_60.jsonl.gz")
    status, out, err = command(path, *ANTHROPIC, "--json", capsys=capsys)
    assert (status, err) == (0, "")
    found = orjson.loads(out)
    assert list(found) == [
        "trace",
        "provider",
        "requests",
        "input_tokens",
        "optimum_usd",
        "optimum_is",
        "policies",
    ]
    assert found["trace"] == "bfcl_live_multiple_60.jsonl.gz"
    assert found["provider"] == "anthropic:claude-sonnet-4-5"
    assert found["requests"] == 60
    assert found["optimum_is"] in {"exact", "bound"}
    assert list(found["policies"]) == ["none", "system_last", "automatic", "rolling4", "gateway"]
    for spent in found["policies"].values():
        assert list(spent) == [
            "cost_usd",
            "read_tokens",
            "write_5m_tokens",
            "write_1h_tokens",
            "uncached_tokens",
            "rejected",
        ]
    assert found["policies"]["none"]["uncached_tokens"] == found["input_tokens"]


def test_several_traces_and_chosen_policies(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    chosen = ("--policy", "gateway", "--policy", "none", "--json", "--html", str(page))
    paths = [str(TRACES / name) for name in SAMPLES[:2]]
    status, out, _ = command(*paths, *ANTHROPIC, *chosen, "--limit", "5", capsys=capsys)
    assert status == 0
    found = [orjson.loads(line) for line in out.splitlines()]
    assert [each["requests"] for each in found] == [5, 5]
    assert [list(each["policies"]) for each in found] == [["gateway", "none"]] * 2
    assert page.read_text(encoding="utf-8").count("<h2>") == 2


def test_questions_under_one_shared_system_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(TRACES / SAMPLES[0])
    times = ("--arrivals", str(TRACES / "azure_llm_2023_conv_1000.csv.gz"), "--seed", "4")
    shared = ("--shared-system-tokens", "2000", "--json")
    _, out, _ = command(path, *ANTHROPIC, *times, *shared, capsys=capsys)
    _, bare, _ = command(path, *ANTHROPIC, *times, "--json", capsys=capsys)
    more = orjson.loads(out)["input_tokens"] - orjson.loads(bare)["input_tokens"]
    assert more == pytest.approx(40 * 2000, rel=0.01)
    assert orjson.loads(out)["policies"]["system_last"]["read_tokens"] > 40_000


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["x", "--provider", "claude"], "--provider claude: must be anthropic:MODEL or"),
        (["x", "--provider", "openai:"], "must be anthropic:MODEL or openai:MODEL"),
        (["x", "--provider", "openai:gpt-99"], "no cache rules are known for this model"),
        (["x", *ANTHROPIC, "--policy", "best"], "--policy best: must be one of none, system_last"),
        (["nowhere", *ANTHROPIC], "nowhere: No such file"),
        (["x", *ANTHROPIC, "--arrivals", "nowhere"], "nowhere: No such file"),
        (["x", *ANTHROPIC, "--system", "nowhere"], "nowhere: No such file"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = command(*arguments, capsys=capsys)
    assert (status, out) == (2, "")
    assert err.startswith("gateway replay: ")
    assert problem in err


@pytest.mark.parametrize("flag", [["--replicas", "0"], ["--rate", "-1"], ["--limit", "x"]])
def test_numbers_that_make_no_sense_are_wrong_usage(
    flag: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["replay", "x", *ANTHROPIC, *flag])
    assert raised.value.code == 2
    assert flag[0] in capsys.readouterr().err


def test_bodies_without_a_prompt_are_left_out_and_counted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "t.jsonl"
    file.write_bytes(gzip.compress(b'{"t": 0, "route": "/v1/messages", "body": {"messages": []}}'))
    status, out, _ = command(str(file), *ANTHROPIC, capsys=capsys)
    assert status == 0
    assert "0 requests" in out
    assert "1 bodies without a prompt are left out" in out


@pytest.mark.parametrize("route", ["/v1/embeddings", "/v1/chat/completions", "/x"])
def test_a_body_of_another_provider_is_an_error(
    route: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "t.jsonl"
    file.write_bytes(orjson.dumps({"t": 0, "route": route, "body": {"messages": []}}))
    status, out, err = command(str(file), *ANTHROPIC, capsys=capsys)
    assert (status, out) == (2, "")
    assert f"{file}: route {route}: no prompt goes there at anthropic" in err


def test_a_page_that_cannot_be_written_is_said_before_the_work(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = str(tmp_path / "no" / "page.html")
    path = str(TRACES / SAMPLES[0])
    status, out, err = command(path, *ANTHROPIC, "--limit", "1", "--html", page, capsys=capsys)
    assert (status, out) == (2, "")
    assert f"{page}: No such file" in err

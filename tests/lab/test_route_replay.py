"""The replay of routing: what its engines, gateways and people do, and what it prints."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from gateway.cli import main
from gateway.core.trail import Trail
from gateway.lab.engine_sim import Prompt
from gateway.lab.route_gateways import HISTORY_S, LAG_S, PrefixRouter, SimJournal, Store
from gateway.lab.route_page import routes_page
from gateway.lab.route_policies import BASELINES, Asked, SimPool
from gateway.lab.route_replay import (
    ROUTE_POLICIES,
    Routed,
    RouteOptions,
    RouteOutcome,
    ideal_hit,
    replay_routes,
)
from gateway.lab.route_report import routes_as_json, routes_as_table
from gateway.lab.route_trace import Ask, RouteTrace, RouteWanted, read_routes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.lab.route_policies import Router

DATA = Path(__file__).parents[1] / "data"
MOONCAKE = DATA / "traces" / "mooncake_conversation_200.jsonl.gz"
TAU = DATA / "taubench_airline_gpt4o.json.gz"
POOL = SimPool(4, 100_000, 1000.0)


def ask(*blocks: int, conversation: int = 0, at: float = 0.0, size: int = 100) -> Ask:
    """A prompt of blocks; each number stands for all up to there."""
    ends = tuple(size * (index + 1) for index in range(len(blocks)))
    prompt = Prompt(blocks, (size,) * len(blocks), size * len(blocks))
    return Ask(conversation, prompt, Trail(blocks, ends), 10, at)


def trace(asks: Sequence[Ask], *, is_timed: bool = True) -> RouteTrace:
    return RouteTrace("made.jsonl", asks, is_timed=is_timed, is_hashed=True)


def sample(path: Path, limit: int) -> RouteTrace:
    return read_routes(str(path), RouteWanted(limit=limit))


def outcome_of(path: Path, limit: int, **options: Any) -> RouteOutcome:
    return replay_routes(sample(path, limit), POOL, ROUTE_POLICIES, RouteOptions(**options))


# --- what is counted ------------------------------------------------------------------------------


def test_the_figures_of_a_small_trace_are_those_worked_out_by_hand() -> None:
    asks = [
        ask(1, 2, conversation=0, at=0.0),  # engine 0: 200 computed, 0.2 s
        ask(1, 3, conversation=1, at=0.1),  # engine 1: 200 computed, 0.2 s
        ask(1, 2, 4, conversation=0, at=0.15),  # engine 0: 100 computed, behind the first one
        ask(1, 3, 5, conversation=0, at=9.0),  # engine 1: 100 computed, 200 cached; moved
    ]
    pool = SimPool(2, 10_000, 1000.0)
    outcome = replay_routes(trace(asks), pool, ["round_robin"], RouteOptions())
    assert outcome.requests == 4
    assert outcome.input_tokens == 1000
    # 1, 2, 3, 4 and 5 are computed once each, at best.
    assert outcome.ideal_hit == outcome.shared_lru_hit == 50.0
    found = outcome.policies["round_robin"]
    assert found.hit == pytest.approx(40.0)
    assert found.imbalance == pytest.approx(1.0)
    # Of 0.1, 0.15, 0.2 and 0.2.
    assert found.ttft_p50_s == pytest.approx(0.175)
    assert found.moves == 1


def test_answers_that_are_being_spoken_are_in_flight_until_their_end() -> None:
    # SGLang sends what matches nothing to where least is in flight.
    asks = [ask(n, conversation=n, at=at) for n, at in enumerate([0.0, 0.25, 0.55], 1)]
    pool = SimPool(2, 10_000, 1000.0)
    router = BASELINES["sglang"](pool, random.Random(1))
    first = router.place(Asked(0, asks[0], 0.0))
    assert router.place(Asked(1, asks[1], 0.25)) != first
    router.begun(0, 0.1)
    router.over(0, 0, 0.3)
    assert router.place(Asked(2, asks[2], 0.55)) == first


def asked_of(
    policy: str, found: RouteTrace, options: RouteOptions, patch: pytest.MonkeyPatch
) -> list[Asked]:
    """What a policy was asked, in order."""
    seen: list[Asked] = []

    def watched(pool: SimPool, dice: random.Random) -> Router:
        router = BASELINES[policy](pool, dice)
        place = router.place

        def placed(asked: Asked) -> int:
            seen.append(asked)
            return place(asked)

        router.place = placed  # type: ignore[method-assign]
        return router

    patch.setitem(BASELINES, "watched", watched)
    replay_routes(found, POOL, ["watched"], options)
    return seen


def test_people_think_the_same_whatever_the_policy_and_wait_for_their_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = sample(TAU, 6)
    options = RouteOptions(concurrency=2, think_s=5.0)
    runs = [asked_of(name, found, options, monkeypatch) for name in ("round_robin", "session")]
    for run in runs:
        assert {each.ask.prompt.prints for each in run} == {
            each.prompt.prints for each in found.asks
        }
        assert len(run) == len(found.asks)
        times = [each.now for each in run]
        assert times == sorted(times)
        # Two at a time: a third conversation begins when another one is over.
        left = Counter(each.conversation for each in found.asks)
        under_way: set[int] = set()
        for each in run:
            under_way.add(each.ask.conversation)
            assert len(under_way) <= 2
            left[each.ask.conversation] -= 1
            if not left[each.ask.conversation]:
                under_way.discard(each.ask.conversation)
        # Each request comes after the answer before it, and a thought.
        last: dict[int, Asked] = {}
        for each in run:
            before = last.get(each.ask.conversation)
            if before is not None:
                assert each.now > before.now + before.ask.answer_tokens * options.decode_s
            last[each.ask.conversation] = each
    begun = [[(each.now, each.ask.prompt.prints) for each in run[:2]] for run in runs]
    assert begun[0] == begun[1]


def test_the_ideal_holds_all_that_was_ever_asked_in_any_order() -> None:
    asks = sample(MOONCAKE, 200).asks
    assert ideal_hit(asks) == pytest.approx(ideal_hit(asks[::-1]))
    outcome = outcome_of(MOONCAKE, 200)
    for routed in outcome.policies.values():
        assert routed.hit <= outcome.ideal_hit
        assert routed.imbalance >= 1.0
        assert 0.0 < routed.ttft_p50_s <= routed.ttft_p90_s
    assert outcome.shared_lru_hit <= outcome.ideal_hit


def test_the_same_seed_finds_the_same_and_another_one_other_ties() -> None:
    one, again = (outcome_of(TAU, 12, gateways=2, restarts=3) for _ in range(2))
    assert routes_as_json(one) == routes_as_json(again)
    other = outcome_of(TAU, 12, gateways=2, restarts=3, seed=2)
    assert routes_as_json(other) != routes_as_json(one)
    assert other.ideal_hit == one.ideal_hit


def test_a_conversation_stays_where_it_is_with_session_and_goes_round_with_round_robin() -> None:
    found = outcome_of(TAU, 12, gateways=3, restarts=5)
    assert found.policies["session"].moves == 0
    assert found.policies["round_robin"].moves > len(sample(TAU, 12).asks) / 2


@pytest.mark.parametrize("name", ROUTE_POLICIES)
def test_each_policy_does_without_any_load_and_with_one_engine(name: str) -> None:
    asks = [ask(1, conversation=0, at=0.0), ask(1, 2, conversation=0, at=100.0)]
    found = replay_routes(trace(asks), SimPool(1, 1000, 1000.0), [name], RouteOptions())
    routed = found.policies[name]
    assert (routed.moves, routed.imbalance) == (0, 1.0)
    assert routed.hit == pytest.approx(100 / 3)


# --- what gateways know of each other -------------------------------------------------------------


def router(journal: SimJournal, gateway: int, now: float = 0.0) -> PrefixRouter:
    return PrefixRouter(POOL, random.Random(1), gateway, journal, now)


def held(found: PrefixRouter, now: float) -> dict[str, int]:
    """Tokens that it thinks each engine holds."""
    return {name: int(told["mirror_tokens"]) for name, told in found.affinity.told(now).items()}


def test_through_redis_the_others_hear_of_a_placement_a_little_later() -> None:
    journal = SimJournal(Store.REDIS)
    one, other = router(journal, 0), router(journal, 1)
    place = one.place(Asked(0, ask(1, 2, 3), 1.0))
    journal.pass_time(1.0 + LAG_S / 2)
    assert sum(held(other, 1.0).values()) == 0
    journal.pass_time(1.0 + LAG_S)
    assert held(other, 1.1)[f"engine-{place}"] == 300
    assert other.affinity.shares
    # And what it has heard, it goes by.
    one.begun(0, 1.3)
    one.over(0, 0, 1.5)
    assert other.place(Asked(1, ask(1, 2, 3, 4), 2.0)) == place


@pytest.mark.parametrize("store", [Store.SQLITE, Store.MEMORY])
def test_without_redis_nobody_hears_of_the_others(store: Store) -> None:
    journal = SimJournal(store)
    one, other = router(journal, 0), router(journal, 1)
    one.place(Asked(0, ask(1, 2, 3), 1.0))
    journal.pass_time(9.0)
    assert sum(held(other, 9.0).values()) == 0
    assert not other.affinity.shares


@pytest.mark.parametrize(
    ("store", "known"), [(Store.REDIS, 500), (Store.SQLITE, 300), (Store.MEMORY, 0)]
)
def test_what_a_gateway_knows_after_a_restart_is_what_its_store_kept(
    store: Store, known: int
) -> None:
    journal = SimJournal(store)
    one, other = router(journal, 0), router(journal, 1)
    one.place(Asked(0, ask(1, 2, 3), 1.0))
    other.place(Asked(1, ask(8, 9), 1.0))
    again = router(journal, 0, 2.0)
    assert sum(held(again, 2.0).values()) == known
    assert again.process not in (one.process, other.process)


def test_what_is_older_than_an_hour_is_not_read_from_redis() -> None:
    journal = SimJournal(Store.REDIS)
    router(journal, 0).place(Asked(0, ask(1, 2, 3), 1.0))
    assert sum(held(router(journal, 0, HISTORY_S + 2.0), HISTORY_S + 2.0).values()) == 0


def test_who_is_restarted_hears_of_what_its_predecessor_still_has_under_way() -> None:
    journal = SimJournal(Store.REDIS)
    before = router(journal, 0)
    before.place(Asked(0, ask(1, 2, 3), 1.0))
    after = router(journal, 0, 1.001)
    journal.pass_time(2.0)
    # (It was on the way while the new one began.)
    assert sum(held(after, 2.0).values()) == 300
    before.begun(0, 2.0)
    before.over(0, 0, 2.2)
    assert before.affinity.told(2.2) is not None


# --- what is printed ------------------------------------------------------------------------------


def made() -> RouteOutcome:
    routed = {
        "prefix": Routed(25.912, 1.0189, 1.5851, 5.5571, 1773),
        "sglang": Routed(26.28, 1.02, 3.5, 114.28, 895),
    }
    return RouteOutcome("a<b.gz", 1200, 34567, 37.3649, 26.778, routed, "8 engines", ("note <1>",))


def test_json_is_one_object_of_the_documented_shape() -> None:
    assert routes_as_json(made()) == {
        "trace": "a<b.gz",
        "requests": 1200,
        "ideal_hit": 37.36,
        "shared_lru_hit": 26.78,
        "policies": {
            "prefix": {
                "hit": 25.91,
                "imbalance": 1.019,
                "ttft_p50_s": 1.585,
                "ttft_p90_s": 5.557,
                "moves": 1773,
            },
            "sglang": {
                "hit": 26.28,
                "imbalance": 1.02,
                "ttft_p50_s": 3.5,
                "ttft_p90_s": 114.28,
                "moves": 895,
            },
        },
    }


def test_the_table_has_a_line_for_each_policy_and_for_what_none_can_surpass() -> None:
    lines = routes_as_table(made()).splitlines()
    assert lines[0] == "a<b.gz: 1,200 requests, 34,567 input tokens"
    assert lines[1:3] == ["8 engines", "(note <1>)"]
    assert [line.split("  ")[0] for line in lines[4:]] == [
        "prefix",
        "sglang",
        "one cache as large as all",
        "one cache without end",
    ]
    assert lines[4].split()[1:] == ["25.91", "%", "1.02", "1.59", "s", "5.56", "s", "1,773"]
    ends = {len(line.split("%")[0]) for line in lines[4:]}
    assert len(ends) == 1


def test_the_page_needs_nothing_from_the_network_and_its_bars_keep_to_their_plots() -> None:
    page = routes_page([made(), made()])
    assert not re.search(r"https?://|<script|<link|@import", page)
    assert "a&lt;b.gz" in page
    assert "note &lt;1&gt;" in page
    assert "prefers-color-scheme: dark" in page
    plots = [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]
    assert len(plots) == 8
    for plot in plots:
        bars = [
            float(bar.get("x", "0")) + float(bar.get("width", "0")) for bar in plot.iter("rect")
        ]
        assert len(bars) == 2
        assert all(130 <= end <= 750 for end in bars)
    lines = [line.get("class") for line in plots[0].iter("path")]
    assert lines == ["ideal", "shared"]


# --- the command ----------------------------------------------------------------------------------


def command(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main(["replay", *arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


POOLED = ("--backends", "4", "--cache-tokens", "50000")


def test_the_command_prints_one_object_for_each_trace(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    paths = (str(MOONCAKE), str(TAU))
    flags = ("--json", "--html", str(page), "--limit", "8", "--seed", "3")
    status, out, err = command(*paths, *POOLED, *flags, capsys=capsys)
    assert (status, err) == (0, "")
    found = [orjson.loads(line) for line in out.splitlines()]
    assert [list(each) for each in found] == [
        ["trace", "requests", "ideal_hit", "shared_lru_hit", "policies"]
    ] * 2
    assert list(found[0]["policies"]) == [
        "prefix",
        "round_robin",
        "least_pending",
        "session",
        "sglang",
        "llmd",
    ]
    assert found[0]["requests"] == 8
    assert page.read_text(encoding="utf-8").count("<h2>") == 2


def test_the_command_takes_what_the_engines_gateways_and_people_are_like(
    capsys: pytest.CaptureFixture[str],
) -> None:
    chosen = ("--policy", "prefix", "--policy", "session", "--limit", "10")
    many = ("--gateways", "3", "--store", "redis", "--restart-gateways", "2")
    engine = ("--prefill-rate", "500", "--decode-s", "0.01")
    people = ("--concurrency", "3", "--think-s", "2", "--shared-system-tokens", "3000")
    status, out, _ = command(str(TAU), *POOLED, *chosen, *many, *engine, *people, capsys=capsys)
    assert status == 0
    assert "4 engines with a cache of 50,000 tokens each, 500 prompt tokens/s, 3 gateways" in out
    assert "store redis, 2 restarts, 3 conversations at a time" in out
    assert [line.split()[0] for line in out.splitlines() if "%" in line] == [
        "prefix",
        "session",
        "one",
        "one",
    ]


def test_a_shared_head_makes_prompts_longer_and_more_alike(
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = str(DATA / "traces" / "claude_code_8_sessions.jsonl.gz")
    ideal = []
    for head in ((), ("--shared-system-tokens", "13000")):
        pooled = ("--backends", "4", "--cache-tokens", "1000000", "--policy", "prefix", "--json")
        _, out, _ = command(path, *pooled, *head, capsys=capsys)
        ideal.append(orjson.loads(out)["ideal_hit"])
    assert ideal[1] > ideal[0]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["x"], "--provider PROVIDER:MODEL is needed to tell what prompts cost, or --backends N"),
        (["x", "--gateways", "2"], "--gateways: needs --backends N"),
        (["x", "--provider", "openai:gpt-4o", "--store", "redis"], "--store: needs --backends N"),
        (["x", "--cache-tokens", "9"], "--cache-tokens: needs --backends N"),
        (["x", "--backends", "2"], "--cache-tokens C is needed with --backends"),
        (["x", *POOLED, "--provider", "openai:gpt-4o"], "--provider: not with --backends"),
        (["x", *POOLED, "--replicas", "2"], "--replicas: not with --backends: --gateways is"),
        (["x", *POOLED, "--rate", "2"], "--rate: not with --backends: --concurrency is"),
        (["x", *POOLED, "--restart-every", "2"], "--restart-gateways is how often they restart"),
        (["x", *POOLED, "--policy", "gateway"], "must be one of prefix, round_robin, least_pend"),
        (["x", "--backends", "4097", "--cache-tokens", "9"], "a pool has at most 4096"),
        (["nowhere", *POOLED], "nowhere: No such file"),
        ([str(MOONCAKE), *POOLED, "--system", __file__], "--shared-system-tokens instead"),
        ([str(MOONCAKE), *POOLED, "--restart-gateways", "200"], "has no more than 200 requests"),
    ],
)
def test_what_is_wrong_is_said_with_the_flag_and_the_mend(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = command(*arguments, capsys=capsys)
    assert (status, out) == (2, "")
    assert err.startswith("gateway replay: ")
    assert problem in err


@pytest.mark.parametrize(
    "flag", [["--backends", "0"], ["--store", "disk"], ["--think-s", "0"], ["--decode-s", "inf"]]
)
def test_numbers_and_words_that_make_no_sense_are_wrong_usage(
    flag: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["replay", "x", *POOLED, *flag])
    assert raised.value.code == 2
    assert flag[0] in capsys.readouterr().err

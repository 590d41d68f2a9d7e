"""What the gateway's own policy has to come to on recorded traffic: one gateway or four, with each
store, and while gateways restart. Settings are the defaults.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import pytest

from gateway.lab.route_gateways import Store
from gateway.lab.route_policies import SimPool
from gateway.lab.route_replay import PREFIX, Routed, RouteOptions, RouteOutcome, replay_routes
from gateway.lab.route_trace import HASHED_RATE, TEXT_RATE, RouteTrace, RouteWanted, read_routes
from tests.helpers.mooncake import whole_trace

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = Path(__file__).parents[1] / "data"
TAU = DATA / "taubench_airline_gpt4o.json.gz"
SESSIONS = DATA / "traces" / "claude_code_8_sessions.jsonl.gz"
SEEDS = (1, 2, 3)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def conversation(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RouteOutcome]:
    """Mooncake's hour past eight engines of a million tokens."""
    trace = read_routes(str(whole_trace(tmp_path_factory.mktemp("trace"))), RouteWanted())
    pool = SimPool(8, 1_000_000, HASHED_RATE)

    @cache
    def replayed(*policies: str, **options: Any) -> RouteOutcome:
        return replay_routes(trace, pool, policies or (PREFIX,), RouteOptions(**options))

    return replayed


@pytest.fixture(scope="module")
def alone(conversation: Callable[..., RouteOutcome]) -> RouteOutcome:
    """One gateway, beside SGLang's policy."""
    return conversation(PREFIX, "sglang")


@pytest.fixture(scope="module")
def talks() -> RouteTrace:
    """Conversations with tools, under one system prompt."""
    return read_routes(str(TAU), RouteWanted())


def of_talks(trace: RouteTrace, **options: Any) -> list[Routed]:
    """Past eight engines of 30,000 tokens, one for each seed."""
    pool = SimPool(8, 30_000, TEXT_RATE)
    runs = [
        replay_routes(trace, pool, [PREFIX], RouteOptions(seed=seed, **options)) for seed in SEEDS
    ]
    return [run.policies[PREFIX] for run in runs]


def test_an_hour_of_chats_is_held_and_shared_out_and_nobody_waits_as_long(
    alone: RouteOutcome,
) -> None:
    ours, theirs = alone.policies[PREFIX], alone.policies["sglang"]
    assert ours.hit >= 25.5
    assert ours.imbalance <= 1.05
    assert ours.ttft_p90_s <= 0.44 * theirs.ttft_p90_s


def test_talks_under_one_system_prompt_are_held_and_shared_out(talks: RouteTrace) -> None:
    runs = of_talks(talks)
    assert mean(run.hit for run in runs) >= 93.0
    assert mean(run.imbalance for run in runs) <= 1.25


@pytest.mark.parametrize(
    ("store", "points"), [(Store.REDIS, 1.0), (Store.SQLITE, 3.0), (Store.MEMORY, 3.0)]
)
def test_four_gateways_hold_nearly_what_one_holds(
    store: Store,
    points: float,
    alone: RouteOutcome,
    conversation: Callable[..., RouteOutcome],
    talks: RouteTrace,
) -> None:
    four = conversation(gateways=4, store=store).policies[PREFIX]
    assert four.hit >= alone.policies[PREFIX].hit - points
    one_hit = mean(run.hit for run in of_talks(talks))
    four_hit = mean(run.hit for run in of_talks(talks, gateways=4, store=store))
    assert four_hit >= one_hit - points


@pytest.mark.parametrize("store", [Store.REDIS, Store.SQLITE])
@pytest.mark.parametrize("gateways", [1, 4])
def test_eight_restarts_cost_less_than_a_point(
    store: Store, gateways: int, conversation: Callable[..., RouteOutcome]
) -> None:
    steady = conversation(gateways=gateways, store=store).policies[PREFIX]
    restarted = conversation(gateways=gateways, store=store, restarts=8).policies[PREFIX]
    assert restarted.hit > steady.hit - 1.0


def test_sessions_under_one_head_are_held_nearly_as_if_there_were_one_cache() -> None:
    trace = read_routes(str(SESSIONS), RouteWanted(head_tokens=13_000))
    pool = SimPool(8, 500_000, HASHED_RATE)
    found = replay_routes(trace, pool, [PREFIX], RouteOptions())
    assert found.policies[PREFIX].hit >= found.shared_lru_hit - 2.0

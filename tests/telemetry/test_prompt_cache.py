"""What is counted of prompt caches: by whom, for whom, and never for a model that a client made up."""

from __future__ import annotations

import threading
from typing import Any

from gateway.core.causes import Cause, Share
from gateway.core.plan import PlanReason
from gateway.telemetry import semconv as s
from gateway.telemetry.metrics import ProvenNames
from gateway.telemetry.prompt_cache import NULL_PROMPT_CACHE, PromptCacheTallies
from gateway.telemetry.tallies import Count, Tallies


def counted(tallies: Tallies, name: str) -> list[tuple[dict[str, Any], float]]:
    family = next(each for each in tallies.families if each.name == name)
    return [(dict(one.labels), one.value) for one in family.all() if isinstance(one, Count)]


def test_tokens_are_counted_by_who_caused_them() -> None:
    tallies = Tallies()
    metrics = PromptCacheTallies(tallies, ProvenNames())

    metrics.answered(
        {
            Cause.OURS: Share(read=900, write_5m=50, write_1h=5),
            Cause.CLIENT: Share(),
            Cause.AUTOMATIC: Share(read=7),
        },
        "anthropic",
        "claude",
    )

    whose = {"provider": "anthropic", "model": "claude"}
    assert counted(tallies, s.M_PROMPT_CACHE_TOKENS) == [
        ({**whose, "operation": "read", "cause": "ours"}, 900),
        ({**whose, "operation": "write", "cause": "ours"}, 55),
        ({**whose, "operation": "read", "cause": "automatic"}, 7),
    ]


def test_what_was_spared_and_what_it_cost_are_two_sums_that_only_grow() -> None:
    tallies = Tallies()
    metrics = PromptCacheTallies(tallies, ProvenNames())

    for _ in range(2):
        metrics.paid(
            0.5,
            {Cause.OURS: 0.25, Cause.CLIENT: 0.0},
            {Cause.OURS: 0.125},
            provider="anthropic",
            model="claude",
        )

    whose = {"provider": "anthropic", "model": "claude"}
    assert counted(tallies, s.M_INFERENCE_COST) == [(whose, 1.0)]
    assert counted(tallies, s.M_PROMPT_CACHE_SPARED) == [({**whose, "cause": "ours"}, 0.5)]
    assert counted(tallies, s.M_PROMPT_CACHE_PREMIUM) == [({**whose, "cause": "ours"}, 0.25)]


def test_a_plan_for_a_model_that_nobody_answered_for_has_no_label_of_its_own() -> None:
    tallies = Tallies()
    names = ProvenNames()
    metrics = PromptCacheTallies(tallies, names)

    metrics.planned(PlanReason.PLACED, "anthropic", "made-up", 0.001, ["sort-tools"])
    names.label("claude", proven=True)
    metrics.planned(PlanReason.OFF, "anthropic", "claude", 0.001)

    assert [
        (labels["model"], labels["reason"])
        for labels, _ in counted(tallies, s.M_PROMPT_CACHE_PLANS)
    ] == [
        (s.OTHER, "placed"),
        ("claude", "off"),
    ]
    assert counted(tallies, s.M_PROMPT_CACHE_REWRITES) == [({"rewrite": "sort-tools"}, 1)]


def test_what_is_counted_from_two_threads_is_counted_once_each() -> None:
    tallies = Tallies()
    metrics = PromptCacheTallies(tallies, ProvenNames())

    def tell() -> None:
        for _ in range(500):
            metrics.refused("openai", "gpt")
            metrics.warmed("refresh", "ok")

    threads = [threading.Thread(target=tell) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert [value for _, value in counted(tallies, s.M_PROMPT_CACHE_REFUSALS)] == [1000]
    assert [value for _, value in counted(tallies, s.M_WARM_REQUESTS)] == [1000]


def test_with_metrics_off_all_of_it_costs_nothing_and_never_fails() -> None:
    NULL_PROMPT_CACHE.planned(PlanReason.FAILED, "p", "m", 0.0)
    NULL_PROMPT_CACHE.refused("p", "m")
    NULL_PROMPT_CACHE.answered({}, "p", "m")
    NULL_PROMPT_CACHE.paid(0.0, {}, {}, provider="p", model="m")
    NULL_PROMPT_CACHE.warmed("start", "ok")

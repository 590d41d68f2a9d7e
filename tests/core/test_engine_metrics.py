"""What an engine's metrics page is understood to say, on pages as engines write them."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.engine_metrics import (
    MOST_SERIES,
    EngineState,
    engine_state,
    hit_share,
    restarted,
)
from gateway.providers.engine_metrics import BLOCK_TOKENS, ENGINE_METRICS

# vLLM 0.2x, one engine.
VLLM_NEW = """\
# HELP python_gc_objects_collected_total Objects collected during gc
# TYPE python_gc_objects_collected_total counter
python_gc_objects_collected_total{generation="0"} 12345.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="Qwen/Qwen3-8B"} 3.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="Qwen/Qwen3-8B"} 1.0
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="Qwen/Qwen3-8B"} 0.25
# HELP vllm:prefix_cache_queries_total Prefix cache queries, in terms of number of queried tokens.
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{engine="0",model_name="Qwen/Qwen3-8B"} 8000.0
# HELP vllm:prefix_cache_queries_created Prefix cache queries, in terms of number of queried tokens.
# TYPE vllm:prefix_cache_queries_created gauge
vllm:prefix_cache_queries_created{engine="0",model_name="Qwen/Qwen3-8B"} 1.7917e+09
# HELP vllm:prefix_cache_hits_total Prefix cache hits, in terms of number of cached tokens.
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{engine="0",model_name="Qwen/Qwen3-8B"} 6000.0
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="Qwen/Qwen3-8B"} 8000.0
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="Qwen/Qwen3-8B"} 0.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="Qwen/Qwen3-8B"} 20.0
"""
ASKED = EngineState(3, 1, 0.25, 8000.0, 6000.0, None, 8000.0)

VLLM_OLD = (
    VLLM_NEW.replace("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
    .replace("vllm:prefix_cache_", "vllm:gpu_prefix_cache_")
    .replace("Prefix cache", "GPU prefix cache")
)
# Other figures under the old names, in front of the new ones; the names that were never changed once.
VLLM_BOTH = (
    VLLM_OLD.replace(" 8000.0", " 80.0")
    .replace(" 6000.0", " 60.0")
    .replace("0.25", "0.5")
    .replace("vllm:num_requests", "vllm:other")
    .replace("vllm:prompt_tokens", "vllm:other")
    + VLLM_NEW
)
VLLM_BARE = VLLM_NEW.replace("_total", "")
VLLM_BOTH_SPELLINGS = VLLM_NEW + VLLM_BARE.replace("vllm:num", "vllm:other")
VLLM_BLOCKS = """\
# HELP vllm:gpu_prefix_cache_queries_total GPU prefix cache queries, in terms of number of queried blocks.
vllm:gpu_prefix_cache_queries_total{model_name="m"} 500.0
# HELP vllm:gpu_prefix_cache_hits_total GPU prefix cache hits, in terms of number of cached blocks.
vllm:gpu_prefix_cache_hits_total{model_name="m"} 100.0
"""
VLLM_RANKS = """\
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
vllm:num_requests_waiting{engine="1",model_name="m"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.5
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.25
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 1000.0
vllm:prefix_cache_queries_total{engine="1",model_name="m"} 3000.0
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 500.0
vllm:prefix_cache_hits_total{engine="1",model_name="m"} 1500.0
vllm:external_prefix_cache_queries_total{engine="0",model_name="m"} 2000.0
vllm:external_prefix_cache_hits_total{engine="0",model_name="m"} 250.0
"""
VLLM_V0 = """\
vllm:num_requests_running{model_name="m"} 2.0
vllm:num_requests_waiting{model_name="m"} 0.0
vllm:gpu_cache_usage_perc{model_name="m"} 0.125
vllm:gpu_prefix_cache_hit_rate{model_name="m"} 0.75
"""
SGLANG = """\
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="unified",model_name="m",moe_ep_rank="0",pp_rank="0",tp_rank="0"} 12.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",moe_ep_rank="0",pp_rank="0",tp_rank="0"} 5.0
sglang:token_usage{engine_type="unified",model_name="m",moe_ep_rank="0",pp_rank="0",tp_rank="0"} 0.5
sglang:cache_hit_rate{engine_type="unified",model_name="m",moe_ep_rank="0",pp_rank="0",tp_rank="0"} 0.25
sglang:prompt_tokens_total{engine_type="unified",is_streaming="false",model_name="m"} 600.0
sglang:prompt_tokens_total{engine_type="unified",is_streaming="true",model_name="m"} 400.0
sglang:prompt_tokens_created{engine_type="unified",is_streaming="true",model_name="m"} 1.7e+09
sglang:cached_tokens_total{cache_source="device",engine_type="unified",model_name="m"} 300.0
sglang:cached_tokens_total{cache_source="host",engine_type="unified",model_name="m"} 100.0
"""
# With metrics of all schedulers, of two data-parallel replicas, and with priorities.
SGLANG_RANKS = """\
sglang:num_running_reqs{dp_rank="0",priority="",tp_rank="0"} 3.0
sglang:num_running_reqs{dp_rank="0",priority="",tp_rank="1"} 3.0
sglang:num_running_reqs{dp_rank="0",priority="1",tp_rank="0"} 2.0
sglang:num_running_reqs{dp_rank="1",priority="",tp_rank="0"} 4.0
sglang:num_queue_reqs{dp_rank="0",priority="",tp_rank="0"} 0.0
sglang:token_usage{dp_rank="0",priority="",tp_rank="0"} 0.5
sglang:token_usage{dp_rank="0",priority="",tp_rank="1"} 0.5
sglang:token_usage{dp_rank="1",priority="",tp_rank="0"} 0.0
sglang:prompt_tokens_total{priority="1"} 10.0
sglang:prompt_tokens_total{priority="2"} 30.0
# TYPE sglang:cached_tokens_total counter
"""
LLAMACPP = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 1000
# HELP llamacpp:tokens_predicted_total Number of generation tokens processed.
# TYPE llamacpp:tokens_predicted_total counter
llamacpp:tokens_predicted_total 500
# HELP llamacpp:requests_processing Number of requests processing.
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 2
# HELP llamacpp:requests_deferred Number of requests deferred.
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 1
"""
# From a server that was asked for 4293 tokens of prompt, and told 3135 of them as cached.
LLAMACPP_CACHED = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed, excluding cached tokens
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 1158
# HELP llamacpp:prompt_tokens_cached_total Number of prompt tokens reused from the cache
# TYPE llamacpp:prompt_tokens_cached_total counter
llamacpp:prompt_tokens_cached_total 3135
# HELP llamacpp:prompt_tokens_seconds Average prompt throughput in tokens/s
# TYPE llamacpp:prompt_tokens_seconds gauge
llamacpp:prompt_tokens_seconds 0
# HELP llamacpp:requests_processing Number of requests processing
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 0
# HELP llamacpp:requests_deferred Number of requests deferred
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 0
"""
LLAMACPP_OLD = LLAMACPP + "llamacpp:kv_cache_usage_ratio 0.5\nllamacpp:kv_cache_tokens 1234\n"
JUNK = """\
vllm:num_requests_running
vllm:num_requests_running{
vllm:num_requests_running{engine="0" 7
vllm:num_requests_running{engine="1"} seven
vllm:num_requests_running{engine="2"} NaN
vllm:num_requests_running{engine="3"} +Inf
vllm:num_requests_running{engine="4"} -1
  vllm:num_requests_waiting { engine = "a \\"b\\" }, {" , model_name="m" , }\t2\t1790000000000
vllm:kv_cache_usage_perc{engine="5"} 1.0000001 # {trace_id="x"} 0.9
# TYPE
# HELP vllm:prefix_cache_hits
#
vllm:prefix_cache_queries_total{engine="\u2028"} 10
<html><body>vllm:num_requests_running 9</body></html>
"""

CASES: dict[str, tuple[str, str, EngineState]] = {
    "new names": ("vllm", VLLM_NEW, ASKED),
    "old names": ("vllm", VLLM_OLD, ASKED),
    "both names: the new ones": ("vllm", VLLM_BOTH, ASKED),
    "without _total": ("vllm", VLLM_BARE, ASKED),
    "with and without _total": ("vllm", VLLM_BOTH_SPELLINGS, ASKED),
    "line ends of Windows": ("vllm", VLLM_NEW.replace("\n", "\r\n"), ASKED),
    "blocks": (
        "vllm",
        VLLM_BLOCKS,
        EngineState(queried_tokens=500.0 * BLOCK_TOKENS, hit_tokens=100.0 * BLOCK_TOKENS),
    ),
    "blocks of a size that is told": (
        "vllm",
        VLLM_BLOCKS + 'vllm:cache_config_info{block_size="32",cache_dtype="auto"} 1.0\n',
        EngineState(queried_tokens=16000.0, hit_tokens=3200.0),
    ),
    "ranks and a connector": (
        "vllm",
        VLLM_RANKS,
        EngineState(7, 2, 0.375, 4000.0, 2250.0),
    ),
    "a share only": ("vllm", VLLM_V0, EngineState(2, 0, 0.125, hit_share=0.75)),
    "no share of a cache that is off": (
        "vllm",
        VLLM_V0.replace("0.75", "-1"),
        EngineState(2, 0, 0.125),
    ),
    "sglang": ("sglang", SGLANG, EngineState(12, 5, 0.5, 1000.0, 400.0, 0.25, 1000.0)),
    "sglang before sources were told": (
        "sglang",
        'sglang:prompt_tokens_total{model_name="m"} 8.0\nsglang:cached_tokens_total{model_name="m"} 4.0',
        EngineState(queried_tokens=8.0, hit_tokens=4.0, prompt_tokens=8.0),
    ),
    "sglang's ranks and priorities": (
        "sglang",
        SGLANG_RANKS,
        EngineState(7, 0, 0.25, 40.0, 0.0, prompt_tokens=40.0),
    ),
    "lookups without hits": (
        "sglang",
        "sglang:prompt_tokens_total 5",
        EngineState(queried_tokens=5.0, prompt_tokens=5.0),
    ),
    "llama.cpp tells no hits": ("llamacpp", LLAMACPP, EngineState(2, 1, prompt_tokens=1000.0)),
    "llama.cpp tells hits": (
        "llamacpp",
        LLAMACPP_CACHED,
        EngineState(0, 0, None, 4293.0, 3135.0, prompt_tokens=1158.0),
    ),
    "old llama.cpp": ("llamacpp", LLAMACPP_OLD, EngineState(2, 1, 0.5, prompt_tokens=1000.0)),
    "junk": (
        "vllm",
        JUNK,
        EngineState(waiting=2, kv_usage=1.0, queried_tokens=10.0),
    ),
    "another engine's page": ("sglang", VLLM_NEW, EngineState()),
    "nothing": ("vllm", "", EngineState()),
}


@pytest.mark.parametrize(("engine", "page", "state"), CASES.values(), ids=CASES)
def test_a_page_says_this(engine: str, page: str, state: EngineState) -> None:
    assert engine_state(page, ENGINE_METRICS[engine]) == state


def test_only_what_tells_nothing_is_silent() -> None:
    assert EngineState().silent
    assert not EngineState(running=0).silent


def test_only_so_many_series_are_looked_at() -> None:
    page = "".join(
        f'vllm:num_requests_running{{engine="{number}"}} 1\n' for number in range(MOST_SERIES + 5)
    )

    assert engine_state(page, ENGINE_METRICS["vllm"]).running == MOST_SERIES


@pytest.mark.parametrize(
    "page",
    [
        "vllm:num_requests_running{" + 'a="b",' * 1000 + "} 1\n" + VLLM_NEW,
        "x" * 1_000_000 + "\n" + VLLM_NEW,
        'vllm:num_requests_running{a="' + "\\" * 4001 + "\n" + VLLM_NEW,
    ],
    ids=["many labels", "a line without an end", "an open text"],
)
def test_an_odd_line_does_not_cost_the_others(page: str) -> None:
    state = engine_state(page, ENGINE_METRICS["vllm"])

    assert (state.waiting, state.queried_tokens) == (1, 8000.0)


def _counted(queried: float | None, hit: float | None, prompt: float | None = None) -> EngineState:
    return EngineState(queried_tokens=queried, hit_tokens=hit, prompt_tokens=prompt)


@pytest.mark.parametrize(
    ("earlier", "later", "expected"),
    [
        (_counted(10, 5), _counted(10, 5), False),
        (_counted(10, 5), _counted(12, 6), False),
        (_counted(10, 5), _counted(2, 1), True),
        (_counted(10, 5), _counted(12, 4), True),
        (_counted(10, 5), _counted(None, None), False),
        (_counted(None, None, 9), _counted(None, None, 3), True),
        (EngineState(running=9), EngineState(running=0), False),
    ],
)
def test_an_engine_began_anew_when_a_counter_went_down(
    earlier: EngineState, later: EngineState, expected: bool
) -> None:
    assert restarted(earlier, later) is expected


@pytest.mark.parametrize(
    ("later", "earlier", "share"),
    [
        (_counted(100, 25), None, 0.25),
        (_counted(100, 25), _counted(60, 5), 0.5),
        (_counted(100, 25), _counted(100, 25), None),
        (_counted(100, 25), _counted(None, None), None),
        (_counted(100, None), None, None),
        (_counted(0, 0), None, None),
        # Read between the two writes.
        (_counted(100, 25), _counted(99, 20), 1.0),
    ],
)
def test_a_share_is_of_what_was_looked_up(
    later: EngineState, earlier: EngineState | None, share: float | None
) -> None:
    assert hit_share(later, earlier) == share


def test_every_name_has_its_source_and_the_engines_prefix() -> None:
    for names in ENGINE_METRICS.values():
        known: list[Any] = [*names.running, *names.waiting, *names.kv_usage, *names.prompt_tokens]
        known += names.hit_share
        for counters in names.cache:
            known += [*counters.queried, *counters.hit, *counters.hit_elsewhere]
        assert known
        assert all(each.name.startswith(names.prefix) for each in known)
        assert not any(each.name.endswith("_total") for each in known)
        assert all(each.rule.reason and "20" in each.rule.source for each in known)

"""What self-hosted engines call their metrics: new names before old ones. Read 2026-11.

Names stand here without `_total`, which depends on the client library that an engine is built with.
Where an engine was renamed, both names stand for a while in one answer: the first that is told wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.providers.base import Rule

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Named:
    """One metric's name, what it means, and who says so."""

    name: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class CacheCounters:
    """Counters of one generation of an engine that belong together; each is a sum of metrics."""

    queried: tuple[Named, ...]
    """Prompt tokens that were looked up: all of these have to be told."""
    hit: tuple[Named, ...]
    """Of these, the ones that were there."""
    hit_elsewhere: tuple[Named, ...] = ()
    """Added to `hit` where they are told: tokens that came from a cache beside the engine's own."""
    maybe_blocks: bool = False
    """Older versions counted blocks; their HELP line says so."""


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """The metrics of one engine; of each kind, the first that is told."""

    prefix: str
    """What all their names begin with."""
    running: tuple[Named, ...]
    waiting: tuple[Named, ...]
    kv_usage: tuple[Named, ...]
    """Part of the KV cache in use, from 0 to 1."""
    prompt_tokens: tuple[Named, ...]
    """A counter that begins anew with the engine."""
    cache: tuple[CacheCounters, ...]
    hit_share: tuple[Named, ...] = ()
    """What the engine itself says of its last requests, from 0 to 1."""
    same_work: frozenset[str] = frozenset()
    """Labels of processes that share their requests: what each of them tells is told once."""
    parts: frozenset[str] = frozenset()
    """Labels whose series are parts of the one in which the label is empty (gauges only)."""
    block_size: tuple[str, str] | None = None
    """A metric, and its label that holds the tokens of a block."""
    block_count: tuple[str, str] | None = None
    """The same metric, and its label that holds how many blocks there are."""
    capacity: tuple[Named, ...] = ()
    """Tokens that the KV cache holds, where that is told in tokens."""
    awake: tuple[Named, str] | None = None
    """A gauge, and the label that is `awake` for the series that is 0 while the engine sleeps."""


BLOCK_TOKENS = 16
"""vLLM's default, where it isn't told."""
PROCESS_START = "process_start_time_seconds"
"""A gauge of Prometheus' client libraries: when the process began."""


def _from(source: str, **names: str) -> dict[str, Named]:
    """Of one source: member -> a name and, behind a blank, what it means."""
    made = {}
    for member, told in names.items():
        name, _, reason = told.partition(" ")
        made[member] = Named(name, Rule(reason, source))
    return made


_VLLM_NEW = _from(
    "vLLM docs 0.32, usage/metrics (2026-11)",
    running="vllm:num_requests_running requests in the batch",
    waiting="vllm:num_requests_waiting requests in the queue",
    kv_usage="vllm:kv_cache_usage_perc 1 is full, whatever the name says",
    prompt_tokens="vllm:prompt_tokens prompt tokens, cached ones included",
    queried="vllm:prefix_cache_queries tokens",
    hit="vllm:prefix_cache_hits tokens",
    elsewhere="vllm:external_prefix_cache_hits tokens that a connector had, of those that missed",
)
_VLLM_SLEEP = _from(
    "vLLM main, v1/metrics/loggers.py; docs, features/sleep_mode (2026-11)",
    awake="vllm:engine_sleep_state sleep_state=awake is 0 while it sleeps: its KV cache is discarded",
)
_VLLM_OLD = _from(
    "vLLM 005a810, v1/metrics/loggers.py: beside the new names there, gone by 0.27.1 (2026-08)",
    kv_usage="vllm:gpu_cache_usage_perc now kv_cache_usage_perc",
    queried="vllm:gpu_prefix_cache_queries now prefix_cache_queries; blocks in the first versions",
    hit="vllm:gpu_prefix_cache_hits now prefix_cache_hits; blocks in the first versions",
)
_VLLM_V0 = _from(
    "vLLM V0, engine/metrics.py (gone with V0; read 2026-11)",
    hit_share="vllm:gpu_prefix_cache_hit_rate of blocks; -1 where nothing is cached",
)
_SGLANG = _from(
    "SGLang main, srt/observability/metrics_collector.py (2026-08)",
    running="sglang:num_running_reqs requests in the batch",
    waiting="sglang:num_queue_reqs requests in the queue",
    kv_usage="sglang:token_usage of the KV cache",
    prompt_tokens="sglang:prompt_tokens prompt tokens, cached ones included",
    hit="sglang:cached_tokens tokens; since 2026 with cache_source: device, host, storage_*",
    hit_share="sglang:cache_hit_rate of the last batch of prefills",
    capacity="sglang:max_total_num_tokens tokens in the KV cache pool, told once at the start",
)
_LLAMACPP = _from(
    "llama.cpp, tools/server/README.md (2026-11)",
    running="llamacpp:requests_processing requests in slots",
    waiting="llamacpp:requests_deferred requests that wait for a slot",
    prompt_tokens="llamacpp:prompt_tokens prompt tokens that were computed: none that were cached",
)
_LLAMACPP_NEW = _from(
    "llama.cpp decaf508b (2026-08-13), and what a server of 2026-10 told (2026-11)",
    hit="llamacpp:prompt_tokens_cached tokens; before that commit hits are not told at all",
)
_LLAMACPP_OLD = _from(
    "llama.cpp, server README of earlier versions; current ones do not tell it (2026-11)",
    kv_usage="llamacpp:kv_cache_usage_ratio 1 is full",
)

ENGINE_METRICS: Mapping[str, EngineMetrics] = {
    "vllm": EngineMetrics(
        prefix="vllm:",
        running=(_VLLM_NEW["running"],),
        waiting=(_VLLM_NEW["waiting"],),
        kv_usage=(_VLLM_NEW["kv_usage"], _VLLM_OLD["kv_usage"]),
        prompt_tokens=(_VLLM_NEW["prompt_tokens"],),
        cache=(
            CacheCounters((_VLLM_NEW["queried"],), (_VLLM_NEW["hit"],), (_VLLM_NEW["elsewhere"],)),
            CacheCounters((_VLLM_OLD["queried"],), (_VLLM_OLD["hit"],), maybe_blocks=True),
        ),
        hit_share=(_VLLM_V0["hit_share"],),
        block_size=("vllm:cache_config_info", "block_size"),
        block_count=("vllm:cache_config_info", "num_gpu_blocks"),
        awake=(_VLLM_SLEEP["awake"], "sleep_state"),
    ),
    "sglang": EngineMetrics(
        prefix="sglang:",
        running=(_SGLANG["running"],),
        waiting=(_SGLANG["waiting"],),
        kv_usage=(_SGLANG["kv_usage"],),
        prompt_tokens=(_SGLANG["prompt_tokens"],),
        cache=(CacheCounters((_SGLANG["prompt_tokens"],), (_SGLANG["hit"],)),),
        hit_share=(_SGLANG["hit_share"],),
        capacity=(_SGLANG["capacity"],),
        # With --enable-metrics-for-all-schedulers each rank tells the same requests.
        same_work=frozenset(("tp_rank", "pp_rank", "moe_ep_rank")),
        # "the total is recorded under priority="" (the default label value). Per-priority
        # breakdowns are recorded with priority="<int>"" (metrics_collector.py).
        parts=frozenset(("priority",)),
    ),
    "llamacpp": EngineMetrics(
        prefix="llamacpp:",
        running=(_LLAMACPP["running"],),
        waiting=(_LLAMACPP["waiting"],),
        kv_usage=(_LLAMACPP_OLD["kv_usage"],),
        prompt_tokens=(_LLAMACPP["prompt_tokens"],),
        cache=(
            CacheCounters(
                (_LLAMACPP["prompt_tokens"], _LLAMACPP_NEW["hit"]), (_LLAMACPP_NEW["hit"],)
            ),
        ),
    ),
}
"""By the provider's name."""

"""What a fake engine tells of itself: `/metrics` by each engine's names, `/slots`, `/props`.

Spelled here anew, not read from the gateway's own tables: these are what they are tested with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.lab.engine_cache import BlockCache, Slots
from gateway.lab.engine_prompt import BLOCK_TOKENS

if TYPE_CHECKING:
    from gateway.lab.engine_work import Work

Json = dict[str, Any]
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def metrics(engine: str, model: str, work: Work, *, old_names: bool) -> str:
    """The page. `old_names`: as versions before the renaming told it (vLLM, llama.cpp)."""
    told = {"vllm": _vllm, "sglang": _sglang, "llamacpp": _llamacpp}[engine]
    return "\n".join(told(f'{{model_name="{model}"}}', work, old_names)) + "\n"


def slots(work: Work) -> list[Json]:
    """llama.cpp's `GET /slots`."""
    cache = work.cache
    assert isinstance(cache, Slots)
    return [
        {
            "id": slot.number,
            "n_ctx": cache.slot_tokens,
            "speculative": False,
            "is_processing": slot.busy,
            "id_task": slot.used - 1,
            "n_prompt_tokens": slot.tokens,
        }
        for slot in cache.slots
    ]


def props(work: Work, model: str) -> Json:
    """llama.cpp's `GET /props`."""
    cache = work.cache
    assert isinstance(cache, Slots)
    return {
        "default_generation_settings": {"params": {"n_predict": -1}, "n_ctx": cache.slot_tokens},
        "total_slots": len(cache.slots),
        "model_alias": model,
        "model_path": f"{model}.gguf",
        "modalities": {"vision": False, "audio": False},
        "build_info": "b0-simulated",
        "is_sleeping": False,
    }


def _vllm(labels: str, work: Work, old_names: bool) -> list[str]:
    assert isinstance(work.cache, BlockCache)
    blocks = work.cache.capacity
    # Blocks that only might be used again count as free.
    used = work.running_tokens / (blocks * BLOCK_TOKENS)
    prefix = "gpu_" if old_names else ""
    usage = "gpu_cache_usage_perc" if old_names else "kv_cache_usage_perc"
    info = f'{{block_size="{BLOCK_TOKENS}",enable_prefix_caching="True",num_gpu_blocks="{blocks}"}}'
    return [
        *_told("vllm:num_requests_running", "gauge", labels, work.running),
        *_told("vllm:num_requests_waiting", "gauge", labels, work.waiting),
        *_told(f"vllm:{usage}", "gauge", labels, used),
        *_told(f"vllm:{prefix}prefix_cache_queries", "counter", labels, work.prompt_tokens),
        *_told(f"vllm:{prefix}prefix_cache_hits", "counter", labels, work.cached_tokens),
        *_told("vllm:prompt_tokens", "counter", labels, work.prompt_tokens),
        *_told("vllm:generation_tokens", "counter", labels, work.answer_tokens),
        *_told("vllm:cache_config_info", "gauge", info, 1),
    ]


def _sglang(labels: str, work: Work, old_names: bool) -> list[str]:
    assert isinstance(work.cache, BlockCache)
    capacity = work.cache.capacity * BLOCK_TOKENS
    source = labels if old_names else f'{labels[:-1]},cache_source="device"}}'
    share = work.cached_tokens / work.prompt_tokens if work.prompt_tokens else 0.0
    return [
        *_told("sglang:num_running_reqs", "gauge", labels, work.running),
        *_told("sglang:num_queue_reqs", "gauge", labels, work.waiting),
        *_told("sglang:token_usage", "gauge", labels, work.running_tokens / capacity),
        *_told("sglang:num_used_tokens", "gauge", labels, work.running_tokens),
        *_told("sglang:max_total_num_tokens", "gauge", labels, capacity),
        *_told("sglang:cache_hit_rate", "gauge", labels, share),
        *_told("sglang:prompt_tokens", "counter", labels, work.prompt_tokens),
        *_told("sglang:cached_tokens", "counter", source, work.cached_tokens),
        *_told("sglang:generation_tokens", "counter", labels, work.answer_tokens),
        *_told("sglang:num_requests", "counter", labels, work.requests),
    ]


def _llamacpp(labels: str, work: Work, old_names: bool) -> list[str]:
    assert isinstance(work.cache, Slots)
    del labels  # it has none
    capacity = work.cache.slot_tokens * len(work.cache.slots)
    computed = work.prompt_tokens - work.cached_tokens
    if old_names:
        more = _told("llamacpp:kv_cache_usage_ratio", "gauge", "", work.cache.tokens / capacity)
    else:
        more = _told("llamacpp:prompt_tokens_cached_total", "counter", "", work.cached_tokens)
    return [
        *_told("llamacpp:requests_processing", "gauge", "", work.running),
        *_told("llamacpp:requests_deferred", "gauge", "", work.waiting),
        *_told("llamacpp:prompt_tokens_total", "counter", "", computed),
        *_told("llamacpp:tokens_predicted_total", "counter", "", work.answer_tokens),
        *more,
    ]


def _told(name: str, kind: str, labels: str, value: float) -> list[str]:
    """One family; a Python client library ends a counter's name in `_total`."""
    end = "_total" if kind == "counter" and not name.endswith("_total") else ""
    return [
        f"# HELP {name}{end} Of a simulated engine.",
        f"# TYPE {name}{end} {kind}",
        f"{name}{end}{labels} {float(value)}",
    ]

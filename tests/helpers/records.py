"""Records of requests, as a gateway leaves them: made up, but each as one could be."""

from __future__ import annotations

from random import Random
from typing import Any

from gateway.core.miss import CacheOutcome, Miss, MissCause
from gateway.core.model import Reason, Result, Usage
from gateway.core.records import RequestRecord, Step
from gateway.core.route import Branch

PLAIN = RequestRecord(
    request_id="gw_000000000000000000000000",
    at=1_700_000_000.0,
    method="POST",
    path="/v1/chat/completions",
    route="/v1/chat/completions",
    api="openai_chat",
    upstream="openai",
    provider="openai",
    model="gpt-5.6",
    scope="0a1b2c3d",
    status=200,
    result=Result.MISS,
    reason=Reason.ABSENT,
    stored=Reason.STORED,
    key_hex8="deadbeef",
    duration_s=0.5,
    overhead_s=0.001,
    first_byte_s=0.2,
    usage=Usage(uncached_input=1000, output=100),
    prompt_cache=None,
    plan="none; reason=no-markers",
    rewrites=None,
    backend=None,
    branch=None,
    trace_id=None,
    aborted=None,
    error=None,
    paid_pd=4_500_000_000,
    saved_pd=None,
)
"""A miss that was answered by OpenAI."""


_UNKNOWN: dict[str, Any] = dict.fromkeys(
    (
        *("route", "api", "upstream", "provider", "model", "result", "reason", "stored"),
        *("key_hex8", "first_byte_s", "usage", "plan", "paid_pd"),
    )
)
BARE = PLAIN._replace(scope="", **_UNKNOWN)
"""A request of which hardly anything is known."""


def record(number: int = 0, **changes: Any) -> RequestRecord:
    """A miss, the `number`th, but for the changes."""
    return PLAIN._replace(request_id=f"gw_{number:024x}", **changes)


_MODELS = {
    "claude-sonnet-4-5": ("anthropic", "anthropic_messages", "/v1/messages"),
    "gpt-5.6": ("openai", "openai_chat", "/v1/chat/completions"),
    "gpt-5.6-mini": ("openai", "openai_chat", "/v1/chat/completions"),
    "qwen3-32b": ("vllm", "openai_chat", "/v1/chat/completions"),
}
_REASONS = {
    Result.HIT: Reason.EXACT,
    Result.STALE: Reason.STALE_WHILE_REVALIDATE,
    Result.PASS: Reason.NOT_DETERMINISTIC,
}
_UNPAID = frozenset((Result.HIT, Result.STALE, Result.COLLAPSED))
_CAUSES = (30, 20, 25, 8, 4, 6, 5, 1)


def any_record(number: int, at: float) -> RequestRecord:
    """One of ordinary traffic, that ended `at`: the same for the same number."""
    dice = Random(number)
    result = dice.choices(list(Result), (50, 38, 6, 2, 4))[0]
    model = dice.choice([*_MODELS])
    upstream, api, path = _MODELS[model]
    unpaid = result in _UNPAID
    long = int(dice.lognormvariate(8.2, 1))
    read = 0 if dice.random() < 0.3 else int(long * dice.random() * 0.95)
    written = (long - read) // 2 if upstream == "anthropic" else 0
    usage = Usage(long - read - written, read, written, 0, int(dice.lognormvariate(5.5, 1)))
    call_s = dice.lognormvariate(-0.2, 0.7)
    from_store = result in {Result.HIT, Result.STALE}
    took_s = dice.lognormvariate(-7, 0.5) if from_store else call_s + 0.002
    fails = not unpaid and dice.random() < 0.015
    priced = 3_000_000 * usage.input + 15_000_000 * usage.output
    pool = upstream == "vllm"
    miss = None
    if not unpaid and not fails and dice.random() < 0.25:
        miss = _miss(dice, int(long * 0.6), number)
    return record(
        number,
        at=at - took_s,
        path=path,
        route=path,
        api=api,
        upstream=upstream,
        provider=upstream,
        model=model,
        scope=f"{(dice.randrange(12) + 1) * 99_991_777 % 2**32:08x}",
        status=529 if fails else 200,
        result=result,
        reason=_REASONS.get(result, Reason.ABSENT),
        stored=None if unpaid else Reason.STATUS if fails else Reason.STORED,
        key_hex8=f"{dice.randrange(2**32):08x}",
        duration_s=took_s,
        first_byte_s=None if unpaid else 0.4 * call_s,
        usage=None if fails else usage,
        prompt_cache=None
        if unpaid or fails
        else CacheOutcome(int(long * 0.8), read, written, miss),
        plan=None if unpaid else "placed; n=2; ttl=5m" if written else "none; reason=no-markers",
        backend=f"10.0.0.{dice.randrange(1, 4)}:8000" if pool and not unpaid else None,
        branch=dice.choice(list(Branch)) if pool and not unpaid else None,
        trace_id=f"{dice.randrange(2**128):032x}",
        paid_pd=None if unpaid or fails or pool else priced - 2_700_000 * read,
        saved_pd=priced if unpaid and not pool else None,
        steps=_steps(call_s, pool=pool, unpaid=unpaid),
    )


def _miss(dice: Random, lost: int, number: int) -> Miss:
    cause = dice.choices(list(MissCause), _CAUSES)[0]
    if cause is not MissCause.PREFIX_CHANGED:
        return Miss(cause, lost)
    before = f"gw_{max(0, number - 7):024x}"
    return Miss(cause, lost, "$.system[0].text", "timestamp", 3, before, 6102, 6103)


def _steps(call_s: float, *, pool: bool, unpaid: bool) -> list[Step]:
    steps = [Step("lookup", 0.0004, 0.0003)]
    if unpaid:
        return steps
    steps.append(Step("plan", 0.0009, 0.0006))
    if pool:
        steps.append(Step("route", 0.0016, 0.0001))
    return [*steps, Step("upstream", 0.0019, call_s), Step("store", call_s + 0.0025, 0.0012)]

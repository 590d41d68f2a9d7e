"""Records of requests as the page shows them: plain JSON values, and how each was decided.

Milliseconds, tokens and picodollars; null where something is not known or does not apply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.core.breakers import mend
from gateway.core.model import Result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.core.miss import CacheOutcome
    from gateway.core.model import Usage
    from gateway.core.records import RequestRecord

Told = dict[str, Any]

_LONGEST = 300
"""Characters of what a client names that are shown in a table."""
_FROM_STORE = frozenset((Result.HIT, Result.STALE))


def row(number: int, record: RequestRecord) -> Told:
    """What the table shows."""
    usage, outcome = record.usage, record.prompt_cache
    miss = outcome.miss if outcome is not None else None
    return {
        "number": number,
        "id": record.request_id,
        "at": record.at,
        "method": record.method,
        "path": _cut(record.path),
        "upstream": record.upstream,
        "model": _cut(record.model),
        "scope": record.scope or None,
        "status": record.status,
        "result": record.result,
        "reason": record.reason,
        "stored": record.stored,
        "ms": _ms(record.duration_s),
        "first_byte_ms": _ms(record.first_byte_s),
        "tokens": None if usage is None else usage.input + usage.output,
        "input": None if usage is None else usage.input,
        "read": None if usage is None or record.result in _FROM_STORE else usage.cache_read,
        "paid_pd": record.paid_pd,
        "saved_pd": record.saved_pd,
        "cause": None if miss is None else miss.cause,
        "backend": record.backend,
        "failed": record.error or record.aborted,
    }


def whole(number: int, record: RequestRecord) -> Told:
    """All that is known of it."""
    return {
        **row(number, record),
        "path": record.path,
        "model": record.model,
        "route": record.route,
        "api": record.api,
        "provider": record.provider,
        "key": record.key_hex8,
        "overhead_ms": _ms(record.overhead_s),
        "usage": _usage(record.usage),
        "prompt_cache": _outcome(record.prompt_cache),
        "plan": record.plan,
        "rewrites": record.rewrites,
        "branch": record.branch,
        "trace_id": record.trace_id,
        "aborted": record.aborted,
        "error": record.error,
        "steps": [
            {"name": each.name, "at_ms": _ms(each.at_s), "took_ms": _ms(each.took_s)}
            for each in tuple(record.steps)
        ],
        "decisions": list(decisions(record)),
    }


def decisions(record: RequestRecord) -> Iterator[Told]:
    """How it went, in order: each with its stage, what came of it and, in a word, why. `tone` is
    `good`, `bad`, or `plain`; a stage that it never came to is left out.
    """
    if record.api is None:
        yield _decision("recognised", "passed through", record.route or "no wire API's path")
    else:
        yield _decision("recognised", record.api, record.model or "no model named")
        yield _decision("keyed", record.key_hex8 or "no key", _scope_of(record))
    if record.result is not None:
        good = record.result in {Result.HIT, Result.STALE, Result.COLLAPSED}
        why = record.reason.value if record.reason is not None else None
        yield _decision("lookup", record.result.value, why, "good" if good else "plain")
    if record.plan is not None:
        what, _, rest = record.plan.partition("; ")
        yield _decision("plan", what, rest or None, "good" if what == "placed" else "plain")
    if record.rewrites:
        yield _decision("rewritten", record.rewrites, None)
    if record.backend is not None:
        why = record.branch.value if record.branch is not None else None
        yield _decision("route", record.backend, why)
    elif record.upstream is not None and record.result not in _FROM_STORE:
        yield _decision("route", record.upstream, "its one address")
    yield from _answered(record)
    if record.prompt_cache is not None:
        yield _provider_cache(record.prompt_cache)
    if record.stored is not None:
        kept = record.stored.value == "stored"
        yield _decision(
            "kept",
            "stored" if kept else "not stored",
            None if kept else record.stored.value,
            "good" if kept else "plain",
        )


def _answered(record: RequestRecord) -> Iterator[Told]:
    if record.aborted is not None:
        yield _decision("answer", "broken off", f"by the {record.aborted}", "bad")
    elif record.error is not None:
        yield _decision("answer", str(record.status or "none"), record.error, "bad")
    else:
        bad = record.status >= 400
        yield _decision("answer", str(record.status), None, "bad" if bad else "plain")


def _provider_cache(outcome: CacheOutcome) -> Told:
    if outcome.miss is not None:
        lost = f"{outcome.miss.lost_tokens:,} tokens could have been read"
        return _decision("prompt cache", outcome.miss.cause.value, lost, "bad")
    if outcome.read is None:
        return _decision("prompt cache", "not told", None)
    tone = "good" if outcome.read else "plain"
    return _decision("prompt cache", f"{outcome.read:,} tokens read", None, tone)


def _decision(stage: str, outcome: str, why: str | None, tone: str = "plain") -> Told:
    return {"stage": stage, "outcome": outcome, "why": why, "tone": tone}


def _scope_of(record: RequestRecord) -> str | None:
    return f"scope {record.scope}" if record.scope else None


def _usage(usage: Usage | None) -> Told | None:
    if usage is None:
        return None
    return {
        "input": usage.input,
        "uncached": usage.uncached_input,
        "read": usage.cache_read,
        "written_5m": usage.cache_write_5m,
        "written_1h": usage.cache_write_1h,
        "output": usage.output,
    }


def _outcome(outcome: CacheOutcome | None) -> Told | None:
    if outcome is None:
        return None
    miss = outcome.miss
    return {
        "expected": outcome.expected,
        "read": outcome.read,
        "written": outcome.written,
        "miss": None
        if miss is None
        else {
            "cause": miss.cause,
            "lost_tokens": miss.lost_tokens,
            "path": miss.path or None,
            "kind": miss.kind or None,
            "block": miss.block if miss.block >= 0 else None,
            "neighbour": miss.neighbour or None,
            "was_bytes": miss.was_size or None,
            "is_bytes": miss.is_size or None,
            "mend": mend(miss.kind) or None,
        },
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 3)


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"

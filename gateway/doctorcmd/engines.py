"""Whether self-hosted engines cache prompts and say so: what flags hide, seen in what they answer.

vLLM and SGLang are asked to complete the same short prompt twice (one token of answer): the second time
most of it has to come from the cache, and the usage has to say so. llama.cpp is not asked: it says what
it cached by itself, and a prompt would take one of its slots from a conversation.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from gateway.core.engine_metrics import engine_state
from gateway.doctorcmd.finding import fine, look, mend
from gateway.doctorcmd.reach import Unreached, ask
from gateway.providers.base import ENGINES
from gateway.providers.engine_metrics import ENGINE_METRICS
from gateway.upstream.engine_pages import beside_api

if TYPE_CHECKING:
    import aiohttp

    from gateway.core.engine_metrics import EngineState
    from gateway.doctorcmd.finding import Finding
    from gateway.doctorcmd.places import Asked, Replica
    from gateway.doctorcmd.reach import Answer

_TELL = {
    "vllm": "start it with --enable-prompt-tokens-details",
    "sglang": "start it with --enable-cache-report",
}
_CACHE = {
    "vllm": "start it without --no-enable-prefix-caching",
    "sglang": "start it without --disable-radix-cache",
}
_METRICS = {
    "vllm": "start it without --disable-log-stats",
    "sglang": "start it with --enable-metrics",
    "llamacpp": "start it with --metrics",
}
# Several blocks of any usual size (16 to 128 tokens), and computed in a moment.
PROMPT = "The doctor asks the same question twice, and listens to how it is answered. " * 32
_ASK_S = 10.0
"""An engine may be at work: this waits its turn behind others."""


async def engine(
    asked: Asked, replica: Replica, models: Answer, session: aiohttp.ClientSession
) -> list[Finding]:
    """What is to say of a replica's engine; nothing where its kind is not known. `models` is its list."""
    kind = asked.endpoint.provider.name
    if kind not in ENGINES:
        return []
    one = _Engine(kind, asked, replica, session)
    before, why = await one.state()
    findings = [_told(f"{replica.check}.metrics", kind, before, why)]
    if kind in _TELL:
        findings.append(await one.reports(_model(models), before))
    return findings


def _told(check: str, kind: str, state: EngineState | None, why: str) -> Finding:
    if state is None:
        return look(
            check,
            f"its /metrics can't be read ({why}): the size of its cache, its load and its hits stay "
            "unknown, and where they do, requests are placed by guess",
            _METRICS[kind],
        )
    facts = {
        "running": state.running,
        "waiting": state.waiting,
        "capacity_tokens": state.capacity_tokens,
    }
    if state.awake is False:
        return look(check, "it sleeps, with an empty cache", "wake it (POST /wake_up)", **facts)
    return fine(check, f"tells {state.running or 0} running, {state.waiting or 0} waiting", **facts)


class _Engine(NamedTuple):
    """One that is asked."""

    kind: str
    asked: Asked
    replica: Replica
    session: aiohttp.ClientSession

    async def state(self) -> tuple[EngineState | None, str]:
        """What its metrics say, or why they can't be read."""
        page = self.replica.page(beside_api(self.replica.base.url, "metrics"))
        try:
            answer = await ask(self.session, page, headers=self.asked.headers())
        except Unreached as problem:
            return None, str(problem)
        if answer.status != 200:
            return None, f"status {answer.status}"
        # (It may be megabytes.)
        text = answer.body.decode("utf-8", "replace")
        state = await asyncio.to_thread(engine_state, text, ENGINE_METRICS[self.kind])
        return (None, f"nothing of {self.kind}'s in it") if state.silent else (state, "")

    async def reports(self, model: str | None, before: EngineState | None) -> Finding:
        """Whether it caches, and says so."""
        check = f"{self.replica.check}.cached_tokens"
        unknown = "it is not known whether it tells cached tokens"
        if before is not None and before.awake is False:
            return look(check, f"{unknown}: it sleeps", "look again when it is awake")
        if model is None:
            return look(check, f"{unknown}: it lists no model", "see its /v1/models")
        try:
            await self._completed(model)
            usage = await self._completed(model)
        except Unreached as problem:
            return look(check, f"{unknown}: {problem}", "look again; see its log")
        if usage is None:
            said = f"{unknown}: it did not complete a prompt with model {model[:80]}"
            return look(check, said, "nothing, where it makes embeddings only; else see its log")
        details = usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        prompt = usage.get("prompt_tokens")
        facts = {"cached_tokens": cached, "prompt_tokens": prompt}
        if isinstance(cached, int) and cached > 0:
            said = f"told: {cached} of {prompt} tokens, the second time"
            return fine(check, said, **facts)
        after, _ = await self.state()
        hits = 0.0 if cached == 0 else _new_hits(before, after)
        return self._silent(check, cached == 0, hits, facts)

    def _silent(self, check: str, says_none: bool, hits: float, facts: dict[str, Any]) -> Finding:
        tell, cache = _TELL[self.kind], _CACHE[self.kind]
        if hits > 0:
            return mend(
                check,
                f"{hits:.0f} prompt tokens came out of its cache meanwhile, and its answers do not say "
                "so: hits, savings and the choice of a replica go blind",
                tell,
                **facts,
            )
        if says_none:
            return mend(
                check,
                "it says that it cached nothing of a prompt it had just had: each is computed anew",
                f"{cache}; or its cache is full, or others used it up in between",
                **facts,
            )
        return mend(
            check,
            "it tells no cached tokens for a prompt that it had just had: it hides them, or caches "
            "nothing",
            f"{tell}, and {cache.removeprefix('start it ')}",
            **facts,
        )

    async def _completed(self, model: str) -> dict[str, Any] | None:
        """The usage of one more answer; None where it was refused."""
        asks = {"model": model, "prompt": PROMPT, "max_tokens": 1, "temperature": 0}
        answer = await ask(
            self.session,
            self.replica.page(f"{self.replica.base.url.rstrip('/')}/completions"),
            method="POST",
            headers={**self.asked.headers(), "Content-Type": "application/json"},
            body=orjson.dumps(asks),
            timeout_s=_ASK_S,
        )
        usage = _object(answer.body).get("usage")
        return usage if answer.status == 200 and isinstance(usage, dict) else None


def _new_hits(before: EngineState | None, after: EngineState | None) -> float:
    """Tokens found in the cache in between; 0 where it isn't told."""
    if before is None or after is None or after.hit_tokens is None:
        return 0.0
    return after.hit_tokens - (before.hit_tokens or 0.0)


def _model(models: Answer) -> str | None:
    """The first that is listed."""
    listed = _object(models.body).get("data")
    first = listed[0] if isinstance(listed, list) and listed else None
    name = first.get("id") if isinstance(first, dict) else None
    return name if isinstance(name, str) else None


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}

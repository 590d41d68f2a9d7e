"""Whether self-hosted engines cache prompts and say so: what flags hide, seen in what they answer.

vLLM and SGLang are asked to complete the same short prompt twice (one token of answer): the second time
most of it has to come from the cache, and the usage has to say so. Where nothing shows that it did, a longer
prompt is tried in the same way: only whole blocks are cached, and those of hybrid models (Mamba) are larger
than a short prompt. llama.cpp is not asked: it says what it cached by itself, and a prompt would take one of
its slots from a conversation.
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
    # (Where a model is a hybrid, some versions leave it off unless they are told.)
    "vllm": "start it with --enable-prefix-caching",
    "sglang": "start it without --disable-radix-cache",
}
_METRICS = {
    "vllm": "start it without --disable-log-stats",
    "sglang": "start it with --enable-metrics",
    "llamacpp": "start it with --metrics",
}
_QUESTION = "The doctor asks the same question twice, and listens to how it is answered. "
# Several blocks of any usual size (16 to 128 tokens), and computed in a moment.
PROMPT = _QUESTION * 32
# Two blocks of a hybrid model at least (528 tokens to some 2,000).
LONG_PROMPT = _QUESTION * 256
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
            usage = await self._twice(model, PROMPT)
            if usage is None:
                said = f"{unknown}: it did not complete a prompt with model {model[:80]}"
                return look(
                    check, said, "nothing, where it makes embeddings only; else see its log"
                )
            if not _cached(usage):
                after, _ = await self.state()
                if _cached(usage) is None and _is_ours(before, after, usage):
                    return self._hidden(check, _new_hits(before, after), usage)
                first, usage = usage, await self._twice(model, LONG_PROMPT)
                if usage is None:
                    return look(
                        check,
                        f"{unknown}: nothing was cached of a prompt of {first.get('prompt_tokens')} "
                        "tokens, which may be less than one of its blocks, and it takes none that is "
                        "longer",
                        "see its block size in its log: only whole blocks are cached",
                        **_facts(first),
                    )
        except Unreached as problem:
            return look(check, f"{unknown}: {problem}", "look again; see its log")
        if cached := _cached(usage):
            said = f"told: {cached} of {usage.get('prompt_tokens')} tokens, the second time"
            return fine(check, said, **_facts(usage))
        after, _ = await self.state()
        hits = _new_hits(before, after)
        if hits > 0 and _cached(usage) is None:
            return self._hidden(check, hits, usage)
        return self._silent(check, usage)

    async def _twice(self, model: str, prompt: str) -> dict[str, Any] | None:
        """The usage of the second time; None where it was refused."""
        if await self._completed(model, prompt) is None:
            return None
        return await self._completed(model, prompt)

    def _hidden(self, check: str, hits: float, usage: dict[str, Any]) -> Finding:
        return mend(
            check,
            f"{hits:.0f} prompt tokens came out of its cache meanwhile, and its answers do not say "
            "so: hits, savings and the choice of a replica go blind",
            _TELL[self.kind],
            **_facts(usage),
        )

    def _silent(self, check: str, usage: dict[str, Any]) -> Finding:
        tell, cache = _TELL[self.kind], _CACHE[self.kind]
        if _cached(usage) == 0:
            return mend(
                check,
                "it says that it cached nothing of a prompt it had just had: each is computed anew",
                f"{cache}; or its cache is full, or others used it up in between",
                **_facts(usage),
            )
        return mend(
            check,
            "it tells no cached tokens for a prompt that it had just had: it hides them, or caches "
            "nothing",
            f"{tell}, and {cache.removeprefix('start it ')}",
            **_facts(usage),
        )

    async def _completed(self, model: str, prompt: str) -> dict[str, Any] | None:
        """The usage of one more answer; None where it was refused."""
        asks = {"model": model, "prompt": prompt, "max_tokens": 1, "temperature": 0}
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


def _cached(usage: dict[str, Any]) -> int | None:
    """What it says; None where it says nothing."""
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return cached if isinstance(cached, int) else None


def _facts(usage: dict[str, Any]) -> dict[str, Any]:
    return {"cached_tokens": _cached(usage), "prompt_tokens": usage.get("prompt_tokens")}


def _new_hits(before: EngineState | None, after: EngineState | None) -> float:
    """Tokens found in the cache in between; 0 where it isn't told."""
    if before is None or after is None or after.hit_tokens is None:
        return 0.0
    return after.hit_tokens - (before.hit_tokens or 0.0)


def _is_ours(before: EngineState | None, after: EngineState | None, usage: dict[str, Any]) -> bool:
    """Whether what was found in the cache in between can have been our prompt only."""
    if before is None or after is None or before.running or after.running:
        return False
    prompt = usage.get("prompt_tokens")
    return isinstance(prompt, int) and 0 < _new_hits(before, after) <= prompt


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

"""An engine's own pages, read: `/metrics`, and llama.cpp's `/slots` and `/props`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson

from gateway.core.engine_metrics import EngineState, engine_state, restarted
from gateway.core.engine_slots import of_props, of_slots
from gateway.providers.engine_metrics import ENGINE_METRICS

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.engine_slots import Slots
    from gateway.upstream.choice import Endpoint
    from gateway.upstream.client import Call
    from gateway.upstream.engine import Engine

PAGE_BYTES = 4 * 1024 * 1024
_SLOTTED = "llamacpp"


class Unusable(Exception):
    """A page that says nothing; its text is the short word for why."""


class EnginePages:
    """`ask` GETs a URL of an endpoint."""

    def __init__(self, ask: Callable[[Endpoint, str], Call]) -> None:
        self._ask = ask

    async def state(self, engine: Engine) -> EngineState:
        """What it says now. Raises Unusable, GatewayError."""
        if engine.endpoint.provider.name != _SLOTTED:
            return await self._page(engine)
        try:
            state = await self._page(engine)
        except Unusable:
            # Metrics are off unless one asks for them; slots are on.
            slots = await self._slots(engine)
            if slots is None:
                raise
            return _slotted(EngineState(running=slots.busy), slots)
        known = engine.state
        if known is None or known.slots is None or restarted(known, state):
            slots = await self._slots(engine)
            return state if slots is None else _slotted(state, slots)
        # They don't change while it runs.
        return state._replace(
            slots=known.slots,
            slot_tokens=known.slot_tokens,
            capacity_tokens=known.capacity_tokens,
        )

    async def _slots(self, engine: Engine) -> Slots | None:
        """Either page may have been turned off."""
        for page, reading in (("slots", of_slots), ("props", of_props)):
            try:
                text = await self._text(engine, page)
                told = reading(orjson.loads(text))
            except (Unusable, ValueError):
                continue
            if told is not None:
                return told
        return None

    async def _page(self, engine: Engine) -> EngineState:
        page = await self._text(engine, "metrics")
        names = ENGINE_METRICS[engine.endpoint.provider.name]
        # A large page takes milliseconds in which nobody else would be served.
        state = await asyncio.to_thread(engine_state, page.decode("utf-8", "replace"), names)
        if state.silent:
            raise Unusable("no_metrics")
        return state

    async def _text(self, engine: Engine, name: str) -> bytearray:
        endpoint = engine.endpoint
        async with self._ask(endpoint, beside_api(endpoint.base_url, name)) as response:
            if response.status != 200:
                raise Unusable(f"status {response.status}")
            page = bytearray()
            while part := await response.content.readany():
                page += part
                if len(page) > PAGE_BYTES:
                    raise Unusable("too_long")
            return page


def beside_api(base_url: str, page: str) -> str:
    """Such as `/metrics` beside the API, which is what `/v1` at the end of a base URL is."""
    return f"{base_url.rstrip('/').removesuffix('/v1')}/{page}"


def _slotted(state: EngineState, slots: Slots) -> EngineState:
    return state._replace(
        slots=slots.number,
        slot_tokens=slots.tokens,
        capacity_tokens=slots.number * slots.tokens,
    )

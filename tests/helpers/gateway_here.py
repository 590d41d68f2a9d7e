"""The gateway inside the test's own loop: one clock for both sides, and its parts in reach."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from gateway.app import RunningGateway, start
from gateway.config import Config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from gateway.cache import Clock


def settings(base: str, **sections: Mapping[str, Any] | list[Any]) -> dict[str, Any]:
    """A config tree in which both providers live at `base` (`http://127.0.0.1:PORT`).

    Each section is laid over the defaults: free ports, a store in memory, no traces.
    """
    tree: dict[str, Any] = {
        "server": {"port": 0, "probe_port": 0, "drain_timeout_s": 1, "drain_idle_s": 0},
        "admin": {"port": 0},
        "store": {"url": "memory://"},
        "telemetry": {"traces": "off"},
        "log": {"level": "error"},
        "upstreams": {
            "openai": {"base_url": f"{base}/v1", "provider": "openai"},
            "anthropic": {"base_url": f"{base}/v1", "provider": "anthropic"},
        },
    }
    for name, section in sections.items():
        tree[name] = section if isinstance(section, list) else {**tree.get(name, {}), **section}
    return tree


@asynccontextmanager
async def gateway_here(
    base: str, clock: Clock | None = None, **sections: Mapping[str, Any] | list[Any]
) -> AsyncIterator[RunningGateway]:
    """A gateway in front of `base`; stopped afterwards."""
    gateway = await start(Config.model_validate(settings(base, **sections)), {}, clock)
    try:
        yield gateway
    finally:
        await gateway.stop()

"""Pools without a network: a clock that stands until it is moved, and replicas from a few words."""

from __future__ import annotations

from typing import Any

from gateway.config import Config
from gateway.upstream.choice import Choice, Endpoint
from gateway.upstream.replicas import Replicas

URLS = tuple(f"http://10.0.0.{number}:8000/v1" for number in range(1, 9))
NAMES = tuple(f"10.0.0.{number}:8000" for number in range(1, 9))


class StandingClock:
    """Seconds that pass when somebody says so."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> float:
        self.now += seconds
        return self.now


def config_of(upstream: dict[str, Any]) -> Config:
    return Config.model_validate({"upstreams": {"pool": upstream}})


def endpoint_of(upstream: dict[str, Any]) -> Endpoint:
    return Choice(config_of(upstream)).endpoints["pool"]


def pool_of(clock: StandingClock, count: int = 3, **settings: Any) -> Replicas:
    """A pool of vLLMs with so many listed replicas (none: only those of `dns`)."""
    upstream: dict[str, Any] = {"engine": "vllm", "backends": list(URLS[:count]), **settings}
    if not count:
        del upstream["backends"]
    config = config_of(upstream)
    return Replicas("pool", config.upstreams["pool"], Choice(config).endpoints["pool"], clock)

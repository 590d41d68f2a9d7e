"""One engine that is watched: what it said of itself last, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.core.engine_metrics import EngineState, fell_asleep, hit_share, restarted

if TYPE_CHECKING:
    import asyncio

    from gateway.upstream.choice import Endpoint

# Whatever the config says: reading a page costs an engine some milliseconds of its own.
_SHORTEST_S = 0.1


class Engine:
    """One watched engine. Times are those of the clock that it was given."""

    __slots__ = (
        *("_earlier", "backend", "earlier_at", "endpoint", "failing_since", "failure"),
        *("interval_s", "name", "read_at", "restarts", "sleeps", "state", "task"),
    )

    def __init__(self, endpoint: Endpoint, interval_s: float, backend: str = "") -> None:
        """`backend` is the name of the replica, in a pool."""
        self.held_to(endpoint, interval_s)
        self.backend = backend
        self.name = f"{endpoint.name}/{backend}" if backend else endpoint.name
        self.state: EngineState | None = None
        """As it was at `read_at`; None before it was ever read."""
        self.read_at = 0.0
        self.failing_since: float | None = None
        """When the first of the failures in a row began; None where the last page was read."""
        self.failure = ""
        """A short word: `timeout`, `status 404`, `too_long`, `no_metrics`, or an error's code."""
        self.restarts = 0
        self.sleeps = 0
        """How often it was put to sleep."""
        self.earlier_at = 0.0
        """When it had been read before: what is new at `read_at` happened since then."""
        self.task: asyncio.Task[None] | None = None
        self._earlier: EngineState | None = None

    def __repr__(self) -> str:
        said = "failing" if self.failing_since is not None else "read" if self.state else "new"
        return f"<Engine {self.name} {said}>"

    def held_to(self, endpoint: Endpoint, interval_s: float) -> None:
        """How it is asked, and how often. What is known of it stays."""
        self.endpoint = endpoint
        self.interval_s = max(_SHORTEST_S, interval_s)

    @property
    def size(self) -> tuple[int, int]:
        """Tokens that its KV cache holds, and its slots (llama.cpp); 0 for what isn't known."""
        state = self.state
        return (0, 0) if state is None else (state.capacity_tokens or 0, state.slots or 0)

    @property
    def recent_share(self) -> float | None:
        """Which part of the prompt tokens of the last interval was in the prefix cache, from 0 to 1;
        None where the engine doesn't tell, nothing was asked, or it was read but once.
        """
        if self.state is None:
            return None
        if self.state.queried_tokens is None or self.state.hit_tokens is None:
            return self.state.hit_share
        return None if self._earlier is None else hit_share(self.state, self._earlier)

    @property
    def total_share(self) -> float | None:
        """The same since the engine started."""
        return None if self.state is None else hit_share(self.state)

    def saw(self, state: EngineState, at: float) -> bool:
        """A page was read; whether it shows that the cache was emptied: the engine began anew, or was
        put to sleep.
        """
        anew = self.state is not None and restarted(self.state, state)
        slept = self.state is not None and fell_asleep(self.state, state)
        self.restarts += anew
        self.sleeps += slept
        # What an engine that began anew has counted, it has counted since the last page.
        self._earlier = EngineState(queried_tokens=0.0, hit_tokens=0.0) if anew else self.state
        self.earlier_at = self.read_at
        self.state, self.read_at = state, at
        self.failing_since, self.failure = None, ""
        return anew or slept

    def failed(self, why: str, at: float) -> None:
        """It could not be read."""
        if self.failing_since is None:
            self.failing_since = at
        self.failure = why

    def told(self, now: float) -> dict[str, Any]:
        """All that is known, as plain JSON values; null where it isn't."""
        state, failing = self.state or EngineState(), self.failing_since
        return {
            "upstream": self.endpoint.name,
            "backend": self.backend or None,
            "engine": self.endpoint.provider.name,
            "running": state.running,
            "waiting": state.waiting,
            "kv_usage": _rounded(state.kv_usage, 4),
            "capacity_tokens": state.capacity_tokens,
            "slots": state.slots,
            "awake": state.awake,
            "prefix_hit_share": {
                "interval": _rounded(self.recent_share, 4),
                "total": _rounded(self.total_share, 4),
            },
            "restarts": self.restarts,
            "age_s": None if self.state is None else round(now - self.read_at, 3),
            "failing_s": None if failing is None else round(now - failing, 3),
            "failure": self.failure or None,
        }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)

"""What the planner knows of the largest recorded traffic stays within its budget, and is no more than
it says.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from gateway.core.planner import CachePlanner
from gateway.lab import cache_replay
from gateway.lab.cache_replay import replay
from gateway.lab.trace import Times
from gateway.lab.trace_read import Wanted, read
from tests.lab.test_cache_replay import APIS, MODELS, against

if TYPE_CHECKING:
    from gateway.core.ticket import Ticket

DATA = Path(__file__).parents[1] / "data"
LARGEST = {
    "tau-bench": ("taubench_airline_gpt4o.json.gz", 250_000),
    "Claude Code": ("traces/claude_code_8_sessions.jsonl.gz", 150_000),
    "pi-mono": ("traces/pi_mono_first_120_rows.jsonl.gz", 60_000),
}
EVERY = 40


def bytes_of(root: object) -> int:
    """All that only this object leads to; what Python shares (types, code) left out."""
    seen: set[int] = set()
    left = [root]
    total = 0
    while left:
        each = left.pop()
        if id(each) in seen or isinstance(each, type | ModuleType | FunctionType):
            continue
        seen.add(id(each))
        # Memory comes in steps of 16 bytes.
        total += (sys.getsizeof(each) + 15) // 16 * 16
        left += gc.get_referents(each)
    return total


class Watched(CachePlanner):
    """Is measured while it plans."""

    made: Watched

    def __init__(self, budget_bytes: int) -> None:
        super().__init__(budget_bytes)
        self.most = self.calls = 0
        self.sizes: list[tuple[int, int]] = []
        Watched.made = self

    def plan(self, *given: Any) -> Ticket:
        ticket = super().plan(*given)
        self.calls += 1
        self.most = max(self.most, self.size_bytes)
        if self.calls % EVERY == 0:
            self.sizes.append((self.size_bytes, bytes_of(self._domains)))
        return ticket


@pytest.mark.parametrize("is_small", [True, False], ids=["small budget", "ample budget"])
@pytest.mark.parametrize("provider", MODELS)
@pytest.mark.parametrize("name", LARGEST)
def test_what_is_known_of_the_largest_traffic_stays_within_the_budget(
    name: str, provider: str, is_small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, small = LARGEST[name]
    budget = small if is_small else 1 << 26
    monkeypatch.setattr(cache_replay, "CachePlanner", lambda: Watched(budget))
    limit = 60 if name == "tau-bench" else None
    wanted = Wanted(APIS[provider], MODELS[provider], Times(1, 120.0), limit=limit)
    trace = read(str(DATA / file), wanted)
    outcome = replay(trace, against(provider), ["gateway"])
    watched = Watched.made
    said, held = watched.sizes[-1]
    print(
        f"{name}, {provider}: {watched.calls} calls, at most {watched.most:,} of {budget:,} bytes; "
        f"at the end {held:,} held of {said:,} said"
    )
    assert watched.calls == outcome.requests == len(trace.calls)
    assert watched.most <= budget
    # A boundary is counted as if all were known of it that can be: no less is said than held.
    for said, held in watched.sizes:
        assert said / 5 < held <= said
    if is_small:
        # There was more to know than there was room for.
        assert watched.most > budget / 4

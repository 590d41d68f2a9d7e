"""Recorded traffic past the gateway and a provider that knows each miss: every cause is told right."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import causes
from gateway.core.foresight import Foresight
from gateway.core.miss import CacheOutcome, Miss, MissCause
from gateway.lab.cause_replay import Options, Verdict, replay
from gateway.lab.trace import Times, Trace
from gateway.lab.trace_read import Wanted, read

TRACES = Path(__file__).parents[1] / "data" / "traces"
SAMPLES = [
    "arena_hard_40_questions.jsonl.gz",
    "bfcl_live_multiple_60.jsonl.gz",
    "claude_code_8_sessions.jsonl.gz",
    "mooncake_conversation_200.jsonl.gz",
    "pi_mono_first_120_rows.jsonl.gz",
    "swe_agent_3_trajectories.jsonl.gz",
]
ANTHROPIC = ("anthropic", "claude-sonnet-4-5")


def trace(name: str, provider: str, model: str) -> Trace:
    api = "anthropic_messages" if provider == "anthropic" else "openai_chat"
    return read(str(TRACES / name), Wanted(api, model, Times(1, 120.0)))


def replayed(name: str, provider: str, model: str, options: Options) -> Verdict:
    return replay(trace(name, provider, model), causes.against(provider, model), options)


@pytest.mark.parametrize("setting", range(len(causes.SETTINGS)))
@pytest.mark.parametrize("name", SAMPLES)
def test_the_cause_of_each_miss_is_told_and_none_is_invented(name: str, setting: int) -> None:
    _, provider, model, options = causes.SETTINGS[setting]
    found = replayed(name, provider, model, options)
    assert found.disagreements == []
    assert found.right == found.misses > 0
    assert found.invented == 0
    assert not found.places[False]


def test_where_entries_are_lost_evictions_are_among_the_misses() -> None:
    name = "claude_code_8_sessions.jsonl.gz"
    before = replayed(name, *ANTHROPIC, Options())
    after = replayed(name, *ANTHROPIC, Options(losses=0.2))
    evicted = (MissCause.EVICTED, MissCause.EVICTED)
    assert before.causes[evicted] == 0
    assert after.causes[evicted] > 5


def test_what_is_told_wrong_is_counted_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object, **_named: object) -> CacheOutcome:
        return CacheOutcome(miss=Miss(MissCause.EVICTED, 1))

    monkeypatch.setattr(Foresight, "judge", wrong)
    found = replayed("bfcl_live_multiple_60.jsonl.gz", *ANTHROPIC, Options())
    assert found.misses > 0
    assert found.right == 0
    assert found.invented == found.requests - found.misses > 0
    assert found.disagreements[0].told == Miss(MissCause.EVICTED, 1)


def test_a_lack_of_one_step_may_be_told_or_not_but_more_may_not() -> None:
    found = Verdict("t", "a", Options())
    for number, lost in enumerate((128, 129)):
        found.add(number, 0.0, Miss(MissCause.TTL_EXPIRED, lost), None, step=128)
    found.add(2, 0.0, Miss(MissCause.TTL_EXPIRED, 128), Miss(MissCause.EVICTED, 1), step=128)
    found.add(3, 0.0, Miss(MissCause.COLD, 0), None, step=128)
    assert (found.too_small, found.misses, found.right) == (1, 3, 0)


def test_the_page_never_rounds_up_to_all() -> None:
    found = Verdict("t", "a", Options())
    cold, none = Miss(MissCause.COLD, 0), None
    for number in range(100_000):
        found.add(number, 0.0, cold, cold if number else none)
    assert "**99.99 %**" in causes.row("t", found)
    assert "| 100,000 | 100,000 | 100,000 |" in causes.row("t", found)

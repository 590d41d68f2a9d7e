"""Two gateways that tell each other nothing of prompts, and forget all of it every ten minutes: what
that costs on recorded traffic, against one that never forgets.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from gateway.lab.cache_replay import Options, Outcome, replay
from gateway.lab.trace import Times, Trace
from gateway.lab.trace_read import Wanted, read
from tests.lab.test_cache_replay import APIS, MODELS, against

DATA = Path(__file__).parents[1] / "data"
SHARE = 0.03
FIRST_TURNS = 0.12
"""Where there are but eight conversations, of up to 400,000 tokens each: whoever has not seen first
requests go on doesn't pay for the next one, and each of two, after each restart, has to see it."""

TRACES = {
    "tau-bench": ("taubench_airline_gpt4o.json.gz", SHARE),
    "BFCL": ("traces/bfcl_live_multiple_60.jsonl.gz", SHARE),
    "pi-mono": ("traces/pi_mono_first_120_rows.jsonl.gz", SHARE),
    "SWE-agent": ("traces/swe_agent_3_trajectories.jsonl.gz", SHARE),
    "Claude Code": ("traces/claude_code_8_sessions.jsonl.gz", FIRST_TURNS),
}
WORSE = {
    "restarts": Options(restart_every_s=600.0),
    "replicas": Options(replicas=2, seed=1),
    "both": Options(replicas=2, restart_every_s=600.0, seed=1),
}
# One-shot questions with tools save nothing where tools can't be marked.
CASES = [pair for pair in product(TRACES, MODELS) if pair != ("BFCL", "openai")]


def trace_of(name: str, provider: str) -> Trace:
    limit = 40 if name == "tau-bench" else None
    wanted = Wanted(APIS[provider], MODELS[provider], Times(1, 120.0), limit=limit)
    return read(str(DATA / TRACES[name][0]), wanted)


def saved(outcome: Outcome) -> float:
    """Of what it would cost without a cache."""
    return 1 - outcome.policies["gateway"].cost / outcome.without_cache


@pytest.mark.parametrize(("name", "provider"), CASES)
def test_what_two_that_forget_save_is_nearly_what_one_saves_that_does_not(
    name: str, provider: str
) -> None:
    trace = trace_of(name, provider)
    here = against(provider)
    steady = saved(replay(trace, here, ["gateway"]))
    found = {
        case: saved(replay(trace, here, ["gateway"], options)) for case, options in WORSE.items()
    }
    told = ", ".join(f"{case} {share:.2%}" for case, share in found.items())
    print(f"{name}, {provider}: saved {steady:.2%} of the input's price; {told}")
    allowed = TRACES[name][1]
    for share in found.values():
        assert share >= steady * (1 - allowed)
    assert steady > 0.25

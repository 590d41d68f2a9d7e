"""`python -m bench.baselines TRACES`: who of several replicas should get a request, as a page.

TRACES is a folder with the public traces that `docs/how-to/replay.md` names, as they are published
or gzipped. Nothing is measured in seconds of this machine: the same traces and seeds give the same
page.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "routing-baselines.md"
POLICIES = ("prefix", "round_robin", "least_pending", "session", "sglang", "llmd")
SEEDS = ("1", "2", "3")
MORE_SEEDS = tuple(str(seed) for seed in range(1, 13))
"""Where policies are up to chance."""
CHANCY = ("sglang", "llmd")
CHANCES = range(1, 61)
WITHIN = 1.0
"""Points of the hit rate by which two measurements of the same are allowed to differ."""


class Case(NamedTuple):
    """One table."""

    title: str
    file: str
    words: tuple[str, ...]
    seeds: tuple[str, ...] = SEEDS


_MOONCAKE = "mooncake_conversation_trace.jsonl.gz"
_TAU = "taubench_airline_gpt4o.json.gz"
_CLAUDE = "claude_code_weka_sessions.jsonl.gz"
_EIGHT = ("--backends", "8", "--cache-tokens")
_HEAD = ("--shared-system-tokens", "13000")

CASES = (
    Case("Mooncake's hour of chats, 1M tokens each", _MOONCAKE, (*_EIGHT, "1000000")),
    Case("Mooncake's hour of chats, 300k tokens each", _MOONCAKE, (*_EIGHT, "300000")),
    Case("tau-bench airline, 30k tokens each", _TAU, (*_EIGHT, "30000"), MORE_SEEDS),
    *(
        Case(
            f"Claude Code v8 under one head of 13k tokens, {size} tokens each",
            _CLAUDE,
            (*_EIGHT, tokens, *_HEAD),
            ("1",),
        )
        for size, tokens in (("500k", "500000"), ("750k", "750000"), ("1M", "1000000"))
    ),
)
GATEWAYS = (
    ("1 gateway", ()),
    ("1, 8 restarts", ("--restart-gateways", "8")),
    ("4 gateways", ("--gateways", "4")),
    ("4, 8 restarts", ("--gateways", "4", "--restart-gateways", "8")),
)
STORES = ("redis", "sqlite", "memory")

# Measured before, with another program; hits in percent.
BEFORE: dict[str, dict[str, float]] = {
    CASES[0].title: {
        "round_robin": 8.1,
        "least_pending": 7.7,
        "session": 24.5,
        "sglang": 26.2,
        "llmd": 24.7,
    },
    CASES[1].title: {
        "round_robin": 5.1,
        "least_pending": 5.1,
        "session": 9.7,
        "sglang": 10.7,
        "llmd": 10.0,
    },
    CASES[2].title: {
        "round_robin": 62.8,
        "least_pending": 62.8,
        "session": 92.9,
        "sglang": 87.9,
        "llmd": 88.6,
    },
}


def replay(folder: Path, case: Case, seed: str, words: tuple[str, ...] = ()) -> dict[str, Any]:
    """The one JSON object that `gateway replay` prints."""
    command = [sys.executable, "-m", "gateway", "replay", str(folder / case.file), "--json"]
    run = subprocess.run(
        [*command, *case.words, "--seed", seed, *words], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def spelled(values: list[float], digits: int) -> str:
    """Their mean, and from where to where they go, where that can be seen."""
    low, high = (f"{edge:.{digits}f}" for edge in (min(values), max(values)))
    middle = f"{mean(values):.{digits}f}"
    return middle if low == high else f"{middle} ({low} to {high})"


def table(folder: Path, case: Case) -> list[str]:
    """All policies on one trace."""
    found = [replay(folder, case, seed) for seed in case.seeds]
    before = BEFORE.get(case.title)
    lines = [
        f"## {case.title}",
        "",
        (
            f"`gateway replay TRACES_DIR/{case.file} {' '.join(case.words)} --seed "
            f"{case.seeds[0] if len(case.seeds) == 1 else f'{case.seeds[0]}..{case.seeds[-1]}'}`"
        ),
        "",
        (
            f"{found[0]['requests']:,} requests. One cache that never forgets would have held "
            f"{found[0]['ideal_hit']:.2f} % of their tokens, one as large as all eight "
            f"{mean(each['shared_lru_hit'] for each in found):.2f} %."
        ),
        "",
        "| policy | hit, % |"
        + (" measured before |" if before else "")
        + " imbalance | TTFT p50, s | TTFT p90, s | moves |",
        "| --- | ---: |" + (" ---: |" if before else "") + " ---: |" * 4,
    ]
    for name in POLICIES:
        runs = [each["policies"][name] for each in found]
        cells = [f"`{name}`", spelled([run["hit"] for run in runs], 2)]
        if before:
            cells.append(f"{before[name]:.1f}" if name in before else "")
        cells += [
            spelled([run["imbalance"] for run in runs], 2),
            spelled([run["ttft_p50_s"] for run in runs], 2),
            spelled([run["ttft_p90_s"] for run in runs], 2),
            f"{mean(run['moves'] for run in runs):,.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def chance(folder: Path, case: Case) -> list[str]:
    """How far the policies that are up to chance differ between seeds."""
    before = BEFORE[case.title]
    lines = [
        "## What chance does",
        "",
        f"{case.title}, seeds {CHANCES[0]} to {CHANCES[-1]}. *Nearest*: the seed whose hit rate comes",
        "closest to what was measured before, which was one run; hit / imbalance / TTFT p90 in seconds.",
        "",
        "| policy | hit, % | measured before | seeds within a point of it | nearest |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for name in CHANCY:
        words = ("--policy", name)
        runs = {seed: replay(folder, case, str(seed), words)["policies"][name] for seed in CHANCES}
        hits = {seed: run["hit"] for seed, run in runs.items()}
        nearest = min(hits, key=lambda seed: abs(hits[seed] - before[name]))
        near = sum(abs(hit - before[name]) <= WITHIN for hit in hits.values())
        run = runs[nearest]
        lines.append(
            f"| `{name}` | {spelled(list(hits.values()), 2)} | {before[name]:.1f} | "
            f"{near} of {len(hits)} | seed {nearest}: {run['hit']:.2f} / {run['imbalance']:.2f} / "
            f"{run['ttft_p90_s']:.2f} |"
        )
    return [*lines, ""]


def several(folder: Path, case: Case) -> list[str]:
    """Policy `prefix` with several gateways and restarts."""
    lines = [
        f"### {case.title}",
        "",
        "| store | " + " | ".join(name for name, _ in GATEWAYS) + " |",
        "| --- |" + " ---: |" * len(GATEWAYS),
    ]
    for store in STORES:
        cells = []
        for _, words in GATEWAYS:
            more = (*words, "--store", store, "--policy", "prefix")
            runs = [replay(folder, case, seed, more)["policies"]["prefix"] for seed in SEEDS]
            cells.append(
                f"{mean(run['hit'] for run in runs):.2f} / "
                f"{mean(run['imbalance'] for run in runs):.2f} / "
                f"{mean(run['ttft_p90_s'] for run in runs):.2f}"
            )
        lines.append(f"| `{store}` | " + " | ".join(cells) + " |")
    return [*lines, ""]


def page(folder: Path) -> str:
    """The whole page, in Markdown."""
    lines = [
        "# Who gets the request: policies on recorded traffic",
        "",
        "Written by `python -m bench.baselines TRACES_DIR`; how to read it, and what is simulated, is",
        "in [the how-to of `gateway replay`](../how-to/replay.md). `prefix` is Warmgate's own policy,",
        "the serving code with default settings; the others are as their authors describe or publish",
        "them. Where several seeds were replayed, a cell is their mean, and in brackets the least and",
        "the most. *Measured before*: the same trace, another program, written before this one.",
        "",
        "Two rows are up to chance: on tau-bench, where every prompt begins with the same 6 kB,",
        "`sglang` and `llmd` take that for a reason to stay, and how many conversations heap up on one",
        "engine depends on how the first ones fell: these hits differ by several points between seeds.",
        "[Sixty more](#what-chance-does) say how far, and whether what was measured before is among them.",
        "",
    ]
    for case in CASES:
        lines += table(folder, case)
    lines += chance(folder, CASES[2])
    lines += [
        "## Several gateways, and restarts",
        "",
        "Policy `prefix`: hit in percent / imbalance / TTFT p90 in seconds, means of seeds 1 to 3.",
        "Each request goes to one of the gateways at random; restarts are spread evenly over the",
        "requests, one gateway after the other. `--store redis`: placements are heard by all, 20 ms",
        "later. `sqlite`: each knows its own again after a restart. `memory`: nothing is kept.",
        "",
    ]
    for case in (CASES[0], CASES[2]):
        lines += several(folder, case)
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.baselines", description=__doc__)
    parser.add_argument("traces", type=Path, metavar="TRACES")
    PAGE.write_text(page(parser.parse_args().traces), encoding="utf-8")


if __name__ == "__main__":
    main()

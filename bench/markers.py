"""`python -m bench.markers TRACES`: what markers cost and save on recorded traffic, as a page.

TRACES is a folder with the public traces that `docs/how-to/replay.md` names, as they are published
or gzipped. Nothing is measured in seconds: the same traces and seed give the same page.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "marker-savings.md"
FIXED = ("none", "system_last", "automatic", "rolling4")

_ARRIVALS = ("--arrivals", "azure_llm_2023_conv.csv.gz")
CASES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("tau-bench airline", "taubench_airline_gpt4o.json.gz", ()),
    ("SWE-agent", "swe_agent_trajectories.jsonl.gz", ()),
    ("pi-mono", "pi_mono_large_session.jsonl.gz", ()),
    ("Claude Code v8", "claude_code_weka_sessions.jsonl.gz", ()),
    ("arena-hard, bare", "arena_hard_v0.1_questions.jsonl.gz", _ARRIVALS),
    (
        "arena-hard, 2k shared",
        "arena_hard_v0.1_questions.jsonl.gz",
        (*_ARRIVALS, "--shared-system-tokens", "2000"),
    ),
    ("BFCL", "bfcl_v4_live_multiple.jsonl.gz", ()),
)
MODELS = (
    "anthropic:claude-sonnet-4-5",
    "anthropic:claude-opus-5",
    "anthropic:claude-opus-5-5",
    "openai:gpt-6-sol",
)
RESTARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("never restarted", ()),
    ("every 10 minutes", ("--restart-every", "600")),
    ("two replicas", ("--replicas", "2")),
    ("two replicas, every 10 minutes", ("--replicas", "2", "--restart-every", "600")),
)
RESTARTED = ("tau-bench airline", "pi-mono", "Claude Code v8")


def replay(folder: Path, file: str, model: str, words: tuple[str, ...]) -> dict[str, Any]:
    """The one JSON object that `gateway replay` prints."""
    words = tuple(str(folder / word) if word.endswith(".gz") else word for word in words)
    command = [sys.executable, "-m", "gateway", "replay", str(folder / file), "--json"]
    run = subprocess.run(
        [*command, "--provider", model, *words], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def row(title: str, found: dict[str, Any]) -> str:
    """One line of a model's table."""
    costs = {name: policy["cost_usd"] for name, policy in found["policies"].items()}
    optimum = found["optimum_usd"]
    best = min(FIXED, key=lambda name: costs[name])
    cells = [
        title,
        f"{found['requests']:,}",
        *(f"{costs[name]:,.2f}" for name in FIXED),
        f"**{costs['gateway']:,.2f}**",
        f"{optimum:,.2f} ({found['optimum_is']})",
        f"{100 * (costs['gateway'] / optimum - 1):+.2f} %",
        f"{100 * (costs['gateway'] / costs[best] - 1):+.2f} % ({best})",
        f"{100 * (costs['gateway'] / costs['none'] - 1):+.2f} %",
    ]
    return "| " + " | ".join(cells) + " |"


def page(folder: Path) -> str:
    """The whole page, in Markdown."""
    lines = [
        "# What markers cost and save on recorded traffic",
        "",
        "Written by `python -m bench.markers TRACES`; how to read it, and what is simulated, is in",
        "[the how-to of `gateway replay`](../how-to/replay.md). US dollars for the input alone; each",
        "line is `gateway replay FILE --provider PROVIDER:MODEL` with seed 1, arena-hard with",
        "`--arrivals azure_llm_2023_conv.csv.gz`. *Optimum*: the least that any sequence of markers",
        "could have cost, had the future been known (exact), or less than that (bound).",
    ]
    heads = ["trace", "requests", *(f"`{name}`" for name in FIXED), "Warmgate", "optimum"]
    heads += ["to the optimum", "to the best fixed policy", "to no cache"]
    for model in MODELS:
        lines += ["", f"## {model}", "", "| " + " | ".join(heads) + " |"]
        lines.append("| --- |" + " ---: |" * (len(heads) - 1))
        lines += [row(title, replay(folder, file, model, words)) for title, file, words in CASES]
    lines += [
        "",
        "## What a restart forgets",
        "",
        f"Share of the input's cost that is saved, {MODELS[0]}. Replicas share nothing, and each",
        "call goes to one of them at random.",
        "",
        "| trace | " + " | ".join(name for name, _ in RESTARTS) + " |",
        "| --- |" + " ---: |" * len(RESTARTS),
    ]
    for title, file, words in CASES:
        if title not in RESTARTED:
            continue
        saved = []
        for _, more in RESTARTS:
            costs = replay(folder, file, MODELS[0], (*words, *more))["policies"]
            saved.append(
                f"{100 * (1 - costs['gateway']['cost_usd'] / costs['none']['cost_usd']):.2f} %"
            )
        lines.append(f"| {title} | " + " | ".join(saved) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.markers", description=__doc__)
    parser.add_argument("traces", type=Path, metavar="TRACES")
    PAGE.write_text(page(parser.parse_args().traces), encoding="utf-8")


if __name__ == "__main__":
    main()

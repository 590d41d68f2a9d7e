"""`python -m bench.causes TRACES`: are the causes of prompt-cache misses told right? As a page.

TRACES is a folder with the public traces that `docs/how-to/replay.md` names, as they are published
or gzipped. Nothing is measured in seconds: the same traces and seed give the same page.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.core.miss import MissCause
from gateway.lab.cache_replay import Against
from gateway.lab.cause_replay import Options, Verdict, replay
from gateway.lab.trace import Times
from gateway.lab.trace_read import Wanted, arrivals, read
from gateway.providers.prices import price
from gateway.providers.prompt_cache_rules import cache_rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.lab.cause_replay import Disagreement

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "miss-causes-accuracy.md"

_ARRIVALS = "azure_llm_2023_conv.csv.gz"
TRACES: tuple[tuple[str, str, str], ...] = (
    ("tau-bench airline", "taubench_airline_gpt4o.json.gz", ""),
    ("SWE-agent", "swe_agent_trajectories.jsonl.gz", ""),
    ("pi-mono", "pi_mono_large_session.jsonl.gz", ""),
    ("Claude Code v8", "claude_code_weka_sessions.jsonl.gz", ""),
    ("Mooncake", "mooncake_conversation_trace.jsonl.gz", ""),
    ("arena-hard", "arena_hard_v0.1_questions.jsonl.gz", _ARRIVALS),
    ("BFCL", "bfcl_v4_live_multiple.jsonl.gz", ""),
)
"""Title, file, and the file of arrival times, if it has none of its own."""
SETTINGS: tuple[tuple[str, str, str, Options], ...] = (
    ("Anthropic's markers", "anthropic", "claude-sonnet-4-5", Options()),
    (
        "Anthropic's markers, one entry in twenty lost",
        *("anthropic", "claude-sonnet-4-5"),
        Options(losses=0.05),
    ),
    ("OpenAI's breakpoints", "openai", "gpt-6-sol", Options()),
    (
        "OpenAI's breakpoints, one entry in twenty lost",
        *("openai", "gpt-6-sol"),
        Options(losses=0.05),
    ),
    ("OpenAI's automatic cache", "openai", "gpt-4o", Options()),
    (
        "OpenAI's automatic cache, machines that overflow",
        *("openai", "gpt-4o"),
        Options(overflows=True),
    ),
)
"""Title, provider, model, and how its cache behaves."""
_APIS = {"anthropic": "anthropic_messages", "openai": "openai_chat"}
_RATE_PER_HOUR = 120.0
_SEED = 1


def against(provider: str, model: str) -> Against:
    """The rules and prices that a trace is replayed against."""
    api = _APIS[provider]
    rules, costs = cache_rules(provider, api, model), price(provider, api, model)
    assert rules is not None, model
    assert costs is not None, model
    return Against(provider, model, api, rules, costs)


def verdict(folder: Path, file: str, times_of: str, setting: int) -> Verdict:
    """One trace under one of SETTINGS."""
    _, provider, model, options = SETTINGS[setting]
    recorded = arrivals(str(folder / times_of)) if times_of else ()
    times = Times(_SEED, _RATE_PER_HOUR, recorded)
    trace = read(str(folder / file), Wanted(_APIS[provider], model, times))
    return replay(trace, against(provider, model), options)


def row(title: str, found: Verdict) -> str:
    """One line of a setting's table."""
    true: Counter[MissCause | None] = Counter()
    for (cause, _), count in found.causes.items():
        true[cause] += count
    cells = [
        title,
        f"{found.requests:,}",
        f"{found.misses:,}",
        *(f"{true[cause]:,}" if true[cause] else "-" for cause in SHOWN),
        f"**{_share(found.right, found.misses)}**",
        f"{found.invented:,}",
        _share(found.places[True], found.places.total()),
    ]
    return "| " + " | ".join(cells) + " |"


SHOWN = tuple(cause for cause in MissCause if cause is not MissCause.PROVIDER)


def _share(part: int, whole: int) -> str:
    """Never 100 % by rounding."""
    if not whole:
        return "-"
    return "100 %" if part == whole else f"{min(99.99, 100 * part / whole):.2f} %"


def page(folder: Path) -> str:
    """The whole page, in Markdown. What is told wrong goes to the log, the first ones in full."""
    lines = [
        "# Are the causes of misses told right?",
        "",
        "Written by `python -m bench.causes TRACES`. Each recorded trace goes past the gateway's own",
        "code (blocks, plan, markers, [what is told of a miss](../explanation/miss-causes.md)) and a",
        "simulated provider that remembers every prompt and every entry, and so knows why each request",
        "read less than it could. What the gateway tells is held against that, request by request.",
        "*Right*: of the misses, those whose cause is told. *Invented*: requests that missed nothing,",
        "and of which a miss is told. *Place*: of the changed prefixes, those whose path and block are",
        "told. The gateway sees the traffic and the usage that answers state, and nothing else; times",
        "that a trace doesn't have are drawn with seed 1.",
    ]
    heads = ["trace", "requests", "misses", *(f"`{cause}`" for cause in SHOWN)]
    heads += ["right", "invented", "place"]
    everything: Counter[str] = Counter()
    for number, (title, provider, model, _) in enumerate(SETTINGS):
        lines += ["", f"## {title}", "", f"`{provider}:{model}`", ""]
        lines += ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
        for name, file, times_of in TRACES:
            found = verdict(folder, file, times_of, number)
            lines.append(row(name, found))
            everything.update(
                requests=found.requests,
                misses=found.misses,
                right=found.right,
                invented=found.invented,
                too_small=found.too_small,
            )
            _log(f"{title}: {name}", found)
    misses, right = everything["misses"], everything["right"]
    lines += [
        "",
        f"In all: {everything['requests']:,} requests, {misses:,} misses, of which {right:,}",
        f"({_share(right, misses)}) are told right; {everything['invented']:,} are invented. Of an automatic",
        "cache, whose reads are rounded down to steps of 128 tokens, a lack of one step that is not told is",
        f"counted as no miss: {everything['too_small']:,} in all.",
    ]
    return "\n".join(lines) + "\n"


def _log(title: str, found: Verdict) -> None:
    print(
        f"{title}: {found.right} of {found.misses} right, {found.invented} invented",
        file=sys.stderr,
    )
    for (true, told), count in found.causes.most_common():
        if true is not told:
            print(f"    {count} x {true or 'no miss'}, told {told or 'no miss'}", file=sys.stderr)
    for each in found.disagreements:
        print(f"    {_said(each)}", file=sys.stderr)


def _said(each: Disagreement) -> str:
    return f"request {each.number} at {each.at:.1f} s: {each.true}, told {each.told}"


def main(words: Sequence[str] | None = None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.causes", description=__doc__)
    parser.add_argument("traces", type=Path, metavar="TRACES")
    PAGE.write_text(page(parser.parse_args(words).traces), encoding="utf-8")


if __name__ == "__main__":
    main()

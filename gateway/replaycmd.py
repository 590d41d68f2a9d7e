"""`gateway replay`: what recorded traffic would have cost with each way of marking prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import orjson

from gateway.lab.cache_replay import POLICY_NAMES, Against, Options, UnspokenRoute, replay
from gateway.lab.replay_page import as_page
from gateway.lab.replay_report import as_json, as_table
from gateway.lab.trace import Times, TraceError
from gateway.lab.trace_read import Wanted, arrivals, read
from gateway.providers.prices import price
from gateway.providers.prompt_cache_rules import cache_rules
from gateway.wire.base import NotUnderstood

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

OK, FAULTY = 0, 2
_APIS = {"anthropic": "anthropic_messages", "openai": "openai_chat"}
_SENTENCE = "Rule {number}: keep to what is written here, and ask before you do anything else."


def run(arguments: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Print what each trace came to; returns the exit status of the verb."""
    try:
        policies = _policies(arguments.policy)
        against = _against(arguments.provider)
        known = arrivals(arguments.arrivals) if arguments.arrivals else ()
        wanted = Wanted(
            against.api,
            against.model,
            Times(arguments.seed, arguments.rate, known),
            _system(arguments),
            arguments.limit,
            against.rules.marks_tools,
        )
        options = Options(arguments.seed, arguments.restart_every, arguments.replicas)
        outcomes = []
        for name in arguments.traces:
            trace = read(name, wanted)
            try:
                outcome = replay(trace, against, policies, options)
            except (NotUnderstood, UnspokenRoute) as error:
                raise TraceError(f"{name}: {error}") from error
            outcomes.append(outcome)
            if arguments.json:
                out.write(orjson.dumps(as_json(outcome)).decode() + "\n")
            else:
                out.write(as_table(outcome) + "\n")
            out.flush()
        if arguments.html:
            _write(arguments.html, as_page(outcomes))
    except TraceError as error:
        err.write(f"gateway replay: {error}\n")
        return FAULTY
    return OK


def _write(name: str, page: str) -> None:
    try:
        Path(name).write_text(page, encoding="utf-8")
    except OSError as error:
        raise TraceError(f"{name}: {error.strerror or error}") from error


def _policies(names: Sequence[str] | None) -> Sequence[str]:
    for name in names or ():
        if name not in POLICY_NAMES:
            raise TraceError(f"--policy {name}: must be one of {', '.join(POLICY_NAMES)}")
    return tuple(dict.fromkeys(names)) if names else POLICY_NAMES


def _against(word: str) -> Against:
    provider, _, model = word.partition(":")
    api = _APIS.get(provider)
    if api is None or not model:
        known = " or ".join(f"{name}:MODEL" for name in _APIS)
        raise TraceError(f"--provider {word}: must be {known}")
    rules = cache_rules(provider, api, model)
    if rules is None:
        raise TraceError(f"--provider {word}: no cache rules are known for this model")
    costs = price(provider, api, model)
    if costs is None:
        raise TraceError(f"--provider {word}: no price is known for this model")
    return Against(provider, model, api, rules, costs)


def _system(arguments: argparse.Namespace) -> tuple[str, ...]:
    if arguments.system:
        try:
            return (Path(arguments.system).read_text(encoding="utf-8"),)
        except OSError as error:
            raise TraceError(f"{arguments.system}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise TraceError(f"{arguments.system}: {error}") from error
    if arguments.shared_system_tokens:
        size = int(arguments.shared_system_tokens * 3.6)
        lines = (_SENTENCE.format(number=number) for number in range(size // 40 + 1))
        return ("\n".join(lines)[:size],)
    return ()

"""`gateway replay`: recorded traffic past each way of marking prompts, or of choosing a replica."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import orjson

from gateway.core.route_fleet import MOST_REPLICAS
from gateway.lab.cache_replay import POLICY_NAMES, Against, Options, UnspokenRoute, replay
from gateway.lab.replay_page import as_page
from gateway.lab.replay_report import as_json, as_table
from gateway.lab.route_gateways import Store
from gateway.lab.route_page import routes_page
from gateway.lab.route_policies import SimPool
from gateway.lab.route_replay import ROUTE_POLICIES, RouteOptions, replay_routes
from gateway.lab.route_report import routes_as_json, routes_as_table
from gateway.lab.route_trace import RouteWanted, read_routes
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
_RATE = 120.0

_OF_MARKING = ("provider", "rate", "arrivals", "restart_every", "replicas")
_OF_ROUTING = (
    *("cache_tokens", "gateways", "store", "restart_gateways", "prefill_rate", "decode_s"),
    *("concurrency", "think_s"),
)
_INSTEAD = {
    "replicas": "--gateways is how many gateways there are",
    "restart_every": "--restart-gateways is how often they restart",
    "rate": "--concurrency is how many conversations go on where the trace has no times",
    "arrivals": "--concurrency is how many conversations go on where the trace has no times",
    "provider": "engines of one's own have no prices",
}


def run(arguments: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Print what each trace came to; returns the exit status of the verb."""
    try:
        if arguments.html:
            _may_write(arguments.html)
        if arguments.backends:
            _routing(arguments, out)
        else:
            _marking(arguments, out)
    except TraceError as error:
        err.write(f"gateway replay: {error}\n")
        return FAULTY
    return OK


def _given(arguments: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    found = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _marking(arguments: argparse.Namespace, out: TextIO) -> None:
    for name in _given(arguments, _OF_ROUTING):
        raise TraceError(
            f"{_flag(name)}: needs --backends N: only there are replicas to choose from"
        )
    if arguments.provider is None:
        raise TraceError(
            "--provider PROVIDER:MODEL is needed to tell what prompts cost, or --backends N to tell "
            "which replica gets them"
        )
    policies = _policies(arguments.policy, POLICY_NAMES)
    against = _against(arguments.provider)
    known = arrivals(arguments.arrivals) if arguments.arrivals else ()
    wanted = Wanted(
        against.api,
        against.model,
        Times(arguments.seed, arguments.rate or _RATE, known),
        _system(arguments),
        arguments.limit,
        against.rules.marks_tools,
    )
    options = Options(
        arguments.seed, arguments.restart_every or 0.0, replicas=arguments.replicas or 1
    )
    outcomes = []
    for name in arguments.traces:
        trace = read(name, wanted)
        try:
            outcome = replay(trace, against, policies, options)
        except (NotUnderstood, UnspokenRoute) as error:
            raise TraceError(f"{name}: {error}") from error
        outcomes.append(outcome)
        _print(out, as_json(outcome) if arguments.json else as_table(outcome))
    if arguments.html:
        _write(arguments.html, as_page(outcomes))


def _routing(arguments: argparse.Namespace, out: TextIO) -> None:
    for name in _given(arguments, _OF_MARKING):
        raise TraceError(f"{_flag(name)}: not with --backends: {_INSTEAD[name]}")
    if arguments.cache_tokens is None:
        raise TraceError(
            "--cache-tokens C is needed with --backends: how many tokens the cache of each replica "
            "holds, as its engine says when it starts"
        )
    policies = _policies(arguments.policy, ROUTE_POLICIES)
    if arguments.backends > MOST_REPLICAS:
        raise TraceError(f"--backends {arguments.backends}: a pool has at most {MOST_REPLICAS}")
    told = _given(arguments, ("gateways", "decode_s", "concurrency", "think_s"))
    options = RouteOptions(
        seed=arguments.seed,
        restarts=arguments.restart_gateways or 0,
        store=Store(arguments.store or Store.SQLITE),
        **told,
    )
    wanted = RouteWanted(
        arguments.seed, arguments.limit, _system(arguments), arguments.shared_system_tokens or 0
    )
    outcomes = []
    for name in arguments.traces:
        trace = read_routes(name, wanted)
        if options.restarts >= len(trace.asks):
            raise TraceError(
                f"--restart-gateways {options.restarts}: {name} has no more than "
                f"{len(trace.asks):,} requests, and a restart comes between two"
            )
        rate = arguments.prefill_rate or trace.rate
        pool = SimPool(arguments.backends, arguments.cache_tokens, rate)
        outcome = replay_routes(trace, pool, policies, options)
        outcomes.append(outcome)
        _print(out, routes_as_json(outcome) if arguments.json else routes_as_table(outcome))
    if arguments.html:
        _write(arguments.html, routes_page(outcomes))


def _print(out: TextIO, shown: dict[str, Any] | str) -> None:
    out.write((shown if isinstance(shown, str) else orjson.dumps(shown).decode()) + "\n")
    out.flush()


def _may_write(name: str) -> None:
    """Raises `TraceError` where it can't be written: before the work, which may take an hour."""
    try:
        Path(name).open("a", encoding="utf-8").close()
    except OSError as error:
        raise TraceError(f"--html {name}: {error.strerror or error}") from error


def _write(name: str, page: str) -> None:
    try:
        Path(name).write_text(page, encoding="utf-8")
    except OSError as error:
        raise TraceError(f"--html {name}: {error.strerror or error}") from error


def _policies(names: Sequence[str] | None, known: Sequence[str]) -> Sequence[str]:
    for name in names or ():
        if name not in known:
            where = " with --backends" if known is ROUTE_POLICIES else ""
            raise TraceError(f"--policy {name}: must be one of {', '.join(known)}{where}")
    return tuple(dict.fromkeys(names)) if names else tuple(known)


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

"""Arguments of `gateway replay`: apart from the verb, so that other verbs load nothing of it."""

from __future__ import annotations

import argparse


def add_to(verb: argparse.ArgumentParser) -> None:
    """The verb's arguments. What only one kind of replay has is None where it isn't given."""
    verb.add_argument("traces", metavar="TRACE", nargs="+", help="recorded traffic, gzip or plain")
    verb.add_argument(
        "--policy",
        metavar="NAME",
        action="append",
        help="none, system_last, automatic, rolling4 or gateway; with --backends prefix, "
        "round_robin, least_pending, session, sglang or llmd; may be repeated; default: all",
    )
    verb.add_argument(
        "--seed", metavar="N", type=int, default=1, help="of what is drawn; default: %(default)s"
    )
    verb.add_argument(
        "--limit", metavar="N", type=_count, help="read the first N conversations only"
    )
    shared = verb.add_mutually_exclusive_group()
    shared.add_argument("--system", metavar="FILE", help="a system prompt put before every prompt")
    shared.add_argument(
        "--shared-system-tokens", metavar="N", type=_count, help="the same, made up, of N tokens"
    )
    verb.add_argument("--html", metavar="FILE", help="write a page with plots")
    verb.add_argument("--json", action="store_true", help="print one JSON object for each trace")
    _of_marking(verb.add_argument_group("what prompts would cost with each way of marking them"))
    _of_routing(verb.add_argument_group("who of several replicas gets a request (with --backends)"))


def _of_marking(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--provider",
        metavar="PROVIDER:MODEL",
        help="whose rules and prices: anthropic:MODEL or openai:MODEL; needed without --backends",
    )
    group.add_argument(
        "--rate",
        metavar="N",
        type=_positive,
        help="conversations an hour, where the trace has no times; default: 120",
    )
    group.add_argument(
        "--arrivals", metavar="FILE", help="take their starts from an Azure trace instead"
    )
    group.add_argument(
        "--restart-every",
        metavar="SECONDS",
        type=_positive,
        help="the gateway forgets all it learned so often",
    )
    group.add_argument(
        "--replicas",
        metavar="N",
        type=_count,
        help="gateways that share nothing; each call goes to one at random; default: 1",
    )


def _of_routing(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--backends", metavar="N", type=_count, help="replicas of the engine, all alike"
    )
    group.add_argument(
        "--cache-tokens", metavar="C", type=_count, help="what the cache of each holds; needed"
    )
    group.add_argument(
        "--gateways",
        metavar="G",
        type=_count,
        help="in front of them; each request goes to one at random; default: 1",
    )
    group.add_argument(
        "--store",
        choices=("redis", "sqlite", "memory"),
        help="what policy prefix knows of other gateways and after a restart; default: sqlite",
    )
    group.add_argument(
        "--restart-gateways",
        metavar="K",
        type=_count,
        help="restarts, evenly over the requests, one gateway after the other; default: none",
    )
    group.add_argument(
        "--prefill-rate",
        metavar="N",
        type=_positive,
        help="prompt tokens that a replica computes in a second; default: 5400 for traces of "
        "hashes, 1100 for traces with texts",
    )
    group.add_argument(
        "--decode-s",
        metavar="SECONDS",
        type=_positive,
        help="for each token of an answer; default: 0.02",
    )
    group.add_argument(
        "--concurrency",
        metavar="N",
        type=_count,
        help="conversations at a time, where the trace has no times; default: 64",
    )
    group.add_argument(
        "--think-s",
        metavar="SECONDS",
        type=_positive,
        help="from an answer to the next request there, on average; default: 15",
    )


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("must be more than 0")
    return number

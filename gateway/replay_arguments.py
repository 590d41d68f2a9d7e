"""Arguments of `gateway replay`: apart from the verb, so that other verbs load nothing of it."""

from __future__ import annotations

import argparse


def add_to(verb: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    verb.add_argument("traces", metavar="TRACE", nargs="+", help="recorded traffic, gzip or plain")
    verb.add_argument(
        "--provider",
        metavar="PROVIDER:MODEL",
        required=True,
        help="whose rules and prices: anthropic:MODEL or openai:MODEL",
    )
    verb.add_argument(
        "--policy",
        metavar="NAME",
        action="append",
        help="none, system_last, automatic, rolling4 or gateway; may be repeated; default: all",
    )
    verb.add_argument(
        "--seed", metavar="N", type=int, default=1, help="of what is drawn; default: %(default)s"
    )
    verb.add_argument(
        "--limit", metavar="N", type=_count, help="read the first N conversations only"
    )
    verb.add_argument(
        "--rate",
        metavar="N",
        type=_positive,
        default=120.0,
        help="conversations an hour, where the trace has no times; default: %(default)g",
    )
    verb.add_argument(
        "--arrivals", metavar="FILE", help="take their starts from an Azure trace instead"
    )
    shared = verb.add_mutually_exclusive_group()
    shared.add_argument("--system", metavar="FILE", help="a system prompt put before every prompt")
    shared.add_argument(
        "--shared-system-tokens", metavar="N", type=_count, help="the same, made up, of N tokens"
    )
    verb.add_argument(
        "--restart-every",
        metavar="SECONDS",
        type=_positive,
        default=0.0,
        help="the gateway forgets all it learned so often",
    )
    verb.add_argument(
        "--replicas",
        metavar="N",
        type=_count,
        default=1,
        help="gateways that share nothing; each call goes to one at random",
    )
    verb.add_argument("--html", metavar="FILE", help="write a page with plots")
    verb.add_argument("--json", action="store_true", help="print one JSON object for each trace")


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

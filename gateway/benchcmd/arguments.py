"""The flags of `gateway bench`: apart from the verb, so that other verbs load nothing of it."""

from __future__ import annotations

import argparse

CASE_NAMES = (
    *("cold-start", "warm-cache", "context", "max-tokens", "conversation", "prefill"),
    *("independent", "warm-up", "concurrency"),
)
"""In the order in which they are measured."""


def add_to(verb: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    verb.add_argument(
        "--base-url",
        metavar="URL",
        required=True,
        help="of the endpoint, as an SDK wants it: http://127.0.0.1:8000/v1",
    )
    verb.add_argument(
        "--api", choices=("openai", "anthropic"), default="openai", help="default: %(default)s"
    )
    verb.add_argument(
        "--api-key",
        metavar="KEY",
        help="default: $OPENAI_API_KEY, or $ANTHROPIC_API_KEY; may be missing",
    )
    verb.add_argument("--model", metavar="NAME", help="default: the first that the endpoint lists")
    verb.add_argument(
        "--header",
        metavar="NAME:VALUE",
        action="append",
        default=[],
        help="sent with every request; may be repeated",
    )
    verb.add_argument(
        "--only",
        metavar="CASE",
        action="append",
        choices=CASE_NAMES,
        help=f"may be repeated: {', '.join(CASE_NAMES)}; default: all",
    )
    verb.add_argument(
        "--runs", metavar="N", type=_count, help="of each measurement; default: 5, with --quick 2"
    )
    verb.add_argument(
        "--quick", action="store_true", help="fewer runs, no 32k prompt: a minute instead of ten"
    )
    verb.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_positive,
        default=300.0,
        help="for one answer, to its last byte; default: %(default)g",
    )
    verb.add_argument(
        "--compare", metavar="FILE", help="an earlier --json: how much better or worse it became"
    )
    verb.add_argument("--html", metavar="FILE", help="write a page with plots")
    verb.add_argument("--json", action="store_true", help="print one JSON object")


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1000:
        raise argparse.ArgumentTypeError("must be 1 to 1000")
    return number


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("must be more than 0")
    return number

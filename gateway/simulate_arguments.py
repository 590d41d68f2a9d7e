"""Arguments of `gateway simulate`: apart from the verb, so that other verbs load nothing of it."""

from __future__ import annotations

import argparse


def add_to(verb: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    verb.add_argument("provider", choices=("anthropic", "openai", "engine"))
    verb.add_argument("--host", default="127.0.0.1", metavar="ADDRESS")
    verb.add_argument("--port", type=_port, default=0, metavar="N", help="0 takes a free one")

    provider = verb.add_argument_group("of anthropic and openai")
    provider.add_argument(
        "--ttft",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="until an answer begins, which is when what it wrote can be read",
    )
    provider.add_argument(
        "--clock",
        choices=("real", "header"),
        default="real",
        help="header: the time of a request is what its x-simulated-now says, and nobody waits",
    )

    engine = verb.add_argument_group("of engine")
    engine.add_argument(
        "--engine", choices=("vllm", "sglang", "llamacpp"), default="vllm", help="whose API it has"
    )
    engine.add_argument("--name", default="", help="how it names itself; default: engine-PORT")
    engine.add_argument("--model", default="simulated", metavar="NAME")
    engine.add_argument(
        "--cache-tokens",
        type=_count,
        default=100_000,
        metavar="N",
        help="of its prefix cache, or of all slots together; default: %(default)s",
    )
    engine.add_argument(
        "--prefill-rate",
        type=_positive,
        default=10_000.0,
        metavar="R",
        help="prompt tokens a second; default: %(default)g",
    )
    engine.add_argument(
        "--decode-s",
        type=_not_negative,
        default=0.02,
        metavar="SECONDS",
        help="of each token of an answer; default: %(default)s",
    )
    engine.add_argument(
        "--slots", type=_count, default=4, metavar="N", help="of llama.cpp; default: %(default)s"
    )
    engine.add_argument("--seed", type=int, default=0, metavar="N", help="of its answers")
    engine.add_argument(
        "--cache-report",
        action=argparse.BooleanOptionalAction,
        help="whether usage tells the tokens that were cached; default: not with sglang",
    )
    engine.add_argument(
        "--old-metrics", action="store_true", help="metrics by the names of older versions"
    )


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65_535:
        raise argparse.ArgumentTypeError("it must be 0 to 65535")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("it must be at least 1")
    return number


def _positive(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError("it must be more than 0")
    return number


def _not_negative(text: str) -> float:
    number = float(text)
    if not number >= 0:
        raise argparse.ArgumentTypeError("it must not be negative")
    return number

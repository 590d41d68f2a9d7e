"""The verbs of `gateway cache`, their flags, and what each calls."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gateway.cachecmd.desk import Trouble, Wanted
from gateway.config import CONFIG_FILE, load

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any, BinaryIO

    from gateway.cachecmd.desk import Desk
    from gateway.cachecmd.local import Local
    from gateway.config import Config

D = TypeVar("D", bound="Desk")

TROUBLE = 2
SAMPLED = 20_000
_AGE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)")
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MOST_AT_ONCE = 256


def add_to(
    cache: argparse.ArgumentParser, add_config: Callable[[argparse.ArgumentParser], None]
) -> None:
    """Add the verbs; `add_config` adds the flag for the config file."""
    verbs = cache.add_subparsers(metavar="VERB", required=True)

    def verb(
        name: str, what: str, run: Callable[..., Coroutine[Any, Any, int]]
    ) -> argparse.ArgumentParser:
        parser = verbs.add_parser(name, help=what, description=what)
        add_config(parser)
        if name != "export":
            parser.add_argument("--json", action="store_true", help="print JSON")
        parser.set_defaults(verb=lambda arguments: run_verb(run, arguments))
        return parser

    stats = verb("stats", "how much lies in the cache, of which models and tags", _stats)
    _add_admin(stats)
    _add_limit(stats, SAMPLED, "look at about N entries; beyond, counts are estimates")

    show = verb("show", "entries, without their answers", _show)
    _add_admin(show)
    _add_names(show)
    _add_limit(show, 20, "show at most N")
    show.add_argument("--payload", action="store_true", help="print the answer of --key itself")

    purge = verb("purge", "declare entries dead: a rehearsal, unless --yes is said", _purge)
    _add_admin(purge)
    _add_names(purge)
    purge.add_argument(
        "--older-than", type=_age, metavar="AGE", help="stored longer ago: 90s, 15m, 2h, 7d"
    )
    purge.add_argument("--all", action="store_true", help="everything")
    _add_yes(purge)
    purge.add_argument(
        "--reclaim", action="store_true", help="with --yes: delete what is dead to make room now"
    )

    export = verb("export", "write all entries to a file", _export)
    export.add_argument("file", metavar="FILE", help="- for stdout")

    import_ = verb("import", "store the entries of an export", _import)
    _add_yes(import_)
    import_.add_argument(
        "--any-secret", action="store_true", help="even if no request here would find them"
    )
    import_.add_argument("file", metavar="FILE", help="- for stdin")

    fill = verb(
        "fill", "ask for recorded requests through a gateway, so that they are cached", _fill
    )
    fill.add_argument("--url", metavar="URL", help="of the gateway; default: this config's")
    fill.add_argument(
        "--route", default="/v1/chat/completions", metavar="PATH", help="default: %(default)s"
    )
    fill.add_argument("--tag", action="append", default=[], metavar="TAG", help="tag the answers")
    fill.add_argument(
        "--concurrency", type=_at_once, default=8, metavar="N", help="default: %(default)s"
    )
    _add_yes(fill)
    fill.add_argument("file", metavar="FILE", help="a request body, or a record, on each line")


def run_verb(
    run: Callable[[argparse.Namespace, Config], Coroutine[Any, Any, int]],
    arguments: argparse.Namespace,
) -> int:
    """Run one verb; returns the exit status. Trouble goes to stderr."""
    from gateway.telemetry.logs import setup_logging  # noqa: PLC0415 - only these verbs pay for it

    name = arguments.config or os.environ.get(CONFIG_FILE)
    config = load(Path(name) if name else None, os.environ)
    setup_logging("warning", config.log.format)
    try:
        return asyncio.run(run(arguments, config))
    except Trouble as trouble:
        sys.stderr.write(f"gateway cache: {trouble}\n")
        return TROUBLE


async def _stats(arguments: argparse.Namespace, config: Config) -> int:
    from gateway.cachecmd import look  # noqa: PLC0415 - only this verb pays for it

    return await _with(
        await _desk(arguments, config),
        lambda desk: look.stats(desk, arguments.limit, _out(), as_json=arguments.json),
    )


async def _show(arguments: argparse.Namespace, config: Config) -> int:
    from gateway.cachecmd import look  # noqa: PLC0415 - only this verb pays for it

    wanted = _wanted(arguments)
    if arguments.payload and len(wanted.keys) != 1:
        raise Trouble("a payload is shown of one --key")
    desk = await _desk(arguments, config)
    if wanted.keys:
        if len(wanted.keys) > 1 or wanted.tags or wanted.models:
            await desk.close()
            raise Trouble("show one --key, or by --tag and --model")
        return await _with(
            desk,
            lambda desk: look.show(
                desk, wanted.keys[0], _out(), as_json=arguments.json, payload=arguments.payload
            ),
        )
    return await _with(
        desk,
        lambda desk: look.listing(desk, wanted, arguments.limit, _out(), as_json=arguments.json),
    )


async def _purge(arguments: argparse.Namespace, config: Config) -> int:
    from gateway.cachecmd.purge import purge  # noqa: PLC0415 - only this verb pays for it

    return await _with(
        await _desk(arguments, config),
        lambda desk: purge(
            desk,
            _wanted(arguments),
            _out(),
            as_json=arguments.json,
            yes=arguments.yes,
            reclaim=arguments.reclaim,
        ),
    )


async def _export(arguments: argparse.Namespace, config: Config) -> int:
    from gateway.cachecmd import move  # noqa: PLC0415 - only this verb pays for it

    # What is said goes beside what is written.
    return await _with(
        await _local(config),
        lambda desk: move.export_to(desk, arguments.file, config, os.environ, sys.stderr.buffer),
    )


async def _import(arguments: argparse.Namespace, config: Config) -> int:
    from gateway.cachecmd import move  # noqa: PLC0415 - only this verb pays for it

    return await _with(
        await _local(config, create=arguments.yes),
        lambda desk: move.import_from(
            desk,
            arguments.file,
            config,
            os.environ,
            _out(),
            yes=arguments.yes,
            any_secret=arguments.any_secret,
            as_json=arguments.json,
        ),
    )


async def _fill(arguments: argparse.Namespace, config: Config) -> int:
    from gateway.cachecmd.fill import fill  # noqa: PLC0415 - only this verb pays for it

    tags = tuple(arguments.tag)
    if tags:
        _check_tags(tags)
    return await fill(
        arguments.file,
        arguments.url or f"http://{config.server.host}:{config.server.port}",
        _out(),
        os.environ,
        route=arguments.route,
        tags=tags,
        concurrency=arguments.concurrency,
        yes=arguments.yes,
        as_json=arguments.json,
    )


async def _with(desk: D, work: Callable[[D], Coroutine[Any, Any, int]]) -> int:
    try:
        return await work(desk)
    finally:
        await desk.close()


async def _desk(arguments: argparse.Namespace, config: Config) -> Desk:
    """The configured store; for memory://, and where it is asked for, a running gateway."""
    from gateway.cachecmd.remote import Remote, admin_url  # noqa: PLC0415 - only verbs pay for it
    from gateway.store.open import default_url, scheme  # noqa: PLC0415 - the same

    in_memory = scheme(config.store.url or default_url(os.environ)) == "memory"
    if arguments.admin_url or in_memory:
        token = config.admin.token.get_secret_value() if config.admin.token else None
        return Remote(arguments.admin_url or admin_url(config), token)
    return await _local(config)


async def _local(config: Config, *, create: bool = False) -> Local:
    from gateway.cachecmd.local import opened  # noqa: PLC0415 - only verbs pay for it

    return await opened(config, os.environ, create=create)


def _wanted(arguments: argparse.Namespace) -> Wanted:
    names = (arguments.key, arguments.tag, arguments.model)
    older, everything = getattr(arguments, "older_than", None), getattr(arguments, "all", None)
    if everything is None:
        # `show` without a name shows whatever comes.
        everything = not any(names)
    keys, tags, models = map(tuple, names)
    return Wanted(keys, tags, models, older, everything)


def _add_names(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--key", action="append", default=[], metavar="HEX", help="8 (as in the log) to 64 digits"
    )
    verb.add_argument("--tag", action="append", default=[], metavar="TAG", help="may be repeated")
    verb.add_argument(
        "--model", action="append", default=[], metavar="MODEL", help="as the answer names it"
    )


def _add_admin(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--admin-url", metavar="URL", help="ask this running gateway, not the store itself"
    )


def _add_yes(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--yes", action="store_true", help="do it; else only say what would be done")


def _add_limit(verb: argparse.ArgumentParser, default: int, what: str) -> None:
    verb.add_argument(
        "--limit", type=_count, default=default, metavar="N", help=f"{what}; default: %(default)s"
    )


def _age(text: str) -> float:
    found = _AGE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError("an age is a number with s, m, h or d: 90s, 15m, 2h, 7d")
    return float(found[1]) * _SECONDS[found[2]]


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:10]) > 0):
        raise argparse.ArgumentTypeError("this is a whole number of 1 or more")
    return int(text)


def _at_once(text: str) -> int:
    number = _count(text)
    if number > _MOST_AT_ONCE:
        raise argparse.ArgumentTypeError(f"at most {_MOST_AT_ONCE} at once")
    return number


def _check_tags(tags: tuple[str, ...]) -> None:
    from gateway.core import purges  # noqa: PLC0415 - only this verb pays for it

    if purges.tags(tags) is None or any("," in tag for tag in tags):
        raise Trouble("at most 16 tags, each 1 to 128 visible characters without a comma")


def _out() -> BinaryIO:
    return sys.stdout.buffer

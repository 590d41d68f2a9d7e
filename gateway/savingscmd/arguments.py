"""The flags of `gateway savings`, and what they call."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.config import CONFIG_FILE, load
from gateway.core.savings import KEYS

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.config import Config

OK, TROUBLE = 0, 2


def add_to(
    savings: argparse.ArgumentParser, add_config: Callable[[argparse.ArgumentParser], None]
) -> None:
    """Add the flags; `add_config` adds the one for the config file."""
    add_config(savings)
    savings.add_argument(
        "--since",
        default="7d",
        metavar="WHEN",
        help="first day: 30d, or 2026-11-22 (UTC); default: %(default)s",
    )
    savings.add_argument("--until", default="", metavar="DAY", help="last day; default: today")
    savings.add_argument(
        "--by",
        type=_names,
        action="extend",
        default=[],
        metavar="NAMES",
        help=f"rows by any of {', '.join(KEYS)}, with commas between; default: cause",
    )
    form = savings.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--csv", action="store_true", help="print CSV, one line for each row")
    savings.add_argument(
        "--admin-url", metavar="URL", help="ask this running gateway, not the store itself"
    )
    savings.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Print it; returns the exit status. Trouble goes to stderr."""
    from gateway.savingscmd.sources import Trouble, savings  # noqa: PLC0415 - only this verb pays
    from gateway.telemetry.logs import setup_logging  # noqa: PLC0415 - the same

    name = arguments.config or os.environ.get(CONFIG_FILE)
    config: Config = load(Path(name) if name else None, os.environ)
    setup_logging("error", config.log.format)
    by = list(dict.fromkeys(arguments.by)) or ["cause"]
    try:
        told = asyncio.run(
            savings(
                config,
                os.environ,
                since=arguments.since,
                until=arguments.until,
                by=by,
                admin_url=arguments.admin_url,
            )
        )
    except Trouble as trouble:
        sys.stderr.write(f"gateway savings: {trouble}\n")
        return TROUBLE
    from gateway.savingscmd import lines, table  # noqa: PLC0415 - the same

    if arguments.json:
        sys.stdout.write(lines.as_json(told))
    elif arguments.csv:
        sys.stdout.write(lines.as_csv(told))
    else:
        sys.stdout.write(table.as_table(told))
    return OK


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in KEYS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(KEYS)}")
    return names

"""The flags of `gateway doctor`, and what they call."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.config import CONFIG_FILE, load
from gateway.config.redaction import secrets_in
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.config import Config
    from gateway.doctorcmd.finding import Finding

GROUPS = ("host", "gateway", "upstreams", "engines", "store", "clock", "otlp")
"""What is looked at, and can be left out."""
_SECRET = ("_KEY", "_TOKEN", "_PASSWORD", "_SECRET")


NO_ROOM = 2
_NO_ROOM = (
    "gateway doctor: this container has {left} MiB of memory left, and this takes up to {needed}: the "
    "kernel might end the gateway. Run it in a container of its own beside it (kubectl debug), or with "
    "--anyway\n"
)


def add_to(
    doctor: argparse.ArgumentParser, add_config: Callable[[argparse.ArgumentParser], None]
) -> None:
    """Add the flags; `add_config` adds the one for the config file."""
    add_config(doctor)
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.add_argument(
        "--quiet", action="store_true", help="print only what is to mend or to look at"
    )
    doctor.add_argument(
        "--strict", action="store_true", help="exit status 1 for what is to look at, too"
    )
    doctor.add_argument(
        "--skip",
        action="append",
        default=[],
        choices=GROUPS,
        help="leave one out: %(choices)s; may be repeated",
        metavar="GROUP",
    )
    doctor.add_argument(
        "--timeout",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="of each step; default: %(default)s",
    )
    doctor.add_argument(
        "--anyway", action="store_true", help="even where the container has no memory left for it"
    )
    doctor.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Look at everything and print it; returns the exit status."""
    from gateway.doctorcmd import room  # noqa: PLC0415 - tests put another one there

    room.stand_back()
    left = room.room_bytes()
    if left is not None and left < room.NEEDED_BYTES and not arguments.anyway:
        sys.stderr.write(_NO_ROOM.format(left=max(0, left) >> 20, needed=room.NEEDED_BYTES >> 20))
        return NO_ROOM
    from gateway.doctorcmd.look import examine  # noqa: PLC0415 - only this verb pays for it
    from gateway.doctorcmd.report import Blot, as_json, as_text, status_of  # noqa: PLC0415 - the same
    from gateway.doctorcmd.threads import LostThreads  # noqa: PLC0415 - the same
    from gateway.telemetry.logs import setup_logging  # noqa: PLC0415 - the same

    setup_logging("error", "auto")
    name = arguments.config or os.environ.get(CONFIG_FILE)
    config: Config | ConfigError
    try:
        config = load(Path(name) if name else None, os.environ)
    except ConfigError as error:
        config = error
    secrets = _in(os.environ)
    if not isinstance(config, ConfigError):
        secrets |= secrets_in(config)

    async def examined() -> list[Finding]:
        asyncio.get_running_loop().set_default_executor(LostThreads())
        return await examine(config, os.environ, skip=arguments.skip, timeout_s=arguments.timeout)

    findings = asyncio.run(examined())
    blot = Blot(secrets)
    status = status_of(findings, strict=arguments.strict)
    if arguments.json:
        sys.stdout.write(as_json(findings, blot, status))
    else:
        sys.stdout.write(as_text(findings, blot, quiet=arguments.quiet))
    return status


def _in(environ: Mapping[str, str]) -> set[str]:
    """What the environment holds of credentials: headers that go with telemetry, and settings that are
    named so, for where the config can't be read.
    """
    found: set[str] = set()
    for name, value in environ.items():
        if name.startswith("OTEL_EXPORTER_OTLP") and name.endswith("HEADERS"):
            found |= {each.partition("=")[2].strip() for each in value.split(",")}
        elif name.startswith("GATEWAY_") and name.endswith(_SECRET):
            found.add(value.strip())
    return {each for each in found if len(each) >= 6}


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found <= 600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0 to 600")
    return found

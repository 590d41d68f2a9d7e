"""`gateway cache export` and `import`: entries as lines of JSON, in and out of a store."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import orjson

from gateway.cachecmd.desk import Trouble, operator
from gateway.cachecmd.local import troubles
from gateway.store.open import default_url, redis_access
from gateway.store.secret import scope_secrets
from gateway.store.transfer import Unfit, check_head, export, import_lines
from gateway.telemetry.audit import audited

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gateway.cachecmd.local import Local
    from gateway.config import Config
    from gateway.store.transfer import Imported

OK, INCOMPLETE = 0, 1
STDIO = "-"
_LINE_BYTES = 256 << 20
"""A longer line is no entry of ours: it is read in parts, each of them damaged."""

_PROGRESS_S = 5.0


async def export_to(
    desk: Local, name: str, config: Config, environ: Mapping[str, str], said: BinaryIO
) -> int:
    """Write all that may still be served to the file, which is replaced when that is complete."""
    secrets = await _secrets(config, environ)
    try:
        with troubles(), _written(name) as file:
            count = await export(desk.inventory, secrets, file.write, time.time)
    except OSError as exc:
        raise Trouble(f"{name}: {exc.strerror or exc}") from exc
    audited("export", who=operator(), result="written", entries=count, file=name)
    said.write(f"{count:,} entries written to {name}\n".encode())
    return OK


async def import_from(
    desk: Local,
    name: str,
    config: Config,
    environ: Mapping[str, str],
    out: BinaryIO,
    *,
    yes: bool,
    any_secret: bool,
    as_json: bool,
) -> int:
    """Store what the file holds, or with `yes` unset say what would be; 1 when it is not whole."""
    secrets = await _secrets(config, environ)
    try:
        with troubles(), _read(name) as file:
            check_head(file.readline(_LINE_BYTES), secrets, any_secret=any_secret)
            lines = iter(lambda: file.readline(_LINE_BYTES), b"")
            done = await import_lines(
                desk.inventory, lines, time.time, dry_run=not yes, said=_Progress()
            )
    except Unfit as exc:
        raise Trouble(f"{name}: {exc}") from exc
    except OSError as exc:
        raise Trouble(f"{name}: {exc.strerror or exc}") from exc
    if yes:
        audited("import", who=operator(), result="stored", file=name, **done.told())
    if as_json:
        out.write(orjson.dumps({**done.told(), "dry_run": not yes}) + b"\n")
    else:
        out.write(_line(done, yes=yes).encode())
    return OK if done.complete and not done.damaged else INCOMPLETE


def _line(done: Imported, *, yes: bool) -> str:
    verb = "stored" if yes else "would be stored; say --yes to do it"
    counts = (
        *((done.present, "there already"), (done.purged, "purged here"), (done.expired, "expired")),
        (done.damaged, "damaged"),
    )
    others = "".join(f"; {number:,} {what}" for number, what in counts if number)
    cut = "" if done.complete else "\nThe file ends before its last line: it was cut short."
    return f"{done.stored:,} entries {verb}{others}{cut}\n"


class _Progress:
    """Says on a terminal how far an import is."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _PROGRESS_S

    def __call__(self, done: Imported) -> None:
        if sys.stderr.isatty() and time.monotonic() >= self._next:
            self._next = time.monotonic() + _PROGRESS_S
            sys.stderr.write(f"{done.stored:,} stored, {done.present:,} there already ...\n")


async def _secrets(config: Config, environ: Mapping[str, str]) -> tuple[bytes, ...]:
    """The scope secrets that gateways on this store use."""
    secrets = scope_secrets(
        [secret.get_secret_value() for secret in config.cache.secret],
        config.store.url or default_url(environ),
        config.store.key_prefix,
        redis_access(config.store),
    )
    await secrets.start()
    await secrets.close()
    return secrets.current


@contextmanager
def _written(name: str) -> Iterator[BinaryIO]:
    """The file, for its owner only: answers are in it. It appears under its name when it is
    complete.
    """
    if name == STDIO:
        yield sys.stdout.buffer
        return
    part = Path(f"{name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    part.replace(name)


@contextmanager
def _read(name: str) -> Iterator[BinaryIO]:
    if name == STDIO:
        yield sys.stdin.buffer
        return
    with Path(name).open("rb") as file:
        yield file

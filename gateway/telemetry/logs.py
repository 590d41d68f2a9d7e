"""The log: one line for each request, JSON where a machine reads, pretty on a terminal.

Rule 1: no content, no credentials, no header values. `request_line` takes named fields only, so
there is no place to put them; of an exception its kind and its frames are told, never its words; of
what libraries say, what their authors wrote, never the text that they put in.
Rule 2: a log that can't be written (closed pipe, full disk, a pipe that nobody reads) never fails a
request, nor does one wait for it.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import orjson
import structlog

from gateway.config.redaction import MASK
from gateway.core.money import usd
from gateway.telemetry import tracebacks
from gateway.telemetry.outlet import Outlet
from gateway.telemetry.text import plain, without_query

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, MutableMapping
    from enum import Enum

    from gateway.core.records import RequestRecord

_T = TypeVar("_T")

_PATH_LIMIT = 512
_LINE_LIMIT = 512
_REPEAT_S = 60.0

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_OURS = ("warmgate", "gateway")
_CHATTY = ("opentelemetry", "urllib3")
"""Loggers that repeat themselves while a collector is away."""


class _Requests:
    """The logger of request lines, bound once: a lazy one would be built anew for each line."""

    log: structlog.typing.FilteringBoundLogger = structlog.get_logger("warmgate.request")
    outlet: Outlet | None = None


def setup_logging(
    level: str = "info",
    format_: str = "auto",
    stream: TextIO | None = None,
    secrets: Collection[str] = (),
) -> None:
    """Send structlog's lines and those of `logging` to `stream` (default stderr).

    `level` and `format_` are those of `config.Log`. `secrets` are blotted out wherever they stand,
    whoever says them: a Redis that doesn't know a command repeats the password that came with it.
    Replaces the handlers of the root logger; may be called again.
    """
    out = _Lines(_outlet(stream if stream is not None else sys.stderr), secrets)
    least = _LEVELS[level]
    pretty = format_ == "console" or (format_ == "auto" and out.is_terminal)
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
    ]
    exceptions = structlog.processors.ExceptionRenderer(tracebacks.as_text)
    render = _console(out) if pretty else [exceptions, _to_json]
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=lambda *_: out,
        # The module's logger must follow a second call: tests, and a reload of the config.
        cache_logger_on_first_use=False,
    )
    _Requests.log = structlog.get_logger("warmgate.request").bind()
    handler = _StdlibHandler(out)
    handler.addFilter(_Sparingly())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(least)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(least, logging.WARNING))


def _outlet(stream: TextIO) -> Outlet:
    """That of before, where it is the same stream: what waits there goes first."""
    outlet = _Requests.outlet
    if outlet is None or outlet.stream is not stream:
        outlet = _Requests.outlet = Outlet(stream, _tell_lost)
    return outlet


def _tell_lost(lines: int) -> None:
    logging.getLogger("gateway.log").warning("%d lines lost: nobody read the log in time", lines)


def lost_lines() -> int:
    """How many lines there was no room for, since nobody read them."""
    return _Requests.outlet.lost_lines if _Requests.outlet is not None else 0


def drain_log(timeout_s: float, last_words: str = "") -> None:
    """Wait until what was logged is written, but no longer than that. `last_words` go before, whatever
    the level.
    """
    if (outlet := _Requests.outlet) is not None:
        if last_words:
            outlet.write(last_words)
        outlet.drain(timeout_s)


def request_line(record: RequestRecord) -> None:
    """One line for one request: a warning from status 500 on, else info.

    A field that is None is left out. Costs next to nothing when its level is not asked for.
    """
    level = logging.WARNING if record.status >= 500 else logging.INFO
    if not _Requests.log.is_enabled_for(level):
        return
    usage, prompt_cache = record.usage, record.prompt_cache
    line: dict[str, Any] = {
        "request_id": plain(record.request_id),
        "method": plain(record.method),
        "path": plain(without_query(record.path), _PATH_LIMIT),
        "route": record.route,
        "upstream": record.upstream,
        "backend": _or_none(record.backend, plain),
        "affinity": _or_none(record.branch, _word),
        "model": _or_none(record.model, plain),
        "status": record.status,
        "result": _or_none(record.result, _word),
        "reason": _or_none(record.reason, _word),
        "stored": _or_none(record.stored, _word),
        "key": record.key_hex8[:8] if record.key_hex8 is not None else None,
        "duration_ms": round(record.duration_s * 1000, 3),
        "overhead_ms": round(record.overhead_s * 1000, 3),
        "cost_usd": _or_none(record.paid_pd, usd),
        "saved_usd": _or_none(record.saved_pd, usd),
        "plan": record.plan,
        "rewrites": record.rewrites,
        "aborted": record.aborted,
        "error": record.error,
        "trace_id": record.trace_id,
    }
    if usage is not None:
        line["uncached_input"] = usage.uncached_input
        line["cache_read"] = usage.cache_read
        line["cache_write_5m"] = usage.cache_write_5m
        line["cache_write_1h"] = usage.cache_write_1h
        line["output"] = usage.output
    if prompt_cache is not None:
        line["cache_expected"] = prompt_cache.expected
        if (miss := prompt_cache.miss) is not None:
            line["cache_miss"], line["cache_lost"] = miss.cause.value, miss.lost_tokens
            line["cache_miss_kind"] = miss.kind or None
            line["cache_miss_path"] = miss.path or None
    told = {name: value for name, value in line.items() if value is not None}
    _Requests.log.log(level, "request", **told)


def _or_none(value: _T | None, told: Callable[[_T], object]) -> object:
    return None if value is None else told(value)


def _word(value: Enum) -> object:
    return value.value


class _Lines:
    """Lines without secrets."""

    def __init__(self, outlet: Outlet, secrets: Collection[str] = ()) -> None:
        self._outlet = outlet
        # The longest first: one may begin with another. As JSON spells them, too.
        spelled = {form for each in secrets for form in (each, orjson.dumps(each).decode()[1:-1])}
        longest = sorted(spelled, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, longest))) if longest else None
        with suppress(OSError, ValueError):
            self.is_terminal = outlet.stream.isatty()

    is_terminal = False

    def msg(self, message: str) -> None:
        """What structlog and the stdlib handler both end in."""
        if self._secrets is not None:
            message = self._secrets.sub(MASK, message)
        self._outlet.write(message + "\n")

    debug = info = warning = warn = error = critical = exception = fatal = log = msg


class _StdlibHandler(logging.Handler):
    """Hands the records of `logging` to the same lines."""

    def __init__(self, out: _Lines) -> None:
        super().__init__()
        self._out = out

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(_sparse(record))
        except Exception:  # noqa: BLE001 - somebody's log call is wrong; ours must go on
            self._out.msg(f"unreadable log record from {record.name}")
        else:
            self._out.msg(line)


def _sparse(record: logging.LogRecord) -> logging.LogRecord:
    """A library's record without the text that it put in: that may be a URL with its query, a header,
    an error's words. Numbers stay.
    """
    if record.name.startswith(_OURS):
        return record
    args = record.args
    shown: Any = args
    if isinstance(args, tuple):
        shown = tuple(map(_shown, args))
    elif args:
        shown = {name: _shown(value) for name, value in args.items()}
    told = logging.makeLogRecord(record.__dict__)
    # asyncio writes the failed task, and with it the error's words, on lines of their own.
    first, _, more = str(record.msg).partition("\n")
    told.msg, told.args = first[:_LINE_LIMIT], None if more else shown
    told.exc_text = told.stack_info = None
    return told


def _shown(value: object) -> object:
    if isinstance(value, BaseException):
        return tracebacks.kind(value)
    return value if isinstance(value, int | float) or value is None else "..."


class _Sparingly(logging.Filter):
    """Lets each message of a chatty library through once a minute, whatever its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(_CHATTY):
            return True
        key = (record.name, str(record.msg))
        now = time.monotonic()
        if now - self._last.get(key, -_REPEAT_S) < _REPEAT_S:
            return False
        if len(self._last) >= 256:
            self._last.clear()
        self._last[key] = now
        record.exc_info = None
        record.exc_text = None
        return True


def _console(out: _Lines) -> list[structlog.typing.Processor]:
    colors = (out.is_terminal or "FORCE_COLOR" in os.environ) and "NO_COLOR" not in os.environ
    return [
        structlog.dev.ConsoleRenderer(
            colors=colors,
            timestamp_key="ts",
            exception_formatter=tracebacks.to_terminal,
        )
    ]


def _to_json(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    """One JSON object; members that orjson can't write become text."""
    try:
        return orjson.dumps(event, default=str).decode()
    except TypeError:
        return orjson.dumps(_as_text(event)).decode()


def _as_text(event: Mapping[str, Any]) -> dict[str, str]:
    return {plain(str(name)): ascii(value) for name, value in event.items()}

"""What nobody catches, in the main thread, in others and in finalizers: a line of the log, in the place
of Python's own traceback, which prints what the error says.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from types import TracebackType

_log = structlog.get_logger("warmgate.uncaught")


def hear_uncaught() -> None:
    """From now on. May be called again."""
    sys.excepthook = _main
    threading.excepthook = _thread
    sys.unraisablehook = _unraisable


def _main(_: type[BaseException], problem: BaseException, __: TracebackType | None) -> None:
    _log.critical("the gateway ends: nobody caught this", exc_info=problem)


def _thread(arguments: threading.ExceptHookArgs) -> None:
    name = arguments.thread.name if arguments.thread is not None else None
    if not isinstance(arguments.exc_value, SystemExit):
        _log.error("a thread ended", thread=name, exc_info=arguments.exc_value or True)


def _unraisable(arguments: sys.UnraisableHookArgs) -> None:
    _log.error("an object could not be let go cleanly", exc_info=arguments.exc_value or True)

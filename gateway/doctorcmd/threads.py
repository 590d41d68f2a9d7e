"""Threads that nobody waits for: a resolver that hangs does so beyond every deadline of ours."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class LostThreads(ThreadPoolExecutor):
    """One thread for each call. What was given up keeps neither the loop nor the process from its end.

    (The usual one is joined at the end, and `getaddrinfo` with several search domains takes a minute.)
    """

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Begin it at once."""
        future: Future[T] = Future()
        Thread(target=_work, args=(future, fn, args, kwargs), daemon=True).start()
        return future


def _work(
    future: Future[Any], fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(fn(*args, **kwargs))
    except BaseException as problem:  # noqa: BLE001 - it is the caller's, wherever it waits
        future.set_exception(problem)

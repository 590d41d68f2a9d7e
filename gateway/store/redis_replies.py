"""What an error of Redis means for us: a word for logs and metrics, and what follows from it."""

from __future__ import annotations

import ssl
from typing import NamedTuple

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError


class Trouble(NamedTuple):
    """What went wrong."""

    reason: str
    """One word: full, late, loading, ..."""
    is_away: bool
    """The server is of no use to anybody now: it counts towards the breaker. Otherwise it is
    alive and only says no to this command."""
    look_again: bool
    """Another server may have its place: ask where the servers are."""


LATE = Trouble("late", is_away=True, look_again=True)
TLS = Trouble("tls", is_away=True, look_again=False)
GONE = Trouble("unreachable", is_away=True, look_again=True)

# The first line that matches counts: subclasses come before their parents.
_MEANING: tuple[tuple[type[BaseException], Trouble], ...] = (
    # A full server still has what it has: lookups go on.
    (OutOfMemoryError, Trouble("full", is_away=False, look_again=False)),
    # A primary that was made a replica; or the name now points to another server.
    (ReadOnlyError, Trouble("read_only", is_away=False, look_again=True)),
    (NoPermissionError, Trouble("not_permitted", is_away=False, look_again=False)),
    (MasterDownError, Trouble("primary_lost", is_away=True, look_again=True)),
    # It answers at once and will answer again as soon as the cluster is whole: no pause.
    (ClusterDownError, Trouble("cluster_down", is_away=False, look_again=True)),
    (TryAgainError, Trouble("moving", is_away=False, look_again=False)),
    # MOVED is one too. Followed; here is what could not be followed any further.
    (AskError, Trouble("moving", is_away=False, look_again=True)),
    (BusyLoadingError, Trouble("loading", is_away=True, look_again=False)),
    (AuthenticationError, Trouble("not_authenticated", is_away=True, look_again=False)),
    (AuthorizationError, Trouble("not_authenticated", is_away=True, look_again=False)),
    (ResponseError, Trouble("refused", is_away=False, look_again=False)),
    (TimeoutError, LATE),
    (RedisTimeoutError, LATE),
)


def judge(error: BaseException) -> Trouble:
    """What the error means; one that is not known is a server that can't be reached."""
    for kind, trouble in _MEANING:
        if isinstance(error, kind):
            return trouble
    # redis-py puts the TLS error into the text of its own, and leaves it as the context.
    cause = error.__cause__ or error.__context__
    if isinstance(error, ssl.SSLError) or isinstance(cause, ssl.SSLError):
        return TLS
    return GONE


def in_words(error: BaseException) -> str:
    """For logs: the kind and what it says."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

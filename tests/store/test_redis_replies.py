from __future__ import annotations

import ssl

import pytest
from redis import exceptions
from redis._parsers.base import BaseParser

from gateway.store.connections import SlowHandshake
from gateway.store.redis_replies import in_words, judge


@pytest.mark.parametrize(
    ("line", "reason", "is_away", "look_again"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", "full", False, False),
        ("READONLY You can't write against a read only replica.", "read_only", False, True),
        ("LOADING Redis is loading the dataset in memory", "loading", True, False),
        ("MASTERDOWN Link with MASTER is down", "primary_lost", True, True),
        ("CLUSTERDOWN The cluster is down", "cluster_down", False, True),
        ("CLUSTERDOWN Hash slot not served", "cluster_down", False, True),
        ("MOVED 3999 127.0.0.1:6381", "moving", False, True),
        ("ASK 3999 127.0.0.1:6381", "moving", False, True),
        ("TRYAGAIN Multiple keys request during rehashing of slot", "moving", False, False),
        ("NOAUTH Authentication required.", "not_authenticated", True, False),
        ("WRONGPASS invalid username-password pair", "not_authenticated", True, False),
        ("NOPERM this user has no permissions", "not_permitted", False, False),
        ("WRONGTYPE Operation against a key", "refused", False, False),
        ("MISCONF Redis is configured to save RDB snapshots", "refused", False, False),
        ("BUSY Redis is busy running a script", "refused", False, False),
        ("ERR max number of clients reached", "unreachable", True, True),
    ],
)
def test_each_error_line_has_its_meaning(
    line: str, reason: str, is_away: bool, look_again: bool
) -> None:
    assert judge(BaseParser.parse_error(line)) == (reason, is_away, look_again)  # type: ignore[no-untyped-call] # redis-py


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), "late"),
        (exceptions.TimeoutError(), "late"),
        (exceptions.ConnectionError("refused"), "unreachable"),
        (ConnectionResetError(), "unreachable"),
        (ssl.SSLError("bad"), "tls"),
        (RuntimeError("anything"), "unreachable"),
        (SlowHandshake(), "unreachable"),
    ],
)
def test_what_is_no_reply_has_a_meaning_too(error: Exception, reason: str) -> None:
    assert judge(error).reason == reason


def test_the_tls_error_behind_redis_pys_own_is_seen() -> None:
    error = exceptions.ConnectionError("Error 1 connecting")
    error.__context__ = ssl.SSLCertVerificationError("expired")
    assert judge(error).reason == "tls"


def test_an_error_without_words_is_its_kind() -> None:
    assert in_words(TimeoutError()) == "TimeoutError"
    assert in_words(ValueError("bad")) == "ValueError: bad"

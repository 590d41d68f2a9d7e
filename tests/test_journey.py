"""How a request names its conversation, and whose it is."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from gateway.journey import SESSION_HEADERS, session_of, session_said


@pytest.mark.parametrize("name", SESSION_HEADERS)
def test_each_of_the_headers_names_a_conversation_in_any_case(name: str) -> None:
    assert session_said(CIMultiDict({name.upper(): "it"})) == "it"


def test_our_own_header_counts_first_and_a_thread_before_its_session() -> None:
    said = {"session-id": "many threads", "thread-id": "one", "x-gateway-session": "ours"}
    assert session_said(CIMultiDict(said)) == "ours"
    del said["x-gateway-session"]
    assert session_said(CIMultiDict(said)) == "one"


@pytest.mark.parametrize("value", ["", "x" * 257])
def test_an_empty_name_or_a_very_long_one_is_none(value: str) -> None:
    assert session_said(CIMultiDict({"x-session-id": value})) == ""


def test_what_names_a_user_or_a_cache_is_no_conversation() -> None:
    others = {"x-user-id": "u", "x-request-id": "r", "prompt_cache_key": "k", "cookie": "c"}
    assert session_said(CIMultiDict(others)) == ""


def test_two_credentials_never_share_a_conversation() -> None:
    one, other = session_of("same", b"one key"), session_of("same", b"other key")
    assert one != other
    assert one == session_of("same", b"one key")
    assert 0 < one < 1 << 64

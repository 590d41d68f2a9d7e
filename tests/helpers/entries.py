"""Entries for tests."""

from __future__ import annotations

from typing import Any

from gateway.core.model import Entry, Form, Usage


def entry(**changes: Any) -> Entry:
    """A plausible entry; name what matters to the test."""
    members: dict[str, Any] = {
        "api": "openai_chat",
        "recorded": Form.BODY,
        "forms": frozenset({Form.BODY, Form.STREAM}),
        "payload": b'{"id":"chatcmpl-1"}',
        "stored_at": 1_000_000.25,
        "ttl_s": 3600.0,
        "model": "gpt-5.2",
        "response_id": "chatcmpl-1",
        "usage": Usage(uncached_input=11, cache_read=5, output=3),
        "has_stream_usage": True,
    }
    return Entry(**members | changes)

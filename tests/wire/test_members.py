"""A member more, every other byte as it was."""

from __future__ import annotations

import orjson
import pytest

from gateway.wire.members import with_member


@pytest.mark.parametrize(
    "body", [b'{"a":1}', b'  {\n  "a" : 1.0,\t"b": "\\u00e9" }\n', b'{ "a":{}}']
)
def test_the_rest_of_the_body_stays_as_it_was_spelled(body: bytes) -> None:
    made = with_member(body, "key", 'a "quoted" value')

    assert orjson.loads(made) == {**orjson.loads(body), "key": 'a "quoted" value'}
    at = body.index(b"{") + 1
    assert made.startswith(body[:at])
    assert made.endswith(body[at:])

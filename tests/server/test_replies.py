"""Answers of our own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest

from gateway import __version__
from gateway.errors import BodyTooLarge, NotFound, UpstreamBroken
from gateway.server import replies
from gateway.wire.table import ANTHROPIC_MESSAGES, OPENAI_CHAT

if TYPE_CHECKING:
    from gateway.errors import GatewayError
    from gateway.wire.base import WireApi


@pytest.mark.parametrize("api", [OPENAI_CHAT, ANTHROPIC_MESSAGES])
@pytest.mark.parametrize(
    ("problem", "retry"),
    [(NotFound("nothing"), "false"), (BodyTooLarge("big"), "false"), (UpstreamBroken("x"), None)],
)
def test_an_error_is_told_in_the_apis_shape(
    api: WireApi, problem: GatewayError, retry: str | None
) -> None:
    answer = replies.error(problem, api, "gw_1")
    assert answer.status == problem.status
    assert answer.content_type == "application/json"
    assert answer.headers["x-gateway-request-id"] == "gw_1"
    # None leaves it to the SDKs, as it would be without us.
    assert answer.headers.get("x-should-retry") == retry
    assert isinstance(answer.body, bytes)
    assert orjson.loads(answer.body)["error"]["message"].startswith(problem.message)


def test_the_page_at_the_root_says_who_answers() -> None:
    answer = replies.index()
    assert isinstance(answer.body, bytes)
    told = orjson.loads(answer.body)
    assert (told["name"], told["version"]) == ("warmgate", __version__)

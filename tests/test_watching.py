"""What stands behind a value, and what watching a hostile prompt may take."""

from __future__ import annotations

import time
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from gateway.core.blocks import tokens
from gateway.core.sightings import Effort, Sightings
from gateway.core.volatile_traffic import VolatileTraffic
from gateway.watching import Behind, Watching, tokens_behind
from gateway.wire.rewriting import Asker, Rewriter
from gateway.wire.system_text import Lead, SystemText
from gateway.wire.table import APIS

if TYPE_CHECKING:
    from gateway.turn import Turn

ASKER = Asker("anthropic_messages", b"domain", "upstream", "/v1/messages")


@pytest.mark.parametrize("text", ["plain text " * 7, "größer als ASCII \ud800 " * 7, ""])
def test_tokens_behind_are_those_of_the_rest(text: str) -> None:
    for end in range(len(text) + 1):
        assert tokens_behind(text, end) == tokens(text[end:])


@pytest.mark.parametrize("value", ["current date: 2024-11-20 ", "current date: 2024-11-20\n\n"])
@pytest.mark.parametrize("pieces", [1, 40])
def test_a_prompt_made_of_values_holds_the_loop_no_longer_than_any_other(
    value: str, pieces: int
) -> None:
    text = value * (10_000 // pieces)
    lead = Lead(tuple(SystemText(("system", n, "text"), text) for n in range(pieces)), "", True)
    rewriter, sightings = Rewriter(VolatileTraffic()), Sightings()
    for _ in range(3):
        find = partial(sightings.find, effort=Effort())
        began = time.thread_time()
        seen = rewriter.seen(lead, ASKER, Behind(lead, lambda: 0), find)
        # It was ten seconds; a hundredth of that is still many times what it takes.
        assert time.thread_time() - began < 1.0
        assert len(seen) < 300


def test_a_body_that_recognition_could_not_read_is_none_of_ours() -> None:
    turn = SimpleNamespace(
        api=APIS["/v1/messages"], body=b"\x1f\x8b encoded", known=SimpleNamespace(ask=None)
    )
    watching = Watching(Rewriter(VolatileTraffic()), lambda: 0.0)
    assert watching.watch(cast("Turn", turn), lambda: b"domain") is None

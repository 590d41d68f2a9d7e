"""What becomes of an answer that may be kept: one entry, or one for each input of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.model import Reason
from gateway.core.policy import Keep, after_response
from gateway.wire import openai_embeddings_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.cache import ResponseCache
    from gateway.core.model import Answer
    from gateway.door import Parts
    from gateway.turn import Turn


def keep(
    cache: ResponseCache,
    turn: Turn,
    answer: Answer,
    pace: Callable[[], tuple[int, ...]],
    on_stored: Callable[[], None] | None = None,
) -> bool:
    """Store the answer, behind the response; see `ResponseCache.keep`."""
    parts = turn.known.batch
    if parts is None:
        return cache.keep(turn, answer, pace, on_stored)
    answers = openai_embeddings_answer.answer_parts(answer.payload, parts.batch.units)
    if answers is None:
        cache.skip(turn.exchange, Reason.UNREADABLE)
        return False
    positions = range(len(answers))
    return keep_units(
        cache, turn, parts, positions, answers, whole=answer.payload, on_stored=on_stored
    )


def keep_units(
    cache: ResponseCache,
    turn: Turn,
    parts: Parts,
    positions: Iterable[int],
    answers: list[Answer],
    *,
    whole: bytes,
    on_stored: Callable[[], None] | None = None,
) -> bool:
    """Keep each unit's own answer, and what the whole said beside the embeddings."""
    assert turn.known.ask is not None
    assert turn.lookup is not None
    kept = [
        (parts.units[position][0], answer)
        for position, answer in zip(positions, answers, strict=True)
    ]
    kept.append((parts.frame[0], openai_embeddings_answer.frame_of(whole)))
    decision = after_response(answers[0], turn.known.ask, turn.policy, write=turn.lookup.write)
    if isinstance(decision, Keep):
        return cache.put_all(turn, kept, decision.ttl_s, on_stored)
    cache.skip(turn.exchange, decision.reason)
    return False

"""OpenAI Embeddings, input by input: what a request asks, and what is left to ask.

Rule 1: a batch is cut into its inputs only if the provider's table has every other member of the
request: one that we don't know may bind the inputs to each other.
Rule 2: an input alone and a list of it are one unit: their answers have one shape, and a vector
depends on nothing but its input and the envelope.
Rule 3: what is still to be asked is asked in the client's own bytes; only `input` gets shorter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core.model import Ask, Form, Question, Reason
from gateway.wire import envelope, openai_answer, openai_embeddings_answer, spans
from gateway.wire.base import NotUnderstood
from gateway.wire.openai_embeddings_answer import Unit
from gateway.wire.openai_inputs import is_several, is_tokens

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from gateway.core.canonical import Json
    from gateway.core.mint import Mint
    from gateway.core.model import Answer, Entry
    from gateway.providers.base import ApiRules

# "Any array must be 2048 dimensions or less": a longer one is the upstream's to refuse.
MAX_INPUTS = 2048


@dataclass(frozen=True, slots=True)
class Batch:
    """A request that was understood: the units it asks for, in its order, repeated ones too."""

    ask: Ask
    units: tuple[Unit, ...]
    canonical: bytes
    """Of the whole request; the same as that of its unit where there is only one."""
    frame: bytes
    """Stands for what the answer to this very batch said beside its embeddings. Is never equal
    to the canonical form of a request."""

    def missing(self, known: Collection[bytes]) -> list[int]:
        """The positions of the units to ask for, each meaning once, where the canonical forms of
        those that needn't be asked are `known`.
        """
        first: dict[bytes, int] = {}
        for position, unit in enumerate(self.units):
            if unit.canonical not in known:
                first.setdefault(unit.canonical, position)
        return list(first.values())


def understand(body: bytes, rules: ApiRules) -> Batch:
    """The batch that a request body asks for. Raises `NotUnderstood`."""
    request = envelope.parse_object(body)
    model = envelope.text(request, "model", "$")
    given = request.pop("input", None)
    alone = isinstance(given, str) or is_tokens(given)
    inputs = [given] if alone else given
    if not isinstance(inputs, list) or not is_several(inputs) or "" in inputs:
        raise NotUnderstood(Reason.NOT_UNDERSTOOD, "$.input", "neither texts nor tokens")
    if len(inputs) > MAX_INPUTS:
        raise NotUnderstood(Reason.NOT_UNDERSTOOD, "$.input", f"more than {MAX_INPUTS} inputs")
    inputs = [envelope.prompt_text(each, rules) for each in inputs]
    whole = inputs[0] if alone else inputs
    head = envelope.render(envelope.fold_top(request, rules, {}))
    independent = request.keys() <= rules.scalars.keys() | rules.excluded.keys()
    if independent:
        units = tuple(_unit(head, each) for each in inputs)
    else:
        units = (Unit(_canonical(head, "inputs", whole), size=len(inputs)),)
    return Batch(
        ask=Ask(form=Form.BODY, model=model, deterministic=True),
        units=units,
        canonical=units[0].canonical if len(units) == 1 else _canonical(head, "inputs", whole),
        frame=_canonical(head, "frame", inputs),
    )


def _unit(head: bytes, given: Json) -> Unit:
    tokens = len(given) if isinstance(given, list) else None
    return Unit(_canonical(head, "input", given), tokens=tokens)


def _canonical(head: bytes, name: str, value: Json) -> bytes:
    return b'{"envelope":%b,"%b":%b}' % (head, name.encode(), envelope.render(value))


def remaining(body: bytes, batch: Batch, missing: Sequence[int]) -> bytes:
    """The request for the `missing` units (positions, ascending) of the batch that this body was
    understood as: every byte as it was but for the inputs that are left out.
    """
    if len(missing) == len(batch.units):
        return body
    text = body.decode()
    # Only a list of several inputs has more than one unit.
    given = spans.locate(text, 2).members["input"]
    left = ",".join(given.items[position].of(text) for position in missing)
    return spans.replaced(text, [(given, f"[{left}]")]).encode()


class OpenAIEmbeddings:
    """`POST /v1/embeddings`, as far as a request of one unit is like any other: understood,
    kept and served whole. For those of several units see `understand` and `remaining` above, and
    `openai_embeddings_answer`.
    """

    name = "openai_embeddings"
    route = "/v1/embeddings"
    operation = "embeddings"
    request_id_header = "x-request-id"

    def understand(self, body: bytes, rules: ApiRules) -> Question:
        """See `WireApi.understand`."""
        batch = understand(body, rules)
        return Question(ask=batch.ask, canonical=batch.canonical)

    def with_stream_usage(
        self,
        body: bytes,  # noqa: ARG002 - a WireApi
        ask: Ask,  # noqa: ARG002
        rules: ApiRules,  # noqa: ARG002
    ) -> bytes | None:
        """See `WireApi.with_stream_usage`: embeddings don't stream."""
        return None

    def without_unasked_usage(self, event: bytes) -> bytes:
        """See `WireApi.without_unasked_usage`: embeddings don't stream."""
        return event

    def answer_id(self, event: bytes) -> str:  # noqa: ARG002 - the protocol's
        """See `WireApi.answer_id`: there is none, and no stream."""
        return ""

    def read_body(self, document: bytes, rules: ApiRules) -> Answer:  # noqa: ARG002 - a WireApi
        """See `WireApi.read_body`."""
        return openai_embeddings_answer.read_body(document)

    def read_stream(self, events: bytes, rules: ApiRules) -> Answer:  # noqa: ARG002 - a WireApi
        """See `WireApi.read_stream`: a stream is nothing that this API documents."""
        return openai_embeddings_answer.unreadable(Form.STREAM, events)

    def can_serve(self, entry: Entry, ask: Ask) -> bool:
        """See `WireApi.can_serve`."""
        return ask.form in entry.forms

    def serve(self, entry: Entry, ask: Ask, mint: Mint, rules: ApiRules) -> bytes:  # noqa: ARG002
        """See `WireApi.serve`."""
        return openai_embeddings_answer.renewed(entry.payload, mint)

    def error(self, status: int, message: str, code: str, param: str | None) -> bytes:
        """See `WireApi.error`."""
        return openai_answer.error(status, message, code, param)

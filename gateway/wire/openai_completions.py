"""OpenAI Completions (prompt in, text out): what a request asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.model import Ask, Form, Question, Reason
from gateway.wire import envelope, lenient, live, openai_answer, openai_chunks
from gateway.wire.base import NotUnderstood
from gateway.wire.openai_completions_answer import CompletionShape
from gateway.wire.openai_inputs import is_several, is_tokens

if TYPE_CHECKING:
    from gateway.core.canonical import Json
    from gateway.core.mint import Mint
    from gateway.core.model import Answer, Entry
    from gateway.providers.base import ApiRules
    from gateway.wire.envelope import Object

_SHAPE = CompletionShape()


class OpenAICompletions:
    """`POST /v1/completions`."""

    name = "openai_completions"
    route = "/v1/completions"
    operation = "text_completion"
    request_id_header = "x-request-id"

    def understand(self, body: bytes, rules: ApiRules) -> Question:
        """See `WireApi.understand`.

        The prompt stays as it is spelled: that "x" and ["x"] get the same answer is documented
        nowhere. A prompt that is missing or null has a meaning of its own.
        """
        request = envelope.parse_object(body)
        model = envelope.text(request, "model", "$")
        if not _is_prompt(request.get("prompt")):
            raise NotUnderstood(Reason.NOT_UNDERSTOOD, "$.prompt", "no text, no tokens, no list")
        options = request.get("stream_options")
        form = Form.STREAM if envelope.flag(request, "stream") else Form.BODY
        if form is Form.STREAM and not _may_stream(request):
            raise NotUnderstood(Reason.NOT_UNDERSTOOD, "$.best_of", "documented as not streamed")
        return Question(
            ask=Ask(
                form=form,
                model=model,
                include_usage=rules.usage_always is not None
                or (isinstance(options, dict) and options.get("include_usage") is True),
                may_add_usage="stream_options" not in request and rules.stream_usage is not None,
                max_output_tokens=envelope.whole(request.get("max_tokens")),
                deterministic=envelope.number(request.get("temperature")) == 0.0
                or request.get("seed") is not None,
            ),
            canonical=envelope.render(
                envelope.fold_top(
                    request,
                    rules,
                    {
                        "prompt": lambda prompt: _prompt(prompt, rules),
                        "suffix": lambda suffix: envelope.prompt_text(suffix, rules),
                    },
                )
            ),
            pass_reason=_pass_reason(request, model),
        )

    def with_stream_usage(self, body: bytes, ask: Ask, rules: ApiRules) -> bytes | None:
        """See `WireApi.with_stream_usage`."""
        return openai_chunks.with_usage(body, ask, rules)

    def without_unasked_usage(self, event: bytes) -> bytes:
        """See `WireApi.without_unasked_usage`."""
        return openai_chunks.without_usage(event)

    def answer_id(self, event: bytes) -> str:
        """See `WireApi.answer_id`."""
        return live.member(event, "id")

    def read_body(self, document: bytes, rules: ApiRules) -> Answer:
        """See `WireApi.read_body`."""
        return openai_answer.read_body(document, rules, _SHAPE)

    def read_stream(self, events: bytes, rules: ApiRules) -> Answer:
        """See `WireApi.read_stream`."""
        return openai_answer.read_stream(events, rules, _SHAPE)

    def can_serve(self, entry: Entry, ask: Ask) -> bool:
        """See `WireApi.can_serve`."""
        return openai_answer.can_serve(entry, ask)

    def serve(self, entry: Entry, ask: Ask, mint: Mint, rules: ApiRules) -> bytes:
        """See `WireApi.serve`."""
        return openai_answer.serve(entry, ask, mint, rules, _SHAPE)

    def error(self, status: int, message: str, code: str, param: str | None) -> bytes:
        """See `WireApi.error`."""
        return openai_answer.error(status, message, code, param)


def _is_prompt(prompt: Json) -> bool:
    """Text, tokens, a list of texts, a list of lists of tokens, or nothing."""
    if prompt is None or isinstance(prompt, str) or is_tokens(prompt):
        return True
    return is_several(prompt)


def _prompt(prompt: Json, rules: ApiRules) -> Json:
    """The prompt as it is keyed. White space at its very end is never folded: it is what the
    answer goes on from, the indentation of its first line for one.
    """
    if isinstance(prompt, list):
        return [_prompt(each, rules) for each in prompt]
    if rules.fold_text is None or not isinstance(prompt, str):
        return prompt
    text = prompt.rstrip(" \t")
    return lenient.text(envelope.prompt_text(text, rules)) + prompt[len(text) :]


def _may_stream(request: Object) -> bool:
    """`best_of`: "Results cannot be streamed". The refusal of it is the upstream's to make, not
    ours to hide behind an answer that was stored whole.
    """
    best_of = request.get("best_of")
    return best_of is None or envelope.whole(best_of) == 1


def _pass_reason(request: Object, model: str) -> Reason | None:
    if (kept := envelope.stored_reason(request, model)) is not None:
        return kept
    if envelope.is_search_model(model):
        return Reason.SEARCH_MODEL
    return Reason.HOSTED_TOOL if envelope.has_search_switch(request) else None

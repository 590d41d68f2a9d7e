"""What every wire API can do. Pure: bytes and data in, bytes and data out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gateway.core.mint import Mint
    from gateway.core.model import Answer, Ask, Entry, Question, Reason
    from gateway.providers.base import ApiRules


class NotUnderstood(Exception):
    """The body is not one that this API's documentation describes: pass it through untouched.

    `reason` is `NOT_UNDERSTOOD` or `UNCACHEABLE_JSON`; `where` a JSON path for people.
    """

    def __init__(self, reason: Reason, where: str, what: str) -> None:
        """Remember why (`reason`), at which JSON path (`where`), in words (`what`)."""
        super().__init__(f"{where}: {what}")
        self.reason = reason
        self.where = where
        self.what = what


class Unmergeable(Exception):
    """A stream and a document that don't say the same; `str()` says where."""


class WireApi(Protocol):
    """One request/response format, such as OpenAI's Chat Completions."""

    name: str
    """The module's name: `openai_chat`, `anthropic_messages`."""
    route: str
    """The path that speaks it: `/v1/chat/completions`."""
    request_id_header: str
    """Where its SDKs read the request id of a response: `x-request-id`."""
    operation: str
    """`gen_ai.operation.name` of its calls: `chat`, ..."""

    def understand(self, body: bytes, rules: ApiRules) -> Question:
        """What the request asks, in canonical form. Raises `NotUnderstood`."""

    def with_stream_usage(self, body: bytes, ask: Ask, rules: ApiRules) -> bytes | None:
        """The body changed to ask for the usage event too, or None where that needs no change or
        is not allowed by the provider's table. Every other byte stays as it was.
        """

    def without_unasked_usage(self, event: bytes) -> bytes:
        """This raw SSE event (with its closing blank line) without what only `with_stream_usage`
        brought, as the client is to get it; empty where that is all of it.
        """

    def answer_id(self, event: bytes) -> str:
        """The answer's own id, where this raw SSE event says it; else ""."""

    def read_body(self, document: bytes, rules: ApiRules) -> Answer:
        """Judge a whole JSON answer. Never raises: what can't be read is Finish.UNKNOWN."""

    def read_stream(self, events: bytes, rules: ApiRules) -> Answer:
        """Judge a whole recorded SSE text. Never raises."""

    def can_serve(self, entry: Entry, ask: Ask) -> bool:
        """Whether the entry can be given in the form (and with the usage event) asked for."""

    def serve(self, entry: Entry, ask: Ask, mint: Mint, rules: ApiRules) -> bytes:
        """The entry's answer in the asked form: a JSON document or a whole SSE text, with fresh
        response id and creation time, and tool-call ids replaced where `ask.history_ids` has them.
        """

    def error(self, status: int, message: str, code: str, param: str | None) -> bytes:
        """Our own error as the API's SDKs expect it (JSON)."""

"""Sends one question and times its answer.

Rule 1: every wait has an end, `timeout_s` for the whole answer.
Rule 2: a Warmgate on the way may not answer from its response cache, nor store: what is measured is
the engine. `Cache-Control` says so with every request.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import orjson

from gateway.benchcmd.dialect import Heard
from gateway.core import sse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.benchcmd.dialect import Dialect, Message

PAST_CACHES = "no-cache, no-store"
_EVENT_BYTES = 4 << 20
_REFUSAL_BYTES = 64 << 10
_SHOWN = 300


class Trouble(Exception):
    """Nothing can be measured: the endpoint is not there, or isn't what it was said to be."""


class Failed(Exception):
    """One request that was not answered; its text says why."""


class Refused(Failed):
    """The server won't have this request, now or later (a 4xx other than 408 and 429)."""


@dataclass(frozen=True, slots=True)
class Timed:
    """One answer. Times are in seconds."""

    ttft_s: float
    """From sending to the first part of the answer: text, thoughts or a call."""
    seconds: float
    """To its end."""
    output_tokens: int
    """As the server says, else how many parts came."""
    tokens_per_s: float | None
    """Behind its first piece; None where there was only one, or all came at once."""
    prompt_tokens: int | None
    cached_tokens: int | None
    """None where the server doesn't tell."""
    text: str


class Asker:
    """`async with Asker(...) as asker:` one endpoint and model, asked as often as one likes."""

    def __init__(
        self,
        base_url: str,
        dialect: Dialect,
        *,
        key: str | None,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.base_url = base_url
        self.model = ""
        self.tells_cached = False
        """Some answer said how many tokens were cached: where one doesn't, there were none."""
        self.tells_usage = False
        self.streams = True
        """False once an answer came in one piece."""
        self._dialect = dialect
        self._headers = {
            **dialect.headers(key),
            "Cache-Control": PAST_CACHES,
            **(headers or {}),
        }
        self._timeout_s = timeout_s
        # Connections are kept: making one is the first request's alone.
        self._kept: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        def session(*, fresh: bool) -> aiohttp.ClientSession:
            return aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, force_close=fresh),
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                headers={"User-Agent": "warmgate-bench"},
            )

        self._kept, self._fresh = session(fresh=False), session(fresh=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in (self._kept, self._fresh):
            if session is not None:
                await session.close()

    async def first_model(self) -> str:
        """The first that the endpoint lists. Raises Trouble."""
        assert self._kept is not None
        url = f"{self.base_url}/models"
        try:
            async with self._kept.get(url, headers=self._headers) as answer:
                text = await _some(answer)
                if answer.status != 200:
                    raise Trouble(
                        f"{url} answers {answer.status}: {_shown(text)}; say --model if there is no list"
                    )
                listed = orjson.loads(text)["data"]
                return str(listed[0]["id"])
        except (aiohttp.ClientError, OSError, TimeoutError) as problem:
            raise Trouble(f"{url} can't be reached: {_why(problem, self._timeout_s)}") from problem
        except (ValueError, LookupError, TypeError) as problem:
            raise Trouble(f"{url} lists no model: say --model") from problem

    async def ask(self, messages: list[Message], max_tokens: int) -> Timed:
        """Ask, and read the answer to its end. Raises Failed."""
        while True:
            try:
                return await self._ask(messages, max_tokens)
            except Refused as refused:
                if not self._dialect.yields(str(refused)):
                    raise

    async def _ask(self, messages: list[Message], max_tokens: int) -> Timed:
        assert self._kept is not None
        assert self._fresh is not None
        body = orjson.dumps(self._dialect.body(self.model, messages, max_tokens))
        try:
            return await self._send(self._kept, body)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as problem:
            if isinstance(problem, aiohttp.ClientConnectorError):
                raise Failed(_why(problem, self._timeout_s)) from problem
            # It may have been a kept connection that the server closes at that moment; llama.cpp's
            # does so after each stream. A new one tells.
        except (aiohttp.ClientError, OSError, TimeoutError) as problem:
            raise Failed(_why(problem, self._timeout_s)) from problem
        try:
            return await self._send(self._fresh, body)
        except (aiohttp.ClientError, OSError, TimeoutError) as problem:
            raise Failed(_why(problem, self._timeout_s)) from problem

    async def _send(self, session: aiohttp.ClientSession, body: bytes) -> Timed:
        began = perf_counter()
        async with session.post(
            f"{self.base_url}{self._dialect.path}",
            data=body,
            headers={**self._headers, "Content-Type": "application/json"},
            allow_redirects=False,
        ) as answer:
            if answer.status != 200:
                raise _refusal(answer.status, await _some(answer))
            return await self._read(answer, began)

    async def _read(self, answer: aiohttp.ClientResponse, began: float) -> Timed:
        heard = Heard()
        first: float | None = None
        last = began
        splitter = sse.Splitter(_EVENT_BYTES)
        if "json" in answer.content_type:
            self.streams = False
            _take(self._dialect, await answer.read(), heard)
            first = last = perf_counter()
        else:
            async for part in answer.content.iter_any():
                now = perf_counter()
                for raw in splitter.feed(part):
                    for _, data in sse.events(raw):
                        if _take(self._dialect, data, heard):
                            first, last = first or now, now
        ended = perf_counter()
        if heard.error:
            raise Failed(f"the answer broke off: {_shown(heard.error.encode())}")
        if first is None:
            if heard.output_tokens is None:
                raise Failed("the answer holds neither text nor usage")
            # Its tokens were not printable: the end is all that can be timed.
            first = last = ended
        tokens = heard.pieces if heard.output_tokens is None else heard.output_tokens
        self.tells_usage = self.tells_usage or heard.prompt_tokens is not None
        self.tells_cached = self.tells_cached or heard.cached_tokens is not None
        return Timed(
            ttft_s=first - began,
            seconds=ended - began,
            output_tokens=tokens,
            tokens_per_s=_rate(tokens, heard.pieces, last - first),
            prompt_tokens=heard.prompt_tokens,
            cached_tokens=heard.cached_tokens,
            text="".join(heard.text),
        )


def _take(dialect: Dialect, data: bytes, heard: Heard) -> bool:
    if not data.startswith(b"{"):
        return False
    try:
        event: Any = orjson.loads(data)
    except ValueError:
        return False
    return dialect.hear(event, heard)


def _rate(tokens: int, pieces: int, seconds: float) -> float | None:
    """Tokens per second behind the first piece; servers put several tokens into one."""
    if pieces < 2 or tokens < 2 or seconds <= 0.0:
        return None
    return tokens * (pieces - 1) / pieces / seconds


def _refusal(status: int, text: bytes) -> Failed:
    said = f"status {status}: {_shown(text)}"
    final = 400 <= status < 500 and status not in {408, 429}
    return Refused(said) if final else Failed(said)


async def _some(answer: aiohttp.ClientResponse) -> bytes:
    """The beginning of a body."""
    text = bytearray()
    async for part in answer.content.iter_any():
        text += part
        if len(text) > _REFUSAL_BYTES:
            break
    return bytes(text)


def _shown(text: bytes) -> str:
    """An error's own message, if it has one, in a line of moderate length."""
    said: Any = text.decode("utf-8", "replace")
    try:
        read = orjson.loads(text)
        error = read.get("error", read)
        said = error.get("message") or said if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        pass
    line = " ".join(str(said).split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."


def _why(problem: BaseException, timeout_s: float) -> str:
    if isinstance(problem, asyncio.TimeoutError):
        return f"no answer within {timeout_s:g} s"
    return str(problem) or type(problem).__name__

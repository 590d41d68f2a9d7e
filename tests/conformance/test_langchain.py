"""LangChain's models through the gateway: a program's second run says the same and costs nothing.

As in `test_four_combinations`, what is due is what the same program gets without a gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import operator
from typing import TYPE_CHECKING, Any

import openai
import pytest
from langchain_anthropic import ChatAnthropic, _client_utils
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from tests.helpers.sdk_programs import FORMS, TEXT, GetWeather, SetAlarm, Solution, without_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conformance.conftest import World

KINDS = ("chat", "responses", "thinking", "messages", "thinking messages")
TOOLS = [GetWeather, SetAlarm]
KEY: Any = "sk-a-key-of-a-test"


class LangChain:
    """LangChain's objects, blocking or async, with one face."""

    def __init__(self, *, is_async: bool) -> None:
        self._loop = asyncio.Runner(loop_factory=asyncio.new_event_loop) if is_async else None
        self._closing = contextlib.ExitStack()
        if self._loop is not None:
            self._closing.callback(self._loop.close)

    def model(self, kind: str, url: str) -> Any:
        """A chat model at this URL, which has no path."""
        if kind == "chat":
            return ChatOpenAI(model="gpt-4o", stream_usage=True, **self._openai(url))
        if kind in {"responses", "thinking"}:
            more: Any = {"reasoning": {"effort": "low", "summary": "auto"}}
            if kind == "responses":
                more = {}
            return ChatOpenAI(model="gpt-4o", use_responses_api=True, **more, **self._openai(url))
        thinking = {"thinking": {"type": "adaptive"}} if kind == "thinking messages" else {}
        model: Any = ChatAnthropic(
            model="claude-sonnet-5-5", base_url=url, api_key=KEY, max_retries=0, **thinking
        )
        # It keeps HTTP clients by URL for ever, and takes none of ours.
        kept: Any = _client_utils._get_default_httpx_client
        if self._loop is not None:
            kept = _client_utils._get_default_async_httpx_client
        self._closing.callback(kept.cache_clear)
        self._closing.callback(self._close, model)
        return model

    def embeddings(self, url: str) -> Any:
        # Counting tokens would fetch a vocabulary from the net.
        return OpenAIEmbeddings(
            model="text-embedding-3-small",
            dimensions=8,
            check_embedding_ctx_length=False,
            **self._openai(url),
        )

    def call(self, owner: Any, name: str, *given: Any) -> Any:
        """What the method `name` of `owner` returns, or its twin whose name begins with an `a`."""
        if self._loop is None:
            return getattr(owner, name)(*given)
        return self._loop.run(getattr(owner, f"a{name}")(*given))

    def ask(self, model: Any, form: str, given: Any) -> Any:
        """The message, whole, or as the sum of what was streamed."""
        if form == "body":
            return self.call(model, "invoke", given)
        return functools.reduce(operator.add, self.stream(model, given))

    def stream(self, model: Any, given: Any) -> list[Any]:
        """All that a stream gives."""
        if self._loop is None:
            return list(model.stream(given))

        async def drained() -> list[Any]:
            return [each async for each in model.astream(given)]

        return self._loop.run(drained())

    def close(self) -> None:
        self._closing.close()

    def _openai(self, url: str) -> dict[str, Any]:
        blocking = openai.DefaultHttpxClient(trust_env=False, verify=False)
        waiting = openai.DefaultAsyncHttpxClient(trust_env=False, verify=False)
        self._closing.callback(blocking.close)
        if self._loop is not None:
            self._closing.callback(self._close_async, waiting.aclose)
        return {
            "base_url": f"{url}/v1",
            "api_key": KEY,
            "max_retries": 0,
            "http_client": blocking,
            "http_async_client": waiting,
        }

    def _close(self, model: Any) -> None:
        if self._loop is None:
            model._client.close()
        else:
            self._close_async(model._async_client.close)

    def _close_async(self, close: Callable[[], Any]) -> None:
        async def closed() -> None:
            made = close()
            if inspect.isawaitable(made):
                await made

        assert self._loop is not None
        self._loop.run(closed())


@pytest.fixture(params=["sync", "async"])
def chain(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[LangChain]:
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    made = LangChain(is_async=request.param == "async")
    yield made
    made.close()


def said(message: Any) -> Any:
    """A message as data."""
    return without_ids(message.model_dump())


def call_ids(message: Any) -> list[str]:
    return [call["id"] for call in message.tool_calls]


@pytest.mark.parametrize("recorded", FORMS)
@pytest.mark.parametrize("question", [TEXT, "The weather in two cities?"], ids=["words", "tools"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_message_is_the_same_on_a_miss_and_on_hits_in_both_forms(
    world: World, chain: LangChain, kind: str, question: str, recorded: str
) -> None:
    provider = chain.model(kind, world.stub.url).bind_tools(TOOLS)
    model = chain.model(kind, world.url).bind_tools(TOOLS)
    due = {form: chain.ask(provider, form, question) for form in FORMS}
    before = world.calls

    first = chain.ask(model, recorded, question)
    assert said(due[recorded]) == said(first)
    assert len(first.tool_calls) == (0 if question is TEXT else 2)
    world.settle()
    for form in (recorded, *FORMS):
        again = chain.ask(model, form, question)
        assert said(due[form]) == said(again)
        assert first.text == again.text
        assert call_ids(first) == call_ids(again)
        assert first.usage_metadata["total_tokens"] == again.usage_metadata["total_tokens"]
    assert world.calls == before + 1


@pytest.mark.parametrize("recorded", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_agents_loop_costs_nothing_the_second_time(
    world: World, chain: LangChain, kind: str, recorded: str
) -> None:
    def loop(form: str) -> list[Any]:
        model = chain.model(kind, world.url).bind_tools(TOOLS)
        history: list[Any] = [HumanMessage("How is the weather in two cities?")]
        for _ in range(2):
            history.append(chain.ask(model, form, history))
            history += [
                ToolMessage(f"Rain at {call['args']}.", tool_call_id=call["id"])
                for call in history[-1].tool_calls
            ]
            world.settle()
        return history

    first = loop(recorded)
    roles = [HumanMessage, AIMessage, ToolMessage, ToolMessage, AIMessage]
    assert all(map(isinstance, first, roles))
    assert len(first) == len(roles)
    calls = world.calls
    assert calls == 2
    again = loop(recorded)
    assert list(map(said, first)) == list(map(said, again))
    assert world.calls == calls


# LangChain dumps what the SDK parsed into a type that it did not declare.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("recorded", FORMS)
@pytest.mark.parametrize("kind", ["chat", "responses", "messages"])
def test_a_structured_answer_is_the_same(
    world: World, chain: LangChain, kind: str, recorded: str
) -> None:
    def solved(url: str, form: str) -> Any:
        method = {} if kind != "messages" else {"method": "json_schema"}
        model = chain.model(kind, url).with_structured_output(Solution, **method)
        if form == "body":
            return chain.call(model, "invoke", "Solve it.")
        return chain.stream(model, "Solve it.")[-1]

    due = {form: solved(world.stub.url, form) for form in FORMS}
    assert isinstance(due["body"], Solution)
    before = world.calls
    assert due[recorded] == solved(world.url, recorded)
    world.settle()
    # In a stream of a response LangChain drops the schema's title: another question, asked once.
    questions = 2 if kind == "responses" else 1
    for _ in range(2):
        for form in FORMS:
            assert due[form] == solved(world.url, form)
            world.settle()
    assert world.calls == before + questions


def test_documents_are_embedded_once(world: World, chain: LangChain) -> None:
    names = [f"text {number} ☕" for number in range(20)]
    due = chain.call(chain.embeddings(world.stub.url), "embed_documents", names)
    embeddings = chain.embeddings(world.url)
    assert due[5:] == chain.call(embeddings, "embed_documents", names[5:])
    world.settle()
    assert due == chain.call(embeddings, "embed_documents", names)
    assert names[:5] == world.stub.received[-1].json()["input"]
    world.settle()
    before = world.calls
    assert due == chain.call(embeddings, "embed_documents", names)
    assert due[7] == chain.call(embeddings, "embed_query", names[7])
    assert world.calls == before

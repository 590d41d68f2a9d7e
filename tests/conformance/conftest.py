"""The official SDKs, unmodified, against a gateway in front of a stub provider.

Gateway and stub run on an event loop in another thread, so that blocking clients work as they do
in a program of their own. `sdk` comes twice, blocking and async, with one face: a test is written
once and holds for both.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import anthropic
import openai
import pytest
import structlog

from gateway.app import start
from gateway.config import Config
from gateway.lab.stub_provider import StubProvider

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping

    from gateway.app import RunningGateway

DEADLINE_S = 20.0
KEY = "sk-a-key-of-a-test"


class Elsewhere:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of `work`, done over there."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE_S)

    def call(self, work: Callable[[], Any]) -> None:
        """Do it over there, soon."""
        self._loop.call_soon_threadsafe(work)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_S)
        self._loop.close()


@dataclass
class World:
    """A gateway with an empty cache, and the provider behind it."""

    stub: StubProvider
    gateway: RunningGateway
    elsewhere: Elsewhere

    @property
    def url(self) -> str:
        """Where the gateway listens."""
        return self.gateway.api_url

    @property
    def calls(self) -> int:
        """How often the provider was called."""
        return self.stub.total_calls

    def settle(self) -> None:
        """Wait until the last answer is kept: that happens behind the response."""
        self.elsewhere.run(self.gateway.background.idle())


class OpenWorld(Protocol):
    def __call__(self, **settings: Any) -> World:
        """Start one with these sections of the config."""


@dataclass
class Client:
    """An SDK client, blocking or async, with one face.

    Everything takes a function of the client, written as the README of the SDK writes it.
    """

    sdk: Any
    loop: asyncio.Runner | None
    heard: list[Any] = field(default_factory=list)
    """Every response of the server, retries included, as the HTTP client saw it."""

    @property
    def last(self) -> Mapping[str, str]:
        """Headers of the last response."""
        headers: Mapping[str, str] = self.heard[-1].headers
        return headers

    def call(self, ask: Callable[[Any], Any]) -> Any:
        """What a plain method returns."""
        made = ask(self.sdk)
        return self.settled(made)

    def items(self, ask: Callable[[Any], Any], seen: list[Any] | None = None) -> list[Any]:
        """All items of a stream or of pages; into `seen`, for those that end in an error."""
        seen = [] if seen is None else seen
        made = ask(self.sdk)
        if self.loop is None:
            for item in made:
                seen.append(item)
        else:
            self.loop.run(_drained(made, seen))
        return seen

    def within(self, ask: Callable[[Any], Any], read: Callable[[Any], Any]) -> Any:
        """What `read` makes of what a context manager (a stream helper, ...) gives."""
        manager = ask(self.sdk)
        if self.loop is None:
            with manager as given:
                return read(given)
        return self.loop.run(_within(manager, read))

    def close(self) -> None:
        self.settled(self.sdk.close())

    def settled(self, made: Any) -> Any:
        """The value, or what comes of waiting for it."""
        if self.loop is not None and inspect.isawaitable(made):
            return self.loop.run(_awaited(made))
        return made


async def _awaited(made: Awaitable[Any]) -> Any:
    return await made


async def _drained(made: Any, seen: list[Any]) -> None:
    items = made if hasattr(made, "__aiter__") else await made
    async for item in items:
        seen.append(item)  # noqa: PERF401 - what came before an error counts


async def _within(manager: Any, read: Callable[[Any], Any]) -> Any:
    async with manager as given:
        made = read(given)
        return await made if inspect.isawaitable(made) else made


class Sdk:
    """Makes clients of one kind; closes them at the end."""

    def __init__(self, kind: str) -> None:
        self.is_async = kind == "async"
        self._loop = asyncio.Runner(loop_factory=asyncio.new_event_loop) if self.is_async else None
        self._made: list[Client] = []

    def openai(self, url: str, **options: Any) -> Client:
        """A client of OpenAI's; `url` ends in /v1."""
        if self.is_async:
            return self._client(openai.AsyncOpenAI, openai.DefaultAsyncHttpxClient, url, options)
        return self._client(openai.OpenAI, openai.DefaultHttpxClient, url, options)

    def anthropic(self, url: str, **options: Any) -> Client:
        """A client of Anthropic's."""
        if self.is_async:
            http: Any = anthropic.DefaultAsyncHttpxClient
            return self._client(anthropic.AsyncAnthropic, http, url, options)
        return self._client(anthropic.Anthropic, anthropic.DefaultHttpxClient, url, options)

    def _client(self, kind: Any, http: Any, url: str, options: dict[str, Any]) -> Client:
        heard: list[Any] = []

        async def note(response: Any) -> None:
            heard.append(response)

        # No proxy of the environment, and no certificates to load: this stays on the loopback.
        hook = note if self.is_async else heard.append
        http_client = http(trust_env=False, verify=False, event_hooks={"response": [hook]})
        given = {"api_key": KEY, "max_retries": 0, **options}
        made = Client(kind(base_url=url, http_client=http_client, **given), self._loop, heard)
        self._made.append(made)
        return made

    def close(self) -> None:
        for client in self._made:
            client.close()
        if self._loop is not None:
            self._loop.close()


@pytest.fixture(scope="session")
def elsewhere() -> Iterator[Elsewhere]:
    """The other thread."""
    made = Elsewhere()
    yield made
    made.close()


@pytest.fixture
def quiet() -> Iterator[None]:
    """No log lines below errors: they come from another thread, and would escape the capture."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    yield
    structlog.configure(**before)


@pytest.fixture
def open_world(elsewhere: Elsewhere, quiet: None) -> Iterator[OpenWorld]:
    """Opens worlds, and closes them at the end."""
    with contextlib.ExitStack() as closing:

        def open_one(**settings: Any) -> World:
            world: World = elsewhere.run(_started(settings, elsewhere))
            closing.callback(lambda: elsewhere.run(_stopped(world)))
            return world

        yield open_one


@pytest.fixture
def world(open_world: OpenWorld) -> World:
    """One with default settings."""
    return open_world()


@pytest.fixture(params=["sync", "async"])
def sdk(request: pytest.FixtureRequest) -> Iterator[Sdk]:
    """Both kinds of clients, one after the other."""
    made = Sdk(request.param)
    yield made
    made.close()


async def _started(settings: Mapping[str, Any], elsewhere: Elsewhere) -> World:
    stub = StubProvider()
    await stub.start()
    upstreams = {
        "openai": {"base_url": stub.v1_url, "provider": "openai"},
        "anthropic": {"base_url": stub.v1_url, "provider": "anthropic"},
        **settings.get("upstreams", {}),
    }
    config = Config.model_validate(
        {
            "store": {"url": "memory://"},
            "telemetry": {"traces": "off"},
            **settings,
            "server": {"port": 0, "probe_port": 0, "drain_idle_s": 0, **settings.get("server", {})},
            "admin": {"port": 0},
            "upstreams": upstreams,
        }
    )
    return World(stub, await start(config, {}), elsewhere)


async def _stopped(world: World) -> None:
    await world.gateway.stop()
    await world.stub.stop()

"""One request planned, without a gateway around it: where it goes, and what is added for that."""

from __future__ import annotations

import asyncio
import itertools
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import orjson
import pytest

from gateway import config, foreseeing, planning
from gateway.cache import Clock
from gateway.config import Config
from gateway.core.directives import NOTHING
from gateway.core.foresight import Foresight
from gateway.core.model import Answer, Ask, Finish, Form, Usage
from gateway.planning import Planning
from gateway.telemetry.setup import Telemetry
from gateway.telemetry.spans import NULL_SERVER
from gateway.upstream.choice import Asked, Choice
from gateway.wire.table import APIS
from tests.helpers.proved import proved

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.turn import Turn

SYSTEM = "You answer questions about the harbour, its ships and its tides. " * 200
CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"


class Scene:
    """A planner under a config, and requests for it."""

    def __init__(self, telemetry: Telemetry, tree: dict[str, Any]) -> None:
        seconds = itertools.count()
        settings = Config.model_validate(tree)
        self.choice = Choice(settings)
        self.tenant: str | None = None
        self.planning = Planning(
            config=settings,
            choice=self.choice,
            telemetry=telemetry,
            clock=Clock(now=lambda: 0.0, monotonic=lambda: float(next(seconds))),
            tenant=lambda _: self.tenant,
        )

    def turn(
        self,
        model: str,
        upstream: str = "openai",
        path: str = CHAT,
        who: bytes = b"w",
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> Turn:
        said = [{"role": "user", "content": "Which ship leaves first?"}]
        document: dict[str, Any] = {"model": model, "max_tokens": 9}
        if path == MESSAGES:
            document |= {"system": SYSTEM, "messages": said}
        else:
            document["messages"] = [{"role": "system", "content": SYSTEM}, *said]
        made = SimpleNamespace(
            body=orjson.dumps({**document, **more}),
            asked=Asked(None, path, None),
            request=SimpleNamespace(headers=headers or {}),
            directives=NOTHING,
            api=APIS[path],
            known=SimpleNamespace(
                endpoint=self.choice.endpoints[upstream],
                ask=Ask(Form.BODY, model),
                pass_reason=None,
                who=who,
            ),
            exchange=SimpleNamespace(
                request_id="gw_1",
                markers=None,
                rewrites=None,
                span=NULL_SERVER,
                started=0.0,
                step=lambda *_: None,
            ),
        )
        return cast("Turn", made)


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    made = Telemetry.start(config.Telemetry(traces="off"), {}, "1")
    yield made
    made.close(1.0)


def at(base_url: str, **more: Any) -> dict[str, Any]:
    return {"upstreams": {"other": {"base_url": base_url, **more}}}


async def test_xai_is_told_the_conversation_in_a_header_and_the_body_stays(
    telemetry: Telemetry,
) -> None:
    scene = Scene(telemetry, at("https://api.x.ai/v1"))
    turns = [scene.turn("grok-5", "other") for _ in range(2)]

    planned = [await scene.planning.plan(turn) for turn in turns]

    assert [each.body for each in planned] == [turn.body for turn in turns]
    named = [each.headers["x-grok-conv-id"] for each in planned]
    assert named[0] == named[1]
    assert planned[0].told() == "none; reason=no-markers; hint=x-grok-conv-id"
    other = await scene.planning.plan(
        scene.turn(
            "grok-5",
            "other",
            messages=[
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": "Something else"},
            ],
        )
    )
    assert other.headers["x-grok-conv-id"] != named[0]


async def test_a_client_that_names_its_conversation_is_believed(telemetry: Telemetry) -> None:
    scene = Scene(telemetry, at("https://api.x.ai/v1"))

    planned = await scene.planning.plan(
        scene.turn("grok-5", "other", headers={"x-grok-conv-id": "mine"})
    )

    assert planned.headers == {}


@pytest.mark.parametrize(
    "upstream",
    [
        {"base_url": "https://api.x.ai.example.com/v1"},
        {"base_url": "https://proxy.internal/v1"},
        {"base_url": "https://api.x.ai/v1", "provider": "unknown"},
    ],
)
async def test_hosts_that_are_not_on_a_list_get_nothing(
    telemetry: Telemetry, upstream: dict[str, Any]
) -> None:
    scene = Scene(telemetry, {"upstreams": {"other": upstream}})
    turn = scene.turn("grok-5", "other")

    planned = await scene.planning.plan(turn)

    assert planned.body is turn.body
    assert planned.headers == {}
    assert planned.told() == "none; reason=unknown-model"


async def test_openrouter_is_told_the_session_unless_the_client_does(telemetry: Telemetry) -> None:
    scene = Scene(telemetry, at("https://openrouter.ai/api/v1"))
    model = "openai/gpt-4.1"

    planned = await scene.planning.plan(scene.turn(model, "other"))
    known = [
        await scene.planning.plan(turn)
        for turn in (
            scene.turn(model, "other", session_id="mine"),
            scene.turn(model, "other", prompt_cache_key="mine"),
        )
    ]

    assert planned.headers["x-session-id"].startswith("wg-")
    assert [each.hint for each in known] == ["", ""]


@pytest.mark.parametrize(("deployment", "placed"), [(None, False), ("standard", True)])
async def test_azure_gets_markers_only_where_the_operator_says_what_it_is(
    telemetry: Telemetry, deployment: str | None, placed: bool
) -> None:
    more = {"deployment": deployment} if deployment else {}
    scene = Scene(telemetry, at("https://mine.openai.azure.com/openai/v1", **more))
    turn = scene.turn("gpt-4.1", "other")

    planned = await scene.planning.plan(turn)

    assert (planned.body != turn.body) is placed


async def test_a_configured_key_is_one_cache_whoever_asks_and_clients_keys_are_many(
    telemetry: Telemetry,
) -> None:
    shared = Scene(telemetry, {"upstreams": {"anthropic": {"api_key": "sk-ours"}}})
    own = Scene(telemetry, {})

    async def domains(scene: Scene) -> set[bytes]:
        turns = [scene.turn("claude-sonnet-4-5", "anthropic", MESSAGES, w) for w in (b"a", b"b")]
        return {(await scene.planning.plan(turn)).key[0] for turn in turns}

    assert len(await domains(shared)) == 1
    assert len(await domains(own)) == 2


async def test_isolated_tenants_have_salts_of_their_own_whoever_speaks_for_them(
    telemetry: Telemetry,
) -> None:
    tree = {**at("http://gpu/v1", provider="vllm"), "prompt_cache": {"isolate": True}}
    scene = Scene(telemetry, tree)
    salts = []
    for tenant, who in (("a", b"1"), ("a", b"1"), ("b", b"1"), (None, b"1"), (None, b"2")):
        scene.tenant = tenant
        planned = await scene.planning.plan(scene.turn("llama", "other", who=who))
        salts.append(orjson.loads(planned.body)["cache_salt"])

    assert salts[0] == salts[1]
    assert len(set(salts)) == 4


async def test_what_was_refused_is_left_alone_for_an_hour(telemetry: Telemetry) -> None:
    scene = Scene(telemetry, {})

    def turn() -> Turn:
        return scene.turn("claude-sonnet-4-5", "anthropic", MESSAGES, tools=[])

    planned = await scene.planning.plan(turn())
    scene.planning.refused(planned)
    left = await scene.planning.plan(turn())
    other = await scene.planning.plan(scene.turn("claude-opus-4-5", "anthropic", MESSAGES))

    assert left.told() == "none; reason=refused"
    assert other.reason.value != "refused"


async def test_a_failed_call_teaches_nothing_and_an_answer_does(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(telemetry, {})
    taught: list[Usage | None] = []
    monkeypatch.setattr(scene.planning.planner, "learn", lambda _, usage, __: taught.append(usage))
    turn = scene.turn("claude-sonnet-4-5", "anthropic", MESSAGES)
    planned = await scene.planning.plan(turn)

    scene.planning.learn(planned, None)
    scene.planning.begun(turn, planned)
    usage = Usage(uncached_input=10, cache_read=3000, output=5)
    scene.planning.learn(planned, Answer(Form.BODY, b"{}", Finish.COMPLETE, usage=usage))

    assert taught == [None, usage]


async def test_those_who_want_to_know_are_told_of_answers_and_may_fail(
    telemetry: Telemetry,
) -> None:
    scene = Scene(telemetry, {})
    told: list[Any] = []

    def listen(turn: Turn, planned: Any) -> None:
        told.append((turn, planned))
        raise RuntimeError("it can't listen")

    scene.planning.on_answered = listen
    turn = scene.turn("claude-sonnet-4-5", "anthropic", MESSAGES)
    planned = await scene.planning.plan(turn)
    scene.planning.begun(turn, planned)
    scene.planning.learn(planned, Answer(Form.BODY, b"{}", Finish.COMPLETE, usage=Usage(1)))
    scene.planning.learn(planned, None)

    assert told == [(turn, planned)]


async def test_a_prompt_of_a_hundred_thousand_blocks_goes_as_it_came(telemetry: Telemetry) -> None:
    scene = Scene(telemetry, {})
    roles = itertools.cycle(("user", "assistant"))
    said = [{"role": next(roles), "content": "h"} for _ in range(100_000)]
    turn = scene.turn("claude-sonnet-4-5", "anthropic", MESSAGES, messages=said)

    planned = await scene.planning.plan(turn)

    assert planned.body is turn.body
    assert planned.told() == "none; reason=not-understood"


@pytest.mark.parametrize("text", ["short", "You answer questions about the tides.\n\n" * 9000])
async def test_texts_are_searched_beside_the_loop(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    scene = Scene(telemetry, {"prompt_cache": {"rewrites": ["move-volatile"]}})
    rewriter = scene.planning.rewriter
    searched, find = [], rewriter.sightings.find

    def seen(*args: Any) -> Any:
        searched.append(threading.current_thread().name)
        return find(*args)

    monkeypatch.setattr(rewriter.sightings, "find", seen)
    await scene.planning.plan(scene.turn("claude-sonnet-4-5", "anthropic", MESSAGES, system=text))

    assert searched
    assert {name.rpartition("_")[0] for name in searched} == {"warmgate-plan"}


async def test_where_the_thread_is_busy_the_request_goes_as_it_came(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "_THREAD_WAIT_S", 0.05)
    scene = Scene(telemetry, {"prompt_cache": {"rewrites": ["move-volatile"]}})
    free = threading.Event()
    busy = asyncio.ensure_future(scene.planning.searching(lambda: free.wait(10.0)))
    turn = scene.turn("claude-sonnet-4-5", "anthropic", MESSAGES)

    planned = await asyncio.wait_for(scene.planning.plan(turn), 5.0)
    free.set()

    assert await busy
    assert planned.body is turn.body
    assert planned.told() == "none; reason=failed"


async def test_of_many_long_ones_few_are_held_as_what_they_were_read_as(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(telemetry, {})
    held, most = 0, 0
    change = scene.planning._change

    async def counted(*args: Any) -> None:
        nonlocal held, most
        held, most = held + 1, max(most, held + 1)
        await change(*args)
        held -= 1

    monkeypatch.setattr(scene.planning, "_change", counted)
    turns = [
        scene.turn("claude-sonnet-4-5", "anthropic", MESSAGES, system=f"{n} " + SYSTEM * 90)
        for n in range(8)
    ]
    await asyncio.gather(*(scene.planning.plan(turn) for turn in turns))

    assert (held, most) == (0, 2)


async def test_what_is_read_behind_an_answer_holds_up_no_plan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(planning, "_THREAD_WAIT_S", 2.0)
    free, began = threading.Event(), threading.Event()

    def reading(_: object) -> None:
        began.set()
        free.wait(10.0)

    monkeypatch.setattr(foreseeing, "_read", reading)
    async with proved() as scene:
        try:
            off = {"x-gateway-markers": "off"}
            for text in ("a", "b", "c"):
                await scene.send(chat(text * 200_000), "openai_chat", headers=off)
            assert await asyncio.to_thread(began.wait, 5.0)
            assert "1 waiting" in repr(scene.planning.foreseeing), "others are not queued behind it"
            planned = await scene.send(chat("d" * 1_200_000), "openai_chat")
        finally:
            free.set()
        assert planned.foreseen is not None
        assert planned.told() == "none; reason=no-markers; hint=prompt_cache_key"


@pytest.mark.parametrize(("messages", "looked_at"), [(2000, 1), (2001, 0)])
async def test_a_prompt_of_very_many_blocks_is_planned_and_its_misses_are_not_told(
    monkeypatch: pytest.MonkeyPatch, messages: int, looked_at: int
) -> None:
    asked = 0
    foresee = Foresight.foresee

    def counting(*args: Any) -> Any:
        nonlocal asked
        asked += 1
        return foresee(*args)

    monkeypatch.setattr(Foresight, "foresee", counting)
    async with proved() as scene:
        planned = await scene.send(chat(*(str(n) for n in range(messages))), "openai_chat")
        assert planned.hint
        assert asked == looked_at
        assert (planned.foreseen is not None) == bool(looked_at)


def chat(*said: str) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": each} for each in said]}

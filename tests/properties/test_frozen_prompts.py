"""What is said to a model is frozen from the first turn on: where thinking is bound it is the client's
own, whatever is configured; elsewhere a rewritten or split beginning stays as it was first sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings

from gateway.core.plan import Markers
from gateway.core.planner import CachePlanner
from gateway.core.rewrites import Case, Rewrite
from gateway.core.volatile_traffic import VolatileTraffic
from gateway.lab import sim_prompt
from gateway.lab.sim_cache import Caches
from gateway.providers.prompt_cache_rules import cache_rules
from gateway.wire.marking import marked
from gateway.wire.note_place import unmarked_from
from gateway.wire.prompt_blocks import cache_prompt
from gateway.wire.rewriting import Asker, Rewriter
from tests.helpers import prompt_bodies, rewriting
from tests.helpers.bare import bare, leads
from tests.helpers.dice import Dice
from tests.properties.conftest import EXAMPLES, many, seeds

if TYPE_CHECKING:
    from gateway.core.prefix import Path

pytestmark = pytest.mark.timeout(600)
# Each example is a dozen requests.
conversations = settings(many, max_examples=min(EXAMPLES, 1000))

ANTHROPIC, CHAT, RESPONSES = "anthropic_messages", "openai_chat", "openai_responses"
BINDING = {
    ANTHROPIC: ("claude-opus-5-5", "claude-sonnet-5-5", "claude-fable-5-1", "claude-haiku-5-5"),
    RESPONSES: ("gpt-6-sol",),
}
FREE = {
    ANTHROPIC: ("claude-sonnet-4-5", "claude-haiku-4-5", "claude-sonnet-5"),
    CHAT: ("gpt-6-sol",),
}
SHARED = "".join(f"Rule {n}: the harbour's book says what to do.\n" for n in range(150))
TAILS = tuple(f"You speak to {name}.\n" * 20 for name in ("Ada", "Bob", "Cid", "Dan"))


class Gateway:
    """One gateway's rewriting, planning and marking, before a cache that it learns from."""

    def __init__(self, dice: Dice, api: str, wanted: frozenset[Rewrite], caches: Caches) -> None:
        self._api = api
        self._provider = "anthropic" if api == ANTHROPIC else "openai"
        self._kind = "chat" if api == CHAT else "responses"
        self._wanted = wanted
        self._dice = dice
        self._caches = caches
        self.restart()

    def restart(self) -> None:
        """It forgets everything."""
        self._planner = CachePlanner()
        self._rewriter = Rewriter(VolatileTraffic())

    def send(self, raw: bytes, markers: Markers, now: float) -> tuple[bytes, Path | None]:
        """What goes to the provider, and where the note of what was moved stands."""
        api, body = self._api, raw
        document = orjson.loads(body)
        rules = cache_rules(self._provider, api, document["model"])
        asker = Asker(api, b"all", self._provider, f"/v1/{api}")
        case = Case(self._wanted, self._provider, rules)
        rewritten = self._rewriter.rewrite(body, document, case, asker, now)
        if rewritten.made:
            body = rewritten.body
            document = orjson.loads(body)
        prompt = cache_prompt(api, document, rules)
        if rewritten.note is not None:
            prompt = unmarked_from(prompt, rewritten.note)
        ticket = self._planner.plan(b"all", prompt, rules, markers, now)
        if ticket.plan.changes:
            assert rules is not None
            body = marked(body, prompt, ticket.plan, rules)
        self._learn(ticket, orjson.loads(body), now)
        return body, rewritten.note

    def _learn(self, ticket: Any, sent: Any, now: float) -> None:
        if self._dice.yes(0.1):
            self._planner.learn(ticket, None, now)
            return
        is_claude = self._api == ANTHROPIC
        usage = self._caches.bill(
            self._provider,
            self._api,
            sent["model"],
            sim_prompt.anthropic(sent) if is_claude else sim_prompt.openai(self._kind, sent),
            scope="",
            key="",
            now=now,
            first_byte_at=now,
        )
        self._planner.begun(ticket, now)
        self._planner.learn(ticket, usage, now)


def wanted(dice: Dice) -> frozenset[Rewrite]:
    return frozenset(each for each in Rewrite if dice.yes(0.6))


def conversation(dice: Dice, api: str, model: str, values: int) -> list[dict[str, Any]]:
    """The turns of one. All of one dice have tools and rules in common; `values` are of its own."""
    own = Dice(values)
    body = rewriting.request(Dice(dice.up_to(2)), api, values)
    body["model"] = model
    system = SHARED + own.one(TAILS)
    if api == ANTHROPIC:
        held = body["system"]
        body["system"] = (
            held + system if isinstance(held, str) else [*held, {"type": "text", "text": system}]
        )
    else:
        lead = {"role": "developer", "content": system}
        name = "input" if api == RESPONSES else "messages"
        body[name] = [lead, *body[name]]
    turns = [body]
    for turn in range(1 + own.up_to(3)):
        words = own.one(("And?", "But why? " * 200)) + str(turn)
        turns.append(rewriting.gone_on(turns[-1], api, words))
    return turns


def without_note(body: Any, note: Path | None) -> Any:
    """The bare request without the part that says what was moved, which is new in each turn."""
    if note is not None:
        holder = body
        for step in note[:-1]:
            holder = holder[step]
        del holder[note[-1]]
    return bare(body)


@conversations
@given(seed=seeds)
def test_where_thinking_is_bound_all_but_markers_is_the_clients_on_every_turn(seed: int) -> None:
    dice = Dice(seed)
    api = dice.one(tuple(BINDING))
    caches = Caches()
    gateways = [Gateway(dice, api, wanted(dice), caches) for _ in range(2)]
    talks = [iter(conversation(dice, api, dice.one(BINDING[api]), dice.up_to(5))) for _ in range(3)]
    now = 0.0
    while talks:
        talk = dice.one(talks)
        body = next(talk, None)
        if body is None:
            talks.remove(talk)
            continue
        if dice.yes(0.4):
            body = body | {"thinking": {"type": "adaptive"}}
        now += dice.one((1.0, 30.0, 290.0, 1000.0))
        which = dice.one(gateways)
        if dice.yes(0.2):
            which.restart()
        raw = prompt_bodies.spelled(dice, body)
        sent, note = which.send(raw, dice.one(tuple(Markers)), now)
        assert note is None
        assert bare(orjson.loads(sent)) == bare(body)


@conversations
@given(seed=seeds)
def test_elsewhere_what_was_sent_leads_what_is_sent_later(seed: int) -> None:
    dice = Dice(seed)
    api = dice.one(tuple(FREE))
    gateway = Gateway(dice, api, wanted(dice), Caches())
    markers = dice.one((Markers.AUTO, Markers.STRIP, Markers.RESPECT))
    model = dice.one(FREE[api])
    talks = {
        number: iter(conversation(dice, api, model, dice.up_to(9)))
        for number in range(2 + dice.up_to(5))
    }
    before: dict[int, Any] = {}
    now = 0.0
    while talks:
        number = dice.one(tuple(talks))
        body = next(talks[number], None)
        if body is None:
            del talks[number]
            continue
        now += dice.one((1.0, 30.0, 290.0))
        sent, note = gateway.send(prompt_bodies.spelled(dice, body), markers, now)
        seen = without_note(orjson.loads(sent), note)
        if number in before:
            assert leads(before[number], seen)
        before[number] = seen

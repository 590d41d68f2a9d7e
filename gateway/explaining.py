"""What the gateway makes of one request, without asking anybody: `Explaining`.

Rule 1: nothing is sent, stored, counted or learned by explaining.
Rule 2: what is shown of a prompt is what the asker has sent, shortened; of others' nothing.
Rule 3: operators (`explain`) are told what is known from all traffic. Who sends a request (`own`) is
told what its own body, headers and credential say; all else is withheld, and named as such.
"""

from __future__ import annotations

import asyncio
import pickle
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from multidict import CIMultiDict

from gateway.core import canonical
from gateway.core import directives as cache_control
from gateway.core.findings import MENDS, shortened
from gateway.core.nearest import nearest
from gateway.core.plan import PlanReason
from gateway.core.policy import Pass, before_lookup
from gateway.core.prefix import shown
from gateway.core.prompt_policy import markers_for, untouchable
from gateway.core.prompt_shown import prompt_shown
from gateway.core.rewrites import Case, Rewrite, allowed, mending
from gateway.core.volatile import Confidence
from gateway.core.volatile_traffic import VolatileTraffic
from gateway.errors import BadRequest
from gateway.foreseeing import MOST_BLOCKS as MOST_COMPARED
from gateway.identified import identified
from gateway.planning import MOST_BLOCKS
from gateway.providers.prompt_cache_rules import cache_rules
from gateway.recognition import Sender
from gateway.store.base import StoreUnavailable
from gateway.upstream.choice import take_apart
from gateway.watching import Behind, measured
from gateway.wire.base import NotUnderstood
from gateway.wire.prompt_blocks import cache_prompt
from gateway.wire.rewriting import Asker, Rewriter
from gateway.wire.system_text import APIS as WITH_SYSTEM_TEXT
from gateway.wire.system_text import read_lead, thinks
from gateway.wire.table import APIS, OPENAI_EMBEDDINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.config import Config
    from gateway.core.prefix import CachePrompt
    from gateway.core.prompt_policy import PromptPolicy
    from gateway.core.volatile_traffic import Seen
    from gateway.door import Known
    from gateway.planning import Planning
    from gateway.providers.prompt_cache import CacheRules
    from gateway.recognition import Recognition
    from gateway.routing import Routing
    from gateway.store.inventory import Inventory
    from gateway.upstream.choice import Asked, Choice
    from gateway.wire.base import WireApi

Told = dict[str, Any]
_T = TypeVar("_T")

MOST_BYTES = 4 * 1024 * 1024
"""Of a body that is explained."""

_SHORT_BYTES = 16 * 1024
_MARKERS = "x-gateway-markers"
# Of an entry, what is told: nothing that whoever asked for it first may have said.
_OF_ENTRY = ("recorded", "forms", "age_s", "ttl_left_s", "refused", "payload_bytes")
# What is counted over everybody's requests.
_OF_TRAFFIC = (
    *("confirmed_by_traffic", "requests_seen", "changes_seen"),
    *("requests_per_day", "tokens_lost_per_day"),
)


class _View(NamedTuple):
    """What may be told."""

    entries: bool
    """That lie under the request's identity."""
    cache: bool
    """What is known of the provider's cache."""
    everybody: bool
    """What is known from all requests."""


_OPERATOR = _View(entries=True, cache=True, everybody=True)


class Explaining:
    """Explains requests by the rules and the memory of one gateway."""

    def __init__(
        self,
        *,
        config: Config,
        choice: Choice,
        recognition: Recognition,
        planning: Planning,
        routing: Routing,
        inventory: Inventory,
        timer: Callable[[], float],
    ) -> None:
        """`timer` gives monotonic seconds, as it does for `planning`."""
        self._scope = config.cache.scope
        self._isolates = config.prompt_cache.isolate
        self._choice = choice
        self._recognition = recognition
        self._planning = planning
        self._routing = routing
        self._inventory = inventory
        self._timer = timer

    async def explain(self, target: str, body: bytes, headers: Mapping[str, str]) -> Told:
        """What would become of this body, sent to `target` (a path, perhaps with a query) with
        these headers: plain JSON values. For operators. Raises `BadRequest`, `NotFound`; ValueError
        for a path that no wire API has, and for what isn't JSON.
        """
        asked = take_apart(target)
        pairs = tuple((name.lower(), value) for name, value in headers.items())
        sender = Sender(pairs, CIMultiDict(pairs), None)
        return await self._explained(sender, asked, body, None)

    async def own(self, sender: Sender, asked: Asked, body: bytes) -> Told:
        """The same for whoever sends the request itself. Raises `BadRequest`, `NotFound`."""
        if len(body) > MOST_BYTES:
            raise BadRequest(f"no more than {MOST_BYTES} bytes are explained")
        try:
            return await self._explained(sender, asked, body, self._own_view)
        except ValueError as odd:
            raise BadRequest(str(odd)) from odd

    def _own_view(self, known: Known) -> _View:
        endpoint = known.endpoint
        nobody = self._recognition.who(Sender((), CIMultiDict(), None), endpoint)
        by_credential = self._scope == "credential" and known.who != nobody
        # With a credential of the config all clients share one cache at the provider.
        cache = by_credential and (endpoint.api_key is None or self._isolates)
        return _View(entries=by_credential, cache=cache, everybody=False)

    async def _explained(
        self,
        sender: Sender,
        asked: Asked,
        body: bytes,
        view_of: Callable[[Known], _View] | None,
    ) -> Told:
        api = APIS.get(asked.path)
        if api is None:
            raise ValueError(f"no prompt goes to {asked.path}; there are {', '.join(APIS)}")
        try:
            document = await _beside(body, lambda: canonical.parse(body))
        except canonical.Uncacheable as odd:
            raise ValueError(f"the request can't be read: {odd}") from odd
        known = await self._recognition.recognise_beside(sender, asked, api, body)
        view = _OPERATOR if view_of is None else view_of(known)
        model = known.ask.model if known.ask is not None else ""
        cached = self._choice.policy(asked, model)
        told: Told = {
            "route": asked.path,
            "api": api.name,
            "upstream": known.endpoint.name,
            "provider": known.endpoint.provider.name,
            "model": model,
            "identity": await _beside(
                body,
                lambda: identified(
                    known, body, document, api, sender.headers, fold_text=cached.fold_text
                ),
            ),
            "cache": await self._cache(known, asked, sender, model, view),
            "routing": None,
            "prompt": None,
            "plan": None,
            "neighbour": None,
            "volatile": None,
            "rewrites": None,
            "withheld": [],
        }
        if not view.entries:
            told["withheld"].append("cache.entries")
        if known.endpoint.pool and view.everybody:
            told["routing"] = await self._routing.explained(known, api.name, body, sender)
        elif known.endpoint.pool:
            told["withheld"].append("routing")
        if api is not OPENAI_EMBEDDINGS and isinstance(document, dict):
            await self._of_prompt(told, known, asked, api, body, document, sender, view)
        return told

    async def _cache(
        self, known: Known, asked: Asked, sender: Sender, model: str, view: _View
    ) -> Told:
        """What the cache would say, and what lies there."""
        policy = self._choice.policy(asked, model)
        said = [value for name, value in sender.headers if name == "cache-control"]
        decided = before_lookup(known.pass_reason, known.ask, policy, cache_control.parse(said))
        passed = isinstance(decided, Pass)
        told: Told = {
            "decision": "pass" if passed else "lookup",
            "reason": decided.reason.value if isinstance(decided, Pass) else None,
            "reads": not isinstance(decided, Pass) and decided.no_read is None,
            "writes": not isinstance(decided, Pass) and decided.write,
            "ttl_s": None if passed else policy.ttl_s,
            "entries": None,
        }
        if view.entries:
            try:
                found = [
                    entry
                    for key in known.identities
                    for entry in await self._inventory.find(key.hex())
                ]
            except StoreUnavailable:
                return told
            told["entries"] = [{name: each[name] for name in _OF_ENTRY} for each in found]
        return told

    async def _of_prompt(  # noqa: PLR0917 - all that is known of the request
        self,
        told: Told,
        known: Known,
        asked: Asked,
        api: WireApi,
        body: bytes,
        document: dict[str, Any],
        sender: Sender,
        view: _View,
    ) -> None:
        model = told["model"]
        caches_as, deployment = known.endpoint.caches_as, known.endpoint.deployment
        rules = cache_rules(caches_as, api.name, model, deployment=deployment)
        policy = self._choice.prompt_policy(asked, model)
        try:
            prompt = await _beside(body, lambda: cache_prompt(api.name, document, rules))
        except NotUnderstood as odd:
            told["plan"] = {"reason": PlanReason.NOT_UNDERSTOOD.value, "why": str(odd)}
            return
        told["prompt"] = await _beside(body, lambda: prompt_shown(prompt))
        if view.cache and len(prompt.blocks) > MOST_BLOCKS:
            why = f"more than {MOST_BLOCKS:,} blocks"
            told["plan"] = {"reason": PlanReason.NOT_UNDERSTOOD.value, "why": why}
        elif view.cache:
            told["plan"] = await self._plan(known, body, prompt, rules, policy, sender)
            told["neighbour"] = self._neighbour(known, prompt, rules)
        else:
            told["withheld"] += ["plan", "neighbour"]
        if api.name in WITH_SYSTEM_TEXT:
            told |= await self._planning.searching(
                lambda: self._volatile(known, asked, api, body, document, rules, policy)
            )
            if not view.everybody:
                told["withheld"] += [f"volatile[].{name}" for name in _OF_TRAFFIC]
                for finding in told["volatile"]:
                    finding.update(dict.fromkeys(_OF_TRAFFIC))

    async def _plan(  # noqa: PLR0917 - all that is known of the request
        self,
        known: Known,
        body: bytes,
        prompt: CachePrompt,
        rules: CacheRules | None,
        policy: PromptPolicy,
        sender: Sender,
    ) -> Told:
        markers = markers_for(policy, sender.lookup.get(_MARKERS))
        said = [value for name, value in sender.headers if name == "cache-control"]
        told: Told = {"markers": markers.value}
        why = untouchable(markers, cache_control.parse(said), known.pass_reason, known.ask)
        if why is not None:
            return {**told, "reason": why.value}
        domain = self._planning.domain(known, None)
        planner = self._planning.planner
        now = self._timer()
        rehearsal = planner.rehearsal(domain, prompt, rules, markers, now, _copied)
        if rehearsal is None:
            return {**told, "reason": None}
        plan = (await _beside(body, rehearsal)).plan
        return {
            **told,
            "reason": plan.reason.value,
            "marks": [
                {"path": shown(prompt.blocks[mark.block].path), "ttl_s": mark.ttl_s}
                for mark in plan.marks
            ],
            "splits": len(plan.splits),
            "mode": plan.mode or None,
            "expected_read_tokens": plan.read_tokens,
            "expected_write_tokens": plan.write_tokens,
        }

    def _neighbour(
        self, known: Known, prompt: CachePrompt, rules: CacheRules | None
    ) -> Told | None:
        """Where the likest earlier prompt parts from this one, as the client sends it."""
        if rules is None or not 0 < len(prompt.blocks) <= MOST_COMPARED:
            return None
        domain = self._planning.domain(known, None)
        neighbours = self._planning.foreseeing.foresight.neighbours
        found = nearest(neighbours, domain, known.who, prompt, rules)
        if found is None:
            return None
        return {
            "request_id": found.neighbour or None,
            "path": found.path,
            "kind": found.kind,
            "block": found.block,
            "recurring_tokens": found.recurring_tokens,
            "was_bytes": found.was_size,
            "is_bytes": found.is_size,
        }

    def _volatile(  # noqa: PLR0917 - all that is known of the request
        self,
        known: Known,
        asked: Asked,
        api: WireApi,
        body: bytes,
        document: dict[str, Any],
        rules: CacheRules | None,
        policy: PromptPolicy,
    ) -> Told:
        rewriter = self._planning.rewriter
        name = known.endpoint.caches_as
        asker = Asker(api.name, self._planning.domain(known, None), known.endpoint.name, asked.path)
        lead = read_lead(api.name, document)
        now = self._timer()
        seen = rewriter.seen(lead, asker, Behind(lead, lambda: measured(api.name, document)))
        every = Case(frozenset(Rewrite) - {Rewrite.ROUND_HOUR}, name, rules)
        may, hindrance = allowed(every, thinks=thinks(api.name, document))
        # With a memory of its own: explaining begins no conversation.
        alone = Rewriter(VolatileTraffic(), rewriter.sightings)
        could = alone.rewrite(body, document, every, asker, now).made
        return {
            "volatile": [self._finding(each, name, may, policy, now) for each in seen],
            "rewrites": {
                "configured": [each.value for each in Rewrite if each in policy.rewrites],
                "would_change": [each.value for each in Rewrite if each in could],
                "hindrance": hindrance.value if hindrance is not None else None,
            },
        }

    def _finding(
        self,
        seen: Seen,
        provider: str,
        may: frozenset[Rewrite],
        policy: PromptPolicy,
        now: float,
    ) -> Told:
        tallies = self._planning.rewriter.traffic.everywhere(seen.place)
        mends = mending(seen.sighting.kind, seen.value, provider)
        sure = seen.sighting.confidence is Confidence.SURE
        confirmed = any(tally.is_confirmed for tally in tallies)
        return {
            "path": seen.place.path,
            "kind": seen.place.kind.value,
            "changes_with": seen.sighting.pace.name.lower(),
            "at_character": seen.sighting.start,
            "sample": shortened(seen.value),
            "sure": sure,
            "confirmed_by_traffic": confirmed,
            "tokens_behind": seen.tokens_behind,
            "requests_seen": sum(tally.requests for tally in tallies),
            "changes_seen": sum(tally.changes for tally in tallies),
            "requests_per_day": round(sum(tally.requests_per_day(now) for tally in tallies), 1),
            "tokens_lost_per_day": round(sum(tally.tokens_lost_per_day(now) for tally in tallies)),
            "rewrites": [each.value for each in mends if each in may],
            "rewritten_already": bool(mends) and bool(set(mends) & policy.rewrites & may),
            "mend": MENDS[seen.sighting.kind],
        }


async def _beside(body: bytes, work: Callable[[], _T]) -> _T:
    """The work done, for a long body in a thread: nobody else waits for it."""
    return work() if len(body) <= _SHORT_BYTES else await asyncio.to_thread(work)


def _copied(known: _T) -> Callable[[], _T]:
    """By pickling: that takes a fifth of the time of `deepcopy`, and half of it comes later."""
    return partial(pickle.loads, pickle.dumps(known, pickle.HIGHEST_PROTOCOL))

"""What the gateway makes of one request, without asking anybody: `Explaining`.

Rule 1: nothing is sent, stored, counted or learned by explaining.
Rule 2: what is shown of a prompt is what the asker has sent, shortened; of others' nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from multidict import CIMultiDict

from gateway.core import canonical, identity
from gateway.core.blocks import BYTES_PER_TOKEN
from gateway.core.directives import Directives
from gateway.core.findings import MENDS, shortened
from gateway.core.plan import PlanReason
from gateway.core.prefix import chain
from gateway.core.prompt_policy import untouchable
from gateway.core.rewrites import Case, Rewrite, allowed, mending
from gateway.core.volatile import Confidence
from gateway.core.volatile_traffic import VolatileTraffic
from gateway.providers import registry
from gateway.providers.prompt_cache_rules import cache_rules
from gateway.recognition import Sender
from gateway.upstream.choice import take_apart
from gateway.watching import Behind, measured
from gateway.wire.base import NotUnderstood
from gateway.wire.prompt_blocks import cache_prompt
from gateway.wire.rewriting import Asker, Rewriter
from gateway.wire.system_text import APIS as WITH_SYSTEM_TEXT
from gateway.wire.system_text import read_lead, shown, thinks
from gateway.wire.table import APIS, OPENAI_EMBEDDINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.core.prefix import CachePrompt
    from gateway.core.prompt_policy import PromptPolicy
    from gateway.core.volatile_traffic import Seen
    from gateway.door import Known
    from gateway.planning import Planning
    from gateway.providers.base import ApiRules
    from gateway.providers.prompt_cache import CacheRules
    from gateway.recognition import Recognition
    from gateway.routing import Routing
    from gateway.upstream.choice import Asked, Choice
    from gateway.wire.base import WireApi

Told = dict[str, Any]

_MOST_BLOCKS = 2000


class Explaining:
    """Explains requests by the rules and the memory of one gateway."""

    def __init__(
        self,
        choice: Choice,
        recognition: Recognition,
        planning: Planning,
        routing: Routing,
        timer: Callable[[], float],
    ) -> None:
        """`timer` gives monotonic seconds, as it does for `planning`."""
        self._choice = choice
        self._recognition = recognition
        self._planning = planning
        self._routing = routing
        self._timer = timer

    async def explain(self, target: str, body: bytes, headers: Mapping[str, str]) -> Told:
        """What would become of this body, sent to `target` (a path, perhaps with a query) with
        these headers: plain JSON values. Raises `BadRequest`, `NotFound`; ValueError for a path
        that no wire API has, and for what isn't JSON.
        """
        asked = take_apart(target)
        api = APIS.get(asked.path)
        if api is None:
            raise ValueError(f"no prompt goes to {asked.path}; there are {', '.join(APIS)}")
        try:
            document = canonical.parse(body)
        except canonical.Uncacheable as odd:
            raise ValueError(f"the request can't be read: {odd}") from odd
        pairs = tuple((name.lower(), value) for name, value in headers.items())
        sender = Sender(pairs, CIMultiDict(pairs), None)
        known = await self._recognition.recognise_beside(sender, asked, api, body)
        provider = known.endpoint.provider
        model = known.ask.model if known.ask is not None else ""
        told: Told = {
            "route": asked.path,
            "api": api.name,
            "upstream": known.endpoint.name,
            "provider": provider.name,
            "model": model,
            "identity": _identity(known, document, api, pairs),
        }
        if known.endpoint.pool:
            told["routing"] = await self._routing.explained(known, api.name, body, sender)
        if api is OPENAI_EMBEDDINGS or not isinstance(document, dict):
            return told
        caches_as, deployment = known.endpoint.caches_as, known.endpoint.deployment
        rules = cache_rules(caches_as, api.name, model, deployment=deployment)
        policy = self._choice.prompt_policy(asked, model)
        try:
            prompt = cache_prompt(api.name, document, rules)
        except NotUnderstood as odd:
            reason = PlanReason.NOT_UNDERSTOOD.value
            return {**told, "prompt": None, "plan": {"reason": reason, "why": str(odd)}}
        told["prompt"] = _prompt(prompt)
        told["plan"] = self._plan(known, prompt, rules, policy)
        if api.name in WITH_SYSTEM_TEXT:
            told |= await self._planning.searching(
                lambda: self._volatile(known, asked, api, body, document, rules, policy)
            )
        return told

    def _plan(
        self, known: Known, prompt: CachePrompt, rules: CacheRules | None, policy: PromptPolicy
    ) -> Told:
        told: Told = {"markers": policy.markers.value}
        why = untouchable(policy.markers, Directives(), known.pass_reason, known.ask)
        if why is not None:
            return {**told, "reason": why.value}
        domain = self._planning.domain(known, None)
        ticket = self._planning.planner.rehearsed(
            domain, prompt, rules, policy.markers, self._timer()
        )
        if ticket is None:
            return {**told, "reason": None}
        plan = ticket.plan
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


def _identity(
    known: Known, document: canonical.Json, api: WireApi, pairs: tuple[tuple[str, str], ...]
) -> Told:
    provider = known.endpoint.provider
    rules = registry.rules(provider, api.name)
    members = document if isinstance(document, dict) else {}
    keyed = [name for name, _ in pairs if identity.keyed_headers(((name, "x"),), provider)]
    return {
        "key": known.identities[0].hex() if known.identities else None,
        "key_version": identity.KEY_VERSION,
        "pass": known.pass_reason.value if known.pass_reason is not None else None,
        "members": [_member(name, value, rules) for name, value in members.items()],
        "headers": {
            "keyed": keyed,
            "in_scope": [name for name, _ in pairs if name in identity.CREDENTIALS],
        },
    }


def _member(name: str, value: canonical.Json, rules: ApiRules) -> Told:
    if name in rules.excluded:
        return {"name": name, "treated": "excluded", "why": rules.excluded[name].reason}
    default = rules.defaults.get(name)
    if default is not None and canonical.plain(value) == default.value:
        return {"name": name, "treated": "default", "why": default.rule.reason}
    if name in rules.scalars:
        return {"name": name, "treated": "folded", "why": rules.scalars[name].reason}
    why = rules.keyed[name].reason if name in rules.keyed else None
    told: Told = {"name": name, "treated": "keyed", "why": why}
    if name in rules.excluded_members:
        told["without"] = sorted(rules.excluded_members[name])
    return told


def _prompt(prompt: CachePrompt) -> Told:
    blocks: list[Told] = []
    size = 0
    for block, fingerprint in zip(prompt.blocks, chain(prompt), strict=True):
        size += block.size
        if len(blocks) < _MOST_BLOCKS:
            blocks.append(
                {
                    "path": shown(block.path),
                    "until_character": block.until or None,
                    "section": block.section.value,
                    "kind": block.kind.value,
                    "role": block.role,
                    "tokens": block.size // BYTES_PER_TOKEN,
                    "tokens_to_here": size // BYTES_PER_TOKEN,
                    "fingerprint": f"{fingerprint:016x}",
                    "can_mark": block.can_mark,
                    "client_ttl_s": block.client_ttl_s or None,
                }
            )
    return {
        "tokens": size // BYTES_PER_TOKEN,
        "thinks": prompt.thinks,
        "blocks": blocks,
        "blocks_left_out": len(prompt.blocks) - len(blocks),
    }

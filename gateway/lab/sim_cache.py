"""The simulated providers' caches: one for each model, apart for each credential."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.model import Usage
from gateway.lab.cache_sim import CacheSim
from gateway.lab.sim_causes import Case, Causes
from gateway.lab.sim_machines import Machines
from gateway.providers.prompt_cache import MarkerForm
from gateway.providers.prompt_cache_rules import cache_rules

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.core.miss import Miss
    from gateway.lab.sim_losses import Losses
    from gateway.lab.sim_prompt import Rendered
    from gateway.lab.sim_seen import Piece


class Caches:
    """What is cached of everybody's prompts. The clock is an argument and never goes back."""

    def __init__(
        self,
        on_judged: Callable[[Miss | None], None] | None = None,
        losses: Callable[[], Losses] | None = None,
    ) -> None:
        """`on_judged`: told of each answered request what it missed; all prompts are remembered for
        that. `losses`: makes, for each model's cache, what of it is gone before its time.
        """
        self._on_judged = on_judged
        self._causes = Causes() if on_judged is not None else None
        self._losses = losses
        self._sims: dict[tuple[str, str], CacheSim] = {}
        self._machines = Machines()

    def __repr__(self) -> str:
        held = {model: len(sim) for (_, model), sim in self._sims.items()}
        return f"<Caches {held or 'empty'}>"

    def bill(
        self,
        provider: str,
        api: str,
        model: str,
        prompt: Rendered,
        *,
        scope: str,
        key: str,
        now: float,
        first_byte_at: float | None,
        pieces: Callable[[], Sequence[Piece]] = tuple,
    ) -> Usage:
        """What a request reads and writes. `scope` is whose cache it is, `key` the
        `prompt_cache_key`; `first_byte_at` None: it failed. `pieces`: of the prompt, where it is to
        be judged. A model without known rules caches nothing.
        """
        rules = cache_rules(provider, api, model)
        if rules is None:
            if self._on_judged is not None and first_byte_at is not None:
                self._on_judged(None)
            return Usage(uncached_input=prompt.total_tokens)
        sim = self._sims.get((api, model))
        if sim is None:
            losses = self._losses() if self._losses is not None else None
            sim = self._sims[api, model] = CacheSim(rules, self._causes, losses)
        machine = self._machines.asked(
            now, (scope, key), prompt.blocks, prompt.chain, rules.hint_rpm
        )
        case = None
        if self._on_judged is not None and first_byte_at is not None:
            # Where a key is no mere hint, what another one wrote can never be read.
            apart = key if rules.form is MarkerForm.BREAKPOINT else ""
            case = Case((scope, api), (scope, api, apart), (key, machine), pieces())
        usage = sim.request(
            now,
            (scope, key, machine),
            prompt.chain,
            prompt.tokens,
            blocks=prompt.blocks,
            marks=prompt.marks,
            automatic_ttl=prompt.automatic_ttl,
            mode=prompt.mode,
            first_byte_at=first_byte_at,
            case=case,
        )
        if case is not None and self._on_judged is not None:
            self._on_judged(case.miss)
        return usage

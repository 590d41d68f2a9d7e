"""Everything that can be counted, made up anew with each request."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from gateway.core.causes import Cause, Share
from gateway.core.miss import Miss, MissCause
from gateway.core.model import Reason, Result, Usage
from gateway.core.plan import PlanReason
from gateway.core.route import Branch
from gateway.core.steadiness import Compared
from gateway.telemetry.config_gauges import ConfigTold
from gateway.telemetry.metrics import ROUTES
from tests.helpers.records import BARE

if TYPE_CHECKING:
    from gateway.telemetry.setup import Telemetry


def throw(telemetry: Telemetry, numbers: range) -> None:
    """Everything anew with each request, and an upstream that answers it all."""
    m = telemetry.metrics
    results, reasons = itertools.cycle(Result), itertools.cycle(Reason)
    routes = itertools.cycle([*sorted(ROUTES), "/v1/made/up"])
    plans, branches = itertools.cycle(PlanReason), itertools.cycle(Branch)
    misses = itertools.cycle(MissCause)
    causes, outcomes = itertools.cycle(Cause), itertools.cycle(Compared)
    usage = Usage(10, 20, 3, 4, 50)
    for n in numbers:
        model, provider, status = f"model-{n}", f"provider-{n % 300}", 100 + n % 500
        result, reason, cause = next(results), next(reasons), next(causes)
        m.request(
            BARE._replace(
                route=next(routes),
                result=result,
                reason=reason,
                status=status,
                provider=provider,
                model=model,
                duration_s=0.1,
                overhead_s=0.001,
                method=("POST", "GET", f"M{n}")[n % 3],
                error=None if n % 7 else f"error_{n % 50}",
                scope=f"{n:08x}",
            )
        )
        m.lookup(0.001, result, reason)
        m.stored(reason, 0.001, 1000)
        m.saved(usage, provider, model)
        m.spared(0.1, provider, model)
        m.aborted(("client", "upstream")[n % 2])
        m.store_unavailable(("get", "put", "delete")[n % 3])
        m.called("POST", f"10.0.{n >> 8}.{n & 255}", 8000 + n % 9, status, "", 0.1)
        m.inference(
            provider=provider,
            model=model,
            operation=("chat", "embeddings", "text_completion")[n % 3],
            duration_s=1.0,
            first_chunk_s=0.1,
            usage=usage,
            error=None if n % 5 else str(status),
        )
        m.route.sent(f"pool-{n % 300}", next(branches))
        m.route.retried(f"pool-{n % 300}", str(status))
        plan = next(plans)
        m.prompt_cache.planned(plan, provider, model, 0.001, [f"rewrite-{n % 9}"])
        m.prompt_cache.marked(plan, 2, 1)
        m.prompt_cache.refused(provider, model)
        m.prompt_cache.answered({cause: Share(read=20, write_5m=3)}, provider, model)
        m.prompt_cache.paid(0.5, {cause: 0.2}, {cause: 0.1}, provider=provider, model=model)
        m.prompt_cache.warmed("start", str(status))
        m.prompt_cache.compared(next(outcomes), provider)
        m.prompt_cache.drifted(provider, f"change-{n}")
        m.prompt_cache.missed(Miss(next(misses), 100, kind=f"kind-{n % 30}"), provider, model)
        m.lagged(0.001)


def watch(telemetry: Telemetry) -> None:
    """300 pools of 300 replicas each."""
    engine: dict[str, Any] = {"running": 1, "waiting": 0, "kv_usage": 0.5, "capacity_tokens": 9}
    engine |= {"prefix_hit_share": {"interval": 0.5}, "restarts": 0, "age_s": 1, "failing_s": None}
    replica = {"ready": 1, "in_flight": 0, "pending_s": 0.0, "mirror_tokens": 0, "state": "ready"}
    replica |= {"expected_tokens": 0, "reported_tokens": 0, "requests": 1}
    states = ("ready", "trial", "ejected", "unhealthy", "draining", "warming")
    pools = {
        f"pool-{pool}": {f"r{n}": {**replica, "state": states[n % 6]} for n in range(300)}
        for pool in range(300)
    }
    engines = {
        f"pool-{pool}/r{n}": {**engine, "upstream": f"pool-{pool}", "backend": f"r{n}"}
        for pool in range(300)
        for n in range(30)
    }
    told = {"told": 0, "heard": 0, "dropped": 0, "ignored": 0, "shares": True, "lag_s": 0.1}
    telemetry.metrics.watch_pools(lambda: pools)
    telemetry.metrics.watch_engines(lambda: engines)
    telemetry.metrics.watch_sharing(lambda: dict.fromkeys(pools, told))
    telemetry.metrics.watch_flights(lambda: 3)
    reloads = {"applied": 1, "unchanged": 0, "refused": 0}
    telemetry.metrics.watch_config(lambda: ConfigTold(reloads, refused=False, waiting=2))

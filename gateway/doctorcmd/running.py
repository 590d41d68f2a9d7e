"""The gateway that runs here: its probe port, its admin port, and what it says of its replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from gateway.cachecmd.remote import admin_url
from gateway.doctorcmd.finding import Finding, fine, look, mend, skipped
from gateway.doctorcmd.reach import Place, Unreached, ask, asking

if TYPE_CHECKING:
    import aiohttp

    from gateway.config import Config

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to ask, not to listen


async def running(config: Config, timeout_s: float) -> list[Finding]:
    """What it says. Ports that were left to the system can't be known from here."""
    async with asking(timeout_s) as session:
        return [*await _probes(config, session), *await _admin(config, session)]


async def _probes(config: Config, session: aiohttp.ClientSession) -> list[Finding]:
    server = config.server
    if not server.probe_port:
        return [skipped("gateway.probes", "server.probe_port is 0: nobody knows which it is")]
    host = _EVERYWHERE.get(server.probe_host, server.probe_host)
    shown = f"[{host}]" if ":" in host else host
    base = f"http://{shown}:{server.probe_port}"
    try:
        alive = await ask(session, Place(f"{base}/livez"))
        ready = await ask(session, Place(f"{base}/readyz?verbose"))
    except Unreached as problem:
        if problem.step == "http":
            return [
                mend(
                    "gateway.probes",
                    f"{base} does not answer in time, or not as a gateway: {problem}",
                    "where it is the gateway, its event loop hangs: see its CPU, take its stacks "
                    "(py-spy dump, from its node or a debug container), end it; liveness does so by itself",
                )
            ]
        return [
            mend(
                "gateway.probes",
                f"no gateway answers at {base} ({problem})",
                "start it, or run this in its container, with its config and environment "
                "(kubectl exec); before it runs: --skip gateway",
            )
        ]
    told = _object(ready.body)
    if alive.status != 200 or "status" not in told:
        return [
            mend(
                "gateway.probes",
                f"{base}/livez answers {alive.status}: that is no gateway",
                "give server.probe_port a port of its own",
            )
        ]
    return [_readiness(told)]


def _readiness(told: dict[str, Any]) -> Finding:
    status, checks = str(told["status"]), told.get("checks")
    bad = [
        str(name)
        for name, each in (checks.items() if isinstance(checks, dict) else ())
        if isinstance(each, dict) and not each.get("ok")
    ]
    facts = {"status": status, "failing": bad}
    names = ", ".join(bad)
    if status == "ready" and not bad:
        return fine("gateway.probes", "it lives, and is ready", **facts)
    if status == "ready":
        return look(
            "gateway.probes",
            f"it is ready, and this does not hold: {names}",
            "see the findings about it; requests go on without it",
            **facts,
        )
    how = {
        "draining": "it was told to end (SIGTERM, or POST /admin/drain): start it anew to take traffic",
        "starting": "wait; see its log where that lasts",
    }.get(status, "see the findings about upstreams")
    said = f"it is not ready: {status}" + (f" ({names})" if bad else "")
    return mend("gateway.probes", said, how, **facts)


async def _admin(config: Config, session: aiohttp.ClientSession) -> list[Finding]:
    if not config.admin.port:
        return [skipped("gateway.admin", "admin.port is 0: nobody knows which it is")]
    base = admin_url(config)
    token = config.admin.token.get_secret_value() if config.admin.token else None
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = await ask(session, Place(f"{base}/admin/backends"), headers=headers)
    except Unreached as problem:
        return [
            look(
                "gateway.admin",
                f"no admin port at {base} ({problem})",
                "start the gateway, or see admin.host and admin.port; `gateway cache` and `gateway "
                "savings` may need it",
            )
        ]
    if answer.status in (401, 403):
        how = "give this process the admin.token that the gateway was started with"
        return [look("gateway.admin", f"{base} does not take the token", how)]
    upstreams = _object(answer.body).get("upstreams")
    if answer.status != 200 or not isinstance(upstreams, dict):
        how = "give admin.port a port of its own"
        return [mend("gateway.admin", f"{base} answers {answer.status}: that is no gateway", how)]
    pools = [_pool(name, pool) for name, pool in upstreams.items() if isinstance(pool, dict)]
    held = await _held(config, Place(f"{base}/admin/config"), headers, session)
    return [fine("gateway.admin", f"{base} answers"), *held, *pools]


async def _held(
    config: Config, place: Place, headers: dict[str, str], session: aiohttp.ClientSession
) -> list[Finding]:
    """Which config holds there; nothing of a gateway that does not tell."""
    try:
        answer = await ask(session, place, headers=headers)
    except Unreached:
        return []
    told = _object(answer.body) if answer.status == 200 else {}
    theirs, ours = told.get("generation"), config.generation()
    if not isinstance(theirs, str):
        return []
    check, facts = "gateway.config", {"generation": theirs, "here": ours}
    last, waiting = told.get("last"), told.get("waiting")
    if isinstance(last, dict) and last.get("outcome") == "refused":
        return [
            mend(
                check,
                f"the config was read again and refused ({_named(last)}): the one before holds",
                "gateway check names the faults; mend them, and it is read by itself",
                **facts,
            )
        ]
    if isinstance(waiting, list) and waiting:
        names = ", ".join(map(str, waiting[:5]))
        said = f"these settings wait for a restart: {names}"
        return [look(check, said, "restart it where they matter", **facts, waiting=waiting)]
    if theirs != ours:
        return [
            look(
                check,
                f"generation {theirs} holds there, and here {ours} was read",
                "run this with its config file and environment; flags of `gateway serve` make one too",
                **facts,
            )
        ]
    return [fine(check, f"generation {theirs} holds, as it was read here", **facts)]


def _named(last: dict[str, Any]) -> str:
    faults = [each for each in last.get("faults") or () if isinstance(each, dict)]
    shown = [f"{each.get('path')}: {each.get('problem')}" for each in faults[:3]]
    return "; ".join(shown) or "it does not say why"


def _pool(name: str, pool: dict[str, Any]) -> Finding:
    check = f"gateway.pool.{name}"
    states = {str(k): v for k, v in (pool.get("states") or {}).items() if isinstance(v, int) and v}
    backends = [each for each in pool.get("backends") or () if isinstance(each, dict)]
    usable = states.get("ready", 0)
    shown = ", ".join(f"{number} {state}" for state, number in states.items()) or "no replicas"
    bad = [
        f"{each.get('name')}: {each.get('last_failure') or each.get('state')}"
        for each in backends
        if each.get("state") != "ready"
    ]
    dns = pool.get("dns")
    if isinstance(dns, dict) and dns.get("failure"):
        bad.append(f"DNS: {dns['failure']}")
    facts = {"states": states}
    if not bad and usable:
        return fine(check, f"the gateway sees {shown}", **facts)
    said = f"the gateway sees {shown}" + (f" ({'; '.join(bad[:4])})" if bad else "")
    if usable:
        return look(check, said, "see these replicas: the others carry their load", **facts)
    return mend(check, said, "see these replicas, and the findings about this upstream", **facts)


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}

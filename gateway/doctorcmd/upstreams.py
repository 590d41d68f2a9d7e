"""Whether upstreams can be reached, and what their HTTP status means."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.config.redaction import redact_url
from gateway.doctorcmd.engines import engine
from gateway.doctorcmd.finding import Verdict, fine, look, mend, skipped
from gateway.doctorcmd.places import MOST_REPLICAS, replicas, upstreams
from gateway.doctorcmd.reach import Unreached, ask, asking, reach

if TYPE_CHECKING:
    from collections.abc import Mapping

    import aiohttp

    from gateway.config import Config
    from gateway.doctorcmd.clock import Clocks
    from gateway.doctorcmd.finding import Finding
    from gateway.doctorcmd.places import Asked, Replica
    from gateway.doctorcmd.reach import Answer, Reached

_AT_A_TIME = 8
_SLOW_S = 1.0
_DAY_S = 86_400.0


class Upstreams:
    """All of a config's, each asked beside the others."""

    def __init__(
        self,
        config: Config,
        clocks: Clocks,
        environ: Mapping[str, str],
        *,
        timeout_s: float,
        engines: bool,
    ) -> None:
        """`engines`: what self-hosted ones are started with is looked at too."""
        self._asked = list(upstreams(config))
        self._clocks = clocks
        self._environ = environ
        self._timeout_s = timeout_s
        self._engines = engines
        self._slots = asyncio.Semaphore(_AT_A_TIME)

    async def look(self) -> list[Finding]:
        """By upstream, in the config's order."""
        meant = any(each.meant for each in self._asked)
        async with asking(self._timeout_s) as session:
            found = await asyncio.gather(
                *(
                    self._upstream(each, session)
                    if each.meant or not meant
                    else _unmeant(each.name)
                    for each in self._asked
                )
            )
        return [finding for each in found for finding in each]

    async def _upstream(self, asked: Asked, session: aiohttp.ClientSession) -> list[Finding]:
        check = f"upstream.{asked.name}"
        try:
            there = await replicas(asked, self._timeout_s)
        except Unreached as problem:
            return [mend(f"{check}.{problem.step}", str(problem), problem.mend)]
        found = await asyncio.gather(
            *(self._replica(asked, each, session) for each in there[:MOST_REPLICAS])
        )
        findings = [finding for each in found for finding in each]
        if asked.is_pool:
            bad = sum(any(map(_unusable, each)) for each in found)
            findings.insert(0, _pool(check, len(there), len(found), bad))
        if not asked.meant:
            # Built in, and nobody set it up: it is asked only because there is no other.
            findings = [_lighter(each) for each in findings]
        return findings

    async def _replica(
        self, asked: Asked, replica: Replica, session: aiohttp.ClientSession
    ) -> list[Finding]:
        async with self._slots:
            try:
                reached = await reach(replica.base, self._timeout_s, self._environ)
                url = f"{replica.base.url.rstrip('/')}/models"
                answer = await ask(session, replica.page(url), headers=asked.headers())
            except Unreached as problem:
                return [mend(f"{replica.check}.{problem.step}", str(problem), problem.mend)]
            self._clocks.dated(replica.base.host, answer.headers, answer.middle_s)
            findings = [_reached(replica, reached)]
            findings.append(
                meaning(
                    f"{replica.check}.http",
                    answer,
                    redact_url(url),
                    has_key=asked.endpoint.api_key is not None,
                )
            )
            if self._engines and answer.status == 200:
                findings += await engine(asked, replica, answer, session)
            return findings


async def _unmeant(name: str) -> list[Finding]:
    return [
        skipped(
            f"upstream.{name}",
            "built in, and nothing in the config speaks of it (name it to have it asked)",
        )
    ]


def _lighter(finding: Finding) -> Finding:
    if finding.verdict is not Verdict.MEND:
        return finding
    return look(finding.check, finding.said, finding.mend, **finding.facts)


def _unusable(finding: Finding) -> bool:
    """Whether requests fail there; an engine that hides what it caches serves all the same."""
    step = finding.check.rpartition(".")[2]
    return finding.verdict is Verdict.MEND and step in {"dns", "tcp", "tls", "http"}


def _pool(check: str, there: int, asked: int, bad: int) -> Finding:
    facts = {"replicas": there, "asked": asked, "failing": bad}
    shown = f"{there} replicas" if there != 1 else "1 replica"
    if asked < there:
        shown += f", {asked} of them asked"
    if not bad:
        return fine(check, f"{shown}, all well", **facts)
    if bad == asked:
        return mend(check, f"{shown}, and none can be used", "see each of them below", **facts)
    return look(check, f"{shown}, {bad} of which can't be used", "see them below", **facts)


def _reached(replica: Replica, reached: Reached) -> Finding:
    check = f"{replica.check}.connect"
    facts = {
        "addresses": list(reached.addresses),
        "connect_s": round(reached.connect_s, 4),
        "tls": reached.tls or None,
    }
    how = f"{reached.tls}, " if reached.tls else ""
    said = f"{replica.base.host}:{replica.base.port}: {how}{reached.connect_s * 1e3:.0f} ms"
    if reached.ends_soon and reached.ends_in_s is not None:
        days = reached.ends_in_s / _DAY_S
        return look(check, f"{said}; its certificate ends in {days:.1f} days", "renew it", **facts)
    if reached.connect_s > _SLOW_S:
        return look(check, f"{said}, which is slow", "see what lies in between", **facts)
    return fine(check, said, **facts)


def meaning(check: str, answer: Answer, url: str, *, has_key: bool) -> Finding:
    """What the status of `GET url` (an upstream's list of models) says of it."""
    status, facts = answer.status, {"status": answer.status, "seconds": round(answer.seconds, 4)}
    said = f"GET {url} -> {status}"
    if 200 <= status < 300:
        return fine(check, f"{said} in {answer.seconds * 1e3:.0f} ms", **facts)
    if status in (401, 403) and not has_key:
        return fine(check, f"{said}: it is there, and asks for the client's own key", **facts)
    if status in (401, 403):
        return mend(
            check,
            f"{said}: it does not take the configured key",
            "give another api_key (a key in a file is read at the next start or reload); where keys "
            "are limited to some models or addresses, see that",
            **facts,
        )
    if 300 <= status < 400:
        return mend(
            check,
            f"{said}: it points elsewhere, and the gateway passes that on to its clients",
            "write the address that it points to as base_url",
            **facts,
        )
    if status in (404, 405):
        return look(
            check,
            f"{said}: there is no list of models",
            "nothing, where the server keeps none; else see base_url: it ends in the provider's own "
            "prefix, mostly /v1",
            **facts,
        )
    if status == 429:
        return look(check, f"{said}: it has had too many requests", "see your rate limits", **facts)
    if status >= 500:
        return mend(
            check, f"{said}: it is there, and not well", "see its log, or its status page", **facts
        )
    return look(check, said, "see what it wants", **facts)

"""Who is behind a name: answers, failures, silence, and both families of addresses."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from gateway.upstream.discovery import Discovery, look_up
from tests.helpers.pools import StandingClock, pool_of
from tests.helpers.simulated_clock import run_simulated

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.upstream.replicas import Replicas

DNS = "http://vllm.models:8000/v1"
NONE = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
AGAIN = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


class Resolver:
    """Says what it is told to, in turn; the last for ever."""

    def __init__(self, *answers: Iterable[str] | Exception | None) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.silent = 0

    async def __call__(self, host: str) -> Iterable[str]:
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            self.silent += 1
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        return answer


def rounds(resolver: Resolver, count: int, dns: str = DNS) -> tuple[Replicas, list[list[str]]]:
    pool = pool_of(StandingClock(), 0, dns=dns)
    seen: list[list[str]] = []

    async def play() -> None:
        discovery = Discovery(pool, resolver)
        # An hour and more of silence costs nothing here.
        for _ in range(count):
            await discovery.ask()
            seen.append([each.name for each in pool])
        await discovery.close()

    async def with_a_timer() -> None:
        # Somebody who will be due at some time: else the simulated loop takes it for a deadlock.
        await asyncio.wait_for(play(), 10_000)

    run_simulated(with_a_timer())
    return pool, seen


def test_every_address_is_a_replica_named_by_it() -> None:
    resolver = Resolver(["10.0.0.2", "10.0.0.1", "10.0.0.2"])
    pool, seen = rounds(resolver, 1)
    assert seen == [["10.0.0.1:8000", "10.0.0.2:8000"]]
    assert resolver.asked == ["vllm.models"]
    assert [each.endpoint.base_url for each in pool] == [
        "http://10.0.0.1:8000/v1",
        "http://10.0.0.2:8000/v1",
    ]


@pytest.mark.parametrize(
    ("dns", "name", "url", "authority"),
    [
        ("http://gpu", "10.0.0.1:80", "http://10.0.0.1", "gpu"),
        ("https://gpu/v1", "10.0.0.1:443", "https://10.0.0.1/v1", "gpu"),
        ("https://gpu:8443/x/v1", "10.0.0.1:8443", "https://10.0.0.1:8443/x/v1", "gpu:8443"),
    ],
)
def test_scheme_port_and_path_are_the_urls(dns: str, name: str, url: str, authority: str) -> None:
    pool, _ = rounds(Resolver(["10.0.0.1"]), 1, dns)
    endpoint = pool[name].endpoint
    assert (endpoint.base_url, endpoint.authority) == (url, authority)


def test_a_set_that_changes_is_followed() -> None:
    _, seen = rounds(Resolver(["10.0.0.1"], ["10.0.0.1", "10.0.0.2"], ["10.0.0.2"]), 3)
    assert seen == [["10.0.0.1:8000"], ["10.0.0.1:8000", "10.0.0.2:8000"], ["10.0.0.2:8000"]]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (AGAIN, "Temporary failure in name resolution"),
        (NONE, "no addresses"),
        ([], "no addresses"),
        (TimeoutError("of the resolver's own"), "TimeoutError"),
        (UnicodeError("label too long"), "UnicodeError"),
        (None, "timeout"),
    ],
    ids=["again", "no-name", "empty", "own-timeout", "no-name-at-all", "silence"],
)
def test_a_failure_an_empty_answer_and_silence_keep_whoever_is_there(
    answer: Iterable[str] | Exception | None, why: str
) -> None:
    pool, seen = rounds(Resolver(["10.0.0.1"], answer), 10)
    assert seen == [["10.0.0.1:8000"]] * 10
    assert pool.dns_failure == why


def test_a_resolver_that_hangs_is_asked_once_and_not_again_each_round() -> None:
    resolver = Resolver(None)
    pool, _ = rounds(resolver, 20)
    assert (len(resolver.asked), pool.dns_failure) == (1, "timeout")


def test_a_late_answer_is_taken_by_a_later_round() -> None:
    async def play() -> list[str]:
        pool = pool_of(StandingClock(), 0, dns=DNS)
        gate = asyncio.Event()

        async def slow(_: str) -> list[str]:
            await gate.wait()
            return ["10.0.0.1"]

        discovery = Discovery(pool, slow, deadline_s=0.01)
        await discovery.ask()
        assert pool.dns_failure == "timeout"
        gate.set()
        await discovery.ask()
        await discovery.close()
        return [each.name for each in pool]

    assert run_simulated(play()) == ["10.0.0.1:8000"]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        # A dual-stack Service has two addresses for each pod.
        ([["10.0.0.1", "fd00::1", "fd00::2", "10.0.0.2"]], ["10.0.0.1:8000", "10.0.0.2:8000"]),
        ([["fd00::1"]], ["[fd00::1]:8000"]),
        # An answer for one of the families failed: the pool does not move to the other.
        ([["10.0.0.1", "fd00::1"], ["fd00::1"]], ["10.0.0.1:8000"]),
        ([["fd00::1"], ["10.0.0.1", "fd00::1"]], ["[fd00::1]:8000"]),
    ],
)
def test_one_family_of_addresses_counts(answers: list[list[str]], expected: list[str]) -> None:
    _, seen = rounds(Resolver(*answers), len(answers))
    assert seen[-1] == expected


async def test_the_systems_resolver_is_asked() -> None:
    assert set(await look_up("localhost")) & {"127.0.0.1", "::1"}
    with pytest.raises(OSError, match=r"not known|resolution|No address"):
        await look_up("no-such-host.invalid")

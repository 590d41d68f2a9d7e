"""Who asks what of whom: the door and the full way agree, and nobody is taken for another."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar

import orjson
import pytest
from multidict import CIMultiDict

from gateway.config import Config
from gateway.core.model import Reason
from gateway.door import Door
from gateway.recognition import Recognition, Sender
from gateway.store.secret import ScopeSecrets
from gateway.upstream.choice import Choice, take_apart
from gateway.wire.openai_chat import OpenAIChat
from gateway.wire.openai_responses import OpenAIResponses

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.core.model import Question
    from gateway.door import Known
    from gateway.providers.base import ApiRules
    from gateway.wire.base import WireApi

SECRET = "a secret of the replicas"
CHAT = "/v1/chat/completions"


class CountingChat(OpenAIChat):
    """Counts how often a body was really read."""

    def __init__(self) -> None:
        self.read = 0

    def understand(self, body: bytes, rules: ApiRules) -> Question:
        self.read += 1
        return super().understand(body, rules)


class World:
    """One config, its recognition, and how often a body was parsed."""

    def __init__(
        self, *, door: int = 100, secrets: Sequence[str] = (SECRET,), **sections: Any
    ) -> None:
        config = Config.model_validate(sections)
        self.api = CountingChat()
        self.secrets = ScopeSecrets(secrets, None)
        self.recognition = Recognition(
            config,
            Choice(config),
            self.secrets,
            Door(door, config.generation().encode()),
        )

    def know(
        self,
        body: bytes,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        *,
        target: str = CHAT,
        peer: str | None = "10.0.0.9",
        api: WireApi | None = None,
    ) -> Known:
        given = CIMultiDict(headers)
        sender = Sender(tuple((n.lower(), v) for n, v in given.items()), given, peer)
        return self.recognition.recognise(sender, take_apart(target), api or self.api, body)


def question(text: str = "hi", **more: object) -> bytes:
    return orjson.dumps(
        {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **more}
    )


A = {"Authorization": "Bearer sk-a"}
B = {"Authorization": "Bearer sk-b"}


# --- the door -------------------------------------------------------------------------------------


def test_an_exact_repeat_is_not_read_again_and_is_known_as_the_same() -> None:
    world = World()
    first = world.know(question(), A)
    again = world.know(question(), A)
    assert world.api.read == 1
    assert again == first
    assert World(door=0).know(question(), A) == first


def test_with_the_door_closed_every_request_goes_the_full_way() -> None:
    world = World(door=0)
    assert world.know(question(), A) == world.know(question(), A)
    assert world.api.read == 2


@pytest.mark.parametrize(
    "other",
    [
        {"body": question() + b" "},
        {"headers": B},
        {"headers": {**A, "OpenAI-Organization": "org-1"}},
        {"headers": {**A, "Cookie": "a=1"}},
        {"headers": {**A, "Content-Encoding": "identity"}},
        {"target": f"/u/openai{CHAT}"},
        {"target": f"{CHAT}?x=1"},
    ],
)
def test_whatever_might_matter_takes_the_full_way(other: dict[str, Any]) -> None:
    world = World()
    same: dict[str, Any] = {"body": question(), "headers": A, "target": CHAT}
    world.know(**same)
    world.know(**{**same, **other})
    assert world.api.read == 2


@pytest.mark.parametrize(
    "line",
    [
        ("User-Agent", "other"),
        ("X-Request-Id", "2"),
        ("traceparent", "00-b"),
        ("Content-Length", "9"),
        ("x-stainless-retry-count", "1"),
        ("Cache-Control", "no-cache"),
        ("Accept-Encoding", "br"),
    ],
)
def test_what_only_carries_the_request_does_not(line: tuple[str, str]) -> None:
    world = World()
    world.know(question(), [*A.items()])
    world.know(question(), [*A.items(), line])
    assert world.api.read == 1


def test_another_secret_drops_what_the_door_knew() -> None:
    world = World()
    before = world.know(question(), A)
    world.secrets.generation += 1
    world.secrets._current = ScopeSecrets(["another secret of all"], None).current
    after = world.know(question(), A)
    assert world.api.read == 2
    assert after.identities != before.identities
    assert after.who != before.who


def test_another_config_is_another_door() -> None:
    config = Config.model_validate({})
    changed = Config.model_validate({"cache": {"ttl_s": 5}})
    one, other = (Door(10, c.generation().encode()) for c in (config, changed))
    parts = ("/v1/x", b"", 0, (), b"{}")
    assert one.key(*parts) == Door(10, config.generation().encode()).key(*parts)
    assert one.key(*parts) != other.key(*parts)


# --- identities and scopes ------------------------------------------------------------------------


def test_two_ways_to_write_a_request_are_one_identity() -> None:
    world = World()
    one = world.know(question(temperature=1.0), A)
    other = world.know(b' {"temperature": 1, ' + question()[1:] + b"\n", A)
    assert world.api.read == 2
    assert one.identities == other.identities


def test_every_secret_has_its_identity_the_writing_one_first() -> None:
    both = World(secrets=["the new secret of all", SECRET]).know(question(), A).identities
    assert len(both) == 2
    assert both[1] == World().know(question(), A).identities[0]
    assert both[0] == World(secrets=["the new secret of all"]).know(question(), A).identities[0]


def test_replicas_with_one_secret_agree() -> None:
    assert World().know(question(), A) == World().know(question(), A)


@pytest.mark.parametrize("scope", ["credential", "tenant"])
def test_credentials_have_their_own_identities(scope: str) -> None:
    world = World(cache={"scope": scope})
    known = [world.know(question(), headers).identities for headers in (A, B, {})]
    assert len(set(known)) == 3


def test_a_credential_in_another_header_is_another_credential() -> None:
    world = World()
    bearer = world.know(question(), {"Authorization": "Bearer k"})
    key = world.know(question(), {"x-api-key": "k"})
    assert bearer.identities != key.identities


def test_in_shared_scope_all_have_one_identity_but_are_told_apart() -> None:
    world = World(cache={"scope": "shared"})
    known = [world.know(question(), headers) for headers in (A, B, {})]
    assert len({k.identities for k in known}) == 1
    assert len({k.who for k in known}) == 3


def test_an_injected_credential_changes_neither_identity_nor_who() -> None:
    plain = World(upstreams={"openai": {"base_url": "https://api.openai.com/v1"}})
    keyed = World(upstreams={"openai": {"base_url": "https://api.openai.com/v1", "api_key": "k"}})
    for headers in (A, B, {}):
        one, other = plain.know(question(), headers), keyed.know(question(), headers)
        assert (one.identities, one.who) == (other.identities, other.who)


def test_what_a_provider_keeps_stays_with_the_configured_account_that_it_keeps_it_for() -> None:
    base = {"base_url": "https://api.openai.com/v1"}
    world = World(upstreams={"a": {**base, "api_key": "k1"}, "b": {**base, "api_key": "k2"}})
    kept = orjson.dumps({"model": "gpt-4o", "input": "hi"})
    responses = OpenAIResponses()
    one, other = (
        world.know(kept, A, target=f"/u/{name}/v1/responses", api=responses) for name in "ab"
    )
    assert one.ask is not None
    assert one.ask.bound
    assert one.identities != other.identities


def test_a_header_that_stays_here_can_not_speak_for_what_the_upstream_is_asked() -> None:
    world = World(cache={"scope": "shared"})
    beta = {**A, "OpenAI-Beta": "x=1"}
    plain = world.know(question(), A)
    told = world.know(question(), beta)
    withheld = world.know(question(), {**beta, "Connection": "keep-alive, openai-beta"})
    assert withheld.identities == plain.identities != told.identities
    # Nor did the door confuse them.
    assert world.know(question(), beta) is told
    assert world.know(question(), {**beta, "Connection": "keep-alive"}) is told


TENANTS: dict[str, Any] = {
    "cache": {"scope": "tenant"},
    "server": {"trusted_proxies": ["10.1.0.0/16", "fd00::/8"]},
}


@pytest.mark.parametrize("peer", ["10.1.2.3", "fd00::1", "::ffff:10.1.2.3"])
def test_a_trusted_proxy_names_the_tenant(peer: str) -> None:
    world = World(**TENANTS)
    acme = [
        world.know(question(), {**who, "x-gateway-tenant": "acme"}, peer=peer) for who in (A, B)
    ]
    rival = world.know(question(), {**A, "x-gateway-tenant": "rival"}, peer=peer)
    assert acme[0].identities == acme[1].identities != rival.identities
    # Not even a tenant is taken for the credential that was accepted.
    assert acme[0].who != acme[1].who


@pytest.mark.parametrize("peer", ["10.2.0.1", "127.0.0.1", "::1", "::ffff:10.2.0.1", "", "x", None])
def test_nobody_else_does(peer: str | None) -> None:
    world = World(**TENANTS)
    plain = world.know(question(), A, peer=peer)
    forged = world.know(question(), {**A, "x-gateway-tenant": "acme"}, peer=peer)
    assert forged.identities == plain.identities


def test_two_tenants_in_one_request_are_none() -> None:
    world = World(**TENANTS)
    twice = [*A.items(), ("x-gateway-tenant", "acme"), ("X-Gateway-Tenant", "rival")]
    known = world.know(question(), twice, peer="10.1.2.3")
    assert known.identities == world.know(question(), A, peer="10.1.2.3").identities
    empty = world.know(question(), {**A, "x-gateway-tenant": ""}, peer="10.1.2.3")
    assert empty.identities == known.identities


def test_a_tenant_counts_only_in_tenant_scope() -> None:
    world = World(server={"trusted_proxies": ["0.0.0.0/0"]})
    named = world.know(question(), {**A, "x-gateway-tenant": "acme"})
    assert named.identities == world.know(question(), A).identities


def test_a_tenant_is_no_credential_of_the_same_name() -> None:
    world = World(**TENANTS)
    tenant = world.know(question(), {"x-gateway-tenant": "acme"}, peer="10.1.2.3")
    anonymous = world.know(question(), peer="10.1.2.3")
    assert tenant.identities != anonymous.identities


# --- what is not understood -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "body", "reason"),
    [
        ({"Content-Encoding": "gzip"}, b"\x1f\x8b", Reason.ENCODED_BODY),
        ({"Authorization": "AWS4-HMAC-SHA256 Credential=x"}, question(), Reason.SIGNED),
        ({}, b"{", Reason.UNCACHEABLE_JSON),
        ({}, b"", Reason.UNCACHEABLE_JSON),
        ({}, b"[1]", Reason.NOT_UNDERSTOOD),
        ({}, b'{"model":1}', Reason.NOT_UNDERSTOOD),
    ],
)
def test_what_can_not_be_read_is_passed_with_its_reason(
    headers: dict[str, str], body: bytes, reason: Reason
) -> None:
    known = World().know(body, headers)
    assert (known.pass_reason, known.identities, known.ask) == (reason, (), None)
    assert known.endpoint.name == "openai"


def test_a_route_may_choose_by_the_model_that_the_body_names() -> None:
    world = World(
        upstreams={"gpu": {"base_url": "http://gpu/v1"}},
        routes=[{"path": CHAT, "model": "llama-*", "upstream": "gpu"}],
    )
    assert world.know(b'{"model": "llama-3", "odd": ').endpoint.name == "openai"
    llama = orjson.dumps({"model": "llama-3", "messages": [{"role": "user", "content": "x"}]})
    assert world.know(llama).endpoint.name == "gpu"
    assert world.know(question()).endpoint.name == "openai"
    assert world.know(b'{"model": ["llama-3"]}').endpoint.name == "openai"
    assert world.know(b'["llama-3"]').endpoint.name == "openai"


def test_what_we_fail_to_read_is_the_upstreams_to_answer() -> None:
    class Failing(OpenAIChat):
        def understand(self, body: bytes, rules: ApiRules) -> Question:
            raise RecursionError

    known = World().know(question(), A, api=Failing())
    assert (known.pass_reason, known.identities) == (Reason.NOT_UNDERSTOOD, ())


async def test_a_body_that_is_long_to_read_is_read_beside_and_known_as_the_same() -> None:
    class Watching(OpenAIChat):
        readers: ClassVar[list[str]] = []

        def understand(self, body: bytes, rules: ApiRules) -> Question:
            self.readers.append(threading.current_thread().name)
            return super().understand(body, rules)

    world = World()
    sender = Sender((), CIMultiDict(), None)
    asked = take_apart(CHAT)
    short, many = question(), question("," * 70_000)
    for body in (short, many, short, many):
        known = await world.recognition.recognise_beside(sender, asked, Watching(), body)
        assert known.identities == world.know(body).identities
    at_once, beside = Watching.readers
    assert at_once == threading.current_thread().name
    assert beside.startswith("warmgate-read")


def test_a_body_of_more_members_than_the_budget_has_room_for_is_not_read() -> None:
    world = World(server={"memory_budget_bytes": 16 << 20})
    fits = world.know(question(metadata=[[]] * 131_000), A)
    assert fits.pass_reason is not Reason.NOT_UNDERSTOOD
    assert world.api.read == 1
    assert world.know(question(metadata=[[]] * 132_000), A).pass_reason is Reason.NOT_UNDERSTOOD
    assert world.api.read == 1


def test_a_body_of_millions_of_members_is_not_read() -> None:
    world = World()
    body = question()[:-1] + b',"x":[' + b"1," * 2_000_000 + b"1]}"
    assert world.know(body, A).pass_reason is Reason.NOT_UNDERSTOOD
    assert world.api.read == 0

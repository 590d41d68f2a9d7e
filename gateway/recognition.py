"""Who asks what of whom: from a raw request to its endpoint, scope and identities.

The door is asked first; only what it doesn't know is parsed and brought into canonical form.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import orjson
import structlog
from multidict import CIMultiDict

from gateway.budget import container_bytes, default_limit
from gateway.core import identity
from gateway.core.model import Question, Reason
from gateway.door import Known, Parts
from gateway.peers import Peers
from gateway.providers import registry
from gateway.wire import openai_embeddings
from gateway.wire.base import NotUnderstood
from gateway.wire.table import OPENAI_EMBEDDINGS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Executor

    from aiohttp import web

    from gateway.config import Config
    from gateway.core.model import Pairs
    from gateway.door import Door
    from gateway.store.secret import ScopeSecrets
    from gateway.upstream.choice import Asked, Choice, Endpoint
    from gateway.wire.base import WireApi
    from gateway.wire.openai_embeddings import Batch

_log = structlog.get_logger("warmgate.recognition")

_SIGNED = "aws4-hmac-sha256"

# What takes longer to read than others should have to wait for, about 20 ms, is read in a thread.
_LONG_BYTES = 2 * 1024 * 1024
# So short that it takes less, whatever it holds: it isn't even counted.
_SHORT_BYTES = 64 * 1024
_MANY_MEMBERS = 10_000
# Beyond it a body isn't read at all: seconds of work and a hundred bytes for each member would be
# anybody's to ask for. (A full batch of embeddings, 2,048 inputs of 900 tokens, is below it.)
_MOST_MEMBERS = 2_000_000
# Nor what would take more than a small container has: each for so many bytes that requests may hold.
_BYTES_A_MEMBER = 128
_READERS = 2
# How many clients' headers are remembered at a time, and how long they may be.
_MOST_SEEN = 512
_USUAL_HEADERS_BYTES = 4096
# Says nothing of a header that stays here.
_PERSISTENCE = frozenset(("keep-alive", "close", "upgrade"))


class Sender(NamedTuple):
    """Who sends a request, as far as it can be believed."""

    headers: Pairs
    lookup: Mapping[str, str]
    """The same headers by case-insensitive name."""
    peer: str | None
    """The address at the other end of the connection."""


class _Seen(NamedTuple):
    """What the headers of a request come to at one endpoint. Digests, and nothing of a credential."""

    who: bytes
    scopes: tuple[bytes, ...]
    """Under each secret, for what is not bound to the provider's records."""
    keyed: bytes
    """The headers that may change the answer."""


class Recognition:
    """Recognises requests under one config."""

    def __init__(
        self,
        config: Config,
        choice: Choice,
        secrets: ScopeSecrets,
        door: Door,
        readers: Executor | None = None,
    ) -> None:
        """`readers` are threads for what is long to read; its own, unless given."""
        self._choice = choice
        self._secrets = secrets
        self._door = door
        self._scope = config.cache.scope
        self._tenant_header = config.cache.tenant_header.lower()
        # A client's requests have the same headers again and again.
        self._seen: dict[tuple[bytes, bytes, int], _Seen] = {}
        self._readers = readers or reading_threads()
        self._trusted = Peers(config.server.trusted_proxies)
        self._most_members = 0
        self.turn(config)

    def turn(self, config: Config) -> None:
        """Another config holds, by which requests are recognised as before."""
        room = config.server.memory_budget_bytes or default_limit(container_bytes())
        self._most_members = min(_MOST_MEMBERS, room // _BYTES_A_MEMBER)

    def forget(self) -> None:
        """Nobody asks any more, but who asked already: remember nothing."""
        self._door.close()
        self._seen.clear()

    def recognise(self, sender: Sender, asked: Asked, api: WireApi, body: bytes) -> Known:
        """What is asked of whom. Raises `NotFound` for an upstream that isn't there."""
        sender = _as_forwarded(sender)
        tenant = self._tenant(sender)
        key = self._key(sender, asked, body, tenant)
        known = self._door.get(key)
        if known is None:
            known = self._parse(sender, asked, api, body, tenant)
            self._door.put(key, known)
        return known

    async def recognise_beside(
        self, sender: Sender, asked: Asked, api: WireApi, body: bytes
    ) -> Known:
        """The same, but what is long to read is read in a thread: nobody else waits for it."""
        sender = _as_forwarded(sender)
        tenant = self._tenant(sender)
        key = self._key(sender, asked, body, tenant)
        known = self._door.get(key)
        if known is not None:
            return known
        if len(body) <= _SHORT_BYTES or (
            len(body) <= _LONG_BYTES and body.count(b",") <= _MANY_MEMBERS
        ):
            known = self._parse(sender, asked, api, body, tenant)
        else:
            loop = asyncio.get_running_loop()
            known = await loop.run_in_executor(
                self._readers, self._parse, sender, asked, api, body, tenant
            )
        self._door.put(key, known)
        return known

    def _key(self, sender: Sender, asked: Asked, body: bytes, tenant: str | None) -> bytes | None:
        return self._door.key(
            f"{asked.explicit or ''} {asked.path}?{asked.query or ''}",
            b"" if tenant is None else b"tenant " + tenant.encode("utf-8", "surrogateescape"),
            self._secrets.generation,
            _telling(sender.headers),
            body,
        )

    def _parse(
        self, sender: Sender, asked: Asked, api: WireApi, body: bytes, tenant: str | None
    ) -> Known:
        model = _peek_model(body) if self._choice.needs_model(asked) else ""
        endpoint = self._choice.endpoint(asked, sender.lookup, model)
        seen = self._seen_of(sender, endpoint, tenant)
        who = seen.who
        untouchable = _untouchable(sender)
        if untouchable is not None:
            return Known(endpoint, (), None, untouchable, who)
        if len(body) > self._most_members and body.count(b",") > self._most_members:
            return Known(endpoint, (), None, Reason.NOT_UNDERSTOOD, who)
        fold_text = self._choice.policy(asked, model).fold_text
        rules = registry.rules(endpoint.provider, api.name, fold_text=fold_text)
        batch: Batch | None = None
        try:
            if api.name == OPENAI_EMBEDDINGS.name:
                batch = openai_embeddings.understand(body, rules)
                question = Question(batch.ask, batch.canonical)
            else:
                question = api.understand(body, rules)
        except NotUnderstood as odd:
            return Known(endpoint, (), None, odd.reason, who)
        except Exception:  # noqa: BLE001 - what we fail to read, the upstream may well understand
            _log.exception("a request can't be read", api=api.name)
            return Known(endpoint, (), None, Reason.NOT_UNDERSTOOD, who)
        if question.pass_reason is not None:
            return Known(endpoint, (), question.ask, question.pass_reason, who)
        headers, scopes = seen.keyed, seen.scopes
        if question.ask.bound:
            scopes = self._scopes(sender, endpoint, tenant, bound=True)

        def identify(canonical: bytes) -> tuple[bytes, ...]:
            return tuple(
                identity.identity(
                    scope, endpoint.identity, asked.path, asked.query or "", headers, canonical
                )
                for scope in scopes
            )

        parts = None
        if batch is not None and len(batch.units) > 1:
            units = tuple(identify(unit.canonical) for unit in batch.units)
            parts = Parts(batch, units, identify(batch.frame))
        identities = identify(question.canonical)
        keys = identity.entry_keys(identities, question.ask.form)
        return Known(endpoint, identities, question.ask, None, who, parts, keys)

    def _seen_of(self, sender: Sender, endpoint: Endpoint, tenant: str | None) -> _Seen:
        lines = [f"{n}:{v}" for n, v in _telling(sender.headers)]
        # No header holds a line end: the tenant's is its own whatever the others are.
        text = "\n".join(("" if tenant is None else f"={tenant}", *lines))
        told = text.encode("utf-8", "surrogateescape")
        digest = identity.scope(self._secrets.current[0], "headers", told)
        key = (digest, endpoint.identity, self._secrets.generation)
        seen = self._seen.get(key)
        if seen is None:
            seen = _Seen(
                self.who(sender, endpoint),
                self._scopes(sender, endpoint, tenant, bound=False),
                identity.keyed_headers(sender.headers, endpoint.provider),
            )
            if len(told) <= _USUAL_HEADERS_BYTES:
                if len(self._seen) >= _MOST_SEEN:
                    self._seen.clear()
                self._seen[key] = seen
        return seen

    def _scopes(
        self, sender: Sender, endpoint: Endpoint, tenant: str | None, *, bound: bool
    ) -> tuple[bytes, ...]:
        return tuple(
            self._scope_id(secret, sender, endpoint, tenant, bound=bound)
            for secret in self._secrets.current
        )

    def tenant(self, request: web.BaseRequest) -> str | None:
        """The tenant that a trusted proxy names for this request; None in any other scope."""
        if self._scope != "tenant":
            return None
        pairs = tuple((name.lower(), value) for name, value in request.headers.items())
        return self._tenant(_as_forwarded(Sender(pairs, request.headers, request.remote)))

    def who(self, sender: Sender, endpoint: Endpoint) -> bytes:
        """The credential at this endpoint, hashed: who asks."""
        credential = identity.credential(sender.headers, endpoint.provider)
        return identity.scope(
            self._secrets.current[0], "accepted", endpoint.identity + b"\0" + credential
        )

    def _tenant(self, sender: Sender) -> str | None:
        """The tenant that a trusted proxy names; anybody else's word is ignored."""
        if self._scope != "tenant" or sender.peer is None:
            return None
        names = [value for name, value in sender.headers if name == self._tenant_header]
        # Two of them: one may be the client's own, which its proxy only added to.
        if len(names) != 1 or not names[0]:
            return None
        return names[0] if sender.peer in self._trusted else None

    def _scope_id(
        self, secret: bytes, sender: Sender, endpoint: Endpoint, tenant: str | None, *, bound: bool
    ) -> bytes:
        # What is bound to the provider's records for a credential never leaves it.
        if self._scope == "shared" and not bound:
            return identity.scope(secret, "shared", b"")
        if tenant is not None and not bound:
            return identity.scope(secret, "tenant", tenant.encode("utf-8", "surrogateescape"))
        credential = identity.credential(sender.headers, endpoint.provider)
        if bound and endpoint.api_key is not None:
            # The provider keeps it for the configured account, of which there may be several.
            account = identity.digest((credential, endpoint.api_key.encode()))
            return identity.scope(secret, "account", account)
        return identity.scope(secret, "credential" if credential else "anonymous", credential)


def reading_threads() -> ThreadPoolExecutor:
    """Where long requests are read."""
    return ThreadPoolExecutor(_READERS, "warmgate-read")


def _telling(headers: Pairs) -> Pairs:
    """The headers that could matter to any provider, credentials and cookies included."""
    is_transport = identity.is_transport
    return tuple([pair for pair in headers if not is_transport(pair[0])])


def _as_forwarded(sender: Sender) -> Sender:
    """Without the headers that `Connection` names (RFC 9110 section 7.6.1): they stay here, so
    they can't speak for what the upstream is asked.
    """
    if "connection" not in sender.lookup:
        return sender
    named = {
        token.strip().lower()
        for name, value in sender.headers
        if name == "connection"
        for token in value.split(",")
    }
    if named <= _PERSISTENCE:
        return sender
    kept = tuple(pair for pair in sender.headers if pair[0] not in named)
    return Sender(kept, CIMultiDict(kept), sender.peer)


def _untouchable(sender: Sender) -> Reason | None:
    """Bodies that we can't read, or that a signature binds: never parsed, never changed."""
    if sender.lookup.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
        return Reason.ENCODED_BODY
    if sender.lookup.get("authorization", "").strip().lower().startswith(_SIGNED):
        return Reason.SIGNED
    return None


def _peek_model(body: bytes) -> str:
    """The model that a body names; only where a route asks for it, before anything is parsed."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    model = value.get("model") if isinstance(value, dict) else None
    return model if isinstance(model, str) else ""

"""Our own errors: each fixes its status, its code and whether a client should try again."""

from __future__ import annotations

from dataclasses import dataclass


class GatewayError(Exception):
    """Something the client is told, in the shape of the API it called.

    `code` is what programs match on (prefixed `gateway_`); `param` names the faulty field.
    `retry` goes out as `x-should-retry`, which both official SDKs obey; None leaves it to them,
    as it would be without a gateway in between. `retry_after_s` goes out as `Retry-After`.
    """

    status = 500
    code = "gateway_internal_error"
    retry: bool | None = None
    retry_after_s: int | None = None

    def __init__(self, message: str, *, param: str | None = None) -> None:
        """Say what happened and how to mend it."""
        super().__init__(message)
        self.message = message
        self.param = param


class NotFound(GatewayError):
    """No such path or upstream here."""

    status = 404
    code = "gateway_not_found"
    retry = False


class BadRequest(GatewayError):
    """The request can't be forwarded as it is."""

    status = 400
    code = "gateway_bad_request"
    retry = False


class NotAllowed(GatewayError):
    """`x-gateway-explain` from somebody whom `server.explain_to` does not name."""

    status = 403
    code = "gateway_not_allowed"
    retry = False


class BodyTooLarge(GatewayError):
    """The body is over `server.body_limit_bytes`."""

    status = 413
    code = "gateway_body_too_large"
    retry = False


class NotInCache(GatewayError):
    """`only-if-cached`, and there is no answer (RFC 9111 section 5.2.1.7: 504)."""

    status = 504
    code = "gateway_not_in_cache"
    retry = False


class UpstreamUnreachable(GatewayError):
    """The connection could not be made: nothing was sent, so trying again costs nothing."""

    status = 502
    code = "gateway_upstream_unreachable"


class UpstreamBroken(GatewayError):
    """The upstream went away, or spoke no HTTP, after it may have begun to work (and to bill)."""

    status = 502
    code = "gateway_upstream_broken"


class UpstreamFailed(GatewayError):
    """The upstream answered with a failure, and the stale answer that was to stand for it could
    not be served. `answered` is the failure's status.
    """

    status = 502
    code = "gateway_upstream_failed"

    def __init__(self, message: str, *, param: str | None = None, answered: int = 0) -> None:
        """Say it, with the failure's status."""
        super().__init__(message, param=param)
        self.answered = answered


class UpstreamTimeout(GatewayError):
    """Silence for longer than `idle_timeout_s` after the request was sent."""

    status = 504
    code = "gateway_upstream_timeout"


class Overloaded(GatewayError):
    """What requests hold together is at `server.memory_budget_bytes`: no room for this one now."""

    status = 503
    code = "gateway_overloaded"
    retry_after_s = 1


class ShuttingDown(GatewayError):
    """The gateway takes no new connections any more. Nothing was sent on: trying again costs nothing."""

    status = 503
    code = "gateway_draining"
    retry = True
    retry_after_s = 1


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong in the config: where (`cache.ttl_s`), what, and how to mend it."""

    path: str
    problem: str
    mend: str


class ConfigError(Exception):
    """Every fault of a config at once."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        """Keep all the faults."""
        super().__init__("; ".join(f"{f.path}: {f.problem} ({f.mend})" for f in faults))
        self.faults = faults


def let_go(problem: BaseException) -> None:
    """Forget which way an error and its causes came, once it is dealt with.

    The frames on that way hold the request, and some of them the error: the whole would stay until the
    collector comes by.
    """
    each: BaseException | None = problem
    while each is not None:
        each.__traceback__ = None
        each = each.__cause__ or each.__context__

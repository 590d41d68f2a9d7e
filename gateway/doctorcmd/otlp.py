"""Whether what receives traces, metrics and events can be reached, and takes what we send.

Over HTTP an empty request is posted: it is a valid one, and holds nothing to keep.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import TYPE_CHECKING

from gateway.config.redaction import redact_url
from gateway.doctorcmd.finding import fine, look, mend, skipped
from gateway.doctorcmd.reach import Place, Unreached, ask, asking, reach
from gateway.telemetry import content, signals
from gateway.telemetry.otlp_options import GRPC, options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.config import Config
    from gateway.doctorcmd.finding import Finding
    from gateway.telemetry.otlp_options import Options
    from gateway.telemetry.signals import Signal


def wanted(config: Config, environ: Mapping[str, str]) -> list[Signal]:
    """Which signals are pushed."""
    if signals.disabled(environ):
        return []
    found: list[Signal] = []
    traces = config.telemetry.traces
    if (traces == "on" or (traces == "auto" and signals.has_endpoint(environ, "TRACES"))) and (
        signals.wants_otlp(environ, "TRACES")
    ):
        found.append("TRACES")
    if (
        config.telemetry.metrics
        and signals.has_endpoint(environ, "METRICS")
        and signals.wants_otlp(environ, "METRICS")
    ):
        found.append("METRICS")
    if "TRACES" in found and content.modes(environ)[1] and signals.wants_otlp(environ, "LOGS"):
        found.append("LOGS")
    return found


async def otlp(config: Config, environ: Mapping[str, str], timeout_s: float) -> list[Finding]:
    """By signal."""
    pushed = wanted(config, environ)
    if not pushed:
        return [skipped("otlp", "nothing is pushed: OTEL_EXPORTER_OTLP_ENDPOINT is not set")]
    return list(await asyncio.gather(*(_signal(each, environ, timeout_s) for each in pushed)))


async def _signal(signal: Signal, environ: Mapping[str, str], timeout_s: float) -> Finding:
    asked, check = options(environ, signal), f"otlp.{signal.lower()}"
    try:
        place, trust = _place(asked), _trust(asked)
    except _Unusable as problem:
        return mend(check, str(problem), problem.mend)
    try:
        await reach(place, timeout_s, environ, trust)
        if asked.protocol == GRPC:
            return fine(check, f"{redact_url(place.url)} takes connections (gRPC)")
        async with asking(timeout_s) as session:
            answer = await ask(
                session,
                place,
                method="POST",
                headers={**asked.headers, "Content-Type": "application/x-protobuf"},
                body=b"",
                trust=trust if place.is_tls else None,
            )
    except Unreached as problem:
        return mend(check, str(problem), problem.mend)
    return _meaning(check, answer.status, f"POST {redact_url(place.url)} -> {answer.status}")


def _meaning(check: str, status: int, said: str) -> Finding:
    if 200 <= status < 300:
        return fine(check, said, status=status)
    if status in (400, 415):
        # Some receivers refuse what is empty.
        return look(check, f"{said}: it takes no empty request", "see whether spans arrive")
    if status in (401, 403):
        how = "set OTEL_EXPORTER_OTLP_HEADERS, such as authorization=Bearer%20TOKEN"
    elif status in (404, 405):
        how = (
            "OTEL_EXPORTER_OTLP_ENDPOINT is a base to which /v1/traces is added; the one of a signal "
            "is used as it is"
        )
    else:
        how = "see its log"
    return mend(check, said, how, status=status)


class _Unusable(Exception):
    def __init__(self, said: str, how: str) -> None:
        super().__init__(said)
        self.mend = how


def _trust(asked: Options) -> ssl.SSLContext:
    for name, file in (
        ("CERTIFICATE", asked.certificate),
        ("CLIENT_KEY", asked.client_key),
        ("CLIENT_CERTIFICATE", asked.client_certificate),
    ):
        if file and not os.access(file, os.R_OK):
            said = f"OTEL_EXPORTER_OTLP_{name}: {file} can't be read"
            raise _Unusable(said, "mount it, readable to this uid")
    try:
        context = ssl.create_default_context(cafile=asked.certificate)
        if asked.client_certificate:
            context.load_cert_chain(asked.client_certificate, asked.client_key)
    except (OSError, ValueError) as problem:
        raise _Unusable(
            f"its TLS files can't be used ({type(problem).__name__})",
            "give PEM files, and the key that belongs to the certificate",
        ) from problem
    return context


def _place(asked: Options) -> Place:
    url = asked.endpoint
    if "://" not in url:
        url = f"{'http' if asked.insecure else 'https'}://{url}"
    place = Place(url)
    try:
        usable = place.host and url.startswith(("http://", "https://")) and place.port
    except ValueError:
        usable = False
    if not usable:
        raise _Unusable(
            "its endpoint is no URL", "write http://host:4318 (HTTP) or http://host:4317 (gRPC)"
        )
    return place

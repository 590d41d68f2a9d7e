"""A name, a port, TLS and HTTP, each failing by itself."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.doctorcmd.reach import BODY_BYTES, Place, Unreached, ask, asking, reach, resolve
from tests.helpers.redis_servers import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TLS = Path(__file__).parents[1] / "helpers/tls"


@asynccontextmanager
async def serving(answer: bytes, certificate: str | None = None) -> AsyncIterator[int]:
    """A server that sends this to whoever says something; its port."""
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(TLS / certificate)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if await reader.read(1):
                writer.write(answer)
                await writer.drain()
        except OSError:
            return
        finally:
            writer.transport.abort() if not answer else writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


@pytest.fixture
def _own_ca(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "ca.pem"))


async def failure(place: Place, environ: dict[str, str] | None = None) -> Unreached:
    with pytest.raises(Unreached) as caught:
        await reach(place, 1.0, environ or {})
    return caught.value


@pytest.mark.usefixtures("_own_ca")
async def test_a_server_whose_certificate_is_believed_is_reached() -> None:
    async with serving(b"x", "server.pem") as port:
        reached = await reach(Place(f"https://127.0.0.1:{port}/v1"), 2.0, {})

    assert reached.tls.startswith("TLS")
    assert reached.ends_in_s is not None
    assert "127.0.0.1" in reached.addresses


@pytest.mark.usefixtures("_own_ca")
async def test_an_address_is_held_to_the_name_that_it_stands_for() -> None:
    async with serving(b"x", "elsewhere.pem") as port:
        place = Place(f"https://127.0.0.1:{port}/v1", f"elsewhere.example:{port}")
        assert (await reach(place, 2.0, {})).tls

        wrong = await failure(place._replace(authority="models.example"))

    assert wrong.step == "tls"
    assert "models.example" in str(wrong)


async def test_a_certificate_of_an_unknown_ca_is_told_with_what_to_do() -> None:
    async with serving(b"x", "server.pem") as port:
        problem = await failure(Place(f"https://127.0.0.1:{port}/v1"))

    assert problem.step == "tls"
    assert "SSL_CERT_FILE" in problem.mend


@pytest.mark.usefixtures("_own_ca")
async def test_a_certificate_that_has_ended_is_told() -> None:
    async with serving(b"x", "expired.pem") as port:
        problem = await failure(Place(f"https://127.0.0.1:{port}/v1"))

    assert problem.step == "tls"
    assert "expired" in str(problem)


async def test_plain_http_where_tls_was_meant_is_told() -> None:
    async with serving(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        problem = await failure(Place(f"https://127.0.0.1:{port}/v1"))

    assert problem.step == "tls"
    assert "http://" in problem.mend


async def test_nobody_listening_is_no_matter_of_proxies() -> None:
    place = Place(f"http://127.0.0.1:{free_port()}/v1")
    problem = await failure(place, {"HTTPS_PROXY": "http://proxy:3128"})

    assert problem.step == "tcp"
    assert "refuses" in str(problem)
    # Whose 127.0.0.1 it is, is the first question in a container.
    assert "the container itself" in problem.mend
    assert "proxy" not in problem.mend


@pytest.mark.parametrize("host", ["no-such-name.invalid", "a" * 300 + ".example", "xn--\u00e4"])
async def test_what_is_no_name_has_no_address(host: str) -> None:
    with pytest.raises(Unreached) as caught:
        await resolve(host, 2.0)

    assert caught.value.step == "dns"


async def test_a_body_that_breaks_off_is_not_called_silence() -> None:
    async with (
        serving(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{") as port,
        asking(2.0) as session,
    ):
        with pytest.raises(Unreached) as caught:
            await ask(session, Place(f"http://127.0.0.1:{port}/"))

    assert caught.value.step == "http"
    assert "answers 200, and its body breaks off" in str(caught.value)


async def test_what_is_no_http_is_told() -> None:
    async with serving(b"SSH-2.0-OpenSSH_9.2\r\n") as port, asking(2.0) as session:
        with pytest.raises(Unreached) as caught:
            await ask(session, Place(f"http://127.0.0.1:{port}/"))

    assert caught.value.step == "http"
    assert "OpenSSH" not in str(caught.value)


async def test_of_a_huge_answer_only_a_part_is_read() -> None:
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    async with serving(head + b"x" * (3 * BODY_BYTES)) as port, asking(5.0) as session:
        answer = await ask(session, Place(f"http://127.0.0.1:{port}/"))

    assert answer.status == 200
    assert len(answer.body) <= BODY_BYTES

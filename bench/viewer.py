"""`python -m bench.viewer PHOENIX`: are all kinds of requests there in a real trace viewer?

PHOENIX is the URL of a running Arize Phoenix, or the Python of a virtual environment that has
`arize-phoenix`, which is started then (two minutes and 855 MB to install: no part of CI). A gateway in
front of a simulated provider is asked in every way that has a trace of its own, its spans go to Phoenix
over OTLP, and what Phoenix then says of each is asked back over its REST API. Ends with 1 where anything
is missing. `--screenshot FILE` keeps what Chromium shows of the trace that read from a provider's cache.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from bench.processes import free_port
from gateway.app import start
from gateway.cache import Clock
from gateway.config import Config
from gateway.lab.provider_sim import ProviderSim
from gateway.telemetry.logs import setup_logging

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.app import RunningGateway

PROJECT = "warmgate"
START_S = 120.0
SEEN_S = 60.0
CLAUDE, GPT = "claude-sonnet-5-5", "gpt-5.6"
RULES = "Answer in one sentence, and name the section of the manual that you rely on. " * 400


class Gateway:
    """A gateway whose spans go to Phoenix, whose upstreams are simulated, and whose clock moves."""

    def __init__(self) -> None:
        self.later_s = 0.0
        self.traces: dict[str, str] = {}
        self._gateway: RunningGateway
        self._session: aiohttp.ClientSession

    async def run(self, phoenix: str) -> dict[str, str]:
        """Ask in every way; kind of request -> its trace."""
        async with contextlib.AsyncExitStack() as stack:
            sim = await stack.enter_async_context(ProviderSim(ttft_s=0.3))
            self._session = await stack.enter_async_context(aiohttp.ClientSession())
            pool = {
                "engine": "vllm",
                "backends": [
                    {"url": f"http://127.0.0.1:{free_port()}/v1", "name": "replica-0"},
                    {"url": sim.v1_url, "name": "replica-1"},
                ],
                "routing": {"policy": "round_robin"},
            }
            config = {
                "server": {"port": 0, "probe_port": 0},
                "admin": {"port": 0},
                "store": {"url": "memory://"},
                "log": {"level": "error"},
                "cache": {"ttl_s": 100, "stale_while_revalidate_s": 60},
                "prompt_cache": {"markers": "auto"},
                "upstreams": {
                    "openai": {"base_url": sim.v1_url, "provider": "openai"},
                    "anthropic": {"base_url": sim.v1_url, "provider": "anthropic"},
                    "pool": pool,
                },
                "routes": [{"model": "local-*", "upstream": "pool"}],
            }
            environ = {
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{phoenix}/v1/traces",
                "OTEL_BSP_SCHEDULE_DELAY": "200",
                "OTEL_SERVICE_NAME": "warmgate",
                "OTEL_RESOURCE_ATTRIBUTES": f"openinference.project.name={PROJECT}",
            }
            clock = Clock(now=lambda: time.time() + self.later_s, monotonic=time.monotonic)
            self._gateway = await start(Config.model_validate(config), environ, clock)
            try:
                await self._ask_all()
            finally:
                # Sends what waits.
                await self._gateway.stop()
        return self.traces

    async def _ask_all(self) -> None:
        await self._messages("miss", "How is the lid removed?")
        await self._messages("miss, cached tokens read", "How is the filter changed?")
        await self._messages("hit", "How is the lid removed?")
        await self._messages(
            "translated: a stream from a document", "How is the lid removed?", stream=True
        )
        await self._chat("streamed miss", "Which oil?", stream=True)
        await self._chat("translated: a document from a stream", "Which oil?")
        await asyncio.gather(
            self._chat("leader", "How often?", temperature=0),
            self._chat("collapsed", "How often?", temperature=0),
        )
        for number in range(2):
            await self._chat(f"pool {number}", f"Question {number}?", model="local-8b")
        self.later_s = 120.0
        await self._messages("stale", "How is the lid removed?")
        # Its successor is asked for behind it.
        await self._gateway._calls.idle()  # noqa: SLF001 - as the tests wait for it

    async def _messages(self, kind: str, question: str, **more: Any) -> None:
        system = [{"type": "text", "text": RULES}]
        messages = [{"role": "user", "content": question}]
        body = {"model": CLAUDE, "max_tokens": 200, "system": system, "messages": messages, **more}
        await self._ask(kind, "/v1/messages", body)

    async def _chat(self, kind: str, question: str, **more: Any) -> None:
        body = {"model": GPT, "messages": [{"role": "user", "content": question}], **more}
        await self._ask(kind, "/v1/chat/completions", body)

    async def _ask(self, kind: str, path: str, body: dict[str, Any]) -> None:
        trace = os.urandom(16).hex()
        self.traces[kind] = trace
        # The caller's span is not sent by anybody: a viewer shows ours as the root.
        headers = {
            "authorization": "Bearer sk-viewer",
            "x-api-key": "sk-viewer",
            "anthropic-version": "2023-06-01",
            "traceparent": f"00-{trace}-{os.urandom(8).hex()}-01",
        }
        url = f"{self._gateway.api_url}{path}"
        async with self._session.post(url, json=body, headers=headers) as response:
            await response.read()
            if response.status != 200:
                raise SystemExit(f"viewer: {kind}: status {response.status}")


# --- what Phoenix says -------------------------------------------------------------------------------


def fetched(url: str) -> Any:
    """The JSON at a URL. Raises OSError."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def spans_of(phoenix: str) -> list[dict[str, Any]]:
    """All spans of the project."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        try:
            page = fetched(f"{phoenix}/v1/projects/{PROJECT}/spans?limit=500{cursor}")
        except urllib.error.HTTPError as problem:
            if problem.code == 404:
                return []
            raise
        found += page["data"]
        if not page.get("next_cursor"):
            return found
        cursor = f"&cursor={page['next_cursor']}"


USAGE = ("gen_ai.usage.input_tokens", "llm.token_count.prompt", "llm.token_count.completion")
READ = ("gen_ai.usage.cache_read.input_tokens", "llm.token_count.prompt_details.cache_read")


class Seen:
    """One trace as Phoenix has it."""

    def __init__(self, spans: list[dict[str, Any]], trace: str) -> None:
        self.spans = [span for span in spans if span["context"]["trace_id"] == trace]

    def named(self, name: str) -> list[dict[str, Any]]:
        """Its spans of this name, or of the operation that begins so."""
        return [s for s in self.spans if s["name"] == name or s["name"].startswith(f"{name} ")]

    def all(self, name: str, attribute: str) -> list[Any]:
        """The values of an attribute on them."""
        told = [span["attributes"] for span in self.named(name)]
        return [each[attribute] for each in told if attribute in each]


def faults(traces: dict[str, str], spans: list[dict[str, Any]]) -> list[str]:
    """What is missing, in words."""
    found: list[str] = []

    def wants(kind: str, what: str, is_there: object) -> None:
        if not is_there:
            found.append(f"{kind}: no {what}")

    for kind, trace in traces.items():
        seen = Seen(spans, trace)
        wants(kind, "server span", seen.named("POST"))
        calls = seen.named("chat")
        if kind in {"hit", "collapsed", "stale"} or kind.startswith("translated"):
            word = kind if kind in {"collapsed", "stale"} else "hit"
            wants(kind, f"result {word}", word in seen.all("POST", "gateway.cache.result"))
            wants(kind, "lack of a model call", not calls)
            continue
        wants(kind, "model call", len(calls) == 1)
        wants(kind, "plan", seen.named("plan"))
        for name in USAGE:
            wants(kind, name, seen.all("chat", name))
    warm = Seen(spans, traces["miss, cached tokens read"])
    for name in READ:
        wants("miss, cached tokens read", name, any(warm.all("chat", name)))
    counts = [n for k in ("pool 0", "pool 1") for n in Seen(spans, traces[k]).all("POST", RESENT)]
    wants("retried", RESENT, counts == [1])
    wants("stale", "revalidation", [s for s in spans if s["name"] == "cache revalidate"])
    return found


RESENT = "http.request.resend_count"


def table(traces: dict[str, str], spans: list[dict[str, Any]]) -> str:
    """What was seen, a line for each trace."""
    lines = [f"{'request':<40} {'spans':>5} {'result':<10} {'prompt':>7} {'read':>7} {'answer':>7}"]
    for kind, trace in traces.items():
        seen = Seen(spans, trace)
        result = (*seen.all("POST", "gateway.cache.result"), "-")[0]
        tokens = [(*seen.all("chat", name), "-")[0] for name in (USAGE[1], READ[1], USAGE[2])]
        numbers = " ".join(f"{token!s:>7}" for token in tokens)
        lines.append(f"{kind:<40} {len(seen.spans):>5} {result:<10} {numbers}")
    return "\n".join(lines)


ATTRIBUTES = """(() => {
  const tabs = [...document.querySelectorAll('[role=tab]')];
  const box = tabs.find((tab) => tab.textContent == 'Attributes')?.getBoundingClientRect();
  return box ? [box.x + box.width / 2, box.y + box.height / 2] : [];
})()"""
"""Where the tab with the attributes is, once it is there."""
CLIP = {"x": 425, "y": 46, "width": 1275, "height": 1054, "scale": 0.8}


async def screenshot(phoenix: str, span: dict[str, Any]) -> bytes:
    """What Chromium shows of a span's attributes, and of its trace beside them, as PNG."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("viewer: no chromium for the screenshot")
    [project] = [p for p in fetched(f"{phoenix}/v1/projects")["data"] if p["name"] == PROJECT]
    page = (
        f"{phoenix}/projects/{project['id']}/traces/{span['context']['trace_id']}"
        f"?selectedSpanNodeId={span['id']}"
    )
    port = free_port()
    with tempfile.TemporaryDirectory() as profile:
        browser = await asyncio.create_subprocess_exec(
            *(chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *("--window-size=1700,1260", f"--user-data-dir={profile}"),
            *(f"--remote-debugging-port={port}", page),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(90), aiohttp.ClientSession() as session:
                return await _shot(session, port)
        finally:
            browser.terminate()
            await browser.wait()


async def _shot(session: aiohttp.ClientSession, port: int) -> bytes:
    target = None
    while target is None:
        with contextlib.suppress(OSError):
            async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                pages = [each for each in await answer.json() if each["type"] == "page"]
                target = pages[0]["webSocketDebuggerUrl"] if pages else None
        await asyncio.sleep(0.2)
    async with session.ws_connect(target, max_msg_size=0) as socket:

        async def does(method: str, **parameters: Any) -> Any:
            await socket.send_json({"id": 1, "method": method, "params": parameters})
            while (told := await socket.receive_json()).get("id") != 1:
                pass
            return told["result"]

        where: list[float] = []
        while not where:
            await asyncio.sleep(0.5)
            told = await does("Runtime.evaluate", expression=ATTRIBUTES, returnByValue=True)
            where = told["result"]["value"]
        # (Until what is there answers clicks, and what was clicked is drawn: nothing tells when.)
        await asyncio.sleep(2.0)
        for kind in ("mousePressed", "mouseReleased"):
            await does(
                "Input.dispatchMouseEvent",
                type=kind,
                button="left",
                clickCount=1,
                x=where[0],
                y=where[1],
            )
        await asyncio.sleep(2.0)
        return base64.b64decode((await does("Page.captureScreenshot", clip=CLIP))["data"])


@contextlib.contextmanager
def phoenix_at(where: str) -> Iterator[str]:
    """Its URL; started, and stopped afterwards, where `where` is a Python that has it."""
    if where.startswith(("http://", "https://")):
        yield where.rstrip("/")
        return
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        environ = {
            **os.environ,
            "PHOENIX_WORKING_DIR": folder,
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": str(port),
            "PHOENIX_GRPC_PORT": str(free_port()),
            "PHOENIX_TELEMETRY_ENABLED": "false",
            "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
        }
        program = Path(where).parent / "phoenix"
        process = subprocess.Popen(
            [program, "serve"], env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_for(url, process)
            yield url
        finally:
            process.terminate()
            process.wait(20)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise SystemExit("viewer: Phoenix did not start")


def main() -> None:
    """Ask, look, say."""
    parser = argparse.ArgumentParser(prog="python -m bench.viewer", description=__doc__)
    parser.add_argument("phoenix", metavar="PHOENIX")
    parser.add_argument("--screenshot", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    # One line for each request would hide the table.
    setup_logging("error", "console")
    with phoenix_at(arguments.phoenix) as phoenix:
        traces = asyncio.run(Gateway().run(phoenix))
        deadline = time.monotonic() + SEEN_S
        spans = spans_of(phoenix)
        while (missing := faults(traces, spans)) and time.monotonic() < deadline:
            time.sleep(1.0)
            spans = spans_of(phoenix)
        print(table(traces, spans))
        if arguments.screenshot:
            [call] = Seen(spans, traces["miss, cached tokens read"]).named("chat")
            arguments.screenshot.write_bytes(asyncio.run(screenshot(phoenix, call)))
    for each in missing:
        print(each, file=sys.stderr)
    raise SystemExit(1 if missing else 0)


if __name__ == "__main__":
    main()

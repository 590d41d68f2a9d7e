"""A real Chromium, driven over its DevTools protocol: tabs that tell what they asked for and what
they complained of.

One process for many tests (`chromium`); each test has tabs of its own, which share nothing (`Tab`).
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import subprocess
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from tests.helpers.required import missing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

START_S = 30.0
DEADLINE_S = 20.0
_FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--remote-debugging-port=0",
)
_KEYS = {"Escape": 27, "Enter": 13, "Tab": 9, "ArrowDown": 40, "ArrowUp": 38, "End": 35, "Home": 36}


@contextmanager
def chromium(profile: Path) -> Iterator[str]:
    """The address of its DevTools; skips where there is none, unless WARMGATE_REQUIRE names it."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        missing("chromium", "install the package chromium")
    # (Root may not use the sandbox; what is opened here is ours alone.)
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        [program, *_FLAGS, *sandbox, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("DevTools listening on "):
                address = line.removeprefix("DevTools listening on ").strip()
                break
        else:
            missing("chromium", "it does not start")
        yield address
    finally:
        process.terminate()
        try:
            process.communicate(timeout=START_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


class Tab:
    """One tab, in a profile of its own."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._session = ""
        self._loaded = asyncio.Event()
        self.complaints: list[str] = []
        """What stands in its console as an error or a warning, and what was thrown."""
        self.asked: list[str] = []
        """URLs that it asked for."""
        self.statuses: dict[str, int] = {}

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One command, and its result."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_str(orjson.dumps(message).decode())
        async with asyncio.timeout(DEADLINE_S):
            told = await answer
        assert "error" not in told, f"{method}: {told['error']}"
        result: dict[str, Any] = told["result"]
        return result

    async def listen(self) -> None:
        """Take what it tells, until it is closed."""
        async for message in self._socket:
            told = orjson.loads(message.data)
            if "id" in told:
                answer = self._answers.pop(told["id"])
                if not answer.done():
                    answer.set_result(told)
                continue
            self._heard(told["method"], told["params"])

    def _heard(self, method: str, told: dict[str, Any]) -> None:
        match method:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Runtime.consoleAPICalled" if told["type"] in {"error", "warning", "assert"}:
                self.complaints.append(str([each.get("value") for each in told["args"]]))
            case "Runtime.exceptionThrown":
                self.complaints.append(str(told["exceptionDetails"]))
            case "Log.entryAdded" if told["entry"]["level"] in {"error", "warning"}:
                self.complaints.append(told["entry"]["text"])
            case "Network.requestWillBeSent":
                self.asked.append(told["request"]["url"])
            case "Network.responseReceived":
                self.statuses[told["response"]["url"]] = told["response"]["status"]
            case _:
                pass

    async def open(self, *, width: int, height: int, dark: bool) -> None:
        """Make the tab: `listen` runs already."""
        context = await self.send("Target.createBrowserContext")
        made = await self.send(
            "Target.createTarget", url="about:blank", browserContextId=context["browserContextId"]
        )
        attached = await self.send("Target.attachToTarget", targetId=made["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.send(f"{domain}.enable")
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 500,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])

    async def go(self, url: str) -> None:
        """Navigate, and wait for the load event."""
        self._loaded.clear()
        await self.send("Page.navigate", url=url)
        async with asyncio.timeout(DEADLINE_S):
            await self._loaded.wait()

    async def tell(self, expression: str) -> Any:
        """What JavaScript makes of it; promises are awaited."""
        told = await self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait till it holds: looked at whenever something is drawn, in the tab itself."""
        await self.tell(
            f"""new Promise((yes, no) => {{
                const end = performance.now() + {1000 * (DEADLINE_S - 5)};
                const look = () => ({condition}) ? yes()
                    : performance.now() > end
                    ? no(new Error({orjson.dumps(condition).decode()} + ' :: '
                        + document.body.innerText.slice(0, 2000)))
                    : setTimeout(look, 15);
                look();
            }})"""
        )

    async def click(self, selector: str) -> None:
        """As a person does, on the middle of what is there."""
        where = await self.tell(
            f"""(() => {{ const it = document.querySelector({orjson.dumps(selector).decode()});
            it.scrollIntoView({{block: 'center'}}); const box = it.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2]; }})()"""
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.send(
                "Input.dispatchMouseEvent",
                type=kind, x=where[0], y=where[1], button="left", clickCount=1,
            )  # fmt: skip

    async def press(self, key: str) -> None:
        """One key, where the focus is."""
        known = {"key": key, "code": key, "windowsVirtualKeyCode": _KEYS[key]}
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            await self.send("Input.dispatchKeyEvent", type=kind, **known, **text)

    async def type(self, text: str) -> None:
        """Text, where the focus is."""
        await self.send("Input.insertText", text=text)

    async def picture(self, path: Path, *, whole: bool = False) -> None:
        """What is seen, or all of the page, as PNG."""
        shot = await self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(shot["data"]))


@asynccontextmanager
async def tab(
    address: str, *, width: int = 1280, height: int = 900, dark: bool = False
) -> AsyncIterator[Tab]:
    """A tab of the Chromium at `address`."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(address, max_msg_size=0) as socket,
    ):
        made = Tab(socket)
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(made.listen())
            try:
                await made.open(width=width, height=height, dark=dark)
                yield made
            finally:
                await socket.close()
                listening.cancel()

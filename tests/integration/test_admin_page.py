"""The page of the admin port in a real Chromium: what a person sees, and what it can't be made to do."""

from __future__ import annotations

import re
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest

from gateway.core.miss import CacheOutcome, Miss, MissCause
from tests.helpers.browser import Tab, chromium, tab
from tests.helpers.engine_pool import pool
from tests.helpers.gateway_here import gateway_here
from tests.helpers.raw_client import fetch
from tests.helpers.records import any_record, record
from tests.helpers.scripted_upstream import ScriptedUpstream, response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from gateway.app import RunningGateway
    from gateway.core.records import RequestRecord

CHAT = "/v1/chat/completions"
TOKEN = "an-admin-token-of-32-characters!"
EVIL = "<img src=x onerror=\"document.title='owned'\">"
MANY = 10_000
ROWS = "document.querySelectorAll('#rows tr').length"
STATE = "document.querySelector('#state').dataset.state"
# A browser at work on two cores, beside other tests: a second is what the page is held to where the
# machine is its own (docs/how-to/page.md); this only catches one that has become slow.
LOAD_MS = 3000.0


@pytest.fixture(scope="module")
def devtools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with chromium(tmp_path_factory.mktemp("chromium")) as address:
        yield address


def answer(model: str) -> bytes:
    return orjson.dumps(
        {
            "id": "chatcmpl-123456789",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "SECRET-ANSWER"},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 4000, "completion_tokens": 5, "total_tokens": 4005},
        }
    )


class World:
    """A gateway, and who asks it."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.gateway = gateway
        self.page = f"{gateway.admin_url}/admin/"

    def remember(self, *records: RequestRecord) -> None:
        """As if these had just ended."""
        told = self.gateway._assembled.telling.on_record
        assert told is not None
        for each in records:
            told(each)

    async def ask(
        self, model: str = "gpt-4o", text: str = "hello", path: str = CHAT, system: str = ""
    ) -> str:
        """One request through the API port; returns what the cache did."""
        messages = [{"role": "user", "content": f"SECRET-PROMPT {text}"}]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        body = orjson.dumps({"model": model, "messages": messages})
        got = await fetch(
            self.gateway.api_url, "POST", path, body, [("Authorization", "Bearer SECRET-KEY")]
        )
        await self.gateway.background.idle()
        return got.head.get("x-gateway-cache")


@asynccontextmanager
async def world(**sections: Any) -> AsyncIterator[World]:
    async with (
        ScriptedUpstream() as upstream,
        gateway_here(upstream.url, **sections) as gateway,
    ):
        upstream.otherwise(response(answer("gpt-4o-2024")))
        yield World(gateway)


async def opened(there: Tab, page: str, rows: int = 1) -> None:
    await there.go(page)
    await there.until(f"{STATE} === 'live' && {ROWS} >= {rows}")


def clean(there: Tab, page: str) -> None:
    """Nothing complained of, nothing asked of anybody else."""
    assert there.complaints == []
    assert [url for url in there.asked if not url.startswith((page, "data:"))] == []


_NAMED = {"button", "combobox", "dialog", "grid", "image", "link", "navigation", "searchbox"}


async def unnamed(there: Tab) -> list[str]:
    """What a screen reader would have no name for, of all that one works with."""
    tree = await there.send("Accessibility.getFullAXTree")
    seen = [each for each in tree["nodes"] if not each.get("ignored")]
    roles = [(each["role"]["value"], each.get("name", {}).get("value")) for each in seen]
    assert _NAMED - {role for role, _ in roles} <= {"image"}
    return [role for role, name in roles if role in _NAMED and not name]


async def test_ten_thousand_requests_are_there_at_once(devtools: str) -> None:
    async with world() as here:
        now = time.time()
        here.remember(*(any_record(n, now - 3600.0 + 3600.0 * n / MANY) for n in range(MANY)))
        async with tab(devtools) as there:
            await opened(there, here.page, 100)
            ready_ms = await there.tell("performance.now()")
            loaded_ms = await there.tell(
                "performance.getEntriesByType('navigation')[0].loadEventEnd"
            )
            print(f"loaded after {loaded_ms:.0f} ms, all shown after {ready_ms:.0f} ms")
            assert loaded_ms < ready_ms < LOAD_MS
            shown = await there.tell("document.querySelector('#tiles').textContent")
            assert re.search(r"Requests(9,\d{3}|10K)", shown)
            for chart in ("requests", "money", "tokens", "times"):
                label = f"document.querySelector('#chart-{chart} [role=img]').ariaLabel"
                assert "over the last 60 min" in await there.tell(label)
                drawn = f"document.querySelectorAll('#chart-{chart} svg rect, #chart-{chart} svg path').length"
                assert await there.tell(drawn) > 5
            # Looking for what is rare among all of them, and the next page.
            await there.click("#filters select[name=cause]")
            await there.tell(
                "(() => { const it = document.querySelector('select[name=cause]');"
                "it.value = 'provider'; it.dispatchEvent(new Event('input', {bubbles: true})) })()"
            )
            await there.until(
                f"{ROWS} > 0 && [...document.querySelectorAll('#rows .c-cause')]"
                ".every(each => each.textContent === 'provider')"
            )
            await there.tell("document.querySelector('#filters button[type=reset]').click()")
            await there.until(f"{ROWS} >= 100")
            await there.tell("document.querySelector('#older').click()")
            await there.until(f"{ROWS} >= 200")
            clean(there, here.page)


async def test_a_request_appears_while_one_looks_and_is_told_step_by_step(devtools: str) -> None:
    async with world() as here, tab(devtools) as there:
        await there.go(here.page)
        await there.until(
            "document.querySelector('#nothing').textContent.includes('OPENAI_BASE_URL')"
        )
        assert [await here.ask(), await here.ask()] == ["miss", "hit"]
        await there.until(f"{ROWS} === 2")
        badges = "[...document.querySelectorAll('#rows .badge')].map(each => each.textContent)"
        assert await there.tell(badges) == ["hit", "miss"]
        await there.click("#rows tr:nth-child(2)")
        await there.until("!document.querySelector('#detail').hidden")
        steps = "[...document.querySelectorAll('.steps > span:nth-child(3n+1)')].map(each => each.textContent)"
        assert await there.tell(steps) == ["whole", "lookup", "plan", "upstream", "store"]
        stages = "[...document.querySelectorAll('.chain .stage')].map(each => each.textContent)"
        told = ["recognised", "keyed", "lookup", "plan", "route", "answer"]
        assert [each for each in await there.tell(stages) if each != "prompt cache"] == [
            *told,
            "kept",
        ]
        seen = await there.tell("document.documentElement.outerHTML")
        assert [
            each for each in ("SECRET-PROMPT", "SECRET-ANSWER", "SECRET-KEY") if each in seen
        ] == []
        clean(there, here.page)


async def test_the_first_difference_is_shown_and_leads_to_the_earlier_request(
    devtools: str,
) -> None:
    async with world() as here:
        miss = Miss(
            MissCause.PREFIX_CHANGED,
            4321,
            "$.system[0].text",
            "timestamp",
            3,
            record(1).request_id,
            61,
            6103,
        )
        now = time.time()
        here.remember(
            record(1, at=now), record(2, at=now, prompt_cache=CacheOutcome(5000, 0, 5000, miss))
        )
        async with tab(devtools) as there:
            await opened(there, here.page, 2)
            await there.click("#rows tr:first-child")
            await there.until("document.querySelector('#diff') !== null")
            told = await there.tell("document.querySelector('#detail').innerText")
            for each in (
                "prefix_changed",
                "4,321 tokens",
                "$.system[0].text",
                "timestamp",
                "6,103",
            ):
                assert each in told
            await there.tell("document.querySelector('#diff button').click()")
            await there.until(
                f"document.querySelector('#detail-title').textContent === '{record(1).request_id}'"
            )
            clean(there, here.page)


async def test_what_breaks_prompts_is_told_by_its_place_and_never_by_its_words(
    devtools: str,
) -> None:
    async with world() as here, tab(devtools) as there:
        await there.go(here.page)
        await there.until(
            "document.querySelector('#breakers').innerText.includes('Nothing is known')"
        )
        case = "Here is all that is known of the case, which is much. " * 300
        for minute in range(3):
            await here.ask(text=case, system=f"It is 2026-11-22T18:0{minute}:00Z. Help them.")
        await there.until("document.querySelectorAll('#rows .c-cause:not(:empty)').length >= 2")
        causes = "[...document.querySelectorAll('#rows .c-cause')].map(each => each.textContent)"
        assert (await there.tell(causes))[0] == "prefix_changed"
        await there.tell("document.querySelector('#rows tr').click()")
        await there.until("document.querySelector('#diff') !== null")
        told = await there.tell("document.querySelector('#diff').innerText")
        assert "$.messages[0].content" in told
        assert "timestamp" in told
        await there.press("Escape")
        # (Asked for every ten seconds; anew when the page is opened.)
        await opened(there, here.page, 3)
        await there.until("document.querySelectorAll('#breakers tbody tr').length === 1")
        shown = await there.tell("document.querySelector('#breakers tbody').innerText")
        assert "timestamp" in shown
        assert "round it to the day" in shown
        assert "SECRET-PROMPT" not in await there.tell("document.documentElement.outerHTML")
        clean(there, here.page)


async def test_it_is_worked_by_the_keyboard_alone(devtools: str) -> None:
    async with world() as here:
        here.remember(*(record(n, at=time.time()) for n in range(5)))
        async with tab(devtools) as there:
            await opened(there, here.page, 5)
            for _ in range(60):
                await there.press("Tab")
                if await there.tell("document.activeElement.matches('#rows tr')"):
                    break
            here_id = "document.activeElement.dataset.id"
            ring = "getComputedStyle(document.activeElement).outlineStyle"
            assert await there.tell(here_id) == record(4).request_id
            assert await there.tell(ring) == "solid"
            await there.press("ArrowDown")
            await there.press("ArrowDown")
            assert await there.tell(here_id) == record(2).request_id
            await there.press("Enter")
            await there.until("document.activeElement.id === 'detail'")
            assert "Request" not in (await there.tell("document.activeElement.role") or "")
            await there.press("Escape")
            await there.until("document.querySelector('#detail').hidden")
            assert await there.tell(here_id) == record(2).request_id
            await there.press("End")
            assert await there.tell(here_id) == record(0).request_id
            clean(there, here.page)


async def test_replicas_and_what_conversations_share_are_told(devtools: str) -> None:
    async with pool(2) as engines:
        for number in range(6):
            said = [{"role": "system", "content": 300 * "You are a careful clerk. "}]
            said.append({"role": "user", "content": f"Question {number}"})
            await engines.ask({"model": "simulated", "max_tokens": 2, "messages": said})
        page = f"{engines.gateway.admin_url}/admin/"
        async with tab(devtools) as there:
            await opened(there, page, 6)
            await there.until("document.querySelectorAll('#fleet tbody tr').length === 2")
            await there.until("document.querySelectorAll('#prefixes tbody tr').length > 0")
            told = await there.tell("document.querySelector('#fleet').innerText")
            assert [each for each in ("e0", "e1", "ready") if each not in told] == []
            shared = await there.tell("document.querySelector('#prefixes tbody tr').innerText")
            assert "100 %" in shared
            assert re.search(r"\be[01]\b", shared)
            await there.click("#rows tr:first-child")
            await there.until("document.querySelector('.steps') !== null")
            assert "route" in await there.tell("document.querySelector('.steps').innerText")
            clean(there, page)


async def test_what_clients_name_is_never_taken_for_markup(devtools: str) -> None:
    async with world() as here, tab(devtools) as there:
        assert await here.ask(model=EVIL) == "miss"
        await here.ask(model="m", path="/v1/<svg/onload=alert(1)>")
        now = time.time()
        evil = dict.fromkeys(("path", "upstream", "backend", "scope", "plan", "error"), EVIL)
        miss = Miss(MissCause.PREFIX_CHANGED, 1, EVIL, EVIL, 0, EVIL)
        here.remember(
            record(7, at=now, **evil, model=EVIL, prompt_cache=CacheOutcome(1, 0, 0, miss))
        )
        await opened(there, here.page, 3)
        assert EVIL in await there.tell("document.querySelector('#rows').textContent")
        await there.click("#rows tr:first-child")
        await there.until("document.querySelector('#diff') !== null")
        assert EVIL in await there.tell("document.querySelector('#detail').textContent")
        await there.until("document.querySelector('select[name=model]').options.length > 1")
        assert await there.tell("document.querySelectorAll('main img, aside img').length") == 0
        assert await there.tell("document.title") == "Warmgate"
        clean(there, here.page)


async def test_the_policy_lets_no_script_in_and_nothing_out(devtools: str) -> None:
    async with world() as here, tab(devtools) as there:
        here.remember(record(1, at=time.time()))
        await opened(there, here.page)
        tried = await there.tell(
            """(async () => {
                const found = [];
                const refused = (what) => found.push(what);
                addEventListener('securitypolicyviolation', (e) => refused(e.effectiveDirective));
                const script = document.createElement('script');
                try { script.text = "document.title = 'owned'"; document.body.append(script); }
                catch (e) { refused('types'); }
                try { document.body.innerHTML += '<b>x</b>'; } catch (e) { refused('types'); }
                try { await fetch('http://127.0.0.1:9/'); } catch (e) { refused('fetch'); }
                const link = document.createElement('img');
                link.src = 'http://127.0.0.1:9/pixel.png'; document.body.append(link);
                await new Promise((done) => setTimeout(done, 50));
                return found;
            })()"""
        )
        assert tried.count("types") == 2
        assert {"connect-src", "img-src", "fetch"} <= set(tried)
        assert await there.tell("document.title") == "Warmgate"


async def test_other_sites_pages_reach_nothing_of_it(devtools: str) -> None:
    """A page of another origin on this very host: another port is the same site to a browser."""
    async with world() as here, ScriptedUpstream() as elsewhere, tab(devtools) as there:
        here.remember(record(1, at=time.time(), model="PRIVATE-MODEL"))
        elsewhere.otherwise(response(b"<title>evil</title>", headers={"content-type": "text/html"}))
        admin = here.page.removesuffix("/admin/")
        for origin in (elsewhere.url, elsewhere.url.replace("127.0.0.1", "localhost")):
            await there.go(origin)
            reached = await there.tell(
                f"""(async () => {{
                    const found = [];
                    const tries = [
                        ['{admin}/admin/page/summary', {{}}], ['{admin}/admin/', {{}}],
                        ['{admin}/admin/page/requests', {{mode: 'no-cors'}}],
                        ['{admin}/admin/cache/purge', {{method: 'POST', mode: 'no-cors', body: '{{}}'}}],
                    ];
                    for (const [url, how] of tries) {{
                        try {{ const got = await fetch(url, how); found.push(got.type, (await got.text()).length); }}
                        catch (problem) {{ found.push('refused'); }}
                    }}
                    const frame = document.createElement('iframe');
                    frame.src = '{admin}/admin/';
                    await new Promise((done) => {{ frame.onload = done; document.body.append(frame); }});
                    try {{ found.push(frame.contentDocument ? 'framed' : 'closed'); }} catch (e) {{ found.push('closed'); }}
                    return found;
                }})()"""
            )
            assert reached == ["refused", "refused", "opaque", 0, "opaque", 0, "closed"]
        # (Of what is refused for its origin, no answer is told.)
        asked = {url: status for url, status in there.statuses.items() if url.startswith(admin)}
        assert len(asked) == 3
        assert set(asked.values()) == {403}


async def test_the_token_is_asked_for_kept_in_the_tab_and_a_wrong_one_is_said(
    devtools: str,
) -> None:
    async with world(admin={"token": TOKEN}) as here, tab(devtools) as there:
        here.remember(record(1, at=time.time(), model="PRIVATE-MODEL"))
        async with aiohttp.ClientSession() as session, session.get(here.page) as got:
            assert (got.status, "PRIVATE-MODEL" in await got.text()) == (200, False)
        await there.go(here.page)
        await there.until("!document.querySelector('#ask').hidden")
        await there.until("document.activeElement.name === 'token'")
        await there.type("not-the-token-of-this-gateway")
        await there.press("Enter")
        await there.until("document.querySelector('#wrong').textContent.includes('did not accept')")
        assert await there.tell(ROWS) == 0
        assert await there.tell("sessionStorage.length") == 0
        await there.type(TOKEN)
        await there.press("Enter")
        await there.until(f"document.querySelector('#ask').hidden && {ROWS} === 1")
        assert await there.tell("[localStorage.length, document.cookie]") == [0, ""]
        await opened(there, here.page)
        # (A browser writes each 401 into its console, whatever a page does with it.)
        assert [each for each in there.complaints if "401" not in each] == []
        assert [url for url in there.asked if TOKEN in url] == []


async def test_a_lost_connection_is_said_and_what_was_seen_stays(devtools: str) -> None:
    async with tab(devtools) as there:
        async with world() as here:
            here.remember(record(1, at=time.time()))
            await opened(there, here.page)
        await there.until("document.querySelector('#lost').textContent.includes('Connection lost')")
        assert await there.tell(f"[{STATE}, {ROWS}]") == ["lost", 1]


@pytest.mark.parametrize("dark", [False, True])
async def test_it_fits_a_phone_and_its_words_stand_out_from_their_ground(
    devtools: str, *, dark: bool
) -> None:
    async with world() as here:
        now = time.time()
        here.remember(*(any_record(n, now - 600.0 + n) for n in range(300)))
        async with tab(devtools, width=360, height=740, dark=dark) as there:
            await opened(there, here.page, 100)
            await there.click("#more summary")
            await there.until("document.querySelector('#more').open")
            assert await there.tell("document.documentElement.scrollWidth") <= 360
            await there.click("#rows tr:first-child")
            await there.until("!document.querySelector('#detail').hidden")
            assert await there.tell("document.querySelector('#detail').scrollWidth") <= 360
            # WCAG 2.2, 1.4.3: 4.5 to 1.
            assert set(await there.tell(_FAINT)) == set()
            assert await unnamed(there) == []
            clean(there, here.page)


_FAINT = """(() => {
    const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = (colour) => {
        const [r, g, b] = numbers(colour).slice(0, 3).map((each) => each / 255)
            .map((each) => each <= .04045 ? each / 12.92 : ((each + .055) / 1.055) ** 2.4);
        return .2126 * r + .7152 * g + .0722 * b;
    };
    const ground = (node) => {
        for (; node; node = node.parentElement) {
            const colour = getComputedStyle(node).backgroundColor, parts = numbers(colour);
            if (parts.length < 4 || parts[3] > .5) return colour;
        }
        return 'rgb(255, 255, 255)';
    };
    const faint = new Set();
    for (const node of document.querySelectorAll('body *')) {
        const says = [...node.childNodes].some((each) => each.nodeType === 3 && each.data.trim());
        if (!says || !node.checkVisibility() || ['SCRIPT', 'OPTION'].includes(node.tagName)) continue;
        const style = getComputedStyle(node);
        const pair = [light(node instanceof SVGElement ? style.fill : style.color), light(ground(node))];
        const ratio = (Math.max(...pair) + .05) / (Math.min(...pair) + .05);
        if (ratio < 4.5) faint.add(`${node.tagName}.${node.className.baseVal ?? node.className}: ${ratio.toFixed(2)}`);
    }
    return [...faint];
})()"""

"""Pictures of the admin port's page for the how-to, of made-up traffic.

python -m tests.helpers.page_pictures docs/how-to
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.core.causes import Cause, Share
from gateway.core.ledger import of_hit
from gateway.core.minutes import Minutes
from gateway.core.model import Usage
from gateway.core.records import CallRecord
from gateway.providers.prices import price
from tests.helpers.browser import chromium, tab
from tests.helpers.engine_pool import pool
from tests.helpers.records import any_record

if TYPE_CHECKING:
    from gateway.app import RunningGateway

MANY = 10_000
_DAY_S = 86_400.0
_READY = (
    "document.querySelectorAll('#rows tr').length >= 100 && document.querySelector('#fleet tr')"
)
_CHANGED = (
    "[...document.querySelectorAll('#rows tr')].findIndex("
    "row => row.querySelector('.c-cause').textContent === 'prefix_changed') + 1"
)


async def main(folder: Path) -> None:
    """Write them."""
    async with pool(3) as engines:
        for number in range(30):
            head = {"role": "system", "content": 400 * "You are a careful clerk. "}
            asked = {"role": "user", "content": f"Question {number}"}
            await engines.ask({"model": "simulated", "max_tokens": 2, "messages": [head, asked]})
        _remember(engines.gateway)
        with tempfile.TemporaryDirectory() as profile, chromium(Path(profile)) as address:
            await _pictures(engines.gateway, address, folder)


def _remember(gateway: RunningGateway) -> None:
    parts, now = gateway._assembled, time.time()
    recent = parts.page._recent
    assert recent is not None
    told, recent.minutes = recent.add, Minutes()
    for number in range(MANY):
        each = any_record(number, now - 3600.0 * (1 - number / MANY))
        told(each)
        recent.minutes._minute(each.at).paid_pd += each.paid_pd or 0
        outcome = each.prompt_cache
        if outcome is not None and outcome.miss is not None and each.provider and each.model:
            usd = outcome.miss.lost_tokens * 2.7e-6
            parts.planning.foreseeing._breakers.count(
                each.provider, each.model, outcome.miss, usd, each.request_id, time.monotonic()
            )
    for number in range(14 * 40):
        usage = Usage(2000, (number * 7919) % 20_000, 3000, 0, 400)
        ours = Share(usage.cache_read // 2, 3000)
        clients = Share(usage.cache_read - ours.read)
        shares = {Cause.OURS: ours, Cause.CLIENT: clients, Cause.AUTOMATIC: Share()}
        parts.accounts.called(
            CallRecord(
                at=now - _DAY_S * (number % 14),
                upstream="anthropic",
                provider="anthropic",
                api="anthropic_messages",
                model="claude-sonnet-4-5",
                scope="0a1b2c3d",
                purpose="request",
                usage=usage,
                shares=shares,
            )
        )
        hit = of_hit(
            at=now - _DAY_S * (number % 14),
            provider="openai",
            model="gpt-5.6",
            scope="0a1b2c3d",
            usage=Usage(2000 + 7 * number, output=300),
            price=price("openai", "openai_chat", "gpt-5.6", ()),
            engine=False,
        )
        parts.accounts._keep([hit])


async def _pictures(gateway: RunningGateway, address: str, folder: Path) -> None:
    page = f"{gateway.admin_url}/admin/"
    for name, width, height, dark in (
        ("light", 1180, 760, False),
        ("dark", 1040, 700, True),
        ("phone", 360, 740, False),
    ):
        async with tab(address, width=width, height=height, dark=dark) as there:
            await there.go(page)
            await there.until(_READY)
            await there.until("document.querySelector('#savings rect') !== null")
            if name == "light":
                await there.picture(folder / "page-light.png")
                await there.tell("document.querySelector('#prompts').scrollIntoView()")
                await there.picture(folder / "page-prompts.png")
                continue
            if name == "dark":
                await there.click(f"#rows tr:nth-child({await there.tell(_CHANGED)})")
                await there.until("document.querySelector('#diff') !== null")
            await there.picture(folder / f"page-{name}.png")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))

"""`GET /admin/savings`, through a whole gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.helpers.doorway import CHAT, Doorway, chat, doorway

if TYPE_CHECKING:
    from collections.abc import Mapping


async def asked(door: Doorway, **query: str) -> tuple[int, dict[str, Any]]:
    url = f"{door.gateway.admin_url}/admin/savings"
    async with aiohttp.ClientSession() as session, session.get(url, params=query) as response:
        assert response.headers["Cache-Control"] == "no-store"
        return response.status, await response.json()


async def test_it_tells_what_was_paid_and_saved_a_moment_ago() -> None:
    async with doorway() as door:
        await door.caches(CHAT, chat(), chat(), chat())
        status, told = await asked(door, by="cause,model,cause", since="1d")

    assert status == 200
    assert (told["total"]["calls"], told["total"]["answers"]) == (1, 2)
    assert told["total"]["saved_usd"] == pytest.approx(2 * told["total"]["paid_usd"])
    assert told["by"] == ["cause", "model"]
    assert [row["cause"] for row in told["rows"]] == ["request", "response_hit"]
    assert told["since"] == told["until"]


@pytest.mark.parametrize(
    "query",
    [{"since": "soon"}, {"until": "2026-02-30"}, {"by": "colour"}, {"days": "7"}],
)
async def test_what_makes_no_sense_is_refused(query: Mapping[str, str]) -> None:
    async with doorway() as door:
        status, told = await asked(door, **query)

    assert (status, told["error"]["code"]) == (400, "bad_request")


async def test_where_nothing_is_kept_it_says_so() -> None:
    async with doorway(ledger={"enabled": False}) as door:
        await door.ask(CHAT, chat())
        status, told = await asked(door)

    assert (status, told["error"]["code"]) == (404, "ledger_off")

"""Where `gateway savings` reads by itself: beside a store of SQLite."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson
import pytest

from gateway.cli import main
from gateway.core.ledger import Amounts, Line
from gateway.store.ledger import Batch
from gateway.store.ledger_sqlite import SqliteLedger, beside

if TYPE_CHECKING:
    from pathlib import Path

DAY = "2026-11-22"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a store, which isn't made."""
    folder = tmp_path / "state"
    folder.mkdir()
    monkeypatch.setenv("GATEWAY_STORE__URL", f"sqlite:///{folder / 'cache.sqlite'}")
    return folder / "cache.sqlite"


def asked(capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main(["savings", "--since", DAY, "--until", DAY, "--json"])
    told = capsys.readouterr()
    return status, told.out, told.err


def test_a_store_without_a_ledger_is_given_none_by_who_reads(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.touch()

    status, told, _ = asked(capsys)

    assert (status, orjson.loads(told)["total"]["calls"]) == (0, 0)
    assert list(store.parent.iterdir()) == [store]


def test_a_ledger_is_shown_whose_store_was_deleted(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = Line(DAY, "anthropic", "claude-sonnet-4-5", "1a2b3c4d", "request")
    asyncio.run(SqliteLedger(beside(store)).add(Batch("w", 1, {line: Amounts(3, paid_pd=5)})))

    status, told, _ = asked(capsys)

    assert (status, orjson.loads(told)["total"]["paid_pd"]) == (0, "5")
    assert list(store.parent.iterdir()) == [beside(store)]


def test_where_neither_is_there_it_says_so_and_makes_nothing(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, trouble = asked(capsys)

    assert status == 2
    assert "is not there yet" in trouble
    assert list(store.parent.iterdir()) == []

"""Where `gateway savings` reads by itself: beside a store of SQLite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest

from gateway.cli import main

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

"""`gateway savings` as people and programs read it, over each place where the ledger may lie."""

from __future__ import annotations

import asyncio
import csv
import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from gateway.cli import main
from gateway.core.ledger import Amounts, Line
from gateway.core.savings import told
from gateway.savingscmd.table import WIDTH, as_table, dollars
from gateway.store.ledger import Batch
from gateway.store.ledger_sqlite import SqliteLedger, beside
from tests.helpers.doorway import CHAT, chat, doorway

if TYPE_CHECKING:
    from pathlib import Path

USD = 10**12
TODAY = datetime.now(UTC).date().isoformat()


def line(cause: str, model: str = "claude-sonnet-4-5", day: str = TODAY) -> Line:
    return Line(day, "anthropic", model, "1a2b3c4d", cause)


CELLS = {
    line("request"): Amounts(12, read=4000, output=70, paid_pd=7 * USD, unknown=1),
    line("response_hit"): Amounts(4, uncached=100, output=20, spared_pd=3 * USD),
    line("ours"): Amounts(9, read=4000, spared_pd=6 * USD, premium_pd=2 * USD),
    line("request", "=nobody-knows"): Amounts(2, unpriced=2, unpriced_tokens=900),
    line("request", day="2020-01-01"): Amounts(1, paid_pd=USD),
}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store with a ledger beside it."""
    file = tmp_path / "cache.sqlite"
    file.touch()
    asyncio.run(SqliteLedger(beside(file)).add(Batch("w", 1, CELLS)))
    monkeypatch.setenv("GATEWAY_STORE__URL", f"sqlite:///{file}")
    return str(file)


def test_the_table_fits_and_says_what_is_not_known(
    store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["savings"]) == 0
    shown = capsys.readouterr().out

    assert store
    assert max(map(len, shown.splitlines())) <= WIDTH
    cells = {each.split()[0]: each.split()[1:] for each in shown.splitlines() if each.split()}
    assert cells["request"] == ["14", "0", "7.0000+", "0.00", "0.00", "7.0000+"]
    assert cells["ours"] == ["0", "0", "0.00", "4.0000", "0.00", "4.0000"]
    assert cells["total"] == ["14", "4", "7.0000+", "7.0000", "0.00", "14.0000+", "50.0%"]
    assert "  900 tokens of 2 calls and 0 answers have no known price" in shown
    assert "  1 calls didn't say what they took" in shown


def test_rows_without_any_price_are_unknown(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["savings", "--by", "model,scope"]) == 0
    shown = capsys.readouterr().out.splitlines()

    assert store
    place = shown.index("=nobody-knows 1a2b3c4d")
    assert shown[place + 1].split() == ["2", "0", "unknown", "0.00", "0.00", "unknown"]


def test_json_is_what_the_admin_port_answers(
    store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["savings", "--since", "1d", "--by", "day", "--by", "cause", "--json"]) == 0
    shown = orjson.loads(capsys.readouterr().out)

    assert store
    expected = told([each for each in CELLS.items() if each[0].day == TODAY], TODAY, TODAY, [])
    assert shown["total"] == expected["total"]
    assert (shown["by"], shown["kept_in"]) == (["day", "cause"], "sqlite")


def test_csv_has_a_line_for_each_row_and_empty_cells_for_what_is_not_known(
    store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["savings", "--since", "2020-01-01", "--by", "day,model", "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))

    assert store
    assert [(row["day"], row["paid_usd"]) for row in rows] == [
        ("2020-01-01", "1"),
        (TODAY, ""),
        (TODAY, "7"),
    ]
    # No spreadsheet takes a name for a formula.
    assert rows[1]["model"] == "'=nobody-knows"
    assert rows[2]["saved_by.written"] == "-2"
    # What is exact is a number below zero, too, and no name.
    assert rows[2]["saved_pd"].lstrip("-").isdigit()


def test_what_lies_in_memory_is_asked_of_the_gateway(capsys: pytest.CaptureFixture[str]) -> None:
    async def live() -> tuple[int, str]:
        async with doorway() as door:
            await door.caches(CHAT, chat(), chat())
            url = door.gateway.admin_url
            assert url is not None
            return await asyncio.to_thread(main, ["savings", "--admin-url", url]), url

    status, _ = asyncio.run(live())
    shown = capsys.readouterr().out

    assert status == 0
    assert "kept in memory: it forgets when the gateway stops" in shown
    assert "response_hit" in shown


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--since", "soon"], "'soon' is neither days"),
        (["--admin-url", "http://127.0.0.1:9"], "can't be asked"),
        ([], "is not there yet"),
    ],
)
def test_trouble_is_said_and_is_status_2(
    flags: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GATEWAY_STORE__URL", f"sqlite:///{tmp_path / 'none'}")

    assert main(["savings", *flags]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--by", "colour"], ["--by", ","], ["--json", "--csv"]])
def test_wrong_usage_is_refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["savings", *flags])

    assert exit_.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "partly", "shown"),
    [
        (None, False, "unknown"),
        (0.0, False, "0.00"),
        (-0.0, False, "0.00"),
        (0.00004, False, "<0.0001"),
        (0.00004, True, "<0.0001+"),
        (-0.00004, False, "-0.0000"),
        (1.23456, True, "1.2346+"),
        (-99.5, False, "-99.5000"),
        (1234.567, True, "1,234.57+"),
        (12_345_678.9, False, "12.3M"),
        (12_345_678.9, True, "12.3M+"),
    ],
)
def test_dollars_are_as_long_as_they_have_to_be(
    value: float | None, partly: bool, shown: str
) -> None:
    assert dollars(value, partly=partly) == shown


def test_notes_name_what_was_lost_and_what_is_to_come() -> None:
    base: dict[str, Any] = told(
        [(line("engine"), Amounts(1, read=500, spared_us=2_500_000))], TODAY, TODAY, ["cause"]
    )
    more = {"missing_days": ["2026-11-01"], "unwritten": {"lines": 3, "for_s": 1.0}}
    shown = as_table({**base, **more, "kept_in": "redis", "lasting": True})

    assert "lost by the store, and in no amount: 2026-11-01" in shown
    assert "not written yet, and in no amount: 3 lines of this gateway" in shown
    assert "engine 500 tokens not computed again, about 2.5 s" in shown


def test_many_rows_are_cut_and_said_to_be() -> None:
    rows = [(line("request", f"m{n}"), Amounts(1, paid_pd=1)) for n in range(1005)]
    base = told(rows, TODAY, TODAY, ["model"])
    kept = {"kept_in": "redis", "lasting": True, "missing_days": []}
    shown = as_table({**base, **kept, "unwritten": {"lines": 0, "for_s": None}})

    assert "(5 rows more: --csv has all)" in shown

"""What is printed: no secret, no control character, and a status for scripts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import orjson
import pytest

from gateway.doctorcmd.finding import fine, look, mend, skipped
from gateway.doctorcmd.report import Blot, as_json, as_text, status_of

if TYPE_CHECKING:
    from gateway.doctorcmd.finding import Finding

SECRET = "sk-live.+*(secret"
FOUND = [
    fine("host.files", "65536 open files", hard=65536),
    look("clock", "a bit late", "set it"),
    mend("upstream.x.tcp", f"no way in for {SECRET}", f"not with {SECRET}", key=SECRET),
    skipped("otlp", "nothing is pushed"),
]


def test_no_secret_is_printed_wherever_it_stands() -> None:
    blot = Blot({SECRET, "sk-live", ""})

    for text in (as_text(FOUND, blot), as_json(FOUND, blot, 1)):
        assert "secret" not in text
        assert "sk-live" not in text


def test_what_a_server_said_makes_no_line_and_moves_no_cursor() -> None:
    hostile = mend("x", "a\nMEND  fake\x1b[2J\r\u202eback\u2028line\x9b", "do\nit")

    text = as_text([hostile], Blot(()))

    assert re.fullmatch(r"[ -~\n]*", text)
    assert len(text.splitlines()) == 4


def test_the_text_says_what_to_do_and_counts() -> None:
    text = as_text(FOUND, Blot(()))

    assert "MEND     upstream.x.tcp" in text
    assert "         -> set it" in text
    assert text.endswith("1 to mend, 1 to look at, 1 fine, 1 skipped\n")


def test_quietly_only_what_wants_something_is_printed() -> None:
    text = as_text(FOUND, Blot(()), quiet=True)

    assert "host.files" not in text
    assert "otlp" not in text
    assert "clock" in text


def test_programs_get_the_same() -> None:
    told = orjson.loads(as_json(FOUND, Blot(()), 1))

    assert told["counts"] == {"ok": 1, "look": 1, "mend": 1, "skipped": 1}
    assert (told["format"], told["status"], told["ok"]) == (1, 1, False)
    assert told["findings"][0] == {
        "check": "host.files",
        "verdict": "ok",
        "said": "65536 open files",
        "mend": None,
        "facts": {"hard": 65536},
    }


@pytest.mark.parametrize(
    ("findings", "usual", "strict"),
    [
        ([], 0, 0),
        ([fine("a", "b"), skipped("c", "d")], 0, 0),
        ([look("a", "b", "c")], 0, 1),
        ([mend("a", "b", "c")], 1, 1),
        ([mend("config", "b", "c"), mend("a", "b", "c")], 2, 2),
    ],
)
def test_the_exit_status(findings: list[Finding], usual: int, strict: int) -> None:
    assert status_of(findings, strict=False) == usual
    assert status_of(findings, strict=True) == strict

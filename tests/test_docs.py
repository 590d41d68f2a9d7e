"""Everything that a user can see is documented, and everything documented exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway import errors
from gateway.cli import main
from gateway.core.findings import MENDS
from gateway.core.model import Reason, Result
from gateway.core.plan import PlanReason

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def first_cells(text: str, heading: str) -> list[str]:
    """The code words in the first column of the table under a heading."""
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    return [match[1] for row in rows if (match := re.match(r"\| `([^`]+)`", row))]


def test_every_reason_is_documented_once_and_no_other() -> None:
    assert sorted(r.value for r in Reason) == sorted(first_cells(page("reasons.md"), "Reasons"))


def test_every_reason_of_a_plan_is_documented_once_and_no_other() -> None:
    documented = first_cells(page("reasons.md"), "Prompt-cache plans")
    assert sorted(r.value for r in PlanReason) == sorted(documented)


def test_every_error_code_is_documented_with_its_status() -> None:
    classes = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.GatewayError)
    ]
    text = page("reasons.md")
    assert sorted(e.code for e in classes) == sorted(first_cells(text, "Errors"))
    for each in classes:
        retried = {False: "no", True: "yes", None: "as"}[each.retry]
        assert f"| `{each.code}` | {each.status} | {retried}" in text


def test_every_error_that_says_when_to_try_again_is_named_where_the_header_is_documented() -> None:
    classes = errors.GatewayError.__subclasses__()
    saying = {each.code for each in classes if each.retry_after_s is not None}
    row = next(r for r in page("headers.md").splitlines() if r.startswith("| `Retry-After`"))
    assert saying
    assert saying == set(re.findall(r"`(gateway_\w+)`", row))


def test_every_result_is_named_where_the_header_is_documented() -> None:
    row = next(r for r in page("headers.md").splitlines() if r.startswith("| `x-gateway-cache`"))
    assert [r.value for r in Result if f"`{r.value}`" not in row] == []


def test_every_header_that_the_code_names_is_documented() -> None:
    text = page("headers.md").lower()
    code = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "gateway").rglob("*.py"))
    named = {h.lower() for h in re.findall(r'"(x-gateway-[a-z-]+[a-z]|Cache-Status|Age)"', code)}
    assert {"x-gateway-cache", "x-gateway-request-id", "cache-status", "age"} <= named
    assert [h for h in sorted(named) if not re.search(rf"`{h}[`:]", text)] == []


def test_every_verb_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    verbs = re.findall(r"^    ([a-z]+) ", shown, re.MULTILINE)
    documented = re.findall(r"^## `gateway ([a-z]+)", page("commands.md"), re.MULTILINE)
    assert [
        "serve",
        "check",
        "demo",
        "key",
        "lint",
        "cache",
        "savings",
        "simulate",
        "replay",
        "bench",
        "doctor",
    ] == verbs
    assert verbs == documented


@pytest.mark.parametrize(
    "verb",
    ["serve", "check", "demo", "key", "lint", "savings", "simulate", "replay", "bench", "doctor"],
)
def test_every_flag_of_a_verb_is_documented(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    flags = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    heading = next(
        line for line in page("commands.md").splitlines() if line.startswith(f"## `gateway {verb}")
    )
    assert [flag for flag in sorted(flags) if flag not in heading] == []


CACHE_VERBS = ["stats", "show", "purge", "export", "import", "fill"]


def test_every_verb_of_the_cache_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["cache", "--help"])
    verbs = re.findall(r"^    ([a-z]+) ", capsys.readouterr().out, re.MULTILINE)
    documented = re.findall(r"^### `gateway cache ([a-z]+)", page("commands.md"), re.MULTILINE)
    assert CACHE_VERBS == verbs == documented


@pytest.mark.parametrize("verb", CACHE_VERBS)
def test_every_flag_of_a_verb_of_the_cache_is_documented_and_no_other(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["cache", verb, "--help"])
    usage = capsys.readouterr().out.split("\n\n", 1)[0]
    flags = set(re.findall(r"--[a-z-]+", usage))
    text = page("commands.md").splitlines()
    heading = next(line for line in text if line.startswith(f"### `gateway cache {verb} "))
    assert flags == set(re.findall(r"--[a-z-]+", heading))


def test_every_error_of_the_admin_port_is_documented() -> None:
    source = (ROOT / "gateway" / "server" / "admin.py").read_text(encoding="utf-8")
    codes = set(re.findall(r'(?:Refused|_error)\(\s*\d+, "([a-z_]+)"', source))
    codes |= set(re.findall(r'_error\(exc.status, "([a-z_]+)"', source))
    text = (ROOT / "docs" / "how-to" / "purge.md").read_text(encoding="utf-8")
    assert len(codes) > 8
    assert [code for code in sorted(codes) if f"`{code}`" not in text] == []


def test_everything_that_lint_finds_is_documented_once_and_no_other() -> None:
    section = page("commands.md").split("\n## `gateway lint", 1)[1].split("A *fault*", 1)[0]
    documented = re.findall(r"^\| `([a-z-]+)` ", section, re.MULTILINE)
    assert sorted(what.value for what in MENDS) == sorted(documented)


def test_every_relative_link_of_the_documentation_leads_somewhere() -> None:
    broken = [
        f"{source.relative_to(ROOT)}: {target}"
        for source in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
        for target in re.findall(r"\]\(([^)#\s]+)", _prose(source))
        if "://" not in target and not (source.parent / target).exists()
    ]
    assert broken == []


def _prose(source: Path) -> str:
    text = source.read_text(encoding="utf-8")
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)

"""The Node SDKs of OpenAI and Anthropic through the gateway: programs get what is due, for free."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from tests.helpers import npm
from tests.helpers.required import missing
from tests.helpers.sdk_programs import without_ids

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conformance.conftest import World

HERE = Path(__file__).parent / "node"


@pytest.fixture(scope="session")
def run() -> Callable[[str, str], list[tuple[str, str, Any]]]:
    """Runs programs.mjs: what its programs got from the server at a URL, form by form."""
    node = shutil.which("node")
    if node is None:
        missing("node", "is not installed")
    if reason := npm.install(HERE):
        missing("node", reason)

    def ran(url: str, forms: str) -> list[tuple[str, str, Any]]:
        done = subprocess.run(
            [node, HERE / "programs.mjs", url, forms],
            capture_output=True,
            timeout=60,
            check=False,
            env={"PATH": os.environ["PATH"]},
        )
        assert done.returncode == 0, done.stderr.decode()
        return [(name, form, value) for name, form, value in orjson.loads(done.stdout)]

    return ran


@pytest.mark.parametrize("forms", ["body,stream", "stream,body"])
def test_programs_get_what_is_due_and_pay_once(
    world: World, run: Callable[[str, str], list[tuple[str, str, Any]]], forms: str
) -> None:
    due = run(world.stub.url, forms)
    asked_directly = world.calls
    first = run(world.url, forms)
    programs = {name for name, _, _ in due}
    # The loop asks twice. The second form of a program is answered from the first.
    assert asked_directly == 2 * (len(programs) + 1)
    assert world.calls == asked_directly + len(programs) + 1
    again = run(world.url, forms)
    assert world.calls == asked_directly + len(programs) + 1
    assert [each[:2] for each in due] == [each[:2] for each in first]
    for right, *got in zip(due, first, again, strict=True):
        for each in got:
            assert without_ids(right[2]) == without_ids(each[2]), right[:2]
    assert ids(first) == ids(again)


def ids(got: list[tuple[str, str, Any]]) -> list[str]:
    """What joins calls with their results, for a program that keeps its history."""
    calls = [
        call
        for name, _, value in got
        if name.endswith(" tools")
        for call in (
            value["choices"][0]["message"]["tool_calls"]
            if "choices" in value
            else value.get("output") or value["content"]
        )
    ]
    return [str(call.get("call_id") or call.get("id")) for call in calls]

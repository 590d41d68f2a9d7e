"""Two readers of prompts, written apart, agree where two requests' prefixes part: the gateway's, by
which it expects reads, and the simulated provider's, by which they happen.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given

from gateway.core.prefix import chain
from gateway.lab import sim_anthropic_rules, sim_openai_rules, sim_prompt
from gateway.providers.prompt_cache_rules import cache_rules
from gateway.wire.prompt_blocks import cache_prompt
from tests.helpers import prompt_bodies
from tests.helpers.dice import Dice
from tests.properties.conftest import many, seeds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.timeout(600)

Path = tuple[str | int, ...]

# Ids join calls and results, and the two may take them for said or not. Citations switched on or off
# cost the provider's system prompt, too: that isn't followed, and costs a read that is expected.
_IDS = frozenset({"id", "call_id", "tool_use_id", "tool_call_id", "citations"})
_UNSAID = frozenset({"max_tokens", "stream", "model", "prompt_cache_key", "type", "role"})


def leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    """Where strings, numbers and truths stand."""
    if isinstance(value, dict):
        if "thinking" in str(value.get("type")):
            # Older models forget it, and with it what it was.
            return
        for name, each in value.items():
            if name not in _IDS | _UNSAID | {"cache_control", "prompt_cache_breakpoint"}:
                yield from leaves(each, (*path, name))
    elif isinstance(value, list):
        for i, each in enumerate(value):
            yield from leaves(each, (*path, i))
    elif value is not None:
        yield path


def changed(dice: Dice, body: Any) -> Any:
    """The body with one leaf that is another one, or without its last tool, or with two swapped."""
    made = copy.deepcopy(body)
    kind = dice.up_to(9)
    if kind == 0 and len(made.get("tools") or []) > 1:
        made["tools"].reverse()
        return made
    path = dice.one(list(leaves(made)))
    holder = made
    for step in path[:-1]:
        holder = holder[step]
    value = holder[path[-1]]
    if isinstance(value, str):
        holder[path[-1]] = f"{value}!"
    elif isinstance(value, bool):
        holder[path[-1]] = not value
    else:
        holder[path[-1]] = value + 1
    return made


def gateways(provider: str, api: str, body: Any) -> dict[Path, int]:
    prompt = cache_prompt(api, body, cache_rules(provider, api, body["model"]))
    prints = zip(prompt.blocks, chain(prompt), strict=True)
    return {_place(block.path): mark for block, mark in prints if not block.until}


def providers(rendered: sim_prompt.Rendered) -> dict[Path, int]:
    prints = zip(rendered.blocks, rendered.chain, strict=True)
    return {_place(block.path): mark for block, mark in prints}


def _place(path: Path) -> Path:
    """A bare string's place is that of the one text that it is short for."""
    if path in {("input",), ("system",)}:
        return (path[0], 0)
    if len(path) > 2 and path[-1] == 0:
        path = path[:-1]
    return path[:-1] if path[-1] in {"content", "output"} else path


CASES = [
    pytest.param(
        "anthropic",
        "anthropic_messages",
        prompt_bodies.anthropic,
        lambda body: sim_anthropic_rules.refusal(body, blank_text=True),
        sim_prompt.anthropic,
        id="anthropic",
    ),
    pytest.param(
        "openai",
        "openai_chat",
        prompt_bodies.openai_chat,
        lambda body: sim_openai_rules.refusal("chat", body),
        lambda body: sim_prompt.openai("chat", body),
        id="chat",
    ),
    pytest.param(
        "openai",
        "openai_responses",
        prompt_bodies.openai_responses,
        lambda body: sim_openai_rules.refusal("responses", body),
        lambda body: sim_prompt.openai("responses", body),
        id="responses",
    ),
]


@pytest.mark.parametrize(("provider", "api", "throw", "refusal", "rendered"), CASES)
@many
@given(seed=seeds)
def test_both_see_where_a_change_parts_two_prompts(
    provider: str,
    api: str,
    throw: Callable[[Dice], list[Any]],
    refusal: Callable[[Any], Any],
    rendered: Callable[[Any], sim_prompt.Rendered],
    seed: int,
) -> None:
    dice = Dice(seed)
    one = orjson.loads(orjson.dumps(dice.one(throw(dice))))
    if not list(leaves(one)):
        return
    other = changed(dice, one)
    if refusal(one) is not None or refusal(other) is not None:
        return
    ours, theirs = gateways(provider, api, one), providers(rendered(one))
    ours_then, theirs_then = gateways(provider, api, other), providers(rendered(other))

    assert ours.keys() >= theirs.keys()
    for place, mark in theirs.items():
        same = mark == theirs_then.get(place)
        assert same == (ours[place] == ours_then.get(place)), (place, one, other)

"""Marking, whatever the request: only what the plan changes is changed, and it says the same."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.blocks import Section
from gateway.providers.prompt_cache import MarkerForm
from gateway.wire.marking import edits, marked
from gateway.wire.pieces import MOST, SPLITS_FROM, cuts
from gateway.wire.prompt_blocks import cache_prompt
from gateway.wire.splice import applied
from tests.helpers.dice import at
from tests.helpers.prompt_dice import PromptDice, known_rules
from tests.properties.conftest import EXAMPLES, many, seeds

if TYPE_CHECKING:
    from gateway.core.plan import Plan
    from gateway.core.prefix import CachePrompt, PrefixBlock
    from gateway.providers.prompt_cache import CacheRules

pytestmark = pytest.mark.timeout(600)

RULES = known_rules()
every_api = pytest.mark.parametrize("api", RULES)
# Over all APIs as many as elsewhere for one; the oracle is asked most.
a_share = settings(many, max_examples=EXAMPLES // len(RULES))
a_tenth = settings(many, max_examples=EXAMPLES // 10)


def throw(api: str, seed: int) -> tuple[bytes, CachePrompt, Plan, CacheRules]:
    dice = PromptDice(seed)
    rules = dice.one(RULES[api])
    body = dice.spelled(dice.body(api, rules.form)).encode()
    prompt = cache_prompt(api, orjson.loads(body), rules)
    return body, prompt, dice.plan(prompt, rules), rules


def exact(body: bytes) -> Any:
    """The JSON with its numbers as they are spelled."""
    return json.loads(body, parse_float=lambda raw: f"float {raw}")


# --- an oracle: the plan performed on the parsed document ------------------------------------------------


def marker(rules: CacheRules, ttl_s: int) -> dict[str, Any]:
    if rules.form is MarkerForm.BREAKPOINT:
        return {"mode": "explicit"}
    kind = "default" if rules.form is MarkerForm.CACHE_POINT else "ephemeral"
    return {"type": kind} if ttl_s == 300 else {"type": kind, "ttl": "1h"}


def stripped(value: Any, rules: CacheRules) -> Any:
    """The prompt without markers, but for JSON that is no place for any."""
    if isinstance(value, list):
        return [stripped(each, rules) for each in value if not is_point(each, rules)]
    if not isinstance(value, dict):
        return value
    names = {"cache_control", "prompt_cache_breakpoint"}
    if rules.form is MarkerForm.CACHE_POINT:
        names = set()
    inner = {"messages", "system", "tools", "content", "input", "output", "toolConfig"}
    is_call = value.get("type") == "tool_use"
    return {
        name: stripped(each, rules) if name in inner and not is_call else each
        for name, each in value.items()
        if name not in names or each is None
    }


def is_point(value: Any, rules: CacheRules) -> bool:
    return (
        rules.form is MarkerForm.CACHE_POINT and isinstance(value, dict) and "cachePoint" in value
    )


def without_nulls(value: Any) -> Any:
    """Markers that are null say nothing: whether they are left or taken is no matter."""
    if isinstance(value, list):
        return [without_nulls(each) for each in value]
    if not isinstance(value, dict):
        return value
    names = {"cache_control", "prompt_cache_breakpoint", "prompt_cache_options", "prompt_cache_key"}
    return {
        name: without_nulls(each)
        for name, each in value.items()
        if name not in names or each is not None
    }


def expected(document: Any, prompt: CachePrompt, plan: Plan, rules: CacheRules) -> Any:
    document = copy.deepcopy(document)
    by_path: dict[tuple[str | int, ...], dict[int, int]] = {}
    for index in plan.splits:
        by_path.setdefault(prompt.blocks[index].path, {}).setdefault(prompt.blocks[index].until, 0)
    for index, ttl_s in plan.marks:
        by_path.setdefault(prompt.blocks[index].path, {})[prompt.blocks[index].until] = ttl_s
    if plan.strips:
        mark_all_for_stripping(document, rules)
    # From the end, so that what is put in moves nothing that is still to be found.
    for path in sorted(by_path, key=str, reverse=True):
        place(document, path, by_path[path], prompt.api, rules)
    document = unwrapped(document, rules)
    if plan.mode or plan.strips:
        options = document.get("prompt_cache_options")
        if isinstance(options, dict) and plan.strips:
            options.pop("mode", None)
        if plan.mode:
            document["prompt_cache_options"] = {**(options or {}), "mode": plan.mode}
    if plan.cache_key:
        document["prompt_cache_key"] = plan.cache_key
    return document


def mark_all_for_stripping(document: dict[str, Any], rules: CacheRules) -> None:
    # Points are taken out at the end: before, indexes have to hold.
    if rules.form is not MarkerForm.CACHE_POINT:
        clean = stripped(document, rules)
        document.clear()
        document.update(clean)
        return
    for owner in (document, document.get("toolConfig", {}), *document["messages"]):
        for name in ("system", "tools", "content"):
            for each in owner.get(name, ()):
                if "cachePoint" in each:
                    each["gone"] = True


class Several(list[Any]):
    """Elements that stand for one."""


def place(
    document: Any, path: tuple[str | int, ...], where: dict[int, int], api: str, rules: CacheRules
) -> None:
    owner = at(document, path[:-1])
    value = owner[path[-1]]
    points = rules.form is MarkerForm.CACHE_POINT
    head: dict[str, Any] = (
        {} if points else {"type": "input_text" if api == "openai_responses" else "text"}
    )
    if isinstance(value, str):
        texts: Any = value
        last: dict[str, Any] = dict(head)
    else:
        texts = value.get("text")
        last = value
    out = Several()
    done = 0
    for until in sorted(where, key=lambda until: until or len(value) + 10**9):
        if until:
            part = {**head, "text": texts[done:until]}
            done = until
        else:
            part = last
        if until == 0 and isinstance(texts, str):
            part["text"] = texts[done:]
        out.append(part)
        if where[until] and points:
            out.append({"cachePoint": marker(rules, where[until])})
        elif where[until]:
            part[rules.form.value] = marker(rules, where[until])
    if 0 not in where:
        last["text"] = texts[done:]
        out.append(last)
    if isinstance(value, str):
        owner[path[-1]] = list(out)
    else:
        owner[path[-1]] = out


def unwrapped(value: Any, rules: CacheRules) -> Any:
    if isinstance(value, dict):
        return {name: unwrapped(each, rules) for name, each in value.items()}
    if not isinstance(value, list):
        return value
    flat: list[Any] = []
    for each in value:
        flat += each if isinstance(each, Several) else [each]
    return [
        unwrapped(each, rules) for each in flat if not (isinstance(each, dict) and "gone" in each)
    ]


# --- the properties ----------------------------------------------------------------------------------------


@every_api
@given(seed=seeds)
@a_share
def test_a_marked_request_is_the_request_with_its_marks_and_nothing_else(
    api: str, seed: int
) -> None:
    body, prompt, plan, rules = throw(api, seed)

    found = exact(marked(body, prompt, plan, rules))

    wanted = expected(exact(body), prompt, plan, rules)
    assert without_nulls(wanted) == without_nulls(found)


@every_api
@given(seed=seeds)
@a_tenth
def test_every_byte_outside_the_changes_is_the_clients(api: str, seed: int) -> None:
    body, prompt, plan, rules = throw(api, seed)
    changes = edits(body, prompt, plan, rules)
    result = applied(body, changes)

    at_body = at_result = 0
    for start, end, new in changes:
        kept = body[at_body:start]
        assert result[at_result : at_result + len(kept)] == kept
        at_result += len(kept)
        assert result[at_result : at_result + len(new)] == new
        at_result += len(new)
        at_body = end
    assert body[at_body:] == result[at_result:]
    if not plan.strips:
        # What is taken away is a null marker, a setting that is set anew, or text put in elsewhere.
        for start, end, new in changes:
            taken = body[start:end]
            assert (
                taken in {b"", b"null", b'"mine"', b'"implicit"', b'"explicit"'}
                or new == b""
                or taken.startswith(b'"\\u')
            )


@every_api
@given(seed=seeds)
@a_tenth
def test_taking_out_what_was_put_in_gives_the_clients_bytes(api: str, seed: int) -> None:
    body, prompt, plan, rules = throw(api, seed)
    changes = edits(body, prompt, plan, rules)
    if any(end > start for start, end, _ in changes):
        return
    result = marked(body, prompt, plan, rules)

    for start, _, new in changes:
        assert new == result[start : start + len(new)]
        result = result[:start] + result[start + len(new) :]
    assert body == result


def same_texts(blocks: tuple[PrefixBlock, ...]) -> list[tuple[Any, ...]]:
    return [(b.section, b.kind, b.role, b.size, b.digest, b.ends_message) for b in blocks]


@every_api
@given(seed=seeds)
@a_tenth
def test_marks_change_no_fingerprint(api: str, seed: int) -> None:
    body, prompt, plan, rules = throw(api, seed)
    if plan.splits or any(prompt.blocks[index].until for index, _ in plan.marks):
        return

    after = cache_prompt(api, orjson.loads(marked(body, prompt, plan, rules)), rules)

    assert same_texts(prompt.blocks) == same_texts(after.blocks)
    assert prompt.messages_seed == after.messages_seed
    if not plan.cache_key:
        assert prompt.seed == after.seed
    for index, ttl_s in plan.marks:
        assert ttl_s == after.blocks[index].client_ttl_s
    if plan.strips:
        ours = {index for index, _ in plan.marks}
        assert not after.automatic_ttl_s
        assert {i for i, block in enumerate(after.blocks) if block.client_ttl_s} == ours


@every_api
@given(seed=seeds)
@a_tenth
def test_a_split_is_never_an_empty_or_blank_block(api: str, seed: int) -> None:
    body, prompt, plan, rules = throw(api, seed)

    after = cache_prompt(api, orjson.loads(marked(body, prompt, plan, rules)), rules)

    def blanks(prompt: CachePrompt) -> int:
        return sum(not block.can_mark for block in prompt.blocks if block.section is Section.SYSTEM)

    assert blanks(prompt) == blanks(after)
    total = sum(block.size for block in prompt.blocks)
    assert total == sum(block.size for block in after.blocks)


texts = st.lists(
    st.sampled_from(
        [
            "a",
            "word ",
            ". ",
            "\n",
            "\n\n",
            "  ",
            "é",
            "漢字。",
            "😀",
            " \u0301",
            "\t",
            "x" * 50,
            "\r\n",
        ]
    )
    | st.text(max_size=30),
    min_size=1,
    max_size=200,
).map("".join)


@given(shared=texts, repeated=st.integers(1, 40), one=texts, other=texts)
@a_share
def test_texts_that_begin_alike_are_cut_alike(
    shared: str, repeated: int, one: str, other: str
) -> None:
    shared *= repeated
    first, second = shared + one, shared + other
    if min(len(first.encode()), len(second.encode())) < SPLITS_FROM:
        return

    # What decides on a cut is what stands before it, up to half a piece behind, and a word's begin.
    def inside(text: str) -> list[int]:
        return [cut for cut in cuts(text) if decided(text, cut) <= len(shared)]

    assert inside(first) == inside(second)


def decided(text: str, cut: int) -> int:
    """How far was looked for this cut, at most: to the end of the window, or of the blanks."""
    before = [0, *cuts(text)]
    begin = before[before.index(cut) - 1]
    piece = cut - begin
    return cut + piece + len(text[cut:]) - len(text[cut:].lstrip()) + 1


@given(text=texts, repeated=st.integers(1, 60))
@a_share
def test_pieces_are_few_and_each_says_something(text: str, repeated: int) -> None:
    text *= repeated
    found = cuts(text)

    assert found == sorted(set(found))
    assert len(found) < MOST
    pieces = [text[a:b] for a, b in zip([0, *found], [*found, len(text)], strict=True)]
    assert text == "".join(pieces)
    if found:
        assert all(piece.strip() for piece in pieces)
        assert all(len(piece.encode()) >= 192 for piece in pieces[:-1])

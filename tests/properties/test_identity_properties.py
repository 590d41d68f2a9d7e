"""Requests that differ in one place differ; requests that differ in a stated equivalence don't."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gateway.core import canonical
from gateway.core.canonical import Number
from gateway.providers.openai import CHAT
from tests.helpers.openai_chat import API, UNKNOWN_CHAT

if TYPE_CHECKING:
    import random

    from gateway.providers.base import ApiRules

RULES = {"openai": CHAT, "unknown": UNKNOWN_CHAT}
providers = st.sampled_from(sorted(RULES))

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
names = st.sampled_from(["a", "b", "type", "properties", "text", "content", "é"])
numbers = st.integers(-3, 3) | st.sampled_from([0.5, 1e300, 0.1])
leaves = st.none() | st.booleans() | numbers | texts
# JSON that is rendered into the prompt: schemas, unknown members.
rendered = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)

text_parts = st.builds(lambda t: {"type": "text", "text": t}, texts)
image_parts = st.builds(
    lambda u, d: {"type": "image_url", "image_url": {"url": u, "detail": d}},
    texts,
    st.sampled_from(["low", "high"]),
)
contents = texts | st.lists(text_parts | image_parts, max_size=3)
users = st.builds(lambda c: {"role": "user", "content": c}, contents)
call_ids = st.sampled_from(["call_Aa1111", "call_Bb2222", "call_Cc3333"])
calls = st.builds(
    lambda i, a: {"id": i, "type": "function", "function": {"name": "f", "arguments": a}},
    call_ids,
    texts,
)
assistants = st.builds(
    lambda c, t: {"role": "assistant", "content": c, **({"tool_calls": t} if t else {})},
    texts | st.none(),
    st.lists(calls, max_size=2),
)
results = st.builds(lambda i, c: {"role": "tool", "tool_call_id": i, "content": c}, call_ids, texts)
tools = st.builds(
    lambda d, p: {"type": "function", "function": {"name": "f", "description": d, "parameters": p}},
    texts,
    rendered,
)
requests = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["gpt-4o", "o3"]),
        "messages": st.lists(users | assistants | results, min_size=1, max_size=4),
    },
    optional={
        "temperature": numbers,
        "seed": st.integers(-3, 3),
        "stop": st.lists(texts, max_size=2),
        "logit_bias": st.dictionaries(st.sampled_from("123"), st.integers(-3, 3), max_size=3),
        "tools": st.lists(tools, min_size=1, max_size=2),
        "response_format": rendered,
        "metadata": rendered,
        "some_new_field": rendered,
    },
)  # fmt: skip

Path = tuple[str | int, ...]


def key(value: Any, rules: ApiRules) -> bytes:
    return API.understand(json.dumps(value).encode(), rules).canonical


def places(value: Any, path: Path = ()) -> list[Path]:
    """Every leaf and every empty container of a request."""
    if isinstance(value, dict) and value:
        return [p for name, inner in value.items() for p in places(inner, (*path, name))]
    if isinstance(value, list) and value:
        return [p for index, inner in enumerate(value) for p in places(inner, (*path, index))]
    return [path]


def at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def changed(value: Any, path: Path, leaf: Any) -> Any:
    out = copy.deepcopy(value)
    owner = at(out, path[:-1])
    owner[path[-1]] = leaf
    return out


def is_id(path: Path) -> bool:
    """Ids are equal up to renaming; their own tests say when."""
    return path[-1] == "tool_call_id" or (path[-1] == "id" and "tool_calls" in path)


# --- one place changed ------------------------------------------------------------------------------


@given(requests, providers, st.data())
def test_a_change_in_one_place_changes_the_key(
    request: dict[str, Any], provider: str, data: st.DataObject
) -> None:
    path = data.draw(st.sampled_from(places(request)))
    assume(not is_id(path))
    before = at(request, path)
    after = data.draw(leaves)
    # Python calls True and 1 equal, JSON doesn't; a folded number has one spelling.
    assume(json.dumps(before) != json.dumps(after))
    if path[0] == "temperature" and isinstance(before, int | float):
        assume(isinstance(after, bool) or before != after)
    if path == ("model",) or path[-1] == "role":
        after = f"{after}"
        assume(after != before)
    if path[-1] == "type" and "tools" in path and len(path) == 3:
        after = "custom"  # another type would run at the provider, and is passed

    assert key(request, RULES[provider]) != key(changed(request, path, after), RULES[provider])


@given(requests, providers, st.data())
def test_taking_a_member_away_changes_the_key(
    request: dict[str, Any], provider: str, data: st.DataObject
) -> None:
    path = data.draw(st.sampled_from(places(request)))
    owner_path = path[: data.draw(st.integers(1, len(path)))]
    assume(owner_path[0] != "model" and owner_path != ("messages",))
    assume(owner_path[-1] != "role")
    less = copy.deepcopy(request)
    owner = at(less, owner_path[:-1])
    del owner[owner_path[-1]]

    assert key(request, RULES[provider]) != key(less, RULES[provider])


@given(requests, providers, st.data())
def test_adding_an_unknown_member_anywhere_changes_the_key(
    request: dict[str, Any], provider: str, data: st.DataObject
) -> None:
    path = data.draw(st.sampled_from(places(request)))
    owners = [path[:n] for n in range(len(path) + 1) if isinstance(at(request, path[:n]), dict)]
    more = copy.deepcopy(request)
    owner = at(more, data.draw(st.sampled_from(owners)))
    owner["a_new_member"] = data.draw(rendered)

    assert key(request, RULES[provider]) != key(more, RULES[provider])


# Many requests have no list with two different items.
@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(requests, providers, st.data())
def test_swapping_two_items_of_a_list_changes_the_key(
    request: dict[str, Any], provider: str, data: st.DataObject
) -> None:
    path = data.draw(st.sampled_from(places(request)))
    lists = [path[:n] for n in range(len(path)) if isinstance(at(request, path[:n]), list)]
    assume(lists)
    where = data.draw(st.sampled_from(lists))
    turned = copy.deepcopy(request)
    at(turned, where).reverse()
    # A string and its one text part are the same to OpenAI, in whichever order they come.
    assume(json.dumps(in_strings(turned)) != json.dumps(in_strings(request)))
    # Swapping may only rename ids; that is their own test.
    assume("call_" not in json.dumps(at(request, where)))

    assert key(request, RULES[provider]) != key(turned, RULES[provider])


@given(requests, st.data())
def test_inside_what_is_rendered_even_order_and_spelling_change_the_key(
    request: dict[str, Any], data: st.DataObject
) -> None:
    inner = data.draw(
        st.dictionaries(names, rendered, min_size=2, max_size=3) | st.just({"a": 1.0, "b": 2})
    )
    turned = dict(reversed(inner.items()))
    field = data.draw(st.sampled_from(["response_format", "some_new_field", "metadata"]))

    for rules in RULES.values():
        assert key({**request, field: inner}, rules) != key({**request, field: turned}, rules)
        schema = [{"type": "function", "function": {"name": "f", "parameters": each}} for each in (inner, turned)]  # fmt: skip
        assert key({**request, "tools": schema[:1]}, rules) != key(
            {**request, "tools": schema[1:]}, rules
        )


# --- stated equivalences ------------------------------------------------------------------------------


def respelled(value: Any, rng: random.Random) -> str:
    """The same JSON value, spelled in another way: white space and escapes."""
    space = rng.choice(["", " ", "\n\t"])
    if isinstance(value, dict):
        members = [f"{respelled(n, rng)}{space}:{respelled(v, rng)}" for n, v in value.items()]
        return "{" + f"{space},".join(members) + space + "}"
    if isinstance(value, list):
        return "[" + space + f",{space}".join(respelled(v, rng) for v in value) + "]"
    if isinstance(value, str):
        return '"' + "".join(_escaped(c, rng) for c in value) + '"'
    return json.dumps(value)


def _escaped(c: str, rng: random.Random) -> str:
    plain = json.dumps(c, ensure_ascii=False)[1:-1]
    units = c.encode("utf-16-be")
    escaped = "".join(f"\\u{units[i]:02x}{units[i + 1]:02X}" for i in range(0, len(units), 2))
    return rng.choice([plain, escaped])


def envelope_shuffled(request: dict[str, Any], provider: str, rng: random.Random) -> dict[str, Any]:
    """Members of the envelope in another order; what is rendered into the prompt stays."""

    def shuffle(owner: dict[str, Any]) -> dict[str, Any]:
        members = list(owner.items())
        rng.shuffle(members)
        return dict(members)

    out = copy.deepcopy(request)
    for message in out["messages"]:
        if isinstance(message.get("content"), list):
            message["content"] = [
                shuffle({n: shuffle(v) if isinstance(v, dict) else v for n, v in part.items()})
                for part in message["content"]
            ]
        if provider == "openai" and "tool_calls" in message:
            message["tool_calls"] = [
                shuffle({**call, "function": shuffle(call["function"])})
                for call in message["tool_calls"]
            ]
    out["messages"] = [shuffle(message) for message in out["messages"]]
    if "logit_bias" in out:
        out["logit_bias"] = shuffle(out["logit_bias"])
    if provider == "openai" and "tools" in out:
        out["tools"] = [
            shuffle({**tool, "function": shuffle(tool["function"])}) for tool in out["tools"]
        ]
    return shuffle(out)


def in_other_parts(request: dict[str, Any]) -> dict[str, Any]:
    out = copy.deepcopy(request)
    for message in out["messages"]:
        content = message.get("content")
        if isinstance(content, str):
            message["content"] = [{"type": "text", "text": content}]
        elif isinstance(content, list) and len(content) == 1 and content[0]["type"] == "text":
            message["content"] = content[0]["text"]
    return out


def in_strings(request: dict[str, Any]) -> dict[str, Any]:
    """The request with every text written in the same way."""
    out = in_other_parts(request)
    for message, original in zip(out["messages"], request["messages"], strict=True):
        if isinstance(original.get("content"), str):
            message["content"] = original["content"]
    return out


def with_bookkeeping(request: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    out = copy.deepcopy(request)
    for name in ("user", "safety_identifier", "prompt_cache_key"):
        if rng.random() < 0.5:
            out[name] = str(rng.random())
    for name, default in (("n", 1), ("logprobs", False), ("presence_penalty", 0.0)):
        if rng.random() < 0.5:
            out[name] = default
    for message in out["messages"]:
        if isinstance(message.get("content"), list):
            for part in message["content"]:
                if rng.random() < 0.5:
                    part["prompt_cache_breakpoint"] = {"mode": "explicit"}
    return out


@given(requests, providers, st.randoms(use_true_random=False))
def test_spelling_and_order_of_the_envelope_never_change_the_key(
    request: dict[str, Any], provider: str, rng: random.Random
) -> None:
    other = respelled(envelope_shuffled(request, provider, rng), rng).encode()

    assert key(request, RULES[provider]) == API.understand(other, RULES[provider]).canonical


@given(requests, st.randoms(use_true_random=False))
def test_the_documented_equivalences_of_openai_never_change_the_key(
    request: dict[str, Any], rng: random.Random
) -> None:
    assert key(request, CHAT) == key(in_other_parts(request), CHAT)
    assert key(request, CHAT) == key(with_bookkeeping(request, rng), CHAT)


@given(requests, providers, st.booleans(), st.none() | st.just({"include_usage": True}))
def test_the_form_of_the_answer_never_changes_the_key(
    request: dict[str, Any], provider: str, stream: bool, options: Any
) -> None:
    other = {**request, "stream": stream, "stream_options": options}

    assert key(request, RULES[provider]) == key(other, RULES[provider])


@given(requests, st.permutations(["call_Aa1111", "call_Bb2222", "call_Cc3333"]))
def test_renaming_ids_one_to_one_never_changes_the_key_of_a_plain_model(
    request: dict[str, Any], others: list[str]
) -> None:
    request["model"] = "gpt-4o"
    names = {"call_Aa1111": "x_1", "call_Bb2222": "x_2", "call_Cc3333": "x_3"}
    final = dict(zip(["x_1", "x_2", "x_3"], (f"{each}zz" for each in others), strict=True))
    text = json.dumps(request)
    for mapping in (names, final):
        for old, new in mapping.items():
            text = text.replace(f'"{old}"', f'"{new}"')

    assert key(request, CHAT) == API.understand(text.encode(), CHAT).canonical


@given(requests, st.data())
def test_joining_two_ids_into_one_changes_the_key(
    request: dict[str, Any], data: st.DataObject
) -> None:
    paths = [path for path in places(request) if is_id(path)]
    ids = {at(request, path) for path in paths}
    assume(len(ids) > 1)
    one, other = data.draw(st.permutations(sorted(ids)))[:2]
    joined = json.loads(json.dumps(request).replace(f'"{one}"', f'"{other}"'))

    for rules in RULES.values():
        assert key(request, rules) != key(joined, rules)


# --- the canonical form itself --------------------------------------------------------------------------


@given(requests, providers)
def test_canonical_bytes_are_json_and_their_own_spelling(
    request: dict[str, Any], provider: str
) -> None:
    made = key(request, RULES[provider])

    json.loads(made)
    assert made == canonical.encode(canonical.parse(made))


@given(requests)
def test_under_the_careful_rules_the_canonical_form_asks_the_same_question(
    request: dict[str, Any],
) -> None:
    made = key(request, UNKNOWN_CHAT)

    assert made == API.understand(made, UNKNOWN_CHAT).canonical
    assert json.loads(made) == json.loads(json.dumps(request))


@given(st.integers(0, 50), st.integers(0, 50))
def test_a_number_stands_apart_from_its_text(a: int, b: int) -> None:
    assert canonical.encode(Number(str(a))) != canonical.encode(str(b))

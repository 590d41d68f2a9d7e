from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from gateway.core import canonical
from gateway.core.canonical import Number
from gateway.core.mint import Mint
from gateway.core.model import Reason
from gateway.providers.base import ApiRules, Default, Rule
from gateway.wire import envelope
from gateway.wire.base import NotUnderstood

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.core.canonical import Json

BECAUSE = Rule("a reason", "a source")


def parsed(value: Any) -> dict[str, Json]:
    return envelope.parse_object(json.dumps(value).encode())


@pytest.mark.parametrize(
    ("reason", "body"),
    [
        (Reason.UNCACHEABLE_JSON, b"{"),
        (Reason.UNCACHEABLE_JSON, b'{"a":1,"a":1}'),
        (Reason.NOT_UNDERSTOOD, b"[]"),
        (Reason.NOT_UNDERSTOOD, b'"x"'),
    ],
)
def test_a_body_is_one_exact_json_object(reason: Reason, body: bytes) -> None:
    with pytest.raises(NotUnderstood) as caught:
        envelope.parse_object(body)

    assert (reason, "$") == (caught.value.reason, caught.value.where)


@pytest.mark.parametrize(
    ("where", "read"),
    [
        ("$.a", lambda: envelope.text(parsed({"a": 1}), "a", "$")),
        ("$.a", lambda: envelope.text({}, "a", "$")),
        ("$.m[0].a", lambda: envelope.text({"a": None}, "a", "$.m[0]")),
        ("$.a", lambda: envelope.flag(parsed({"a": "true"}), "a")),
        ("$.a", lambda: envelope.flag(parsed({"a": 0}), "a")),
        ("$.a", lambda: envelope.objects({}, "a", "$")),
        ("$.a", lambda: envelope.objects({"a": {}}, "a", "$")),
        ("$.a[1]", lambda: envelope.objects({"a": [{}, "x"]}, "a", "$")),
    ],
)
def test_a_member_of_another_kind_is_named(where: str, read: Callable[[], object]) -> None:
    with pytest.raises(NotUnderstood) as caught:
        read()

    assert (Reason.NOT_UNDERSTOOD, where) == (caught.value.reason, caught.value.where)
    assert where in str(caught.value)


def test_members_of_the_right_kind_are_read() -> None:
    assert envelope.text({"a": "x"}, "a", "$") == "x"
    assert [True, False, False, False] == [
        envelope.flag(parsed(owner), "a") for owner in ({"a": True}, {"a": False}, {"a": None}, {})
    ]
    assert [{"b": None}] == envelope.objects({"a": [{"b": None}]}, "a", "$")


@pytest.mark.parametrize(
    ("raw", "amount", "count"),
    [
        ("1", 1.0, 1),
        ("1.0", 1.0, 1),
        ("-0", 0.0, 0),
        ("1.5", 1.5, None),
        ("1e3", 1000.0, 1000),
        ("1e999", float("inf"), None),
        ("-1e999", float("-inf"), None),
    ],
)
def test_numbers_are_read_for_judging(raw: str, amount: float, count: int | None) -> None:
    assert amount == envelope.number(Number(raw))
    assert count == envelope.whole(Number(raw))


@pytest.mark.parametrize("value", [None, True, "1", [], {}])
def test_what_is_no_number_counts_nothing(value: Any) -> None:
    assert envelope.number(value) is None
    assert envelope.whole(value) is None


@pytest.mark.parametrize(
    ("searches", "model"),
    [
        (True, "gpt-4o-search-preview-2025-03-11"),
        (True, "openai/gpt-4o:online"),
        (True, "perplexity/sonar"),
        (True, "o4-mini-deep-research"),
        (True, "compound-beta"),
        (False, "gpt-4o"),
        (False, "research-llm"),
        (False, "my-sonar-like"),
        (False, ""),
    ],
)
def test_a_model_that_searches_is_known_by_its_name(searches: bool, model: str) -> None:
    assert searches == envelope.is_search_model(model)


def test_without_plain_models_no_model_is_plain() -> None:
    assert not envelope.is_plain_model("gpt-4o", ApiRules())
    assert not envelope.is_plain_model("", ApiRules())
    assert envelope.is_plain_model("gpt-4o", ApiRules(plain_models=("gpt-4",)))
    assert not envelope.is_plain_model("xgpt-4o", ApiRules(plain_models=("gpt-4",)))


# --- the tables, applied ------------------------------------------------------------------------


def folded(value: Any, rules: ApiRules, **special: Callable[[Json], Json]) -> Any:
    body = envelope.parse_object(value if isinstance(value, bytes) else json.dumps(value).encode())
    return canonical.encode(envelope.fold_top(body, rules, special)).decode()


def test_without_tables_everything_is_kept_as_spelled_but_the_top_order() -> None:
    assert '{"a":1.0,"b":{"z":1,"y":-0}}' == folded(b'{"b":{"z":1,"y":-0},"a":1.0}', ApiRules())


def test_only_named_members_are_left_out() -> None:
    rules = ApiRules(excluded={"user": BECAUSE})

    assert '{"User":1,"user2":{"user":1}}' == folded(
        {"user": 1, "User": 1, "user2": {"user": 1}}, rules
    )


def test_parameters_are_folded_all_the_way_down() -> None:
    assert '{"t":[1,{"a":0,"b":2}]}' == folded(
        b'{"t":[1.0,{"b":2e0,"a":-0}]}', ApiRules(scalars={"t": BECAUSE})
    )


@pytest.mark.parametrize(
    ("default", "left_out", "kept"),
    [
        (1, [b"1", b"1.0", b"1e0", b"10e-1"], [b"2", b"true", b'"1"', b"null", b"[1]", b"-1"]),
        (0, [b"0", b"-0", b"0.0", b"0e9"], [b"false", b'""', b"null", b"[]", b"1e-99"]),
        (False, [b"false"], [b"0", b"true", b"null", b'"false"']),
        (True, [b"true"], [b"1", b"false", b"null"]),
    ],
)
def test_a_default_is_left_out_exactly_when_it_is_the_value(
    default: Any, left_out: list[bytes], kept: list[bytes]
) -> None:
    rules = ApiRules(defaults={"d": Default(default, BECAUSE)})

    assert {"{}"} == {folded(b'{"d":%b}' % raw, rules) for raw in left_out}
    assert [f'{{"d":{raw.decode()}}}' for raw in kept] == [
        folded(b'{"d":%b}' % raw, rules) for raw in kept
    ]


def test_members_of_members_are_left_out_and_an_object_emptied_so_is_none() -> None:
    rules = ApiRules(excluded_members={"metadata": {"user_id": BECAUSE}})

    assert "{}" == folded({"metadata": {"user_id": "u"}}, rules)
    assert '{"metadata":{"b":1,"a":2}}' == folded(
        b'{"metadata":{"b":1,"user_id":"u","a":2}}', rules
    )
    assert '{"metadata":"user_id"}' == folded({"metadata": "user_id"}, rules)


def test_a_special_member_goes_its_own_way() -> None:
    assert '{"m":"special"}' == folded({"m": 1}, ApiRules(scalars={"m": BECAUSE}), m=_special)


def _special(value: Json) -> Json:
    assert value == 1
    return "special"


def test_sorted_members_are_shallow_and_skip_what_is_named() -> None:
    assert [("a", {"z": None, "y": None}), ("c", None)] == list(
        envelope.sorted_members(
            {"c": None, "b": None, "a": {"z": None, "y": None}}, {"b": 1}
        ).items()
    )


# --- ids ------------------------------------------------------------------------------------------


def renamed(ids: list[str], text: str = "") -> bytes:
    def render(names: Mapping[str, Json]) -> bytes:
        return envelope.render([*[names.get(each, each) for each in ids], text])

    return envelope.rename_ids(ids, render)


def test_ids_are_numbered_by_first_appearance() -> None:
    assert b'[[0],[1],[0],""]' == renamed(["call_b", "call_a", "call_b"])


def test_without_ids_nothing_is_renamed() -> None:
    assert b'["x"]' == renamed([], "x")


@pytest.mark.parametrize("text", ["call_a", "see call_a!", "xcall_ax", "call_ab"])
def test_an_id_in_any_text_keeps_all_ids(text: str) -> None:
    assert renamed(["call_b", "call_a"], text).startswith(b'["call_b","call_a",')


def test_an_id_within_another_id_is_no_text() -> None:
    assert b'[[0],[1],""]' == renamed(["call_1", "call_10"])


@pytest.mark.parametrize("odd", ["", "a b", "é", 'a"b', "a\\b", "a/b", "x" * 129, "call_a\n"])
def test_an_id_that_may_be_escaped_is_kept(odd: str) -> None:
    assert json.loads(renamed(["call_a", odd])) == ["call_a", odd, ""]


def test_clashing_ids_are_replaced_and_no_other() -> None:
    calls: list[dict[str, Json]] = [{"id": "call_aaaa11"}, {"id": "call_bbbb22"}, {"x": None}, {"id": None}]  # fmt: skip

    envelope.replace_ids(calls, frozenset({"call_aaaa11", "call_cccc33"}), Mint(1, b"s"))

    fresh = calls[0]["id"]
    assert isinstance(fresh, str)
    assert len("call_aaaa11") == len(fresh)
    assert fresh not in {"call_aaaa11", "call_bbbb22", "call_cccc33"}
    assert [{"id": "call_bbbb22"}, {"x": None}, {"id": None}] == calls[1:]


def test_pieces_of_one_call_get_one_new_id() -> None:
    calls: list[dict[str, Json]] = [{"id": "call_aaaa11"}, {"id": "call_aaaa11"}]

    envelope.replace_ids(calls, frozenset({"call_aaaa11"}), Mint(1, b"s"))

    assert calls[0] == calls[1] != {"id": "call_aaaa11"}


def test_rendering_a_lone_surrogate_is_uncacheable() -> None:
    with pytest.raises(NotUnderstood) as caught:
        envelope.render({"a": "\ud800"})

    assert Reason.UNCACHEABLE_JSON is caught.value.reason

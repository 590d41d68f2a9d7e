from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.model import Form, Reason
from gateway.providers import registry
from gateway.providers.openai import OPENAI
from gateway.providers.openai_other import COMPLETIONS
from gateway.wire.base import NotUnderstood
from tests.helpers.openai_completions import API, UNKNOWN_COMPLETIONS, canonical_of, request

if TYPE_CHECKING:
    from gateway.providers.base import ApiRules


def understood(rules: ApiRules = COMPLETIONS, **changes: Any) -> Any:
    return API.understand(json.dumps(request(**changes)).encode(), rules)


# --- what is the same ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (request(n=1), request()),
        (request(echo=False), request()),
        (request(presence_penalty=0.0, frequency_penalty=0), request()),
        (request(user="u-1"), request(user="u-2")),
        (request(stream=True, stream_options={"include_usage": True}), request()),
        (request(temperature=1), request(temperature=1.0)),
        (request(logit_bias={"5": 1, "6": 2}), request(logit_bias={"6": 2.0, "5": 1})),
        (dict(reversed(request(max_tokens=9).items())), request(max_tokens=9)),
        (request(prompt="h\u00e9"), json.dumps(request(prompt="hé"), ensure_ascii=False).encode()),
    ],
)
def test_what_cannot_change_the_answer_is_folded(one: Any, other: Any) -> None:
    assert canonical_of(one) == canonical_of(other)


PROMPTS = [
    *("Say hi", " Say hi", ["Say hi"], ["Say", " hi"], ["Say hi", "Say hi"], None, [1], [[1]]),
    *([1, 2], [2, 1], [[1, 2]], [[1], [2]], "[1]", "1"),
]


def test_no_two_prompts_are_the_same() -> None:
    assert len(PROMPTS) == len({canonical_of(request(prompt=prompt)) for prompt in PROMPTS})


def test_a_string_and_a_list_of_it_are_two_prompts_as_nothing_documents_them_as_one() -> None:
    for rules in (COMPLETIONS, UNKNOWN_COMPLETIONS):
        alone = canonical_of(request(prompt="x"), rules)
        assert alone != canonical_of(request(prompt=["x"]), rules)


def test_no_prompt_is_not_the_null_prompt() -> None:
    missing = request()
    del missing["prompt"]

    assert canonical_of(missing) != canonical_of(request(prompt=None))


@pytest.mark.parametrize(
    "changes",
    [
        {"suffix": ""},
        {"suffix": "x"},
        {"echo": True},
        {"best_of": 1},
        {"best_of": 3},
        {"n": 2},
        {"logprobs": 0},
        {"logprobs": 5},
        {"max_tokens": 16},
        {"max_tokens": 0},
        {"seed": 1},
        {"stop": "\n"},
        {"stop": ["\n"]},
        {"temperature": 1},
        {"top_p": 1},
        {"logit_bias": {}},
        {"model": "davinci-002"},
        {"prompt_logprobs": 1},
        {"guided_json": {"a": 1, "b": 2}},
        {"guided_json": {"b": 2, "a": 1}},
    ],
)
def test_what_may_change_the_answer_is_keyed(changes: dict[str, Any]) -> None:
    assert canonical_of(request(**changes)) != canonical_of(request())


def test_schemas_in_unknown_members_keep_their_order() -> None:
    one, other = {"a": 1, "b": 2}, {"b": 2, "a": 1}

    assert canonical_of(request(guided_json=one)) != canonical_of(request(guided_json=other))


@pytest.mark.parametrize("member", [{"user": "u"}, {"n": 1}, {"echo": False}])
def test_an_unknown_upstream_gets_everything_but_the_form_keyed(member: dict[str, Any]) -> None:
    plain = canonical_of(request(), UNKNOWN_COMPLETIONS)

    assert plain != canonical_of(request(**member), UNKNOWN_COMPLETIONS)
    assert plain == canonical_of(request(stream=True), UNKNOWN_COMPLETIONS)


@pytest.mark.parametrize(
    ("same", "one", "other"),
    [
        (True, "a \r\nb", "a\nb"),
        (True, ["a\t\rb", "c"], ["a\nb", "c"]),
        (True, "a\r\n", "a\n"),
        (False, "def f():\n    ", "def f():\n"),
        (False, "a ", "a"),
        (False, "a\nb", "a b"),
        (False, " a", "a"),
    ],
)
def test_line_ends_fold_where_configured_but_what_the_answer_goes_on_from_never(
    same: bool, one: Any, other: Any
) -> None:
    rules = registry.rules(OPENAI, "openai_completions", fold_text=True)
    asked = [canonical_of(request(prompt=prompt), rules) for prompt in (one, other)]
    strict = [canonical_of(request(prompt=prompt)) for prompt in (one, other)]

    assert same == (asked[0] == asked[1])
    assert strict[0] != strict[1]
    suffixes = [canonical_of(request(suffix=text), rules) for text in ("a\r\nb", "a\nb")]
    assert suffixes[0] == suffixes[1]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
prompts = texts | st.lists(texts, min_size=1, max_size=3) | st.lists(st.integers(0, 9), min_size=1, max_size=3)  # fmt: skip


@given(prompts, prompts)
def test_prompts_share_a_key_exactly_if_they_are_equal(one: Any, other: Any) -> None:
    keys = {canonical_of(request(prompt=p)) for p in (one, other)}

    assert len(keys) == (1 if one == other else 2)


# --- what is asked --------------------------------------------------------------------------------


def test_what_a_request_asks_is_read() -> None:
    ask = understood(
        stream=True, stream_options={"include_usage": True}, max_tokens=7, temperature=0
    ).ask

    assert (Form.STREAM, True, False) == (ask.form, ask.include_usage, ask.may_add_usage)
    assert (7, True, "gpt-3.5-turbo-instruct") == (
        ask.max_output_tokens,
        ask.deterministic,
        ask.model,
    )
    assert understood(seed=1).ask.deterministic
    assert not understood().ask.deterministic
    assert understood().ask.max_output_tokens is None


@pytest.mark.parametrize(
    ("where", "changes"),
    [
        ("$.model", {"model": None}),
        ("$.stream", {"stream": "yes"}),
        ("$.prompt", {"prompt": []}),
        ("$.prompt", {"prompt": 5}),
        ("$.prompt", {"prompt": {"prompt_string": "x"}}),
        ("$.prompt", {"prompt": ["a", 1]}),
        ("$.prompt", {"prompt": [[1], "a"]}),
        ("$.prompt", {"prompt": [[]]}),
        ("$.prompt", {"prompt": [1.5]}),
        ("$.prompt", {"prompt": [None]}),
        ("$.best_of", {"best_of": 2, "stream": True}),
        ("$.best_of", {"best_of": "2", "stream": True}),
    ],
)
def test_what_is_documented_nowhere_is_passed_on(where: str, changes: dict[str, Any]) -> None:
    with pytest.raises(NotUnderstood) as caught:
        understood(**changes)

    assert (Reason.NOT_UNDERSTOOD, where) == (caught.value.reason, caught.value.where)


def test_the_best_of_several_is_understood_where_it_may_be_asked_for() -> None:
    assert understood(best_of=2).pass_reason is None
    assert understood(best_of=1, stream=True).pass_reason is None


def test_what_looks_things_up_is_passed() -> None:
    assert Reason.SEARCH_MODEL is understood(model="perplexity/sonar").pass_reason
    assert Reason.HOSTED_TOOL is understood(plugins=[{"id": "web"}]).pass_reason


def test_usage_is_asked_for_where_that_is_documented() -> None:
    body = b' {"model":"m","prompt":"x","stream":true}'
    asked = API.understand(body, COMPLETIONS).ask
    careful = API.understand(body, UNKNOWN_COMPLETIONS).ask

    assert b' {"stream_options":{"include_usage":true},"model":"m","prompt":"x","stream":true}' == (
        API.with_stream_usage(body, asked, COMPLETIONS)
    )
    assert API.with_stream_usage(body, careful, UNKNOWN_COMPLETIONS) is None


def test_an_error_has_the_shape_of_the_api() -> None:
    error = json.loads(API.error(400, "no", "bad", "prompt"))

    assert {"message": "no", "type": "invalid_request_error", "param": "prompt", "code": "bad"} == (
        error["error"]
    )

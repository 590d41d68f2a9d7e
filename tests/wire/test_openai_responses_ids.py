"""Ids in the history of a response: renamed where nobody can tell, kept where somebody might."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.helpers.openai_responses import (
    CALL,
    CUSTOM,
    CUSTOM_OUTPUT,
    OUTPUT,
    REASONING,
    UNKNOWN_RESPONSES,
    asked,
    canonical_of,
    user,
    with_input,
)


def calls(a: str, b: str, *, first: str, second: str, **changes: Any) -> dict[str, Any]:
    """Two calls and their outputs, `first` answered first."""
    return with_input(
        user("q"),
        {**CALL, "call_id": a, "id": f"fc_{a}"},
        {**CALL, "call_id": b, "id": f"fc_{b}"},
        {**OUTPUT, "call_id": first, "output": "1"},
        {**OUTPUT, "call_id": second, "output": "2"},
        **{"store": False, **changes},
    )


ONE = calls("call_aa", "call_bb", first="call_aa", second="call_bb")
OTHER = calls("call_yy", "call_zz", first="call_yy", second="call_zz")
CROSSED = calls("call_aa", "call_bb", first="call_bb", second="call_aa")


def test_ids_are_renamed_by_first_appearance() -> None:
    assert canonical_of(ONE) == canonical_of(OTHER)
    assert canonical_of(ONE) != canonical_of(CROSSED)


@pytest.mark.parametrize(
    ("item", "prefix"),
    [
        (user("a"), "msg_"),
        ({**CALL, "call_id": "call_Qq7"}, "fc_"),
        ({**CUSTOM, "call_id": "call_Qq7"}, "ctc_"),
    ],
    ids=["message", "function_call", "custom_tool_call"],
)
def test_the_ids_that_the_provider_gives_to_items_are_renamed(
    item: dict[str, Any], prefix: str
) -> None:
    one, other, odd = (
        with_input({**item, "id": each}, store=False)
        for each in (f"{prefix}1", f"{prefix}2", "mine_1")
    )

    assert canonical_of(one) == canonical_of(other) != canonical_of(odd)


def test_the_ids_of_custom_calls_are_renamed_with_those_of_their_outputs() -> None:
    one, other = (
        with_input({**CUSTOM, "call_id": each}, {**CUSTOM_OUTPUT, "call_id": each}, store=False)
        for each in ("call_1", "call_2")
    )

    assert canonical_of(one) == canonical_of(other)


def test_every_id_of_the_history_is_told() -> None:
    assert {"call_aa", "call_bb", "fc_call_aa", "fc_call_bb"} == asked(ONE).history_ids
    reference = with_input({"id": "msg_1"}, REASONING)
    assert {"msg_1", "rs_1"} == asked(reference).history_ids


def test_a_call_without_an_id_of_its_own_is_another_request() -> None:
    bare = copy.deepcopy(ONE)
    del bare["input"][1]["id"]

    assert canonical_of(bare) != canonical_of(ONE)


def test_an_id_that_the_provider_did_not_make_stays() -> None:
    odd = copy.deepcopy(ONE)
    odd["input"][1]["id"] = "mine_1"
    odder = copy.deepcopy(ONE)
    odder["input"][1]["id"] = "mine_2"

    assert canonical_of(odd) != canonical_of(odder)
    assert b"mine_1" in canonical_of(odd)


@pytest.mark.parametrize(
    "changes",
    [
        {"store": True},
        {"store": None},
        {"previous_response_id": "resp_1"},
        {"prompt": {"id": "p", "version": "1"}},
        {"model": "o3"},
        {"reasoning": {"effort": "low"}},
        {"include": ["reasoning.encrypted_content"]},
        {"instructions": "You called call_aa and call_yy before."},
    ],
)
def test_ids_stay_where_somebody_else_may_refer_to_them(changes: dict[str, Any]) -> None:
    assert canonical_of({**ONE, **changes}) != canonical_of({**OTHER, **changes})


@pytest.mark.parametrize("item", [REASONING, {"id": "msg_1"}, {"type": "new_item"}])
def test_ids_stay_beside_reasoning_references_and_what_is_not_known(item: dict[str, Any]) -> None:
    one, other = ({**each, "input": [*each["input"], item]} for each in (ONE, OTHER))

    assert canonical_of(one) != canonical_of(other)


def test_outputs_for_calls_that_the_provider_keeps_are_never_mixed_up() -> None:
    # Without the calls themselves the order of first appearance says nothing.
    def outputs(first: str, second: str) -> dict[str, Any]:
        return with_input(
            {**OUTPUT, "call_id": first, "output": "1"},
            {**OUTPUT, "call_id": second, "output": "2"},
            previous_response_id="resp_1",
            store=False,
        )

    assert canonical_of(outputs("a1", "b2")) != canonical_of(outputs("b2", "a1"))


def test_an_unknown_upstream_gets_its_ids_as_they_are() -> None:
    assert canonical_of(ONE, UNKNOWN_RESPONSES) != canonical_of(OTHER, UNKNOWN_RESPONSES)

"""llama.cpp's slots, as its pages tell them."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.engine_slots import Slots, of_props, of_slots


def slot(**more: Any) -> dict[str, Any]:
    return {"id": 0, "n_ctx": 4096, "is_processing": False, **more}


@pytest.mark.parametrize(
    ("document", "slots"),
    [
        ([slot()], Slots(1, 4096, 0)),
        ([slot(), slot(is_processing=True), slot(n_ctx=8192)], Slots(3, 8192, 1)),
        ([slot(is_processing=None)], Slots(1, 4096, None)),
        ([slot(n_ctx="many")], None),
        ([slot(n_ctx=True)], None),
        ([slot(), slot(n_ctx=0)], None),
        (["x"], None),
        ([], None),
        ({"error": {"code": 501}}, None),
        (None, None),
    ],
)
def test_slots(document: Any, slots: Slots | None) -> None:
    assert of_slots(document) == slots


@pytest.mark.parametrize(
    ("document", "slots"),
    [
        ({"total_slots": 4, "default_generation_settings": {"n_ctx": 2048}}, Slots(4, 2048)),
        ({"total_slots": 4, "default_generation_settings": {"n_ctx": -1}}, None),
        ({"total_slots": 0, "default_generation_settings": {"n_ctx": 2048}}, None),
        ({"total_slots": 4, "default_generation_settings": None}, None),
        ({"total_slots": 4}, None),
        ([], None),
    ],
)
def test_props(document: Any, slots: Slots | None) -> None:
    assert of_props(document) == slots

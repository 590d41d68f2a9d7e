"""Texts and tokens, one or many: what OpenAI's `prompt` and `input` hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.wire import lenient

if TYPE_CHECKING:
    from gateway.core.canonical import Json


def is_tokens(value: Json) -> bool:
    """Is it a list of token ids, one at least?"""
    if not isinstance(value, list) or not value:
        return False
    return all(lenient.index(each) is not None for each in value)


def is_several(value: Json) -> bool:
    """Is it a list of texts, or a list of lists of tokens, one at least and all of one kind?"""
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(each, str) for each in value) or all(map(is_tokens, value))

"""A rendered answer with holes where each rendering differs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.core.mint import Mint
from gateway.core.template import template

if TYPE_CHECKING:
    from collections.abc import Callable

SEED = b"0123456789abcdef"
STORED = b'{"id":"chatcmpl-AbCdEfGh12","created":1,"text":"x"}'


def serve(mint: Mint) -> bytes:
    fresh = mint.like("chatcmpl-AbCdEfGh12")
    return f'{{"id":"{fresh}","created":{mint.now_s},"again":"{fresh}","text":"x"}}'.encode()


def test_the_holes_are_what_the_mint_made_and_nothing_else() -> None:
    found = template(serve, STORED, SEED)
    assert found is not None
    assert found.holes == (0, None, 0)
    assert found.originals == ("chatcmpl-AbCdEfGh12",)
    assert found.pieces[-1] == b'","text":"x"}'
    mint = Mint(1_800_000_000, b"other")
    assert found.fill(mint) == serve(Mint(1_800_000_000, b"other"))
    assert found.size_bytes < len(serve(mint))


def test_an_answer_in_which_the_mint_has_no_say_is_one_piece() -> None:
    found = template(lambda _: b"{}", b"{}", SEED)
    assert found is not None
    assert (found.pieces, found.holes) == ((b"{}",), ())


def uses(original: str) -> Callable[[Mint], bytes]:
    return lambda mint: mint.like(original).encode()


@pytest.mark.parametrize(
    ("serves", "stored"),
    [
        # Too short to be told from other text, or not plain.
        (uses("call_0"), b""),
        (uses("é-abcdefgh"), b""),
        # Made, and not used: who knows what for.
        (lambda mint: (mint.like("chatcmpl-AbCdEfGh12"), b"{}")[1], b""),
        # The time is in the answer itself.
        (lambda _: b"4123456789012", b"4123456789012"),
    ],
)
def test_what_is_not_certain_has_no_template(
    serves: Callable[[Mint], bytes], stored: bytes
) -> None:
    assert template(serves, stored, SEED) is None

from __future__ import annotations

from itertools import pairwise

import pytest

from gateway.wire.pieces import MOST, SPLITS_FROM, cuts

LINES = "".join(f"Rule {n}: be kind to user number {n * 7919 % 1000}.\n" for n in range(400))


def pieces(text: str) -> list[str]:
    return [text[a:b] for a, b in pairwise([0, *cuts(text), len(text)])]


def test_a_short_text_is_one_piece() -> None:
    assert cuts(LINES[: SPLITS_FROM - 1]) == []
    assert cuts(LINES[:SPLITS_FROM]) != []


def test_two_bytes_a_letter_count_as_two() -> None:
    assert cuts("й" * 5 + ("да " * 420)) != []
    assert cuts("no " * 420) == []


def test_pieces_end_where_lines_do() -> None:
    assert all(piece.endswith(".\n") for piece in pieces(LINES)[:-1])
    assert LINES == "".join(pieces(LINES))


@pytest.mark.parametrize("tail", ["", "Hello Ann.\n" * 50, "Hello Bob, and goodbye. " * 30])
@pytest.mark.parametrize("shared", [8192, 12000])
def test_texts_that_share_their_first_part_share_nearly_all_of_its_pieces(
    shared: int, tail: str
) -> None:
    one, other = LINES[:shared] + tail + "x" * 600, LINES[:shared] + "Anything else at all" * 40

    same = [a for a, b in zip(pieces(one), pieces(other), strict=False) if a == b]

    assert sum(map(len, same)) >= 0.96 * shared


def test_a_text_without_lines_is_cut_behind_sentences_or_else_words() -> None:
    sentences = "You are a careful agent. You answer in prose. " * 80
    words = "and so on " * 400

    assert all(piece.endswith(". ") for piece in pieces(sentences)[:-1])
    assert all(piece.endswith(" ") for piece in pieces(words)[:-1])
    assert cuts("x" * 5000) == []


def test_chinese_is_cut_behind_sentences_and_in_pieces_of_as_many_bytes() -> None:
    text = "请用简短的句子回答用户的问题。" * 200

    found = pieces(text)

    assert all(piece.endswith("。") for piece in found)
    assert max(len(piece.encode()) for piece in found[:10]) < 400


def test_no_grapheme_is_cut() -> None:
    text = ("word \u0301" * 40 + "end. \u200dx \uff9e ") * 40

    for cut in cuts(text):
        assert text[cut] == "w" or text[cut] == "e"


def test_indentation_stays_with_its_line_and_empty_lines_with_the_one_before() -> None:
    text = "def f():\n    return 1\n\n\n" * 200

    assert all(piece.startswith(("def", "    return")) for piece in pieces(text))


def test_blank_text_is_never_a_piece() -> None:
    assert all(piece.strip() for piece in pieces(" \n" * 2000 + LINES + "\n \n" * 900))
    assert pieces("\n" * 5000) == ["\n" * 5000]


def test_a_huge_text_has_a_bounded_number_of_pieces() -> None:
    assert len(pieces(LINES * 200)) == MOST
    # Most of half a megabyte is still told apart.
    text = LINES * 32
    assert cuts(text)[-1] > 0.85 * len(text)


@pytest.mark.parametrize("blank", [" ", "\t", "\n", " \n", "\n ", ". ", "\u3000", "。 "])
@pytest.mark.parametrize("end", ["", "x", "\u0301", "\n\u0301", " \u2028"])
@pytest.mark.timeout(5)
def test_long_runs_of_blanks_are_passed_once(blank: str, end: str) -> None:
    text = ("word" + blank * 100_000 + end) * 2

    assert text == "".join(pieces(text))

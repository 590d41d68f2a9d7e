"""Where a long text may be split, so that texts which begin alike are split alike.

Rule 1: whether a cut stands at a place depends on the text before it and on the few characters
behind it that were looked at, never on how the text goes on: what two texts share is cut alike.
Rule 2: a cut stands where people cut, too: behind a line, else behind a sentence, else behind a
word; never within a grapheme, and with something to read on both sides.
"""

from __future__ import annotations

import re

SPLITS_FROM = 2048
"""UTF-8 bytes of a text that is worth pieces: about 500 tokens, the least that any provider caches."""

MOST = 128
"""Pieces of one text."""

_LEAST = 192
# A piece is about 3 % of what stands before it: so much is lost at most where two texts part.
_SHARE = 32
# Behind so many bytes pieces grow faster, so that MOST of them reach over half a megabyte.
_FAR = 65536
_FAR_SHARE = 8

# A line's end is a boundary of graphemes, whatever follows. Blanks at the head of a line stay with
# the line, and empty lines with the one before.
_LINE = re.compile(r"\n(?=[ \t]*+\S)")
# What follows begins a word with a letter that doesn't join what stands before: marks are no
# letters to `\w`, but for these few.
_WORD = r"(?![\u0e33\u0eb3\uff9e\uff9f])\w"
_SENTENCE = re.compile(rf"(?:[.!?:;][ \t]++|[。！？])(?={_WORD})")  # noqa: RUF001 - they end sentences
# From the first blank of a run on: else a long run would be looked at once for each of its blanks.
_BLANKS = rf"(?<![ \t])[ \t]++(?={_WORD}|[!-~])"
_SPACE = re.compile(_BLANKS)
_ANY = re.compile(rf"{_LINE.pattern}|{_BLANKS}")


def cuts(text: str) -> list[int]:
    """Character offsets at which the text may be split, in order; none for a short one."""
    length = len(text)
    if length < SPLITS_FROM and (text.isascii() or len(text.encode()) < SPLITS_FROM):
        return []
    is_ascii = text.isascii()
    found: list[int] = []
    start = 0  # of the piece, in characters
    before = 0  # bytes before it
    # The first piece has to say something, too.
    lead = length - len(text.lstrip())
    while len(found) < MOST - 1:
        least = max(_LEAST, before // (_SHARE if before < _FAR else _FAR_SHARE))
        at = start + least
        if not is_ascii:
            # As many characters as fit into so many bytes.
            at = start + len(text[start:at].encode()[:least].decode(errors="ignore"))
        at = max(at, lead + 1)
        cut = _cut(text, at, at + least // 2)
        if cut < 0:
            break
        before += cut - start if is_ascii else len(text[start:cut].encode())
        start = cut
        found.append(cut)
    return found


def _cut(text: str, at: int, end: int) -> int:
    """The first good place from `at` on, by preference before `end`; -1 for none."""
    if (line := _LINE.search(text, at, end)) is not None:
        return line.end()
    if end > len(text):
        # What would follow might hold a line's end: Rule 1.
        return -1
    place = (
        _SENTENCE.search(text, at, end) or _SPACE.search(text, at, end) or _ANY.search(text, end)
    )
    return -1 if place is None else place.end()

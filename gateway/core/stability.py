"""What one prompt alone gives away: volatile text in places that requests share.

Rule 1: place decides. Tools and system are shared by requests; so is, in a one-shot prompt, what
stands behind a volatile piece in the same opening message. What users, tools and models said is
naturally unique and costs nothing where nothing stable follows.
Rule 2: pace decides how much is lost. What changes with each request loses the conversation behind
it, too; what changes with each session or day loses only what sessions share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.core import volatile
from gateway.core import volatile_patterns as patterns
from gateway.core.blocks import Block, Prompt, Section, tokens
from gateway.core.findings import Finding, Grade, shortened
from gateway.core.volatile import Confidence, Kind, Pace, Sighting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_CONTEXT = 24
# Less than this behind a piece that changes per request is a full stop or a closing tag.
_LEAST_TOKENS = 4
# Less than this behind what changes per session isn't worth a person's time.
_LEAST_SESSION_TOKENS = 64
# A user's own words may hold anything; so much text behind them is a template's, not a user's.
_LEAST_TEMPLATE_TOKENS = 256


class Suspect(NamedTuple):
    """A sighting, where it was, and the line it stands on."""

    sighting: Sighting
    block: Block
    path: str
    line: str
    text: str


def suspects(
    prompt: Prompt, find: Callable[[str], list[Sighting]] = volatile.find
) -> list[Suspect]:
    """The sightings in tools, system and opening messages, in order. `find` may be a memo."""
    shared = [b for b in prompt.blocks if b.section is not Section.MESSAGES]
    found = []
    for block in (*shared, *prompt.opening()):
        for path, text in block.texts():
            sightings = find(text)
            if block.section is Section.MESSAGES and _is_quoted(text, sightings):
                continue
            for sighting in sightings:
                sure = _confidence(sighting, path, block)
                if sure > Confidence.WEAK:
                    found.append(Suspect(sighting, block, path, _line(text, sighting), text))
    return found


def _is_quoted(text: str, sightings: Sequence[Sighting]) -> bool:
    """Whether a user pasted it: a log is full of volatile text, a template has a few pieces."""
    if len(sightings) > _MOST_IN_A_TEMPLATE:
        return True
    headers = patterns.MAIL_HEADER.finditer(text)
    return next(headers, None) is not None and next(headers, None) is not None


_MOST_IN_A_TEMPLATE = 6


def _confidence(sighting: Sighting, path: str, block: Block) -> Confidence:
    if block.is_json and path.rpartition(".")[2].partition("[")[0] in _EXAMPLE_MEMBERS:
        return Confidence.WEAK
    if block.is_json and path.endswith(".default") and sighting.kind is Kind.TIMESTAMP:
        # A schema built with default=now().
        return Confidence.SURE
    return sighting.confidence


_EXAMPLE_MEMBERS = frozenset({"example", "examples", "enum", "const", "pattern", "format", "name"})


def _line(text: str, sighting: Sighting) -> str:
    start = text.rfind("\n", max(0, sighting.start - 400), sighting.start) + 1
    end = text.find("\n", sighting.end, sighting.end + 400)
    start = max(start, sighting.start - 400)
    return text[start : end if end >= 0 else sighting.end + 400]


def judge(
    prompt: Prompt, found: Sequence[Suspect], is_constant: Callable[[Suspect], bool], index: int = 0
) -> list[Finding]:
    """What to report of a prompt's suspects: of each block and kind the first, which costs most.

    `is_constant` says what other requests have proved not to change.
    """
    positions = {id_: n for n, id_ in enumerate(_key(b) for b in prompt.blocks)}
    reported: dict[tuple[Kind, str], Finding] = {}
    for suspect in found:
        key = suspect.sighting.kind, suspect.path
        if key in reported or is_constant(suspect):
            continue
        place = positions[_key(suspect.block)]
        grade, lost = _weigh(prompt, suspect, place)
        if grade is None:
            continue
        excerpt = _excerpt(suspect)
        reported[key] = Finding(key[0], grade, suspect.path, excerpt, False, index, 1, lost, lost)
    return list(reported.values())


def _key(block: Block) -> tuple[str, str]:
    return block.section, block.path


def _weigh(prompt: Prompt, suspect: Suspect, place: int) -> tuple[Grade | None, int]:
    sighting, block = suspect.sighting, suspect.block
    sure = _confidence(sighting, suspect.path, block) is Confidence.SURE
    inside = _behind(suspect)
    after = prompt.blocks[place + 1 :]
    if block.section is Section.MESSAGES:
        opening = prompt.opening()
        rest = inside + sum(tokens(b.text) for b in opening[opening.index(block) + 1 :])
        marked = any(b.marked for b in opening[opening.index(block) + 1 :])
        if not sure or sighting.pace is not Pace.REQUEST:
            return None, 0
        is_template = rest >= _LEAST_TEMPLATE_TOKENS or (marked and rest >= _LEAST_SESSION_TOKENS)
        return (Grade.FAULT, rest) if is_template else (None, 0)
    shared = inside + sum(tokens(b.text) for b in after if b.section is not Section.MESSAGES)
    if sighting.pace is not Pace.REQUEST:
        costly = sighting.pace is Pace.SESSION and shared >= _LEAST_SESSION_TOKENS
        return (Grade.FAULT if sure and costly else Grade.NOTE), shared
    lost = shared + sum(tokens(b.text) for b in _history(prompt))
    return (Grade.FAULT if sure and lost >= _LEAST_TOKENS else Grade.NOTE), lost


def _behind(suspect: Suspect) -> int:
    """Tokens behind the sighting in its own block."""
    block, sighting = suspect.block, suspect.sighting
    if not block.is_json:
        return tokens(suspect.text[sighting.end :].strip())
    at = block.text.find(suspect.text[sighting.start : sighting.end])
    return tokens(block.text[max(at, 0) :])


def _history(prompt: Prompt) -> list[Block]:
    """The messages that an earlier turn of the conversation already sent."""
    messages = [b for b in prompt.blocks if b.section is Section.MESSAGES]
    while messages and messages[-1].role != "assistant":
        messages.pop()
    return messages


def _excerpt(suspect: Suspect) -> str:
    start = max(0, suspect.sighting.start - _CONTEXT)
    text = suspect.text[start : suspect.sighting.end + _CONTEXT]
    before = suspect.sighting.start - start
    line_start = text.rfind("\n", 0, before) + 1
    line_end = text.find("\n", before + suspect.sighting.end - suspect.sighting.start)
    return shortened(text[line_start : line_end if line_end >= 0 else len(text)])

"""What the blocks of every wire API are made of: fingerprints, sizes, the client's own markers.

Rule 1: a marker is in no fingerprint, so that moving it changes nothing.
Rule 2: whatever might be rendered is in one. What has an unknown shape is taken as JSON.
Rule 3: media are compared by their bytes, and sized by a guess at their tokens.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import orjson
import xxhash

from gateway.core.blocks import BYTES_PER_TOKEN, Section
from gateway.core.canonical import Json, Number
from gateway.core.model import Reason
from gateway.core.prefix import Kind, PrefixBlock
from gateway.providers.prompt_cache import MarkerForm
from gateway.wire.base import NotUnderstood
from gateway.wire.lenient import items, members
from gateway.wire.pieces import SPLITS_FROM, cuts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.prefix import Path
    from gateway.providers.prompt_cache import CacheRules

Object: TypeAlias = dict[str, Json]

CACHE_CONTROL = MarkerForm.CACHE_CONTROL.value
BREAKPOINT = MarkerForm.BREAKPOINT.value
MARKERS = frozenset({CACHE_CONTROL, BREAKPOINT})
# Members of a block that may hold blocks with markers of their own.
INNER = ("content", "source", "function", "output")

_FIVE_MINUTES = 300
_HALF_AN_HOUR = 1800
_HOUR = 3600

BILLING = b"x-anthropic-billing-header:"
"""What a block of Claude Code begins with that differs in each request and is not for the model."""

IMAGE_SIZE = 1500 * BYTES_PER_TOKEN
"""Of an image: what providers bill for one of a megapixel. A smaller one has fewer bytes."""
LOW_IMAGE_SIZE = 85 * BYTES_PER_TOKEN
"""Of an image that is asked for in low detail."""
_DOCUMENT_SHARE = 10  # a page of a PDF has about 60 KB and 1,500 tokens
_AUDIO_SHARE = 512  # compressed speech: about 10 tokens and 20 KB (in base64) for each second

digest = xxhash.xxh3_64_intdigest
section_tools, section_system, section_messages = Section  # each look-up in an enum costs


# Roles and kinds are as long as a client likes; what is remembered of them is not. (Roles are
# remembered with their blocks, too.)
USUAL_NAME = 64


def seed(role: str, kind: str) -> int:
    """What the fingerprint of a block starts from. Raises NotUnderstood for a role that is none."""
    if len(role) > USUAL_NAME:
        raise NotUnderstood(Reason.NOT_UNDERSTOOD, "$", "a role is longer than any there is")
    return _known_seed(role, kind) if len(kind) <= USUAL_NAME else _seed(role, kind)


def _seed(role: str, kind: str) -> int:
    return digest(f"{kind}\0{role}".encode())


_known_seed = lru_cache(maxsize=512)(_seed)


def rendered(value: Json) -> bytes:
    """Compact JSON, members in the order they came in."""
    return orjson.dumps(value, default=_number)


def _number(value: object) -> object:
    if isinstance(value, Number):
        return orjson.Fragment(value.raw)
    raise TypeError(type(value).__name__)


def fingerprint_of(body: Object, names: Sequence[str], start: int = 0) -> int:
    """Of those members that say anything."""
    said: list[Json] = [[name, body[name]] for name in names if body.get(name) is not None]
    return digest(rendered(said), start)


def ttl_of(part: Object) -> int:
    """Seconds that the marker on this very object asks for; 0 without one."""
    if CACHE_CONTROL in part and (marker := part[CACHE_CONTROL]) is not None:
        is_long = isinstance(marker, dict) and marker.get("ttl") == "1h"
        return _HOUR if is_long else _FIVE_MINUTES
    return _HALF_AN_HOUR if BREAKPOINT in part and part[BREAKPOINT] is not None else 0


def ttl_within(part: Object) -> int:
    """The same, of the object or of what it holds: a provider counts those, too, or refuses them."""
    if ttl := ttl_of(part):
        return ttl
    for name in INNER:
        inner = part.get(name)
        for each in inner if isinstance(inner, list) else (inner,):
            if isinstance(each, dict) and (ttl := ttl_within(each)):
                return ttl
    return 0


def unmarked(part: Object) -> Object:
    """The object without markers, its own and those of the blocks that it holds."""
    out: Object = {}
    for name, value in part.items():
        if name in MARKERS:
            continue
        if name in INNER:
            if isinstance(value, list):
                value = [unmarked(each) if isinstance(each, dict) else each for each in value]  # noqa: PLW2901 - what stands there
            elif isinstance(value, dict):
                value = unmarked(value)  # noqa: PLW2901 - the same
        out[name] = value
    return out


def spoken(part: Object) -> tuple[bytes, int]:
    """Compact JSON of the object without markers, and what `ttl_within` says of it."""
    shown = rendered(part)
    if b'"cache_control"' in shown or b'"prompt_cache_breakpoint"' in shown:
        return rendered(unmarked(part)), ttl_within(part)
    return shown, 0


class Skipped(NamedTuple):
    """Messages that were left out of a document because their blocks are known."""

    before: int
    """How many messages stand before them."""
    left_out: int
    """How many they are."""
    blocks: Sequence[PrefixBlock]
    thinks: bool
    """One of the blocks is of thinking."""


class Gathering:
    """The blocks of one prompt while it is read: where the reader is, and what it learned."""

    __slots__ = (
        "blocks", "can_mark", "role", "section", "splits", "start", "takes_marks", "text_only", "thinks",
    )  # fmt: skip

    def __init__(self, rules: CacheRules | None, forms: Sequence[MarkerForm]) -> None:
        """Markers are possible where the rules have one of these forms."""
        self.blocks: list[PrefixBlock] = []
        self.thinks = False
        self.text_only = True
        self.takes_marks = rules is not None and rules.takes_markers and rules.form in forms
        self.splits = self.takes_marks and rules is not None and not rules.binds_thinking
        self.enter(section_tools, "")

    def enter(self, section: Section, role: str, *, can_mark: bool = True, start: int = 0) -> None:
        """A message, or a list of tools, begins. `start` goes into the fingerprint of its first
        block; `can_mark` says whether blocks here may carry a marker at all.
        """
        self.section = section
        self.role = role
        self.can_mark = can_mark and self.takes_marks
        self.start = start

    def leave(self, path: Path, begun: int, ttl: int = 0) -> None:
        """The message ends that began after so many blocks. Even an empty one is rendered. A marker
        on the message itself (`ttl`) stands for its last block.
        """
        if len(self.blocks) == begun:
            self.json(Kind.OTHER, path, None)
        last = self.blocks[-1]
        if last.ends_message:
            return
        # Built anew from its first fields: `_replace` takes as long as all else for a block.
        self.blocks[-1] = PrefixBlock(*last[:7], last.client_ttl_s or ttl, True)

    def skip(self, skipped: Skipped | None, index: int) -> int:
        """Where the message of this index in the document would stand had none been left out. The
        blocks of those that were are taken over when their place has come.
        """
        if skipped is None or index < skipped.before:
            return index
        if index == skipped.before:
            self.blocks += skipped.blocks
            self.thinks = self.thinks or skipped.thinks
        return index + skipped.left_out

    def take(self) -> list[PrefixBlock]:
        """The blocks so far; the next ones make a list of their own."""
        taken, self.blocks = self.blocks, []
        return taken

    def add(
        self,
        kind: Kind,
        path: Path,
        data: bytes,
        *,
        size: int,
        can_mark: bool = False,
        ttl: int = 0,
    ) -> None:
        """A block with this content, of whatever kind."""
        fingerprint = digest(data, seed(self.role, kind) + self.start)
        self.start = 0
        can_mark = can_mark and self.can_mark
        self.blocks.append(
            PrefixBlock(self.section, kind, self.role, path, size, fingerprint, can_mark, ttl)
        )

    def json(self, kind: Kind, path: Path, value: Json) -> None:
        """A block of unknown shape, that takes no marker."""
        if isinstance(value, dict):
            data, ttl = spoken(value)
            self.add(kind, path, data, size=len(data), ttl=ttl)
        else:
            data = rendered(value)
            self.add(kind, path, data, size=len(data))

    def media(self, kind: Kind, path: Path, part: Object, *, can_mark: bool = True) -> None:
        """An image, a document, a sound."""
        self.text_only = False
        data, ttl = spoken(part)
        size = media_size(part, len(data))
        self.add(kind, path, data, size=size, can_mark=can_mark, ttl=ttl)

    def tools(self, tools: Json, can_mark: bool) -> None:
        """The definitions of `tools`. One that is only loaded when the model looks for it is no part
        of the prefix.
        """
        self.enter(section_tools, "", can_mark=can_mark)
        for index, tool in enumerate(items(tools)):
            path = ("tools", index)
            if not isinstance(tool, dict):
                self.json(Kind.TOOL, path, tool)
                continue
            function = members(tool.get("function"))
            # Of a set of tools its default says it: which of its tools comes last is not known.
            defaults = members(tool.get("default_config"))
            if any(each.get("defer_loading") is True for each in (tool, function, defaults)):
                continue
            # Not deeper: a schema may have a property of that name.
            shown = bare(tool)
            if not MARKERS.isdisjoint(function):
                shown = {**shown, "function": bare(function)}
            data = rendered(shown)
            ttl = ttl_of(tool) or ttl_of(function)
            self.add(Kind.TOOL, path, data, size=len(data), can_mark=True, ttl=ttl)

    def text(
        self, path: Path, shown: str, *, can_mark: bool = True, ttl: int = 0, kind: Kind = Kind.TEXT
    ) -> None:
        """Text; in front of the conversation cut into pieces where it may be split."""
        data = shown.encode()
        can_mark = can_mark and not is_blank(shown)
        if self.section is section_system:
            if data.startswith(BILLING) and "\n" not in shown.rstrip():
                data, can_mark = BILLING, False
            if can_mark and self.can_mark and self.splits and not self.thinks:
                data = self._pieces(path, shown, data)
        self.add(kind, path, data, size=len(data), can_mark=can_mark, ttl=ttl)

    def whole(self, path: Path, shown: str, kind: Kind, ttl: int) -> None:
        """A message of the conversation that is one text: what most are, so in one step."""
        data = shown.encode()
        self.blocks.append(
            PrefixBlock(
                section_messages, kind, self.role, path, len(data),
                digest(data, seed(self.role, kind) + self.start),
                self.can_mark and not is_blank(shown), ttl, True,
            )
        )  # fmt: skip

    def _pieces(self, path: Path, shown: str, data: bytes) -> bytes:
        """All pieces but the last, which is returned."""
        if len(data) < SPLITS_FROM:
            return data
        at = 0
        for cut in cuts(shown):
            piece = shown[at:cut].encode()
            fingerprint = digest(piece, seed(self.role, "text") + self.start)
            self.start = 0
            self.blocks.append(
                PrefixBlock(
                    section_system, Kind.TEXT, self.role, path, len(piece), fingerprint,
                    until=cut,
                )
            )  # fmt: skip
            at = cut
        return shown[at:].encode() if at else data


def is_blank(shown: str) -> bool:
    """Nothing to read: providers refuse a marker there."""
    return not shown or shown.isspace()


def bare(part: Object) -> Object:
    """The object without markers of its own."""
    if MARKERS.isdisjoint(part):
        return part
    return {name: value for name, value in part.items() if name not in MARKERS}


def extras(part: Object, known: frozenset[str]) -> Object:
    """Members that say something and are not among the known, markers left out."""
    return {
        name: value
        for name, value in part.items()
        if value is not None and name not in known and name not in MARKERS
    }


def media_size(part: Object, shown: int) -> int:
    """A guess at the bytes of text that would take as many tokens as this image, document or sound,
    whose JSON has `shown` bytes.
    """
    kind = part.get("type")
    if kind in _IMAGES:
        inner = part.get("image_url")
        owner = inner if isinstance(inner, dict) else part
        most = LOW_IMAGE_SIZE if owner.get("detail") == "low" else IMAGE_SIZE
        # What is only referred to says nothing about its size; a tiny image has few bytes.
        return min(shown, most) if b"base64" in rendered(part)[:4096] else most
    if kind in _SOUNDS:
        return max(shown // _AUDIO_SHARE, BYTES_PER_TOKEN)
    return max(shown // _DOCUMENT_SHARE, BYTES_PER_TOKEN) if shown > IMAGE_SIZE else IMAGE_SIZE


_IMAGES = frozenset({"image", "image_url", "input_image", "computer_screenshot"})
_SOUNDS = frozenset({"input_audio", "audio"})


def text_of(content: Json) -> str:
    """All text of what is a string or a list of text parts; of other parts nothing."""
    if isinstance(content, str):
        return content
    texts = [part.get("text") for part in items(content) if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))

"""Tools and schemas in one order, whatever order they came in. On the text: parts change places,
none is spelled anew.

Rule 1: the client's markers divide the tools; none crosses one, so each marker still stands behind
the same tools. It goes with the place and not with the tool: to the last one that may carry it.
Rule 2: tools that are loaded when asked for stand last, as providers have them outside the prefix.
Rule 3: the order of properties is never touched, answers are written in it; nor are lists and
values. Keywords get the order that people write them in, so that most schemas stay as they are.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from gateway.core.rewrites import Rewrite
from gateway.wire import prompts
from gateway.wire.block_parts import CACHE_CONTROL, MARKERS
from gateway.wire.lenient import items, members, text
from gateway.wire.seek import Member
from gateway.wire.splice import Edit, rewritten
from gateway.wire.splicing import arranged, edited

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from gateway.core.canonical import Json
    from gateway.core.prefix import Path
    from gateway.wire.splicing import Located, Part

# Members of a JSON Schema whose members are schemas under names: their order stays.
_NAMED = frozenset({"properties", "$defs", "definitions", "patternProperties", "dependentSchemas"})
# Members that are schemas, or lists of them. Any other member is a value.
_NESTED = frozenset(
    {
        *("items", "prefixItems", "contains", "additionalItems", "unevaluatedItems"),
        *("additionalProperties", "unevaluatedProperties", "propertyNames"),
        *("allOf", "anyOf", "oneOf", "not", "if", "then", "else"),
    }
)
_USUAL = (
    *("$schema", "$id", "$ref", "type", "title", "description", "enum", "const", "format"),
    *("default", "anyOf", "oneOf", "allOf", "items", "properties", "required"),
    *("additionalProperties", "$defs", "definitions", "examples"),
)
_RANK = {name: rank for rank, name in enumerate(_USUAL)}

_SCHEMA_OF_TOOL: dict[str, Path] = {
    prompts.MESSAGES: ("input_schema",),
    prompts.CHAT: ("function", "parameters"),
    prompts.RESPONSES: ("parameters",),
}
_SCHEMAS_ELSEWHERE: dict[str, tuple[Path, ...]] = {
    prompts.MESSAGES: (("output_config", "format", "schema"), ("output_format", "schema")),
    prompts.CHAT: (("response_format", "json_schema", "schema"),),
    prompts.RESPONSES: (("text", "format", "schema"),),
}


def _rank(name: str) -> tuple[int, str]:
    return _RANK.get(name, len(_USUAL)), name


# --- schemas ------------------------------------------------------------------------------------


def unsorted_schemas(api: str, document: prompts.Object) -> list[Path]:
    """The paths of schemas beside the tools whose keywords are out of order."""
    return [path for path in _SCHEMAS_ELSEWHERE[api] if not _is_sorted(_at(document, path))]


def _unsorted_tools(api: str, document: prompts.Object) -> list[int]:
    path = _SCHEMA_OF_TOOL[api]
    tools = enumerate(items(document.get("tools")))
    return [index for index, tool in tools if not _is_sorted(_at(tool, path))]


def _at(value: Json, path: Path) -> Json:
    for name in path:
        value = members(value).get(name) if isinstance(name, str) else None
    return value


def _is_sorted(schema: Json) -> bool:
    if isinstance(schema, list):
        return all(map(_is_sorted, schema))
    if not isinstance(schema, dict):
        return True
    names = list(schema)
    if len(names) > 1 and sorted(names, key=_rank) != names:
        return False
    for name, inner in schema.items():
        if name in _NAMED and isinstance(inner, dict):
            if not all(map(_is_sorted, inner.values())):
                return False
        elif name in _NESTED and not _is_sorted(inner):
            return False
    return True


def schema_edit(located: Located, path: Path, owner: Part | None = None) -> Edit:
    """The change that sorts the schema at this path. Raises `NotThere`."""
    part = located.part(path, owner)
    return Edit(part.value, part.end, _sorted_schema(located, part))


def _sorted_schema(located: Located, schema: Part) -> bytes:
    parts = located.parts(schema)
    spelled: dict[str | int, bytes] = {}
    for part in parts:
        if isinstance(part.step, int) or part.step in _NESTED:
            new = _sorted_schema(located, part)
        elif part.step in _NAMED:
            named = located.parts(part)
            new = arranged(located, part, [_named(located, each) for each in named])
        else:
            new = located.spelled(part)
        spelled[part.step] = located.text[part.start : part.value] + new
    steps = sorted(spelled, key=lambda step: _rank(step) if isinstance(step, str) else (step, ""))
    return arranged(located, schema, [spelled[step] for step in steps])


def _named(located: Located, part: Part) -> bytes:
    return located.text[part.start : part.value] + _sorted_schema(located, part)


# --- tools --------------------------------------------------------------------------------------


class Order(NamedTuple):
    """How tools should stand."""

    tools: list[int]
    """Their indexes, in the new order."""
    marks: dict[int, int]
    """New place -> the tool (by index) whose marker belongs there."""


def tool_order(document: prompts.Object) -> Order | None:
    """The order that the tools should have; None where they have it already, or where it can't be
    said what the client's markers mean.
    """
    tools = items(document.get("tools"))
    if len(tools) < 2 or not all(isinstance(tool, dict) for tool in tools):
        return None
    if any(not MARKERS.isdisjoint(members(members(tool).get("function"))) for tool in tools):
        return None
    marked = [index for index, tool in enumerate(tools) if _is_marked(tool)]
    if any(_is_deferred(tools[index]) for index in marked):
        return None
    order: list[int] = []
    marks: dict[int, int] = {}
    start = 0
    for end in (*(index + 1 for index in marked), len(tools)):
        here = [index for index in range(start, end) if not _is_deferred(tools[index])]
        order += _by_name(tools, here)
        if end - 1 in marked and start < end:
            marks[len(order) - 1] = end - 1
        start = end
    order += _by_name(tools, [index for index, tool in enumerate(tools) if _is_deferred(tool)])
    return None if order == list(range(len(tools))) else Order(order, marks)


def _by_name(tools: list[Json], indexes: list[int]) -> list[int]:
    return sorted(indexes, key=lambda index: (not _name(tools[index]), _name(tools[index])))


def _name(tool: Json) -> str:
    here = members(tool)
    inner = members(here.get("function")) or members(here.get("custom"))
    return text(here.get("name")) or text(inner.get("name"))


def _is_marked(tool: Json) -> bool:
    return members(tool).get(CACHE_CONTROL) is not None


def _is_deferred(tool: Json) -> bool:
    here = members(tool)
    return (
        here.get("defer_loading") is True
        or members(here.get("function")).get("defer_loading") is True
    )


_KEPT_BYTES = 8 * 1024 * 1024


class ToolSorting:
    """Sorts lists of tools, and remembers the latest 8 MB of what became of them: applications send
    the same ones in every request.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[_Asked, tuple[bytes, frozenset[Rewrite]]] = OrderedDict()
        self._size = 0

    def edits(
        self, located: Located, api: str, document: prompts.Object, wanted: frozenset[Rewrite]
    ) -> tuple[list[Edit], frozenset[Rewrite]]:
        """The change of the list of tools, if it takes any, and which rewrites were made by it."""
        wanted &= _ON_TOOLS
        if not wanted or not document.get("tools"):
            return [], frozenset()
        whole = located.part(("tools",))
        asked = api, wanted, located.spelled(whole)
        known = self._known.get(asked)
        if known is None:
            known = self._known[asked] = _sorted_tools(located, whole, api, document, wanted)
            self._size += len(asked[2]) + len(known[0])
            while self._size > _KEPT_BYTES and len(self._known) > 1:
                old, (became, _) = self._known.popitem(last=False)
                self._size -= len(old[2]) + len(became)
        else:
            self._known.move_to_end(asked)
        became, made = known
        return [Edit(whole.value, whole.end, became)] if made else [], made


_Asked: TypeAlias = "tuple[str, frozenset[Rewrite], bytes]"
_ON_TOOLS = frozenset({Rewrite.SORT_TOOLS, Rewrite.SORT_SCHEMAS})


def _sorted_tools(
    located: Located,
    whole: Part,
    api: str,
    document: prompts.Object,
    wanted: frozenset[Rewrite],
) -> tuple[bytes, frozenset[Rewrite]]:
    order = tool_order(document) if Rewrite.SORT_TOOLS in wanted else None
    unsorted = _unsorted_tools(api, document) if Rewrite.SORT_SCHEMAS in wanted else []
    made = {Rewrite.SORT_TOOLS} if order is not None else set()
    made |= {Rewrite.SORT_SCHEMAS} if unsorted else set()
    if not made:
        return b"", frozenset()
    return _tools(located, whole, api, order, unsorted), frozenset(made)


def _tools(
    located: Located, whole: Part, api: str, order: Order | None, unsorted: Collection[int]
) -> bytes:
    """The list of tools in this order, the schemas of some of them sorted."""
    tools = located.parts(whole)
    markers = [_marker(located, tool) for tool in tools]
    spelled: list[bytes] = []
    for place, index in enumerate(range(len(tools)) if order is None else order.tools):
        tool = tools[index]
        edits: list[Edit] = []
        if index in unsorted:
            edits.append(schema_edit(located, _SCHEMA_OF_TOOL[api], tool))
        if order is not None and order.marks.get(place) != index:
            due = markers[order.marks[place]] if place in order.marks else None
            edits += _marker_edits(located, tool, markers[index], due)
        spelled.append(edited(located, tool, edits))
    return arranged(located, whole, spelled)


def _marker(located: Located, tool: Part) -> bytes | None:
    """What the marker of a tool says, if it has one."""
    found = (part for part in located.parts(tool) if part.step == CACHE_CONTROL)
    said = [located.spelled(part) for part in found]
    return said[0] if said and said[0] != b"null" else None


def _marker_edits(
    located: Located, tool: Part, own: bytes | None, due: bytes | None
) -> Iterable[Edit]:
    if own == due:
        return ()
    members = [Member(str(p.step), p.start, p.value, p.end) for p in located.parts(tool)]
    added = {} if due is None else {CACHE_CONTROL: due}
    removed = () if own is None else (CACHE_CONTROL,)
    return rewritten(located.text, tool.value + 1, members, removed=removed, added=added)

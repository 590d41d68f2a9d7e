"""What the wire APIs share in bringing a request body into canonical form.

Rule 1: only what a table names is left out or folded; everything else is kept as it was spelled.
Rule 2: a tool-call id is renamed only in id positions, one to one, and only where nothing else
could tell the difference; `[n]` stands for it, which no understood body can hold there.
"""

from __future__ import annotations

import re
from fnmatch import translate
from typing import TYPE_CHECKING, TypeAlias

from gateway.core import canonical
from gateway.core.canonical import Json, Number, Uncacheable, is_number
from gateway.core.model import Reason
from gateway.wire.base import NotUnderstood

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.core.mint import Mint
    from gateway.providers.base import ApiRules

Object: TypeAlias = dict[str, Json]

# Models that search on their own: the answer depends on the day, not only on the request.
_SEARCH_MODELS = re.compile(
    "|".join(
        map(
            translate,
            (
                "*-search-preview*",
                "*-search-api*",
                "*deep-research*",
                "*:online",
                "sonar*",
                "compound*",
            ),
        )
    )
)


def parse_object(body: bytes) -> Object:
    """The body as an exact JSON object. Raises `NotUnderstood`."""
    try:
        value = canonical.parse(body)
    except Uncacheable as error:
        raise NotUnderstood(Reason.UNCACHEABLE_JSON, "$", str(error)) from error
    if not isinstance(value, dict):
        raise NotUnderstood(Reason.NOT_UNDERSTOOD, "$", "not a JSON object")
    return value


def text(owner: Object, name: str, where: str) -> str:
    """A member that must be a string. Raises `NotUnderstood`."""
    value = owner.get(name)
    if not isinstance(value, str):
        raise NotUnderstood(Reason.NOT_UNDERSTOOD, f"{where}.{name}", "not a string")
    return value


def flag(owner: Object, name: str, where: str = "$") -> bool:
    """A member that may be missing, null or a boolean. Raises `NotUnderstood`."""
    value = owner.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise NotUnderstood(Reason.NOT_UNDERSTOOD, f"{where}.{name}", "not a boolean")
    return value


def objects(owner: Object, name: str, where: str) -> list[Object]:
    """A member that must be a list of objects. Raises `NotUnderstood`."""
    value = owner.get(name)
    if not isinstance(value, list):
        raise NotUnderstood(Reason.NOT_UNDERSTOOD, f"{where}.{name}", "not a list")
    if not all(map(_is_object, value)):
        index = next(i for i, item in enumerate(value) if not isinstance(item, dict))
        raise NotUnderstood(Reason.NOT_UNDERSTOOD, f"{where}.{name}[{index}]", "not an object")
    return value  # type: ignore[return-value]  # each item was checked above


_is_object = dict.__instancecheck__


def number(value: Json) -> float | None:
    """A number's value for judging (never for keys); None for anything else."""
    if isinstance(value, Number):
        return float(value.raw)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def whole(value: Json) -> int | None:
    """A whole number's value; None for anything else."""
    amount = number(value)
    return int(amount) if amount is not None and amount.is_integer() else None


def is_search_model(model: str) -> bool:
    """Does the model look things up by itself?"""
    name = model.lower().rpartition("/")[2]
    return _SEARCH_MODELS.match(name) is not None


# Switches that let the provider look things up by itself: OpenAI, OpenRouter (plugins, web search
# among them), xAI, Qwen, Azure (an index, searched for every answer).
_SEARCHES = frozenset(
    (
        "web_search_options",
        "web_search",
        "plugins",
        "search_parameters",
        "search_options",
        "enable_search",
        "enable_web_search",
        "data_sources",
    )
)


def is_on(value: Json) -> bool:
    """Does the value of a switch turn anything on? 0 may: Python alone calls it false."""
    return value is not None and value is not False and value != []


def has_search_switch(request: Object) -> bool:
    """Is a top-level switch on that lets the provider look things up?"""
    return any(is_on(request[name]) for name in _SEARCHES & request.keys())


# What a server keeps and a request goes on from: sessions of SGLang, blocks of key-value caches of
# vLLM and SGLang, which another server holds for this one request.
_STATE = frozenset(("session_params", "kv_transfer_params", "ec_transfer_params", "bootstrap_room"))


def stored_reason(request: Object, model: str) -> Reason | None:
    """Why the answer depends on what is kept at the server and may change there, if it does."""
    if any(is_on(request[name]) for name in _STATE & request.keys()):
        return Reason.PROVIDER_STORED
    # OpenRouter: a preset is a prompt and parameters under a name, edited in place.
    if request.get("preset") is not None or "@preset/" in model:
        return Reason.UNVERSIONED_PROMPT
    return None


THOUGHT = re.compile("reason|think|thought|signature|encrypted")
"""Found in names and types of what speaks of thinking, or is signed or encrypted."""


def holds_thought(found: list[Object]) -> bool:
    """Does any member name or type of these objects speak of thinking, signed or encrypted?"""
    names: set[str] = set().union(*found)
    if "type" in names:
        names.update([kind for each in found if isinstance(kind := each.get("type"), str)])
    return any(map(THOUGHT.search, names))


def is_plain_model(model: str, rules: ApiRules) -> bool:
    """Is it known that the model doesn't think unless it is asked to?"""
    return model.startswith(rules.plain_models) if rules.plain_models else False


def sorted_members(owner: Mapping[str, Json], skip: Mapping[str, object]) -> Object:
    """The object with its members in order, less those named in `skip`; values as they are."""
    return {name: owner[name] for name in sorted(owner) if name not in skip}


def fold_top(
    body: Object, rules: ApiRules, special: Mapping[str, Callable[[Json], Json]]
) -> Object:
    """The envelope: sorted, without what the tables leave out, parameters folded, the members
    named in `special` by their own function, everything else exactly as spelled.
    """
    out: Object = {}
    for name in sorted(body):
        value = body[name]
        if name in rules.excluded or _is_default(name, value, rules):
            continue
        if name in special:
            out[name] = special[name](value)
        elif name in rules.scalars:
            out[name] = canonical.fold(value)
        elif name in rules.excluded_members and isinstance(value, dict):
            left = {k: v for k, v in value.items() if k not in rules.excluded_members[name]}
            if left:
                out[name] = left
        else:
            out[name] = value
    return out


# Members of a JSON Schema whose members are schemas under names, in an order that answers follow.
_NAMED = frozenset({"properties", "$defs", "definitions", "patternProperties", "dependentSchemas"})
# Members that are schemas, or lists of them. Any other member is a value and stays as it is
# spelled: `default`, `const`, `enum`, `examples`, `required`, and what isn't in the standard.
_NESTED = frozenset(
    {
        *("items", "prefixItems", "contains", "additionalItems", "unevaluatedItems"),
        *("additionalProperties", "unevaluatedProperties", "propertyNames"),
        *("allOf", "anyOf", "oneOf", "not", "if", "then", "else"),
    }
)


def fold_schema(value: Json, rules: ApiRules) -> Json:
    """A JSON Schema with the keywords of each schema in order, where the table says that their
    order can't be seen. Properties keep theirs, lists too, and numbers their spelling.
    """
    return value if rules.fold_schemas is None else _schema(value)


def _schema(value: Json) -> Json:
    if isinstance(value, list):
        return [_schema(item) for item in value]
    if not isinstance(value, dict):
        return value
    out: Object = {}
    for name in sorted(value):
        inner = value[name]
        if name in _NAMED and isinstance(inner, dict):
            out[name] = {each: _schema(schema) for each, schema in inner.items()}
        else:
            out[name] = _schema(inner) if name in _NESTED else inner
    return out


def fold_schema_at(owner: Json, path: tuple[str, ...], rules: ApiRules) -> Json:
    """The owner with the schema at this path of member names folded, if there is one; every other
    member stays as it is, and where it is.
    """
    if not path:
        return fold_schema(owner, rules)
    if rules.fold_schemas is None or not isinstance(owner, dict) or path[0] not in owner:
        return owner
    return {**owner, path[0]: fold_schema_at(owner[path[0]], path[1:], rules)}


def _is_default(name: str, value: Json, rules: ApiRules) -> bool:
    default = rules.defaults.get(name)
    if default is None:
        return False
    if is_number(value) and not isinstance(default.value, bool):
        return canonical.spelling(canonical.spelled(value)) == str(default.value)
    return value is default.value and isinstance(value, bool)


# Ids that providers make; anything else is left alone.
_ID = re.compile(r"[A-Za-z0-9_\-.:]{1,128}")


def rename_ids(ids: list[str], render: Callable[[Mapping[str, Json]], bytes]) -> bytes:
    """The canonical bytes with each id renamed by its first appearance, if nothing speaks
    against it; else with the ids as they are. `render` makes the bytes with a given renaming.
    """
    if not ids or not all(map(_ID.fullmatch, ids)):
        return render({})
    renamed: dict[str, Json] = {each: [n] for n, each in enumerate(dict.fromkeys(ids))}
    canonical_bytes = render(renamed)
    # An id that occurs in any other text may be referred to by the model.
    return render({}) if _holds_any(canonical_bytes, ids) else canonical_bytes


def _holds_any(text: bytes, ids: list[str]) -> bool:
    """Does any of the ids (ASCII) occur in the text? Long histories have hundreds of both, so the
    text is searched once, for what all ids begin with.
    """
    wanted = {each.encode() for each in ids}
    first, last = min(wanted), max(wanted)
    shared = next(
        (n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first)
    )
    start = first[:shared]
    if len(start) < _TELLING:
        # Without one: what could hold an id is little of a text.
        runs = b"\n".join(re.findall(b"[A-Za-z0-9_.:-]{%d,}" % min(map(len, wanted)), text))
        return any(each in runs for each in wanted)
    lengths = {len(each) for each in wanted}
    at = text.find(start)
    while at >= 0:
        if any(text[at : at + length] in wanted for length in lengths):
            return True
        at = text.find(start, at + 1)
    return False


_TELLING = 3


def replace_ids(calls: list[Object], history_ids: frozenset[str], mint: Mint) -> None:
    """Give each call of an answer a new `id`, in the same format, where the one it has already
    occurs in the request's own history; all others keep theirs. Changes the calls in place.
    """
    given = {each for call in calls if isinstance(each := call.get("id"), str)}
    fresh = fresh_ids(given, history_ids, mint)
    for call in calls:
        if isinstance(each := call.get("id"), str) and each in fresh:
            call["id"] = fresh[each]


def fresh_ids(given: set[str], history_ids: frozenset[str], mint: Mint) -> dict[str, str]:
    """For each given id that occurs in the request's own history, a new one in its format."""
    fresh: dict[str, str] = {}
    taken = history_ids | given
    for clash in sorted(given & history_ids):
        fresh[clash] = mint.unlike(clash, taken)
        taken |= {fresh[clash]}
    return fresh


_LINE_END = re.compile(r"\r\n|\r|\n")


def prompt_text(value: Json, rules: ApiRules) -> Json:
    """A text of the prompt as it is keyed: as it is, or with its line ends folded if configured."""
    if rules.fold_text is None or not isinstance(value, str):
        return value
    return "\n".join(line.rstrip(" \t") for line in _LINE_END.split(value))


def render(value: Json) -> bytes:
    """Canonical bytes. Raises `NotUnderstood` for lone surrogates."""
    try:
        return canonical.encode(value)
    except Uncacheable as error:
        raise NotUnderstood(Reason.UNCACHEABLE_JSON, "$", str(error)) from error

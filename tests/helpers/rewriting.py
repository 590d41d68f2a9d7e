"""Requests that rewrites have something to do with, and a rewriter to do it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.core import canonical
from gateway.core.rewrites import Case, Rewrite
from gateway.core.volatile_traffic import VolatileTraffic
from gateway.providers.prompt_cache_rules import cache_rules
from gateway.wire.rewriting import Asker, Rewriter, Rewritten

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.helpers.dice import Dice

EVERY = frozenset(Rewrite) - {Rewrite.ROUND_HOUR}
MODEL = "claude-sonnet-4-5"
APIS = ("anthropic_messages", "openai_chat", "openai_responses")


def case(
    wanted: Iterable[Rewrite] = EVERY,
    api: str = "anthropic_messages",
    provider: str = "vllm",
    model: str = MODEL,
    **more: bool,
) -> Case:
    """A case under the provider's real rules."""
    if provider == "openrouter":
        model = "anthropic/claude-sonnet-4.5"
    return Case(frozenset(wanted), provider, cache_rules(provider, api, model), **more)


def rewrite(
    body: bytes,
    the_case: Case,
    api: str = "anthropic_messages",
    rewriter: Rewriter | None = None,
    now: float = 0.0,
) -> Rewritten:
    """The body rewritten, by a rewriter that has seen nothing unless one is given."""
    rewriter = rewriter or Rewriter(VolatileTraffic())
    asker = Asker(api, b"domain", "upstream", f"/v1/{api}")
    return rewriter.rewrite(body, canonical.parse(body), the_case, asker, now)


_STEADY = (
    *("You are helpful.\n", "# Rules\nAnswer briefly, in the user's language.\n\n", 'é 😀 \\ "x" '),
    *("Rooms: 101, 102.\n\n", "Founded on 2001-02-03. ", "e.g. 2020-01-01T10:00:00Z is a moment\n"),
    *("<example>\nCurrent time: 2020-01-01 10:00\n</example>\n", "\t", "Written in May 2024.\n"),
)


def _volatile(kind: int, dice: Dice) -> str:
    digits = [str(dice.up_to(9)) for _ in range(12)]
    clock = f"1{digits[0]}:{dice.up_to(5)}{digits[1]}"
    day = f"202{digits[2]}-0{1 + dice.up_to(8)}-1{digits[3]}"
    hexes = "".join(dice.one("0123456789abcdef") for _ in range(32))
    uuid = f"{hexes[:8]}-{hexes[8:12]}-{hexes[12:16]}-{hexes[16:20]}-{hexes[20:]}"
    texts = (
        f"Current time: {day}T{clock}:{dice.up_to(5)}{digits[4]}Z\n",
        f"Current date and time: {day} {clock}:11 UTC\n",
        f"Today's date: {day}\n",
        f"The time is {clock} PM. ",
        f"Request ID: {uuid}\n",
        f"session id: {uuid}\n\n",
        f"now: 17{''.join(digits[:8])}\n",
        f"This is turn {digits[0]} of 20.\n",
        f"nonce={hexes[:12]} ",
        f"now {day}, {day} {clock}:13\n",
    )
    return texts[kind % len(texts)]


def system(dice: Dice, seed: int) -> str:
    """A system text: what is steady in it comes from `dice`, the values from `seed`."""
    from tests.helpers.dice import Dice  # noqa: PLC0415

    values = Dice(seed)
    return "".join(
        _volatile(dice.up_to(99), values) if steady is None else steady
        for steady in (dice.one((*_STEADY, None, None)) for _ in range(dice.up_to(6)))
    )


def _schema(dice: Dice, depth: int = 2) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": "object",
        "description": dice.text(),
        "x-ours": {"b": 1, "a": 2},
    }
    if depth:
        names = [dice.one(("zoo", "alpha", "type", "required", "é")) for _ in range(dice.up_to(3))]
        schema["properties"] = {name: _schema(dice, depth - 1) for name in names}
        schema["required"] = names
        schema["enum"] = [{"z": 1, "a": 0.10}]
        if dice.yes(0.3):
            schema["anyOf"] = [_schema(dice, 0), True, {"items": _schema(dice, 0)}]
    return dice.order(schema)


def tools(dice: Dice, api: str) -> list[dict[str, Any]]:
    """A few tools of different names, one perhaps without, some deferred (of Anthropic's)."""
    found: list[dict[str, Any]] = []
    names = list(dice.order(dict.fromkeys(("zebra", "read", "write", "Read", "ls", "read_all"))))
    for name in names[: dice.up_to(6)]:
        if api == "openai_chat":
            function = {"name": name, "description": dice.text(), "parameters": _schema(dice)}
            tool: dict[str, Any] = {"type": "function", "function": function}
        elif api == "openai_responses":
            tool = {"type": "function", "name": name, "parameters": _schema(dice)}
        else:
            tool = {"name": name, "description": dice.text(), "input_schema": _schema(dice)}
            if dice.yes(0.2):
                tool["defer_loading"] = True
        if name == "zebra" and dice.yes():
            tool = {"type": "mcp_toolset"}
        found.append(tool)
    return found


def request(dice: Dice, api: str, values: int) -> dict[str, Any]:
    """The first turn of a conversation. Two of one dice and other `values` differ only in what is
    volatile.
    """
    texts = [system(dice, values + n) for n in range(1 + dice.up_to(1))]
    if dice.yes(0.3):
        texts.insert(0, f"x-anthropic-billing-header: cc_version=2.1; cch={values % 99991:05x};")
    body: dict[str, Any] = {"model": MODEL, "max_tokens": 100, "temperature": 0.50}
    offered = tools(dice, api)
    if offered:
        body["tools"] = offered
    parts = [{"type": "text", "text": text} for text in texts]
    said: Any = dice.one(("hello é", [{"type": "text", "text": "hello"}]))
    if api == "openai_responses":
        said = said if isinstance(said, str) else [{"type": "input_text", "text": "hello"}]
        body["instructions"] = "".join(texts)
        body["input"] = [{"role": "user", "content": said}]
    elif api == "openai_chat":
        body["messages"] = [
            {"role": "system", "content": dice.one(("".join(texts), parts))},
            {"role": "user", "content": said},
        ]
    else:
        body["system"] = dice.one(("".join(texts), parts))
        body["messages"] = [{"role": "user", "content": said}]
    return body


def gone_on(body: dict[str, Any], api: str, words: str) -> dict[str, Any]:
    """The next turn of a conversation."""
    name = "input" if api == "openai_responses" else "messages"
    answer = {"role": "assistant", "content": f"answer to {words}"}
    return {**body, name: [*body[name], answer, {"role": "user", "content": words}]}

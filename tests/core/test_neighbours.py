from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.core.blocks import Section
from gateway.core.lineup import Lineup, lineup
from gateway.core.neighbours import Neighbours, _Ground
from gateway.core.prefix import CachePrompt, Kind, PrefixBlock, chain

if TYPE_CHECKING:
    import pytest

OWNER = "whose"
MINIMUM = 100


def block(section: Section, name: str, path: tuple[str | int, ...], role: str = "") -> PrefixBlock:
    digest = int.from_bytes(name.encode()[:8].ljust(8, b"\0"), "big")
    return PrefixBlock(section, Kind.TEXT, role, path, 400, digest, ends_message=True)


def prompt(said: str, *, tools: str = "", system: str = "s", **more: object) -> CachePrompt:
    """A prompt of one-letter blocks, the messages by turns the user's and the assistant's."""
    blocks = [block(Section.TOOLS, f"t{t}", ("tools", n)) for n, t in enumerate(tools)]
    blocks += [block(Section.SYSTEM, f"y{s}", ("system", n)) for n, s in enumerate(system)]
    blocks += [
        block(Section.MESSAGES, f"m{m}", ("messages", n), ("user", "assistant")[n % 2])
        for n, m in enumerate(said)
    ]
    whole = CachePrompt("api", "model", tuple(blocks), 1, 2)
    return whole._replace(**more)  # type: ignore[arg-type]


def line(of: CachePrompt, key: str = "") -> Lineup:
    return lineup(of, chain(of), key)


def find(known: Neighbours, of: CachePrompt, key: str = "", read: int = -1) -> Any:
    return known.find(OWNER, of, line(of, key), MINIMUM, read)


def knowing(*prompts: CachePrompt) -> Neighbours:
    known = Neighbours()
    for number, each in enumerate(prompts):
        known.add(OWNER, line(each), f"r{number}")
    return known


def test_a_changed_system_prompt_is_named_with_what_recurs_behind_it() -> None:
    found = find(knowing(prompt("ab", system="xyz")), prompt("ab", system="qyz"))
    assert found is not None
    assert (found.path, found.kind, found.block) == ("$.system[0]", "system", 0)
    assert (found.recurring_tokens, found.neighbour) == (400, "r0")
    assert (found.was_size, found.is_size) == (400, 400)


def test_tools_in_another_order_are_told_from_other_tools() -> None:
    known = knowing(prompt("a", tools="pqr"))
    order = find(known, prompt("a", tools="qpr"))
    other = find(known, prompt("a", tools="pvr"))
    assert (order.path, order.kind) == ("$.tools[0]", "tool_order")
    assert (other.path, other.kind) == ("$.tools[1]", "tools")


def test_an_edited_turn_is_history_where_an_answer_recurs_behind_it() -> None:
    known = knowing(prompt("abcd"))
    edited = find(known, prompt("zbcd", system="s"), read=0)
    assert (edited.path, edited.kind) == ("$.messages[0]", "history")


def test_a_setting_that_changes_all_behind_it_is_named() -> None:
    same = prompt("abcd")
    known = knowing(same)
    assert find(known, same._replace(model="other")).kind == "model"
    assert find(known, same._replace(model="other")).path == "$.model"
    assert find(known, same._replace(seed=9)).kind == "settings"
    assert find(known, same, key="k").kind == "cache_key"
    forced = find(known, same._replace(messages_seed=9))
    assert (forced.kind, forced.block, forced.recurring_tokens) == ("tool_choice", 1, 400)


def test_what_changes_messages_alone_is_not_always_the_choice_of_tools() -> None:
    same = prompt("abcd")
    shown = block(Section.MESSAGES, "image", ("messages", 4), "user")._replace(kind=Kind.MEDIA)
    seen = same._replace(blocks=(*same.blocks, shown), messages_seed=9)
    assert find(knowing(same), seen).kind == "images"
    answered = same._replace(api="openai_responses")
    found = find(knowing(answered), answered._replace(messages_seed=9))
    assert (found.path, found.kind) == ("$.previous_response_id", "settings")


def test_the_next_turn_has_changed_from_nothing_whatever_others_say_too() -> None:
    known = knowing(prompt("ab"), prompt("xbcd", system="q"))
    assert find(known, prompt("abcd")) is None
    assert find(known, prompt("zzcd"), read=0) is not None


def test_too_little_behind_a_change_is_none() -> None:
    known = knowing(prompt("abcdefgh"))
    assert find(known, prompt("ab", system="q")) is not None
    few = prompt("a" + "uvwxyz123", system="q")
    assert find(known, few) is None, "less than a quarter recurs"
    assert known.find(OWNER, prompt("b", system="q"), line(prompt("b", system="q")), 101) is None


def test_of_several_the_likest_counts_and_of_those_alike_the_last() -> None:
    known = knowing(prompt("abwx"), prompt("abcdq", system="t"), prompt("abcdr", system="u"))
    found = find(known, prompt("abcd", system="v"))
    assert found.neighbour == "r2"
    assert find(known, prompt("abwx", system="v")).neighbour == "r0"


def test_owners_are_apart() -> None:
    known = knowing(prompt("abcd"))
    other = prompt("abcd", system="q")
    assert known.find("another", other, line(other), MINIMUM) is None


def test_a_turn_takes_the_place_of_the_one_before() -> None:
    known = knowing(prompt("ab"), prompt("abcd"), prompt("abcdef"))
    assert len(known) == 1
    assert find(known, prompt("abcdef", system="q")).neighbour == "r2"
    known.add(OWNER, line(prompt("abxy")), "fork")
    assert len(known) == 2


def test_what_was_sent_longest_ago_is_forgotten_within_the_budget() -> None:
    known = Neighbours(50_000)
    for number in range(500):
        said = prompt("ab", system=chr(200 + number))
        known.add(OWNER, line(said), str(number))
        assert known.size_bytes <= 50_000
    assert 0 < len(known) < 500
    assert find(known, prompt("ab", system="q")).neighbour == "499"


def test_of_many_blocks_few_prompts_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    recurring = _Ground.recurring

    def counting(ground: _Ground, other: Lineup, at: int) -> int:
        nonlocal compared
        compared += len(other.labels)
        return recurring(ground, other, at)

    monkeypatch.setattr(_Ground, "recurring", counting)
    for blocks, least in ((100, 1600), (2000, 2000)):
        said = "".join(chr(1000 + n) for n in range(blocks))
        known = knowing(*(prompt(said, system=chr(200 + n)) for n in range(24)))
        compared = 0
        assert find(known, prompt(said, system="q")).kind == "system"
        assert least <= compared <= 8192, "no more blocks than so many, of however many prompts"

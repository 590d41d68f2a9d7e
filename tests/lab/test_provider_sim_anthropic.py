"""The simulated Anthropic, asked by the official SDK: what is read, written, expired and bound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import pytest

from gateway.lab.provider_sim import ProviderSim

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

MODEL = "claude-sonnet-5-5"
LONG = "The house rules, word by word. " * 100
"""775 tokens, more than the minimum of 512."""
MARK: Any = {"type": "ephemeral"}
HOUR: Any = {"type": "ephemeral", "ttl": "1h"}
BINDING = {"anthropic-beta": "thinking-binding-controls-2026-08-01"}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def sim(clock: Clock) -> AsyncIterator[ProviderSim]:
    async with ProviderSim(provider="anthropic", clock=clock) as running:
        yield running


@pytest.fixture
async def client(sim: ProviderSim) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=sim.url, api_key="a", max_retries=0) as made:
        yield made


def text(said: str, **more: Any) -> Any:
    return {"type": "text", "text": said, **more}


def ask(question: str = "Hello?", *, mark: Any = MARK, **more: Any) -> Any:
    return {
        "model": MODEL,
        "max_tokens": 100,
        "system": [text(LONG, cache_control=mark)],
        "messages": [{"role": "user", "content": question}],
        **more,
    }


def spent(usage: Any) -> tuple[int, int, int, int]:
    """Uncached, read, written for 5 minutes, written for an hour."""
    split = usage.cache_creation
    five, hour = split.ephemeral_5m_input_tokens, split.ephemeral_1h_input_tokens
    assert usage.cache_creation_input_tokens == five + hour
    return usage.input_tokens, usage.cache_read_input_tokens, five, hour


async def test_what_was_written_is_read_until_it_expires_and_reading_renews_it(
    client: anthropic.AsyncAnthropic, clock: Clock
) -> None:
    first = await client.messages.create(**ask())
    clock.now += 299
    second = await client.messages.create(**ask("Other?"))
    clock.now += 299
    third = await client.messages.create(**ask("Hello?"))
    clock.now += 301
    fourth = await client.messages.create(**ask("Hello?"))

    assert spent(first.usage) == (2, 0, 775, 0)
    assert spent(second.usage) == (2, 775, 0, 0)
    assert spent(third.usage) == (2, 775, 0, 0)
    assert spent(fourth.usage) == (2, 0, 775, 0)


async def test_an_hour_outlives_five_minutes_and_is_billed_apart(
    client: anthropic.AsyncAnthropic, clock: Clock
) -> None:
    asked = ask(mark=HOUR, messages=[{"role": "user", "content": [text(LONG, cache_control=MARK)]}])
    first = await client.messages.create(**asked)
    clock.now += 3599
    second = await client.messages.create(**asked)

    assert spent(first.usage) == (0, 0, 775, 775)
    assert spent(second.usage) == (0, 775, 775, 0)


async def test_a_stream_tells_the_same_usage_as_a_body(client: anthropic.AsyncAnthropic) -> None:
    await client.messages.create(**ask())
    body = await client.messages.create(**ask())
    async with client.messages.stream(**ask()) as stream:
        final = await stream.get_final_message()
    raw = await client.messages.create(**ask(), stream=True)
    started, *_ = [event async for event in raw]

    assert spent(final.usage) == spent(body.usage) == (2, 775, 0, 0)
    assert spent(started.message.usage) == (2, 775, 0, 0)


async def test_nothing_can_be_read_before_the_first_answer_began(clock: Clock) -> None:
    async with (
        ProviderSim(ttft_s=2.0, clock=clock) as sim,
        anthropic.AsyncAnthropic(base_url=sim.url, api_key="a", max_retries=0) as client,
    ):
        one = await client.messages.create(**ask())
        clock.now += 1.9
        two = await client.messages.create(**ask())
        clock.now += 0.1
        three = await client.messages.create(**ask())

    assert [spent(each.usage)[1:3] for each in (one, two, three)] == [(0, 775), (0, 775), (775, 0)]


async def test_a_request_can_bring_its_own_time(
    sim: ProviderSim, client: anthropic.AsyncAnthropic
) -> None:
    at = [{"x-simulated-now": str(now)} for now in (2000, 2300, 2601)]
    answers = [await client.messages.create(**ask(), extra_headers=each) for each in at]

    assert [spent(each.usage)[1] for each in answers] == [0, 775, 0]
    assert not sim.refused


async def test_below_the_minimum_nothing_is_cached_and_nothing_is_said(
    client: anthropic.AsyncAnthropic,
) -> None:
    asked = ask(system=[text("Short.", cache_control=MARK)])
    await client.messages.create(**asked)
    again = await client.messages.create(**asked)

    assert spent(again.usage)[1:] == (0, 0, 0)


async def test_every_key_and_every_model_has_its_own_cache(
    sim: ProviderSim, client: anthropic.AsyncAnthropic
) -> None:
    await client.messages.create(**ask())
    async with anthropic.AsyncAnthropic(base_url=sim.url, api_key="b") as other:
        theirs = await other.messages.create(**ask())
    another = await client.messages.create(**{**ask(), "model": "claude-opus-5-5"})
    mine = await client.messages.create(**ask())

    assert [spent(a.usage)[1] for a in (theirs, another, mine)] == [0, 0, 775]


@pytest.mark.parametrize(
    ("change", "read"),
    [
        ({"metadata": {"user_id": "u"}}, 1550),
        ({"stop_sequences": ["x"]}, 1550),
        ({"output_config": {"effort": "high"}}, 1550),
        ({"tool_choice": {"type": "none"}}, 775),
        ({"output_config": {"effort": "low"}}, 775),
        ({"system": [text(LONG + "!", cache_control=MARK)]}, 0),
    ],
)
async def test_a_change_costs_what_the_table_of_invalidation_says(
    client: anthropic.AsyncAnthropic, change: dict[str, Any], read: int
) -> None:
    asked = ask(messages=[{"role": "user", "content": [text(LONG, cache_control=MARK)]}])
    await client.messages.create(**asked)
    changed = await client.messages.create(**{**asked, **change})

    assert spent(changed.usage)[1] == read


async def test_the_automatic_marker_moves_along_with_the_conversation(
    client: anthropic.AsyncAnthropic,
) -> None:
    one: Any = [{"role": "user", "content": LONG}]
    asked = {"model": MODEL, "max_tokens": 9, "cache_control": MARK}
    await client.messages.create(**asked, messages=one)
    two = [*one, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "And?"}]
    grown = await client.messages.create(**asked, messages=two)

    assert spent(grown.usage) == (0, 775, 2, 0)


async def test_zero_tokens_write_without_an_answer(client: anthropic.AsyncAnthropic) -> None:
    warmed = await client.messages.create(**{**ask(), "max_tokens": 0})
    used = await client.messages.create(**ask())

    assert (warmed.content, warmed.stop_reason, warmed.usage.output_tokens) == ([], "max_tokens", 0)
    assert spent(warmed.usage) == (2, 0, 775, 0)
    assert spent(used.usage) == (2, 775, 0, 0)


async def test_a_request_that_failed_wrote_nothing(client: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.APIStatusError):
        await client.messages.create(**ask("[error 529]"))
    after = await client.messages.create(**ask())

    assert spent(after.usage)[1] == 0


async def test_counting_counts_what_an_answer_is_billed_for(
    client: anthropic.AsyncAnthropic,
) -> None:
    asked = ask()
    counted = await client.messages.count_tokens(
        **{k: v for k, v in asked.items() if k != "max_tokens"}
    )
    answer = await client.messages.create(**asked)

    assert counted.input_tokens == sum(spent(answer.usage))


# --- bound thinking ---------------------------------------------------------------------------

TOOL: Any = {"name": "look", "input_schema": {"type": "object", "properties": {}}}


def edit_system(body: Any) -> None:
    body["system"][0]["text"] += " Today is Monday."


def edit_tools(body: Any) -> None:
    body["tools"][0]["description"] = "Looks."


def sort_tools(body: Any) -> None:
    body["tools"].reverse()


def split_system(body: Any) -> None:
    whole = body["system"][0]["text"]
    body["system"] = [text(whole[:50]), text(whole[50:])]


def edit_question(body: Any) -> None:
    body["messages"][0]["content"] += " "


def move_marks(body: Any) -> None:
    del body["system"][0]["cache_control"]
    said = body["messages"][0]["content"]
    body["messages"][0]["content"] = [text(said, cache_control=MARK)]
    body["cache_control"] = MARK


def change_parameters(body: Any) -> None:
    body |= {"stop_sequences": ["x"], "max_tokens": 5000, "metadata": {"user_id": "u"}}


async def thoughtful(client: anthropic.AsyncAnthropic, model: str = MODEL) -> Any:
    """The body of a second turn, whose history has a bound thinking block."""
    other = {**TOOL, "name": "touch"}
    body = ask(thinking={"type": "adaptive"}, tools=[TOOL, other], max_tokens=4000)
    body["model"] = model
    first = await client.messages.create(**body)
    assert [block.type for block in first.content] == ["thinking", "text"]
    said = [block.model_dump(exclude_none=True) for block in first.content]
    for block in said:
        block.pop("parsed_output", None)
    body["messages"] += [
        {"role": "assistant", "content": said},
        {"role": "user", "content": "And then?"},
    ]
    return body


@pytest.mark.parametrize("edit", [move_marks, change_parameters])
async def test_markers_and_parameters_may_change_before_bound_thinking(
    client: anthropic.AsyncAnthropic, edit: Callable[[Any], None]
) -> None:
    body = await thoughtful(client)
    edit(body)

    assert (await client.messages.create(**body)).content


@pytest.mark.parametrize("edit", [edit_system, edit_tools, sort_tools, split_system, edit_question])
async def test_what_changes_before_bound_thinking_is_refused_or_drops_it(
    client: anthropic.AsyncAnthropic, edit: Callable[[Any], None]
) -> None:
    body = await thoughtful(client)
    edit(body)
    with pytest.raises(anthropic.BadRequestError) as refused:
        await client.messages.create(**body)
    counted = {k: v for k, v in body.items() if k != "max_tokens"}
    with pytest.raises(anthropic.BadRequestError):
        await client.messages.count_tokens(**counted)
    body["thinking"]["block_binding"] = {"prefix_mismatch_behavior": "drop_block"}
    with pytest.raises(anthropic.BadRequestError) as unasked:
        await client.messages.create(**body)
    dropped = await client.messages.create(**body, extra_headers=BINDING)

    assert refused.value.body == {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "message": "messages.1.content.0: Invalid `signature` in `thinking` block. The block "
            "is bound to a different conversation. Remove the block, or set "
            '`thinking.block_binding.prefix_mismatch_behavior` to "drop_block". That setting '
            "requires the `thinking-binding-controls-2026-08-01` value in the `anthropic-beta` "
            "header.",
        },
        "request_id": refused.value.request_id,
    }
    assert "block_binding: Extra inputs are not permitted" in str(unasked.value)
    assert dropped.model_extra == {
        "input_transformations": [
            {
                "type": "thinking_dropped",
                "path": "messages.1.content.0",
                "reason": "prefix_binding_mismatch",
            }
        ]
    }


async def test_an_older_model_binds_nothing_but_knows_its_signatures(
    client: anthropic.AsyncAnthropic,
) -> None:
    body = await thoughtful(client, "claude-opus-4-8")
    edit_system(body)
    await client.messages.create(**body)
    body["messages"][1]["content"][0]["signature"] = "forged"

    with pytest.raises(anthropic.BadRequestError, match="Invalid `signature` in `thinking` block"):
        await client.messages.create(**body)


async def test_a_conversation_goes_on_after_a_restart(client: anthropic.AsyncAnthropic) -> None:
    body = await thoughtful(client)
    async with (
        ProviderSim() as restarted,
        anthropic.AsyncAnthropic(base_url=restarted.url, api_key="a", max_retries=0) as again,
    ):
        assert (await again.messages.create(**body)).content

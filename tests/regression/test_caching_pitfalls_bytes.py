"""Pitfalls of prompt caching that users of others report, each by its number in our survey: what has
to arrive as it was sent. Through a whole gateway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import orjson
import pytest

from gateway.lab.provider_sim import ProviderSim
from tests.helpers.caching import WORDS, Behind, agent, behind, marks, tool
from tests.helpers.doorway import CHAT, MESSAGES, Canned, doorway

if TYPE_CHECKING:
    from gateway.core.model import Usage

BINDING = "claude-sonnet-5-5"
EVERY_REWRITE = [
    *("strip-billing", "sort-tools", "sort-schemas", "round-time", "round-hour", "move-volatile")
]


def system_for(user: str) -> str:
    """What all users share, a clock, and what is this user's own: worth splitting and rewriting."""
    clock = "Now: 2026-11-22T08:15:09Z. Session 123e4567-e89b-42d3-a456-426614174000.\n"
    return WORDS * 100 + "\n" + clock + f"You help {user}. " * 30


class Thinker:
    """A conversation with a model that binds its thinking to all before it."""

    def __init__(self, user: str = "Ada") -> None:
        self.body: Any = {
            "model": BINDING,
            "max_tokens": 2000,
            "thinking": {"type": "adaptive"},
            "system": system_for(user),
            "tools": [tool("b", description="See below."), tool("a")],
            "messages": [{"role": "user", "content": WORDS}],
        }

    async def ask(self, door: Behind) -> Usage:
        """The next turn; it must be taken."""
        answer = await door.tell(MESSAGES, self.body)
        assert answer["content"][0]["type"] == "thinking"
        turn = len(self.body["messages"])
        self.body["messages"] += [
            {"role": "assistant", "content": answer["content"]},
            {"role": "user", "content": f"And {turn}? {WORDS * 10}"},
        ]
        return door.stub.usages[-1]


@pytest.mark.parametrize("rewrites", [[], EVERY_REWRITE])
async def test_pitfall_16_bound_thinking_stays_valid_turn_after_turn(rewrites: list[str]) -> None:
    """opencode#46653, litellm#42551: history rewritten, and every later turn is refused."""
    async with behind(prompt_cache={"rewrites": rewrites}) as door:
        # Others before them begin alike, so that the gateway learns where their prompts part.
        for number in range(6):
            await door.tell(
                MESSAGES,
                {
                    "model": BINDING,
                    "max_tokens": 20,
                    "system": system_for(f"user {number}"),
                    "messages": [{"role": "user", "content": f"{number}?"}],
                },
            )
        talk = Thinker()
        used = [await talk.ask(door) for _ in range(5)]
        refused = list(door.stub.refused)

    assert not refused
    assert all(each.cache_read > 1500 for each in used[1:])


async def test_pitfall_16_bound_thinking_stays_valid_through_restarts_and_replicas() -> None:
    """The same conversation, each turn through a gateway that knows nothing of the ones before."""
    talk = Thinker()
    sim = ProviderSim(remember=100)
    for _ in range(4):
        async with behind(sim=sim, prompt_cache={"rewrites": EVERY_REWRITE}) as door:
            await talk.ask(door)

    assert not sim.refused


async def test_pitfall_16_a_refusal_of_bound_thinking_is_the_clients_to_see() -> None:
    """Nothing is sent again without its thinking: who edits history is told."""
    async with behind() as door:
        talk = Thinker()
        await talk.ask(door)
        talk.body["system"] += "!"
        told = await door.ask(MESSAGES, talk.body)
        asked = door.sent[1:]

    assert told.status == 400
    assert "bound to a different conversation" in told.document["error"]["message"]
    assert [body["messages"][1] for body in asked] == [talk.body["messages"][1]] * len(asked)


@pytest.mark.parametrize("provider", ["unknown", "vllm", "openai"])
async def test_pitfall_17_reasoning_is_passed_back_where_it_has_to_be(provider: str) -> None:
    """sub2api#2136: DeepSeek, Kimi and GLM refuse a history without its reasoning."""
    said = {
        "role": "assistant",
        "content": "Yes.",
        "reasoning_content": "Hm, <think>é</think> 1.0",
        "reasoning_details": [{"type": "reasoning.text", "text": "Hm.", "signature": "s"}],
    }
    messages = [{"role": "user", "content": WORDS * 50}, said, {"role": "user", "content": "And?"}]
    body = {"model": "deepseek-v4.1-flash", "messages": messages}
    async with behind(openai=provider) as door:
        for _ in range(2):
            await door.tell(CHAT, body)
        sent = door.sent

    assert [each["messages"] for each in sent] == [messages] * 2


async def test_pitfall_21_thoughts_in_the_history_reach_a_local_engine_as_they_were() -> None:
    """llama.cpp#22746, Qwen3.8#131: a template, or a gateway, drops `<think>`, and nothing matches."""
    thought = "<think>\nThe tide is at 8.\n</think>\n\nAt 8."
    body = {
        "model": "qwen3.8",
        "messages": [
            {"role": "system", "content": WORDS * 50},
            {"role": "user", "content": "When?"},
            {"role": "assistant", "content": thought},
            {"role": "user", "content": "Sure?"},
        ],
        "chat_template_kwargs": {"preserve_thinking": True},
    }
    for engine in ("vllm", "sglang", "llamacpp"):
        async with behind(openai=engine) as door:
            await door.tell(CHAT, body)

            assert door.sent == [body]


@pytest.mark.parametrize(
    "model", ["gpt-6-sol", "gpt-5.1", "deepseek-v4.1-flash", "claude-sonnet-4-5"]
)
async def test_pitfall_22_hosts_that_are_not_known_get_nothing_that_they_could_refuse(
    model: str,
) -> None:
    """hindsight#3518: `Unrecognized request argument supplied: prompt_cache_key`."""
    said = [{"role": "system", "content": WORDS * 100}, {"role": "user", "content": "Hi."}]
    body = {"model": model, "messages": said}
    async with behind(openai="unknown", anthropic="unknown") as door:
        for _ in range(3):
            await door.tell(CHAT, body)
            await door.tell(MESSAGES, agent(2))
        sent = door.raw

    assert sent == [orjson.dumps(body), orjson.dumps(agent(2))] * 3


async def test_pitfall_22_an_azure_deployment_that_nobody_described_gets_nothing() -> None:
    """vscode#325483, hindsight#3518: a deployment's name proves nothing of its model."""
    said = [{"role": "system", "content": WORDS * 100}, {"role": "user", "content": "Hi."}]
    body = {"model": "gpt-6-sol", "messages": said}
    async with behind(openai="azure") as door:
        for _ in range(3):
            await door.tell(CHAT, body)

        assert door.raw == [orjson.dumps(body)] * 3


async def test_pitfall_23_claude_is_asked_in_its_own_words_and_keeps_its_cache() -> None:
    """munin#889: through an OpenAI-compatible shim no marker counts."""
    async with behind() as door:
        for turn in range(2):
            await door.tell(MESSAGES, agent(turn))
        paths = [each.path for each in door.stub.received]
        reads = [used.cache_read for used in door.stub.usages]
        marked = [bool(marks(body)) for body in door.sent]

    assert paths == ["/v1/messages"] * 2
    assert all(marked)
    assert reads[1] > 1500


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("model", ["gpt-6-sol", "gpt-5.1"])
async def test_pitfall_25_tenants_behind_one_key_can_be_kept_apart(
    model: str, isolate: bool
) -> None:
    """One upstream key is one cache: what another tenant asked shows in usage and in time."""
    said = [{"role": "system", "content": WORDS * 100}, {"role": "user", "content": "Hi."}]
    body = {"model": model, "messages": said}
    async with behind(
        upstreams={"openai": {"api_key": "sk-upstream"}}, prompt_cache={"isolate": isolate}
    ) as door:
        for key in ("sk-1", "sk-2", "sk-1"):
            door.time.now += 10
            told = await door.ask(CHAT, body, key=key)
            assert told.status == 200
        reads = [used.cache_read for used in door.stub.usages]
        credentials = {each.header("authorization") for each in door.stub.received}

    assert credentials == {"Bearer sk-upstream"}
    assert (reads[1] == 0) is isolate
    assert reads[2] > 1024


SIGNED = (
    b'event: message_start\ndata: {"type": "message_start", "message": {"id": "msg_01Aa1b2c3d4e5f6a",'
    b'"type":"message","role":"assistant","model":"claude-sonnet-5-5","content":[],"stop_reason":null,'
    b'"stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":1}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":'
    b'{"type":"thinking","thinking":"","signature":""}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":'
    b'{"type":"thinking_delta","thinking":"\\u00c4 \\/ \xe2\x98\x95"}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":'
    b'{"type":"signature_delta","signature":"EqQB+/\\/=="}}\n\n'
    b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn",'
    b'"stop_sequence":null},"usage":{"output_tokens":9}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)


async def test_pitfall_27_signatures_pass_byte_for_byte_in_streams() -> None:
    """hebo-gateway#131, anthropic-sdk-python#1598: lost, merged or encoded anew on the way."""
    body = agent(0, BINDING, stream=True, thinking={"type": "adaptive"})
    async with doorway(stub=Canned(SIGNED), cache={"when": "off"}) as door:
        told = await door.ask(MESSAGES, body)

    assert told.raw == SIGNED


@pytest.mark.parametrize("stream", [False, True])
async def test_pitfall_27_what_the_sdk_collects_can_be_sent_back(stream: bool) -> None:
    """Through the official SDK, streams included: the next turn is taken, and reads."""
    body = Thinker().body
    reads: list[int] = []
    async with (
        behind() as door,
        anthropic.AsyncAnthropic(
            base_url=door.gateway.api_url, api_key="a", max_retries=0
        ) as client,
    ):
        for _ in range(3):
            if stream:
                async with client.messages.stream(**body) as events:
                    answer: Any = await events.get_final_message()
            else:
                answer = await client.messages.create(**body)
            content = [
                {
                    k: v
                    for k, v in block.model_dump(exclude_none=True).items()
                    if k != "parsed_output"
                }
                for block in answer.content
            ]
            body["messages"] += [
                {"role": "assistant", "content": content},
                {"role": "user", "content": WORDS},
            ]
            reads.append(answer.usage.cache_read_input_tokens)
        refused = list(door.stub.refused)

    assert not refused
    assert reads[-1] > 1500

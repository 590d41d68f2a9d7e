"""A prompt as providers read it: tools, then system, then messages, in blocks.

A provider's cache reuses a prefix only while it is the same from the first token on, so the order
here is the provider's rendering order and not the order of the request's members. What is not
rendered (sampling parameters, cache markers, tool-call ids) is in no block.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

BYTES_PER_TOKEN = 4
"""English and code have 3.5 to 4.5 UTF-8 bytes for each token with today's tokenizers."""


class Section(StrEnum):
    """The three parts of a prompt, in rendering order."""

    TOOLS = "tools"
    SYSTEM = "system"
    MESSAGES = "messages"


@dataclass(frozen=True, slots=True)
class Block:
    """The smallest unit that a marker may follow."""

    section: Section
    path: str
    """Where the request has it, as a JSON path: `$.messages[3].content[0].text`."""
    role: str
    """Who says it: `system`, `user`, `assistant`, `tool`; of tools it is empty."""
    text: str
    """What the provider renders, or compact JSON where that is rendered by rules we don't know."""
    name: str = ""
    """Of a tool."""
    is_json: bool = False
    marked: bool = False
    """Whether the client set a cache marker on it."""
    leaves: tuple[tuple[str, str], ...] = ()
    """Of a JSON block: path and text of the strings inside. Of a text block: nothing."""

    def texts(self) -> tuple[tuple[str, str], ...]:
        """Path and text of what a person wrote in this block."""
        return self.leaves if self.is_json else ((self.path, self.text),)


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt of one request."""

    api: str
    """The wire API's name: `openai_chat`, `anthropic_messages`, ..."""
    model: str
    blocks: tuple[Block, ...]

    def tools(self) -> tuple[Block, ...]:
        """The blocks of the tools."""
        return tuple(b for b in self.blocks if b.section is Section.TOOLS)

    def opening(self) -> tuple[Block, ...]:
        """The messages before the model's first answer: what a one-shot request consists of."""
        found: list[Block] = []
        for block in self.blocks:
            if block.section is not Section.MESSAGES:
                continue
            if block.role == "assistant":
                break
            found.append(block)
        return tuple(found)


def tokens(text: str) -> int:
    """An estimate of the tokens that a text takes: its UTF-8 bytes by BYTES_PER_TOKEN."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return (size + BYTES_PER_TOKEN - 1) // BYTES_PER_TOKEN

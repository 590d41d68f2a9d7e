"""A llama.cpp model (GGUF) of random weights, written in a second: real prefill, meaningless text.

The weights are noise in the 8-bit blocks of q8_0, which can be written as they are drawn. Tokens are
bytes, and a few hundred whole words: text of these words has one token a word. The output rows of
everything else are zero, so that a greedy answer is printable, repeats exactly and never ends early:
its length is `max_tokens`.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

WORDS: tuple[str, ...] = tuple(
    f"{first}{last}"
    for first in (
        "ba",
        "de",
        "fi",
        "go",
        "hu",
        "ka",
        "le",
        "mi",
        "no",
        "pu",
        "ra",
        "se",
        "ti",
        "wo",
    )
    for last in (
        "nder",
        "lop",
        "rast",
        "mik",
        "ven",
        "sol",
        "quet",
        "zar",
        "bin",
        "dom",
        "fel",
        "gra",
    )
)
"""One token each, with the blank before them."""

_SPECIALS = ("<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>")
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_BLANK = "\u0120"
"""How the byte 32 is spelled in a byte-level vocabulary."""
_ALIGNED = 32
_BLOCK = 32
# Of GGUF's and GGML's own numbering.
_U32, _F32, _BOOL, _STRING, _ARRAY, _I32 = 4, 6, 7, 8, 9, 5
_TYPE_F32, _TYPE_Q8_0 = 0, 8
_NORMAL, _CONTROL = 1, 3
# A uniform int8 has this deviation.
_DEVIATION = 73.9


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a model is; the defaults compute some thousand tokens a second on one core."""

    layers: int = 4
    width: int = 256
    inner: int = 1024
    heads: int = 4
    kv_heads: int = 2
    context: int = 65536

    @property
    def head(self) -> int:
        """The width of one head."""
        return self.width // self.heads


def write_model(path: Path, shape: Shape = Shape(), seed: int = 0) -> None:
    """Write the file; the same for the same arguments."""
    vocabulary, merges = _vocabulary()
    tensors = list(_tensors(shape, vocabulary, random.Random(seed)))
    metadata = _metadata(shape, vocabulary, merges)
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    for name, kind, value in metadata:
        parts += [_text(name), struct.pack("<I", kind), _value(kind, value)]
    offset = 0
    for name, dims, kind, data in tensors:
        parts += [_text(name), struct.pack("<I", len(dims)), struct.pack(f"<{len(dims)}Q", *dims)]
        parts.append(struct.pack("<IQ", kind, offset))
        offset += _padded(len(data))
    written = b"".join(parts)
    # Who looks for the file finds it whole.
    half = path.with_suffix(".half")
    with half.open("wb") as file:
        file.write(written.ljust(_padded(len(written)), b"\0"))
        for _, _, _, data in tensors:
            file.write(data.ljust(_padded(len(data)), b"\0"))
    half.rename(path)


def _vocabulary() -> tuple[list[str], list[str]]:
    """Tokens, and the pairs that are merged: each word grows from its blank on, letter by letter."""
    tokens = [*_SPECIALS, *_byte_letters()]
    merges: list[str] = []
    known = set(tokens)
    for word in WORDS:
        grown = _BLANK
        for letter in word:
            if (longer := grown + letter) not in known:
                known.add(longer)
                tokens.append(longer)
                merges.append(f"{grown} {letter}")
            grown = longer
    return tokens, merges


def _byte_letters() -> list[str]:
    """GPT-2's letter for each byte."""
    kept = {*range(33, 127), *range(161, 173), *range(174, 256)}
    moved = iter(range(256, 512))
    return [chr(byte if byte in kept else next(moved)) for byte in range(256)]


def _metadata(
    shape: Shape, vocabulary: Sequence[str], merges: Sequence[str]
) -> list[tuple[str, int, Any]]:
    kinds = [_CONTROL if token in _SPECIALS else _NORMAL for token in vocabulary]
    return [
        ("general.architecture", _STRING, "llama"),
        ("general.name", _STRING, "random"),
        ("general.file_type", _U32, 7),
        ("general.alignment", _U32, _ALIGNED),
        ("llama.block_count", _U32, shape.layers),
        ("llama.context_length", _U32, shape.context),
        ("llama.embedding_length", _U32, shape.width),
        ("llama.feed_forward_length", _U32, shape.inner),
        ("llama.attention.head_count", _U32, shape.heads),
        ("llama.attention.head_count_kv", _U32, shape.kv_heads),
        ("llama.attention.layer_norm_rms_epsilon", _F32, 1e-5),
        ("llama.rope.dimension_count", _U32, shape.head),
        ("llama.rope.freq_base", _F32, 10000.0),
        ("llama.vocab_size", _U32, len(vocabulary)),
        ("tokenizer.ggml.model", _STRING, "gpt2"),
        ("tokenizer.ggml.pre", _STRING, "gpt-2"),
        ("tokenizer.ggml.tokens", _ARRAY, (_STRING, vocabulary)),
        ("tokenizer.ggml.token_type", _ARRAY, (_I32, kinds)),
        ("tokenizer.ggml.merges", _ARRAY, (_STRING, merges)),
        ("tokenizer.ggml.bos_token_id", _U32, vocabulary.index("<|bos|>")),
        ("tokenizer.ggml.eos_token_id", _U32, vocabulary.index("<|eos|>")),
        ("tokenizer.ggml.eot_token_id", _U32, vocabulary.index("<|im_end|>")),
        ("tokenizer.ggml.add_bos_token", _BOOL, False),
        ("tokenizer.chat_template", _STRING, _TEMPLATE),
    ]


def _tensors(
    shape: Shape, vocabulary: Sequence[str], draw: random.Random
) -> Iterator[tuple[str, tuple[int, ...], int, bytes]]:
    """Name, dimensions (the innermost first), type, bytes."""

    def noise(name: str, columns: int, rows: int, deviation: float) -> Any:
        return name, (columns, rows), _TYPE_Q8_0, _noise(columns * rows, deviation, draw)

    def ones(name: str) -> Any:
        return name, (shape.width,), _TYPE_F32, struct.pack("<f", 1.0) * shape.width

    wide, inner, kv = shape.width, shape.inner, shape.kv_heads * shape.head
    said = {_BLANK + word for word in WORDS}
    row = len(_noise(wide, 1.0, random.Random(0)))
    output = b"".join(
        _noise(wide, 2.0 / wide**0.5, draw) if token in said else bytes(row) for token in vocabulary
    )
    yield noise("token_embd.weight", wide, len(vocabulary), 1.0)
    yield "output.weight", (wide, len(vocabulary)), _TYPE_Q8_0, output
    yield ones("output_norm.weight")
    for number in range(shape.layers):
        block = f"blk.{number}."
        yield ones(f"{block}attn_norm.weight")
        yield ones(f"{block}ffn_norm.weight")
        for name, columns, rows in (
            ("attn_q", wide, wide),
            ("attn_k", wide, kv),
            ("attn_v", wide, kv),
            ("attn_output", wide, wide),
            ("ffn_gate", wide, inner),
            ("ffn_up", wide, inner),
            ("ffn_down", inner, wide),
        ):
            yield noise(f"{block}{name}.weight", columns, rows, 1 / columns**0.5)


def _noise(size: int, deviation: float, draw: random.Random) -> bytes:
    """So many values of q8_0: for each 32 a half-precision scale and 32 signed bytes."""
    scale = struct.pack("<e", deviation / _DEVIATION)
    drawn = draw.randbytes(size)
    return b"".join(scale + drawn[at : at + _BLOCK] for at in range(0, size, _BLOCK))


def _value(kind: int, value: Any) -> bytes:
    if kind == _STRING:
        return _text(value)
    if kind == _ARRAY:
        inner, values = value
        head = struct.pack("<IQ", inner, len(values))
        return head + b"".join(_value(inner, each) for each in values)
    return struct.pack({_U32: "<I", _I32: "<i", _F32: "<f", _BOOL: "<?"}[kind], value)


def _text(text: str) -> bytes:
    said = text.encode()
    return struct.pack("<Q", len(said)) + said


def _padded(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED

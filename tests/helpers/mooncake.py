"""The whole of Mooncake's conversation trace, as it is upstream: 12,031 requests in an hour."""

from __future__ import annotations

import gzip
from pathlib import Path

import orjson

DATA = Path(__file__).parents[1] / "data" / "routing" / "mooncake_conversation_runs.jsonl.gz"


def whole_trace(folder: Path) -> Path:
    """The trace in a file there. The data keep runs of hashes, `[first, last]`, for their size."""
    rows = []
    for line in gzip.decompress(DATA.read_bytes()).splitlines():
        row = orjson.loads(line)
        runs = row.pop("hash_ranges")
        row["hash_ids"] = [one for first, last in runs for one in range(first, last + 1)]
        rows.append(orjson.dumps(row))
    file = folder / "mooncake_conversation_trace.jsonl"
    file.write_bytes(b"\n".join(rows))
    return file

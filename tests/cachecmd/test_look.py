"""What `gateway cache stats` prints of engines."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, cast

from gateway.cachecmd.look import OK, stats

if TYPE_CHECKING:
    from gateway.cachecmd.desk import Desk

SILENT: dict[str, Any] = {
    "engine": "vllm",
    "running": None,
    "waiting": None,
    "kv_usage": None,
    "prefix_hit_share": {"interval": None, "total": None},
    "restarts": 0,
    "age_s": None,
    "failing_s": None,
    "failure": None,
}
BUSY = SILENT | {
    "running": 3,
    "waiting": 0,
    "kv_usage": 0.254,
    "prefix_hit_share": {"interval": 0.8, "total": 0.4512},
    "restarts": 1,
    "age_s": 2.125,
}
GONE = SILENT | {"engine": "llamacpp", "failing_s": 12.5, "failure": "status 404"}


class OneStore:
    """An empty store, and these engines."""

    def __init__(self, engines: dict[str, Any]) -> None:
        self._engines = engines

    async def stats(self, _: int) -> dict[str, Any]:
        counts = ("entries", "stored_bytes", "payload_bytes", "purged", "expired", "damaged")
        return {
            "store": "memory",
            "exact": True,
            **dict.fromkeys(counts, 0),
            "by_model": {},
            "by_tag": {},
            "purges": {"names": 0, "sequence": 0},
            "engines": self._engines,
        }


async def test_each_engine_has_a_line_with_what_it_tells() -> None:
    out = io.BytesIO()
    engines = {"a": BUSY, "b": SILENT, "c": GONE, "d": BUSY | GONE | {"age_s": 20.0}}

    assert await stats(cast("Desk", OneStore(engines)), 10, out, as_json=False) == OK

    told = "3 running, 0 waiting, KV cache 25%, prefix hits 80%, in total 45%, restarts: 1"
    assert out.getvalue().decode().splitlines()[-4:] == [
        f"engine a (vllm): {told}, 2.1 s ago",
        "engine b (vllm): not read yet",
        "engine c (llamacpp): FAILING for 12.5 s (status 404)",
        "engine d (llamacpp): 20.0 s ago, FAILING for 12.5 s (status 404)",
    ]

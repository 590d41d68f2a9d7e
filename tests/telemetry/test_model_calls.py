"""Metrics of model calls under the names of one generation, of the one before, and of both."""

from __future__ import annotations

from typing import Literal

import pytest

from gateway import config
from gateway.core.model import Usage
from gateway.telemetry.setup import Telemetry

LATEST = "gen_ai_client_inference_"
OLDER = ("gen_ai_client_operation_", "gen_ai_client_token_usage")


def page(names: Literal["latest", "v1_41", "both"]) -> dict[str, float]:
    """What is scraped after one stream of three chunks, by series; only of model calls."""
    telemetry = Telemetry.start(config.Telemetry(traces="off", genai_names=names), {}, "1")
    telemetry.metrics.inference(
        provider="openai",
        model="gpt-5.6",
        operation="chat",
        duration_s=0.9,
        first_chunk_s=0.2,
        usage=Usage(10, 20, 3, 4, 50),
        reasoning_tokens=15,
        arrived_ms=(1000, 1030, 1530),
    )
    text = telemetry.metrics.render().decode()
    telemetry.close(2)
    lines = [line for line in text.splitlines() if line.startswith("gen_ai_")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


@pytest.mark.parametrize(
    ("names", "latest", "older"), [("latest", 1, 0), ("v1_41", 0, 1), ("both", 1, 1)]
)
def test_the_setting_says_which_names_there_are(
    names: Literal["latest", "v1_41", "both"], latest: int, older: int
) -> None:
    found = page(names)
    assert any(name.startswith(LATEST) for name in found) is bool(latest)
    assert any(name.startswith(OLDER) for name in found) is bool(older)


def labelled(name: str, found: dict[str, float], **labels: str) -> float:
    [value] = [
        value
        for series, value in found.items()
        if series.startswith(name + "{")
        and all(f'{key}="{wanted}"' in series for key, wanted in labels.items())
    ]
    return value


def test_both_generations_tell_the_same_of_a_call() -> None:
    found = page("both")
    for new, old in (
        ("inference_duration_seconds", "operation_duration_seconds"),
        ("inference_time_to_first_chunk_seconds", "operation_time_to_first_chunk_seconds"),
        ("inference_time_per_output_chunk_seconds", "operation_time_per_output_chunk_seconds"),
    ):
        for part in ("sum", "count"):
            assert labelled(f"gen_ai_client_{new}_{part}", found) == pytest.approx(
                labelled(f"gen_ai_client_{old}_{part}", found)
            )
    per_chunk = "gen_ai_client_inference_time_per_output_chunk_seconds"
    assert labelled(f"{per_chunk}_count", found) == 2
    assert labelled(f"{per_chunk}_sum", found) == pytest.approx(0.53)
    assert labelled(f"{per_chunk}_bucket", found, le="0.04") == 1
    for kind, tokens in (("input", 37), ("output", 50)):
        older = labelled("gen_ai_client_token_usage_sum", found, gen_ai_token_type=kind)
        assert older == tokens
        assert labelled(f"gen_ai_client_inference_operation_{kind}_tokens_sum", found) == tokens
        assert labelled(f"gen_ai_client_inference_usage_{kind}_tokens_total", found) == tokens
    thought = "gen_ai_client_inference_usage_reasoning_output_tokens_total"
    assert labelled(thought, found) == 15

from __future__ import annotations

import orjson
import pytest

from gateway.lab.sim_bill import Meter
from gateway.lab.stub_answers import Reply

MILLION = 10**6


def test_inclusive_and_exclusive_usages_are_billed_by_bucket() -> None:
    meter = Meter()
    meter.saw(
        "/v1/chat/completions",
        Reply(
            billed={
                "model": "gpt-5.6-sol",
                "service_tier": "default",
                "usage": {
                    "prompt_tokens": 1000,
                    "completion_tokens": 10,
                    "prompt_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 300},
                },
            }
        ),
    )
    assert meter.paid_pd == (100 * 4 + 300 * 5 + 10 * 20) * MILLION + 600 * 400_000
    assert meter.without_pd == (1000 * 4 + 10 * 20) * MILLION
    meter.saw(
        "/v1/messages",
        Reply(
            billed={
                "model": "claude-sonnet-4-5",
                "usage": {
                    "input_tokens": 1,
                    "cache_read_input_tokens": 10,
                    "cache_creation_input_tokens": 3,
                    "cache_creation": {
                        "ephemeral_5m_input_tokens": 1,
                        "ephemeral_1h_input_tokens": 2,
                    },
                    "output_tokens": 5,
                    "service_tier": "standard",
                },
            }
        ),
    )
    more = 3 * MILLION + 10 * 300_000 + 3_750_000 + 2 * 6 * MILLION + 5 * 15 * MILLION
    assert meter.paid_pd == (100 * 4 + 300 * 5 + 10 * 20) * MILLION + 600 * 400_000 + more
    assert meter.answers == 2


def test_long_prompts_cost_what_long_prompts_cost() -> None:
    meter = Meter()
    usage = {"input_tokens": 200_001, "output_tokens": 1}
    meter.saw("/v1/messages", Reply(billed={"model": "claude-sonnet-4-5", "usage": usage}))

    assert meter.paid_pd == 200_001 * 6 * MILLION + 22_500_000


def test_what_is_whole_says_itself_what_it_costs() -> None:
    meter = Meter()
    body = {"model": "text-embedding-3-small", "usage": {"prompt_tokens": 9, "total_tokens": 9}}
    meter.saw("/v1/embeddings", Reply(body=orjson.dumps(body)))

    assert meter.paid_pd == 9 * 20_000


@pytest.mark.parametrize(
    ("path", "reply"),
    [
        ("/v1/chat/completions", Reply(body=b"{}", status=429)),
        ("/v1/files", Reply(body=b'{"usage": {}}')),
    ],
)
def test_errors_and_other_routes_cost_nothing(path: str, reply: Reply) -> None:
    meter = Meter()
    meter.saw(path, reply)

    assert (meter.answers, meter.paid_pd, meter.untold) == (0, 0, 0)


def test_what_nobody_was_told_or_can_price_stands_apart() -> None:
    meter = Meter()
    told = {"prompt_tokens": 8, "completion_tokens": 2}
    known = {"model": "gpt-4o", "usage": told}
    meter.saw("/v1/chat/completions", Reply(billed=known, cut=True))
    broken = (b'data: {"id": 1}\n\n', b'data: {"error": {"message": "x"}}\n\n')
    meter.saw("/v1/chat/completions", Reply(billed=known, events=broken))
    whole = (b'data: {"id": 1}\n\n', b"data: [DONE]\n\n")
    meter.saw("/v1/chat/completions", Reply(billed={"model": "odd", "usage": told}, events=whole))
    meter.saw("/v1/completions", Reply(events=whole))

    assert (meter.cut, meter.cut_pd) == (2, 2 * (8 * 2_500_000 + 2 * 10_000_000))
    assert (meter.unpriced, meter.unpriced_tokens, meter.untold) == (1, 10, 1)
    assert repr(meter) == "<Meter 0 answers, 0 pd, 1 without a price>"

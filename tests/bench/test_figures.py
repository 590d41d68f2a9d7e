"""The harness's arithmetic: what wrk and the kernel say, as figures."""

from __future__ import annotations

import pytest

from bench.figures import paired, percentile, ratio, read_stat, read_wrk

WRK = """Running 2s test @ http://127.0.0.1:1234/v1/chat/completions
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.44ms    2.69ms  54.10ms   97.95%
    Req/Sec    59.15k     4.94k   67.75k    90.00%
  Latency Distribution
     50%    1.02ms
     75%    1.10ms
     90%    1.43ms
     99%   11.75ms
  117647 requests in 2.00s, 13.01MB read
Requests/sec:  58711.04
Transfer/sec:      6.49MB
"""


def test_wrks_summary_is_read_in_microseconds_and_seconds() -> None:
    load = read_wrk(WRK)
    assert (load.requests, load.seconds) == (117647, 2.0)
    assert (load.p50_us, load.p99_us) == (1020.0, 11750.0)
    assert load.failed == 0
    assert load.per_s == pytest.approx(58823.5)


def test_failures_of_every_kind_are_counted() -> None:
    text = WRK.replace(
        "Requests/sec",
        "  Socket errors: connect 1, read 2, write 3, timeout 4\n"
        "  Non-2xx or 3xx responses: 90\nRequests/sec",
    )
    assert read_wrk(text).failed == 100


def test_what_is_no_summary_is_refused() -> None:
    with pytest.raises(ValueError, match="unable to connect"):
        read_wrk("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_a_process_with_brackets_in_its_name_is_read() -> None:
    fields = ["S", "1", "77", "42", *["0"] * 7, "150", "50", *["0"] * 30]
    stat = read_stat(f"99 (a) b ({'x )'}) {' '.join(fields)}")
    assert (stat.session, stat.ticks) == (42, 200)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0), (0.001, 1.0)]
)
def test_percentiles_are_values_that_were_seen(share: float, expected: float) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], share) == expected


def test_ratios_are_taken_round_by_round() -> None:
    # The second round was noisy on both sides.
    assert paired([10.0, 40.0, 11.0], [5.0, 20.0, 5.0]) == 2.0
    assert paired([], [1.0]) is None
    assert ratio(3.0, 0.0) is None
    assert ratio(None, 2.0) is None
    assert ratio(3.0, 2.0) == 1.5

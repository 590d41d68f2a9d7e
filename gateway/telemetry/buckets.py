"""Upper bounds of histograms. Few, because each is a series for each set of labels."""

from __future__ import annotations

# The stable convention's buckets end at 10 s; answers of models take minutes, hits a millisecond.
HTTP_SECONDS = (
    *(0.001, 0.005, 0.01, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 600.0),
)
# As the GenAI conventions have them: 0.01 to 81.92.
GEN_AI_SECONDS = tuple(0.01 * 2**n for n in range(14))
GEN_AI_TOKENS = tuple(float(4**n) for n in range(14))
# An alert asks whether the 99th percentile of our own time is above 20 ms.
OWN_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.25, 1.0)
ENTRY_BYTES = tuple(float(256 * 4**n) for n in range(10))
# Planning takes a fraction of a millisecond; bodies of many megabytes some more.
PLAN_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

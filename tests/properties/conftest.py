"""How many examples: 10,000 in CI and wherever PROPERTY_EXAMPLES says so, fewer while developing.

Examples are seeds (see `tests/helpers/dice.py`); Hypothesis prints the one that fails.
"""

from __future__ import annotations

import os

from hypothesis import settings
from hypothesis import strategies as st

from tests.helpers.redis_servers import missing_is_a_failure as is_ci

EXAMPLES = int(os.environ.get("PROPERTY_EXAMPLES") or (10_000 if is_ci() else 500))
many = settings(max_examples=EXAMPLES, deadline=None, database=None, print_blob=True)
seeds = st.integers(0, 2**64 - 1)

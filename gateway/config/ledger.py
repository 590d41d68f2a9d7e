"""What was paid and saved: whether it is kept, and how long."""

from __future__ import annotations

from pydantic import Field

from gateway.config.kinds import Positive, PositiveInt
from gateway.config.section import SECONDS, Section


class Ledger(Section):
    """What was paid and saved, in the store."""

    enabled: bool = Field(True, description="Keep what was paid and saved, by day and cause.")
    retention_days: PositiveInt = Field(400, description="How many days are kept.")
    flush_interval_s: Positive = Field(
        1 * SECONDS,
        description="How often it is written. A gateway that is killed loses what it counted since.",
    )

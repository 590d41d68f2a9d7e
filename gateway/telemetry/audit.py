"""What an operator did to the cache: one line each, whatever the log level."""

from __future__ import annotations

import logging
from typing import Any

import structlog


def audited(action: str, *, who: str, result: str, **facts: Any) -> None:
    """Say that `who` did `action` (`purge`, `import`, ...), on what, and how it ended.

    Facts are names, counts and times; never content, never a credential.
    """
    logger = structlog.wrap_logger(
        structlog.get_config()["logger_factory"]("warmgate.audit"),
        # Not the configured one, which leaves out what is below `log.level`.
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    logger.info("audit", action=action, who=who, result=result, **facts)

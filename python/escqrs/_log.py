"""The logger ``escqrs``, and the way there of what the core says."""

from __future__ import annotations

import logging

logger = logging.getLogger("escqrs")


def text(level: int, text: str) -> None:
    """A line from the core."""
    logger.log(level, "%s", text)

"""What the parts of the API have in common: how a behaviour looks, and the period of a request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from market.contract.convert import to_ns

Behaviours = dict[str, Callable[[Any], Awaitable[Any]]]
"""From "Service/Method" to a coroutine function from request to reply; it may raise Refusal."""

END_OF_TIME_NS = 1 << 62


def period_ns(message: Any) -> tuple[int, int]:
    """[from, to) of a request that has both; an absent end is open."""
    start, end = getattr(message, "from"), message.to
    from_ns = to_ns(start) if message.HasField("from") else 0
    return from_ns, to_ns(end) if message.HasField("to") else END_OF_TIME_NS

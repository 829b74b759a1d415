"""``TinkoffAPI``: one account at the broker, calls and streams over one connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from live.broker.channel import Access
from live.broker.client import BrokerClient, OrderReport
from live.broker.link import SILENCE_S, Link, Policy
from live.clock import MarketClock
from live.core.events import Event
from market.types import Instrument


class TinkoffAPI:
    """The Invest API as the product uses it: production, sandbox and paper exchange alike.

    ``client`` asks and orders; ``connect`` makes the link that streams. ``time_scale`` and ``transport`` as
    for ``BrokerClient``; SdkMissing when the transport is sdk and the SDK is not there.
    """

    def __init__(self, access: Access, *, transport: str = "native", time_scale: float = 1.0) -> None:
        self.client = BrokerClient(access, {}, transport=transport, time_scale=time_scale)
        self._link: Link | None = None

    def connect(
        self,
        instruments: Mapping[str, Instrument],
        clock: MarketClock,
        emit: Callable[[Event], None],
        report: Callable[[OrderReport], None] | None,
        *,
        depth: int,
        backup: Access | None = None,
        policy: Policy | None = None,
        silence_s: float = SILENCE_S,
    ) -> Link:
        """The streams of ``instruments`` (by uid), kept up by ``await link.run()``. One per API: the broker
        counts streams. Without ``report`` there is no order stream.
        """
        if self._link is not None:
            raise AssertionError("an account has one link")
        self._link = Link(
            self.client, instruments, clock, emit, report, depth=depth, backup=backup, policy=policy,
            silence_s=silence_s,
        )  # fmt: skip
        return self._link

    async def close(self) -> None:
        if self._link is not None:
            await self._link.close()
        await self.client.close()

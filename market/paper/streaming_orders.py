"""The streams of the accounts: order states, fills, positions and portfolios."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from market.contract import invest_pb2 as pb
from market.paper import messages_account, messages_orders
from market.paper.access import CALLER
from market.paper.calls import Context, tracking_id
from market.paper.clock import MarketClock
from market.paper.exchange import Exchange
from market.paper.order_hub import OrderHub, OrderStream, PortfolioStream, PositionsStream
from market.paper.outbox import Outbox
from market.paper.pinger import MARKET_PING_RANGE_MS, ORDER_PING_RANGE_MS, Pinger, ping
from market.paper.wire import Wire

PORTFOLIO_EVERY_MS = 1_000
"""A portfolio whose prices moved is sent so often, wall time; after a deal it is sent at once."""


Pings = tuple[int, tuple[int, int]]
"""Milliseconds between pings that the client asks for (0: nothing asked), and the range allowed."""


class OrderStreams:
    """``behaviours()`` maps "Service/Method" to a coroutine function that writes to the call's context."""

    def __init__(self, exchange: Exchange, hub: OrderHub, clock: MarketClock) -> None:
        self._exchange = exchange
        self._hub = hub
        self._clock = clock

    def behaviours(self) -> dict[str, Callable[[Any, Context], Awaitable[None]]]:
        return {
            "OrdersStreamService/OrderStateStream": self.order_state_stream,
            "OrdersStreamService/TradesStream": self.trades_stream,
            "OperationsStreamService/PositionsStream": self.positions_stream,
            "OperationsStreamService/PortfolioStream": self.portfolio_stream,
        }

    # ------------------------------------------------------------------ orders

    async def order_state_stream(self, request: pb.OrderStateStreamRequest, context: Context) -> None:
        stream = OrderStream(self._wanted(request.accounts), messages_orders.order_event, fills_only=False)
        await self._serve_orders(
            stream, "OrdersStreamService/OrderStateStream", pb.OrderStateStreamResponse,
            (request.ping_delay_millis, ORDER_PING_RANGE_MS), context,
        )  # fmt: skip

    async def trades_stream(self, request: pb.TradesStreamRequest, context: Context) -> None:
        stream = OrderStream(self._wanted(request.accounts), messages_orders.trades_event, fills_only=True)
        await self._serve_orders(
            stream, "OrdersStreamService/TradesStream", pb.TradesStreamResponse,
            (request.ping_delay_ms, MARKET_PING_RANGE_MS), context,
        )  # fmt: skip

    async def _serve_orders(
        self, stream: OrderStream, method: str, reply: type[Any], pings: Pings, context: Context
    ) -> None:
        """The subscription's result first; then every change of the accounts' orders from this moment on."""
        unseen = sorted(stream.accounts - self._seen())
        answer = pb.SubscriptionResponse(
            tracking_id=tracking_id(), status=pb.RESULT_SUBSCRIPTION_STATUS_OK, stream_id=str(uuid.uuid4()),
            accounts=sorted(stream.accounts),
        )  # fmt: skip
        if unseen:
            answer.status = pb.RESULT_SUBSCRIPTION_STATUS_ERROR
            answer.ClearField("accounts")
            known = all(account_id in self._exchange.desks for account_id in unseen)
            answer.error.code = "40002" if known else "50004"
            text = "insufficient privileges" if known else "account not found"
            answer.error.message = f"{text}: {', '.join(unseen)}"
            await context.write(reply(subscription=answer))
            return
        # Listening begins before the answer leaves: what happens meanwhile waits behind it.
        self._hub.streams.add(stream)
        stream.outbox.put(lambda: reply(subscription=answer))
        try:
            await self._send(stream.outbox, method, lambda: reply(ping=ping(self._clock)), pings, context)
        finally:
            self._hub.streams.discard(stream)

    # ------------------------------------------------------------------ positions and portfolios

    async def positions_stream(self, request: pb.PositionsStreamRequest, context: Context) -> None:
        """With ``with_initial_positions`` the whole positions follow the answer; then what changes."""
        wanted = self._wanted(request.accounts)
        stream = PositionsStream(wanted & self._seen())
        result = pb.PositionsSubscriptionResult(tracking_id=tracking_id(), stream_id=str(uuid.uuid4()))
        for account_id in sorted(wanted):
            status = pb.POSITIONS_SUBSCRIPTION_STATUS_ACCOUNT_NOT_FOUND
            if account_id in stream.accounts:
                status = pb.POSITIONS_SUBSCRIPTION_STATUS_SUCCESS
            result.accounts.add(account_id=account_id, subscription_status=status)
        stream.outbox.put(lambda: pb.PositionsStreamResponse(subscriptions=result))
        self._hub.positions.add(stream)
        for account_id in sorted(stream.accounts) if request.with_initial_positions else ():
            whole = pb.PositionsStreamResponse(
                initial_positions=messages_account.positions(self._exchange.desks[account_id], self._exchange)
            )
            stream.outbox.put(lambda whole=whole: whole)  # type: ignore[misc]
        try:
            await self._send(
                stream.outbox, "OperationsStreamService/PositionsStream",
                lambda: pb.PositionsStreamResponse(ping=ping(self._clock)),
                (request.ping_settings.ping_delay_ms, MARKET_PING_RANGE_MS), context,
            )  # fmt: skip
        finally:
            self._hub.positions.discard(stream)

    async def portfolio_stream(self, request: pb.PortfolioStreamRequest, context: Context) -> None:
        """The portfolio now, after every deal, and every second while prices move."""
        wanted = self._wanted(request.accounts)
        stream = PortfolioStream(wanted & self._seen())
        result = pb.PortfolioSubscriptionResult(tracking_id=tracking_id(), stream_id=str(uuid.uuid4()))
        for account_id in sorted(wanted):
            status = pb.PORTFOLIO_SUBSCRIPTION_STATUS_ACCOUNT_NOT_FOUND
            if account_id in stream.accounts:
                status = pb.PORTFOLIO_SUBSCRIPTION_STATUS_SUCCESS
            result.accounts.add(account_id=account_id, subscription_status=status)
        stream.outbox.put(lambda: pb.PortfolioStreamResponse(subscriptions=result))

        def look() -> None:
            for account_id in sorted(stream.accounts):
                self._hub.push_portfolio(stream, account_id)

        look()
        self._hub.portfolios.add(stream)
        repeated = Pinger(look)
        repeated.every(PORTFOLIO_EVERY_MS, (PORTFOLIO_EVERY_MS, PORTFOLIO_EVERY_MS))
        try:
            await self._send(
                stream.outbox, "OperationsStreamService/PortfolioStream",
                lambda: pb.PortfolioStreamResponse(ping=ping(self._clock)),
                (request.ping_settings.ping_delay_ms, MARKET_PING_RANGE_MS), context,
            )  # fmt: skip
        finally:
            repeated.stop()
            self._hub.portfolios.discard(stream)

    # ------------------------------------------------------------------ inside

    def _seen(self) -> frozenset[str]:
        token = CALLER.get()
        return frozenset(account_id for account_id in self._exchange.desks if token.sees(account_id))

    def _wanted(self, accounts: Iterable[str]) -> frozenset[str]:
        """Without a word: every account that the token sees."""
        return frozenset(accounts) or self._seen()

    async def _send(
        self,
        outbox: Outbox,
        method: str,
        make_ping: Callable[[], Any],
        pings: Pings,
        context: Context,
    ) -> None:
        pinger = Pinger(lambda: outbox.put(make_ping))
        pinger.every(*pings)
        try:
            await Wire(method, context, self._exchange.faults, self._exchange.listings).send_all(outbox)
        finally:
            pinger.stop()

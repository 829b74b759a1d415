"""Who listens to the accounts: their orders, positions and portfolios."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from google.protobuf.message import Message

from market.contract import invest_pb2 as pb
from market.paper import messages_account
from market.paper.exchange import Exchange
from market.paper.listing import Listing
from market.paper.orders import PaperOrder
from market.paper.outbox import Outbox, Payload


@dataclass(slots=True, eq=False)
class OrderStream:
    """One OrderStateStream or TradesStream call; ``accounts`` are those it listens to."""

    accounts: frozenset[str]
    make: Callable[[PaperOrder], Message]
    fills_only: bool
    outbox: Outbox = field(default_factory=Outbox)
    sent_lots: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class PositionsStream:
    """One PositionsStream call; ``sent`` is what each account heard last, to say only what changed."""

    accounts: frozenset[str]
    outbox: Outbox = field(default_factory=Outbox)
    sent: dict[tuple[str, str], bytes] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class PortfolioStream:
    """One PortfolioStream call."""

    accounts: frozenset[str]
    outbox: Outbox = field(default_factory=Outbox)
    sent: dict[str, bytes] = field(default_factory=dict)


class OrderHub:
    """Every open stream of the accounts. The exchange tells it what happened."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.streams: set[OrderStream] = set()
        self.positions: set[PositionsStream] = set()
        self.portfolios: set[PortfolioStream] = set()

    def on_order(self, order: PaperOrder) -> None:
        """Called after every change of an order's state; the message shows the state of this very moment."""
        executed = order.lots_executed
        for stream in self.streams:
            if order.account_id not in stream.accounts:
                continue
            if stream.fills_only and executed == stream.sent_lots.get(order.internal_id, 0):
                continue
            stream.sent_lots[order.internal_id] = executed
            stream.outbox.put(_ready(stream.make(order)))
        self._positions_changed(order.account_id, order.listing, order.changed_ns)
        if executed:
            self.portfolio_changed(order.account_id)

    def on_account(self, account_id: str, now_ns: int) -> None:
        """Called when an account's money changed without an order."""
        self._positions_changed(account_id, None, now_ns)
        self.portfolio_changed(account_id)

    def portfolio_changed(self, account_id: str) -> None:
        """Sends the portfolio to those who have another one."""
        for stream in self.portfolios:
            if account_id in stream.accounts:
                self.push_portfolio(stream, account_id)

    def push_portfolio(self, stream: PortfolioStream, account_id: str) -> None:
        portfolio = messages_account.portfolio(self._exchange.desks[account_id], self._exchange)
        content = portfolio.SerializeToString(deterministic=True)
        if stream.sent.get(account_id) != content:
            stream.sent[account_id] = content
            stream.outbox.put(_ready(pb.PortfolioStreamResponse(portfolio=portfolio)))

    def outboxes(self) -> list[Outbox]:
        orders = [stream.outbox for stream in self.streams]
        positions = [stream.outbox for stream in self.positions]
        return orders + positions + [stream.outbox for stream in self.portfolios]

    def _positions_changed(self, account_id: str, listing: Listing | None, now_ns: int) -> None:
        for stream in self.positions:
            if account_id not in stream.accounts:
                continue
            data = messages_account.position_change(self._exchange.desks[account_id], listing, now_ns)
            key = (account_id, listing.instrument.ticker if listing else "")
            content = _without_date(data)
            if stream.sent.get(key) != content:
                stream.sent[key] = content
                stream.outbox.put(_ready(pb.PositionsStreamResponse(position=data)))


def _without_date(data: pb.PositionData) -> bytes:
    same = pb.PositionData()
    same.CopyFrom(data)
    same.ClearField("date")
    return same.SerializeToString(deterministic=True)


def _ready(message: Message) -> Payload:
    return lambda: message

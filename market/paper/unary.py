"""Every unary method of the paper exchange, by its name."""

from __future__ import annotations

from collections.abc import Callable

from market.contract import invest_pb2 as pb
from market.paper.behaviours import Behaviours
from market.paper.clock import MarketClock
from market.paper.exchange import Exchange
from market.paper.schedule import Schedule
from market.paper.unary_instruments import InstrumentCalls
from market.paper.unary_market import MarketDataCalls
from market.paper.unary_operations import OperationCalls
from market.paper.unary_orders import OrderCalls
from market.paper.unary_sandbox import SandboxCalls
from market.paper.unary_schedules import ScheduleCalls
from market.paper.unary_stop_orders import StopOrderCalls
from market.paper.unary_users import UserCalls


class UnaryServices:
    """``calendar``: when there is trading; ``tariff`` makes GetUserTariff's answer."""

    def __init__(
        self,
        exchange: Exchange,
        clock: MarketClock,
        calendar: Schedule,
        tariff: Callable[[], pb.GetUserTariffResponse],
    ) -> None:
        self._orders = OrderCalls(exchange, clock)
        parts = (
            UserCalls(exchange, tariff),
            InstrumentCalls(exchange),
            ScheduleCalls(calendar, clock),
            MarketDataCalls(exchange, clock),
            self._orders,
            OperationCalls(exchange),
            StopOrderCalls(exchange, clock),
        )
        ordinary = {key: call for part in parts for key, call in part.behaviours().items()}
        self._behaviours = ordinary | SandboxCalls(exchange, clock, ordinary).behaviours()

    def behaviours(self) -> Behaviours:
        return self._behaviours

    def abandon(self) -> None:
        """The server stops: nobody will wait for what is on the way."""
        self._orders.abandon()

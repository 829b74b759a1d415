"""SandboxService: opening, paying in and closing accounts; all else is an ordinary method by another name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from market.contract import invest_pb2 as pb
from market.contract.convert import ConversionError, money, to_nano
from market.contract.methods import SANDBOX_NAMES
from market.paper.access import CALLER
from market.paper.behaviours import Behaviours
from market.paper.clock import MarketClock
from market.paper.exchange import Exchange
from market.paper.refusals import Refusal
from market.paper.requests import desk_of

DEFAULT_NAME = "sandbox"


class SandboxCalls:
    """``ordinary``: the behaviours that the sandbox's names lead to."""

    def __init__(self, exchange: Exchange, clock: MarketClock, ordinary: Behaviours) -> None:
        self._exchange = exchange
        self._clock = clock
        self._ordinary = ordinary

    def behaviours(self) -> Behaviours:
        named = {key: _in_the_sandbox(self._ordinary[known]) for key, known in SANDBOX_NAMES.items()}
        return named | {
            "SandboxService/OpenSandboxAccount": self.open_sandbox_account,
            "SandboxService/CloseSandboxAccount": self.close_sandbox_account,
            "SandboxService/SandboxPayIn": self.sandbox_pay_in,
        }

    async def open_sandbox_account(
        self, request: pb.OpenSandboxAccountRequest
    ) -> pb.OpenSandboxAccountResponse:
        """An account without money, seen by every token that is not bound to accounts."""
        token = CALLER.get()
        if token.access == "read_only" or token.accounts is not None:
            raise Refusal("40002", "the token is read-only or bound to accounts")
        account = self._exchange.open_account(request.name or DEFAULT_NAME, self._clock.now_ns())
        return pb.OpenSandboxAccountResponse(account_id=account.account_id)

    async def close_sandbox_account(
        self, request: pb.CloseSandboxAccountRequest
    ) -> pb.CloseSandboxAccountResponse:
        """Cancels what it has at work; its history can still be read."""
        desk = desk_of(self._exchange, request.account_id, to_trade=True)
        self._exchange.close_account(desk, self._clock.now_ns())
        return pb.CloseSandboxAccountResponse()

    async def sandbox_pay_in(self, request: pb.SandboxPayInRequest) -> pb.SandboxPayInResponse:
        """Roubles only, a positive amount."""
        desk = desk_of(self._exchange, request.account_id, to_trade=True)
        if request.amount.currency.lower() not in ("", "rub"):
            raise Refusal("30047", f"{request.amount.currency}: the sandbox takes roubles only")
        try:
            amount_nano = to_nano(request.amount)
        except ConversionError as error:
            raise Refusal("30102", f"amount: {error}") from None
        if amount_nano <= 0:
            raise Refusal("30102", "amount must be positive")
        self._exchange.pay_in(desk, amount_nano, self._clock.now_ns())
        return pb.SandboxPayInResponse(balance=money(desk.account.cash_nano))


def _in_the_sandbox(behaviour: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
    """The same, but want of money has the sandbox's own code."""

    async def call(request: Any) -> Any:
        try:
            return await behaviour(request)
        except Refusal as refusal:
            if refusal.code == "30042":
                raise Refusal("30034", refusal.more) from None
            raise

    return call

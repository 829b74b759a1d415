"""OperationsService: positions, portfolio, limits, and the history of the account's money."""

from __future__ import annotations

from collections.abc import Iterator

from market.contract import invest_pb2 as pb
from market.paper import messages_account
from market.paper.behaviours import Behaviours, period_ns
from market.paper.desk import Desk
from market.paper.exchange import Exchange
from market.paper.operations import Operation, OperationKind
from market.paper.refusals import Refusal
from market.paper.requests import desk_of, listing_of

DEFAULT_PAGE = 100
MAX_PAGE = 1000


class OperationCalls:
    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def behaviours(self) -> Behaviours:
        return {
            "OperationsService/GetOperations": self.get_operations,
            "OperationsService/GetOperationsByCursor": self.get_operations_by_cursor,
            "OperationsService/GetPositions": self.get_positions,
            "OperationsService/GetPortfolio": self.get_portfolio,
            "OperationsService/GetWithdrawLimits": self.get_withdraw_limits,
        }

    async def get_positions(self, request: pb.PositionsRequest) -> pb.PositionsResponse:
        return messages_account.positions(desk_of(self._exchange, request.account_id), self._exchange)

    async def get_portfolio(self, request: pb.PortfolioRequest) -> pb.PortfolioResponse:
        """In roubles whatever currency is asked for: Refusal 30047 for another one."""
        desk = desk_of(self._exchange, request.account_id)
        if request.currency != pb.PortfolioRequest.RUB:
            raise Refusal("30047", "the paper exchange counts in roubles only")
        return messages_account.portfolio(desk, self._exchange)

    async def get_withdraw_limits(self, request: pb.WithdrawLimitsRequest) -> pb.WithdrawLimitsResponse:
        return messages_account.withdraw_limits(desk_of(self._exchange, request.account_id))

    async def get_operations(self, request: pb.OperationsRequest) -> pb.OperationsResponse:
        """Newest first."""
        desk = desk_of(self._exchange, request.account_id)
        found = self._matching(desk, request, request.figi)
        return pb.OperationsResponse(
            operations=[messages_account.operation(entry, desk.account) for entry in found]
        )

    async def get_operations_by_cursor(
        self, request: pb.GetOperationsByCursorRequest
    ) -> pb.GetOperationsByCursorResponse:
        """Newest first, a page at a time; ``next_cursor`` is the first element of the next page."""
        desk = desk_of(self._exchange, request.account_id)
        if request.limit < 0:
            raise Refusal("30107", str(request.limit))
        if request.limit > MAX_PAGE:
            raise Refusal("30069", str(request.limit))
        first = _cursor_number(request.cursor, len(desk.account.operations))
        kinds = {kind for kind, type_ in messages_account.TYPES.items() if type_ in request.operation_types}
        if not request.operation_types:
            kinds = set(OperationKind)
        if request.without_commissions:
            kinds -= {OperationKind.FEE}
        found = [
            entry
            for entry in self._matching(desk, request, request.instrument_id)
            if entry.number <= first and entry.kind in kinds
        ]
        page = request.limit or DEFAULT_PAGE
        reply = pb.GetOperationsByCursorResponse(
            has_next=len(found) > page,
            items=[
                messages_account.operation_item(entry, desk.account, trades=not request.without_trades)
                for entry in found[:page]
            ],
        )
        if reply.has_next:
            reply.next_cursor = messages_account.cursor(found[page])
        return reply

    def _matching(
        self, desk: Desk, request: pb.OperationsRequest | pb.GetOperationsByCursorRequest, identifier: str
    ) -> Iterator[Operation]:
        """Newest first. Every operation here is executed: another state finds nothing."""
        if request.state not in (pb.OPERATION_STATE_UNSPECIFIED, pb.OPERATION_STATE_EXECUTED):
            return
        wanted = listing_of(self._exchange, identifier)[1].instrument if identifier else None
        from_ns, to_ns = period_ns(request)
        for entry in reversed(desk.account.operations):
            if from_ns <= entry.now_ns < to_ns and wanted in (None, entry.instrument):
                yield entry


def _cursor_number(cursor: str, newest: int) -> int:
    if not cursor:
        return newest
    if not cursor.isdecimal():
        raise Refusal("30102", f"cursor {cursor!r} was not given by this exchange")
    return int(cursor)

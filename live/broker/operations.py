"""The deals that the broker has on its books, read from the account's operations.

They are what the account was charged for: at the end of a day our own books must say the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from live.broker.client import MAX_OTHER_WAIT_S, BrokerClient, unit_price_ticks
from market.contract import convert
from market.contract import invest_pb2 as pb
from market.errors import BrokerError
from market.types import BUY, SELL

METHOD = "OperationsService/GetOperationsByCursor"
PAGE = 1_000
MAX_PAGES = 200
"""A day of more operations than this is not ours."""

SIDES: dict[Any, int] = {
    pb.OPERATION_TYPE_BUY: BUY, pb.OPERATION_TYPE_BUY_MARGIN: BUY,
    pb.OPERATION_TYPE_SELL: SELL, pb.OPERATION_TYPE_SELL_MARGIN: SELL,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Operation:
    """One buy or sell of the account: its deals as (trade id, price in ticks, lots), and what it cost in
    commission, nano-roubles >= 0.
    """

    operation_id: str
    ticker: str
    side: int
    now_ns: int
    deals: tuple[tuple[str, int, int], ...]
    fee_nano: int


async def read_operations(client: BrokerClient, from_ns: int, to_ns: int) -> list[Operation]:
    """Executed buys and sells in [from_ns, to_ns) of the instruments that ``client`` knows, oldest first.

    Raises BrokerError: a call failed, or an operation cannot be ours (units that are no whole lots).
    """
    found: list[Operation] = []
    cursor = ""
    for _ in range(MAX_PAGES):
        request = pb.GetOperationsByCursorRequest(
            account_id=client.account_id, limit=PAGE, cursor=cursor, operation_types=list(SIDES),
            state=pb.OPERATION_STATE_EXECUTED,
        )  # fmt: skip
        getattr(request, "from").CopyFrom(convert.timestamp(from_ns))
        request.to.CopyFrom(convert.timestamp(to_ns))
        reply = await client.call(METHOD, request, wait_s=MAX_OTHER_WAIT_S)
        found += [o for o in (_operation(client, item) for item in reply.items) if o is not None]
        if not reply.has_next:
            return found[::-1]
        cursor = reply.next_cursor
    raise BrokerError(f"the account has more than {PAGE * MAX_PAGES:,} operations since the day began")


def _operation(client: BrokerClient, item: pb.OperationItem) -> Operation | None:
    instrument = client.instruments.get(item.instrument_uid)
    if instrument is None:
        return None  # not ours to trade
    deals = []
    for trade in item.trades_info.trades:
        lots, rest = divmod(trade.quantity, instrument.lot)
        if rest:
            raise BrokerError(
                f"deal {trade.num} in {instrument.ticker} is of {trade.quantity} units, "
                f"which are no whole lots of {instrument.lot}"
            )
        deals.append((trade.num, unit_price_ticks(convert.to_nano(trade.price), instrument), lots))
    return Operation(
        item.id, instrument.ticker, SIDES[item.type], convert.to_ns(item.date), tuple(deals),
        abs(convert.to_nano(item.commission)),
    )  # fmt: skip

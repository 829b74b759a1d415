"""A market of a few events, a paper exchange stepping through it, and a plain client of it, for tests."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from market.contract import invest_pb2 as pb
from market.contract.convert import quotation
from market.contract.methods import stub
from market.paper import Endpoint, PaperMarket, PaperServer
from market.types import MILLISECOND_NS, NANO, SECOND_NS, Books, Instrument, InstrumentDay, Trades

T0 = 1_768_460_400 * SECOND_NS
ROOT = Path(__file__).resolve().parents[2]

SHARE = Instrument(
    "11111111-aaaa-4000-8000-000000000001", "SIMP", "TQBR", "FIGI0SIMP", "share", 10, 10_000_000, 100_000_000
)
FUTURE = Instrument(
    "11111111-aaaa-4000-8000-000000000002", "SIMF", "SPBFUT", "FIGI0SIMF", "future", 1, 10 * NANO, 15 * NANO
)

Level = tuple[int, int]


def make_books(rows: list[tuple[int, list[Level], list[Level]]]) -> Books:
    """Rows of (milliseconds after T0, bids, asks); the exchange stamped them 3 ms before receipt."""
    books = Books.empty(len(rows))
    for k, (ms, bids, asks) in enumerate(rows):
        books.recv_ns[k] = T0 + ms * MILLISECOND_NS
        books.exch_ns[k] = books.recv_ns[k] - 3 * MILLISECOND_NS
        for px, qty, levels in ((books.bid_px, books.bid_qty, bids), (books.ask_px, books.ask_qty, asks)):
            for j, (price, size) in enumerate(levels):
                px[k, j], qty[k, j] = price, size
    return books


def make_trades(rows: list[tuple[int, int, int, int]]) -> Trades:
    """Rows of (milliseconds after T0, price, lots, aggressor)."""
    trades = Trades.empty(len(rows))
    for k, (ms, px, qty, side) in enumerate(rows):
        trades.recv_ns[k] = T0 + ms * MILLISECOND_NS
        trades.exch_ns[k] = trades.recv_ns[k] - 3 * MILLISECOND_NS
        trades.px[k], trades.qty[k], trades.side[k] = px, qty, side
    return trades


BIDS, ASKS = [(30_000, 5), (29_999, 7)], [(30_002, 3), (30_003, 4)]
SHARE_DAY = InstrumentDay(
    SHARE,
    "2026-01-15",
    make_books(
        [(0, BIDS, ASKS), (1000, BIDS, [(30_002, 6), (30_003, 4)]), (9000, [(29_990, 1)], [(29_991, 1)])]
    ),
    make_trades([(1000, 30_002, 1, 1), (2000, 30_000, 6, -1), (3000, 30_000, 2, -1)]),
)
FUTURE_DAY = InstrumentDay(
    FUTURE,
    "2026-01-15",
    make_books([(0, [(9_999, 50)], [(10_001, 50)]), (4000, [(10_003, 50)], [(10_004, 50)])]),
    Trades.empty(),
)
MARKET = PaperMarket((SHARE_DAY, FUTURE_DAY))


class Client:
    """A plain grpc.aio client of the endpoint."""

    def __init__(self, endpoint: Endpoint, token: str | None = None) -> None:
        self.account_id = endpoint.account_id
        credentials = grpc.ssl_channel_credentials(Path(endpoint.ca_path).read_bytes())
        self.channel = grpc.aio.secure_channel(endpoint.target, credentials)
        self.metadata = (("authorization", f"Bearer {endpoint.token if token is None else token}"),)

    async def call(self, key: str, request: Any) -> Any:
        return await stub(self.channel, key)(request, metadata=self.metadata, timeout=20)

    def stream(self, key: str, *request: Any) -> Any:
        return stub(self.channel, key)(*request, metadata=self.metadata)

    async def order(self, **fields: Any) -> pb.PostOrderResponse:
        """Market buy of one lot of the share unless ``fields`` say otherwise."""
        defaults = {
            "account_id": self.account_id, "instrument_id": SHARE.uid, "quantity": 1,
            "order_id": str(uuid.uuid4()),
            "direction": pb.ORDER_DIRECTION_BUY, "order_type": pb.ORDER_TYPE_MARKET,
        }  # fmt: skip
        return await self.call("OrdersService/PostOrder", pb.PostOrderRequest(**(defaults | fields)))

    async def state(self, order_id: str, id_type: int = pb.ORDER_ID_TYPE_EXCHANGE) -> pb.OrderState:
        request = pb.GetOrderStateRequest(
            account_id=self.account_id, order_id=order_id, order_id_type=id_type
        )
        return await self.call("OrdersService/GetOrderState", request)

    async def positions(self) -> pb.PositionsResponse:
        return await self.call(
            "OperationsService/GetPositions", pb.PositionsRequest(account_id=self.account_id)
        )


Scenario = Callable[[PaperServer, Client], Awaitable[None]]


@asynccontextmanager
async def exchange(folder: Path, **options: Any) -> AsyncIterator[tuple[PaperServer, Client]]:
    settings = {"speed": 0, "entry_latency_ms": 0} | options
    server = PaperServer(settings.pop("market", MARKET), endpoint_path=folder / "endpoint.json", **settings)
    client = Client(await server.start())
    try:
        yield server, client
    finally:
        await client.channel.close()
        await server.stop()


def run(folder: Path, scenario: Scenario, **options: Any) -> None:
    async def body() -> None:
        async with exchange(folder, **options) as (server, client):
            await scenario(server, client)

    asyncio.run(asyncio.wait_for(body(), 60))


async def refused(code: str, status: grpc.StatusCode, call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert (caught.value.details(), caught.value.code()) == (code, status)
    return caught.value


def limit(price_nano: int, **fields: Any) -> dict[str, Any]:
    return {"order_type": pb.ORDER_TYPE_LIMIT, "price": quotation(price_nano)} | fields


STREAM = "MarketDataStreamService/MarketDataStream"
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
INVALID = grpc.StatusCode.INVALID_ARGUMENT
MISSING = grpc.StatusCode.NOT_FOUND
SUBSCRIBE = pb.SUBSCRIPTION_ACTION_SUBSCRIBE


def subscribe_books(depth: int, *ids: str, action: int = SUBSCRIBE) -> pb.MarketDataRequest:
    instruments = [pb.OrderBookInstrument(figi="", depth=depth, instrument_id=name) for name in ids]
    return pb.MarketDataRequest(
        subscribe_order_book_request=pb.SubscribeOrderBookRequest(
            subscription_action=action, instruments=instruments
        )
    )


def subscribe_trades(*ids: str) -> pb.MarketDataRequest:
    return pb.MarketDataRequest(
        subscribe_trades_request=pb.SubscribeTradesRequest(
            subscription_action=SUBSCRIBE,
            instruments=[pb.TradeInstrument(instrument_id=name) for name in ids],
        )
    )

"""What the steps of ``sdk_interop.py`` share, and those that only look: account, instruments, market data."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

QUIET_S = 0.02
CANCELLED = "the SDK cancelled its own stream: tinkoff.invest cannot subscribe on protobuf 6 and later"


class StepFailed(Exception):
    """What the step saw instead of what it must see."""


@dataclass
class Run:
    """What the steps share: the SDK (``sdk``: its schemas), the open client, what earlier steps found."""

    package: Any
    sdk: Any
    errors: Any
    endpoint: dict[str, Any]
    client: Any = None
    account_id: str = ""
    share: Any = None
    future: Any = None
    market: list[Any] = field(default_factory=list)
    states: list[Any] = field(default_factory=list)
    fills: list[Any] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    bought: Any = None
    bought_key: str = ""
    resting: Any = None
    resting_key: str = ""
    market_now: datetime | None = None

    def listen(self, stream: Any, into: list[Any]) -> None:
        async def body() -> None:
            async for message in stream:
                into.append(message)

        self.tasks.append(asyncio.create_task(body()))

    async def first(self, source: list[Any], wanted: Callable[[Any], Any]) -> Any:
        """The first message, already here or still to come, of which ``wanted`` is true."""
        seen = 0
        while True:
            for message in source[seen:]:
                seen += 1
                if wanted(message):
                    return message
            for task in self.tasks:
                if task.cancelled():
                    raise StepFailed(CANCELLED)
                if task.done() and (error := task.exception()) is not None:
                    raise error
            await asyncio.sleep(QUIET_S)

    def price(self, ticks: int) -> Any:
        """A price ``ticks`` steps away from the last book's best bid."""
        step = self.share.min_price_increment
        book = next(m.orderbook for m in reversed(self.market) if m.orderbook and self._is_share(m.orderbook))
        nano = (
            book.bids[0].price.units * 10**9
            + book.bids[0].price.nano
            + ticks * (step.units * 10**9 + step.nano)
        )
        return self.sdk.Quotation(units=nano // 10**9, nano=nano % 10**9)

    def _is_share(self, message: Any) -> bool:
        return message.instrument_uid == self.share.uid

    async def refused(self, call: Awaitable[Any], code: str) -> str:
        """The call must fail with the API's five digits, and the SDK must find its metadata."""
        try:
            await call
        except self.errors.AioRequestError as error:
            must(error.details == code, f"details {error.details!r} instead of {code}")
            must(error.metadata is not None, "no metadata reached the SDK")
            must(error.metadata.tracking_id, "no x-tracking-id")
            must(error.metadata.message, "no message text")
            return f"{error.code.name} {code} {error.metadata.message!r}"
        raise StepFailed(f"it was accepted instead of refused with {code}")


Step = Callable[[Run], Awaitable[str]]
STEPS: list[tuple[str, str, bool, Step]] = []


def step(name: str, calls: str, *, needed: bool = True) -> Callable[[Step], Step]:
    def add(body: Step) -> Step:
        STEPS.append((name, calls, needed, body))
        return body

    return add


def must(condition: object, otherwise: str) -> None:
    if not condition:
        raise StepFailed(otherwise)


def plain(value: Any) -> str:
    """A positive Quotation or MoneyValue for people."""
    return f"{value.units}.{value.nano:09d}".rstrip("0").rstrip(".")


# ---- the account and its instruments ----


@step("accounts", "users.get_accounts")
async def accounts(run: Run) -> str:
    reply = await run.client.users.get_accounts()
    ids = [account.id for account in reply.accounts]
    must(run.endpoint["account_id"] in ids, f"accounts {ids}, the endpoint file says another")
    run.account_id = run.endpoint["account_id"]
    level = next(a.access_level for a in reply.accounts if a.id == run.account_id)
    return f"{run.account_id}, {level.name}"


@step("user", "users.get_info, get_user_tariff", needed=False)
async def user(run: Run) -> str:
    info, limits = await run.client.users.get_info(), await run.client.users.get_user_tariff()
    return f"tariff {info.tariff}, {len(limits.unary_limits)} groups of limits"


@step("shares and futures", "instruments.shares, futures, share_by, future_by, get_instrument_by")
async def instruments(run: Run) -> str:
    by = run.sdk.InstrumentIdType
    shares = (await run.client.instruments.shares()).instruments
    futures = (await run.client.instruments.futures()).instruments
    must(shares, "the recording has no share: this script trades one")
    run.share, run.future = shares[0], futures[0] if futures else None
    same = await run.client.instruments.share_by(
        id_type=by.INSTRUMENT_ID_TYPE_TICKER, class_code=run.share.class_code, id=run.share.ticker
    )
    must(same.instrument.uid == run.share.uid, "share_by found another one")
    if run.future is not None:
        other = await run.client.instruments.future_by(id_type=by.INSTRUMENT_ID_TYPE_UID, id=run.future.uid)
        must(other.instrument.ticker == run.future.ticker, "future_by found another one")
    any_kind = await run.client.instruments.get_instrument_by(
        id_type=by.INSTRUMENT_ID_TYPE_FIGI, id=run.share.figi
    )
    must(any_kind.instrument.uid == run.share.uid, "get_instrument_by found another one")
    return f"{len(shares)} shares, {len(futures)} futures; {run.share.ticker} lot {run.share.lot}"


@step("search, schedule", "instruments.find_instrument, trading_schedules")
async def search(run: Run) -> str:
    found = (await run.client.instruments.find_instrument(query=run.share.ticker)).instruments
    must(any(i.uid == run.share.uid for i in found), "find_instrument does not find it")
    days = (await run.client.instruments.trading_schedules(exchange="")).exchanges
    must(days, "no exchange in the schedule")
    return f"{len(found)} found, {len(days)} exchanges"


# ---- market data ----


@step("stream: subscribe", "market_data_stream.market_data_stream")
async def subscribe(run: Run) -> str:
    sdk, ids = run.sdk, [run.share.uid]
    action = sdk.SubscriptionAction.SUBSCRIPTION_ACTION_SUBSCRIBE
    requests = [
        sdk.MarketDataRequest(
            subscribe_order_book_request=sdk.SubscribeOrderBookRequest(
                subscription_action=action,
                instruments=[sdk.OrderBookInstrument(instrument_id=i, depth=10) for i in ids],
            )
        ),
        sdk.MarketDataRequest(
            subscribe_trades_request=sdk.SubscribeTradesRequest(
                subscription_action=action, instruments=[sdk.TradeInstrument(instrument_id=i) for i in ids]
            )
        ),
        sdk.MarketDataRequest(
            subscribe_info_request=sdk.SubscribeInfoRequest(
                subscription_action=action, instruments=[sdk.InfoInstrument(instrument_id=i) for i in ids]
            )
        ),
        sdk.MarketDataRequest(get_my_subscriptions=sdk.GetMySubscriptions()),
    ]

    async def asked() -> Any:
        for request in requests:
            yield request
        await asyncio.Event().wait()

    run.listen(run.client.market_data_stream.market_data_stream(asked()), run.market)
    books = await run.first(run.market, lambda m: m.subscribe_order_book_response)
    trades = await run.first(run.market, lambda m: m.subscribe_trades_response)
    infos = await run.first(run.market, lambda m: m.subscribe_info_response)
    statuses = [
        *(s.subscription_status for s in books.subscribe_order_book_response.order_book_subscriptions),
        *(s.subscription_status for s in trades.subscribe_trades_response.trade_subscriptions),
        *(s.subscription_status for s in infos.subscribe_info_response.info_subscriptions),
    ]
    success = sdk.SubscriptionStatus.SUBSCRIPTION_STATUS_SUCCESS
    must(statuses == [success] * 3, f"statuses {[s.name for s in statuses]}")
    ping = await run.first(run.market, lambda m: m.ping)
    run.market_now = ping.ping.time
    return f"3 confirmed, first ping {ping.ping.time:%Y-%m-%d %H:%M:%S}"


@step("stream: books", "market_data_stream (order books)")
async def books(run: Run) -> str:
    book = (await run.first(run.market, lambda m: m.orderbook)).orderbook
    value = [(q.price.units * 10**9 + q.price.nano) for q in (*reversed(book.bids), *book.asks)]
    must(value == sorted(value) and len(set(value)) == len(value), "the levels are not in order")
    must(all(level.quantity > 0 for level in (*book.bids, *book.asks)), "a level of no lots")
    must(book.instrument_uid == run.share.uid, "a book of another instrument")
    return f"{len(book.bids)} x {len(book.asks)} levels, depth {book.depth}"


@step("stream: trades", "market_data_stream (trades)")
async def trades(run: Run) -> str:
    trade = (await run.first(run.market, lambda m: m.trade)).trade
    must(trade.quantity > 0 and trade.price.units >= 0, f"quantity {trade.quantity}")
    run.market_now = trade.time
    return f"{trade.direction.name.removeprefix('TRADE_DIRECTION_')} {trade.quantity} at {plain(trade.price)}"


@step("stream: manager", "create_market_data_stream().order_book.subscribe")
async def manager(run: Run) -> str:
    stream = run.client.create_market_data_stream()
    stream.order_book.subscribe([run.sdk.OrderBookInstrument(instrument_id=run.share.figi, depth=1)])
    count = 0
    async for message in stream:
        count += 1
        if message.orderbook:
            must(len(message.orderbook.bids) <= 1, "more levels than the depth that was asked for")
            break
    stream.stop()
    return f"a book of depth 1 as message {count}"


@step("market data", "market_data.get_order_book, get_last_prices, get_trading_status, get_last_trades")
async def market_data(run: Run) -> str:
    uid = run.share.uid
    book = await run.client.market_data.get_order_book(instrument_id=uid, depth=20)
    must(book.bids and book.asks, "an empty side")
    prices = (await run.client.market_data.get_last_prices(instrument_id=[uid])).last_prices
    must(len(prices) == 1, f"{len(prices)} last prices")
    status = await run.client.market_data.get_trading_status(instrument_id=uid)
    must(status.api_trade_available_flag, "not available through the API")
    now = run.market_now or datetime.now(timezone.utc)  # noqa: UP017 (Python 3.8 has no datetime.UTC)
    last = await run.client.market_data.get_last_trades(
        instrument_id=uid, from_=now - timedelta(hours=1), to=now + timedelta(hours=1)
    )
    must(last.trades, "no last trades though the stream gave one")
    name = status.trading_status.name.removeprefix("SECURITY_TRADING_STATUS_")
    return f"{len(book.bids)} x {len(book.asks)} levels, {name}"


@step("candles", "market_data.get_candles", needed=False)
async def candles(run: Run) -> str:
    now = run.market_now or datetime.now(timezone.utc)  # noqa: UP017
    reply = await run.client.market_data.get_candles(
        instrument_id=run.share.uid, from_=now - timedelta(minutes=30), to=now + timedelta(minutes=30),
        interval=run.sdk.CandleInterval.CANDLE_INTERVAL_1_MIN,
    )  # fmt: skip
    return f"{len(reply.candles)} candles of a minute"

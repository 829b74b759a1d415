"""The paper exchange: the Invest API over TLS on loopback, served from a recording."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from market.contract.methods import METHODS, rpc_handlers
from market.errors import BrokerError, ConfigError
from market.latency import Latency
from market.matching import FillModel, QueueModel
from market.paper.access import Tokens
from market.paper.account import Account
from market.paper.calendar import Calendar
from market.paper.calls import Guard
from market.paper.clock import MarketClock
from market.paper.control import Control, check_wire
from market.paper.endpoint import Endpoint
from market.paper.exchange import Exchange
from market.paper.faults import Fault, FaultPlan, Faults
from market.paper.limits import EMPTY_STREAM_S, RateLimits
from market.paper.listing import Listing, find_listing
from market.paper.order_hub import OrderHub
from market.paper.outbox import Outbox
from market.paper.replayer import Replayer
from market.paper.schedule import Phase, Schedule
from market.paper.streaming import MarketStreams
from market.paper.streaming_orders import OrderStreams
from market.paper.streams import MarketHub
from market.paper.tape import PaperMarket, Tape
from market.paper.tls import ensure_certificate
from market.paper.transport import Transport
from market.paper.unary import UnaryServices
from market.recording import Recording
from market.types import MILLISECOND_NS, NANO

LOOPBACK = ("localhost", "127.0.0.1")
ACCOUNT_ID = "2000000001"
STATS_FILE = "paper-stats.json"
STOP_GRACE_S = 0.5


class PaperServer:
    """One paper exchange on one recording, for one account.

    ``recording``: a Recording (``tickers`` choose from it) or a PaperMarket in memory. ``speed`` is market
    seconds per wall second; 0 makes the clock move only by ``play_until``. ``from_ns``/``to_ns`` (market
    time, [from, to)) choose the span. ``entry_latency_ms``: market time between a request's arrival and its
    effect on the exchange. ``conflate_ms``: at most one book per subscription in so many market milliseconds,
    0 = every book. ``enforce_limits``: refuse what goes beyond the broker's limits. ``faults``: what to do
    wrong from the start; ``wire_faults``: a relay in front of the port, without which half_open cannot be.
    ``margin_confirmation``: uncovered positions need confirm_margin_trade. ``fills``, ``queue``: as
    in Matching. ``calendar``: on which of the days that were not recorded there is trading.
    """

    def __init__(
        self,
        recording: Recording | PaperMarket,
        *,
        endpoint_path: Path,
        speed: float = 1.0,
        tickers: Sequence[str] = (),
        from_ns: int | None = None,
        to_ns: int | None = None,
        host: str = "localhost",
        port: int = 0,
        cash_rub: int = 1_000_000,
        entry_latency_ms: int = 20,
        conflate_ms: int = 0,
        enforce_limits: bool = False,
        empty_stream_s: float = EMPTY_STREAM_S,
        faults: FaultPlan | None = None,
        wire_faults: bool = False,
        margin_confirmation: bool = False,
        fills: FillModel = "queue",
        queue: QueueModel = "risk_averse",
        calendar: Calendar | None = None,
    ) -> None:
        if host not in LOOPBACK:
            raise ConfigError(
                f"host {host!r}: the paper exchange serves the loopback only; use {' or '.join(LOOPBACK)}"
            )
        if speed < 0:
            raise ConfigError(f"speed {speed} is negative; market time runs forwards only")
        plan = faults if faults is not None else FaultPlan()
        check_wire(list(plan.faults), wire_faults=wire_faults)
        if isinstance(recording, PaperMarket):
            self.market = recording
        else:
            self.market = PaperMarket.read(recording, tickers)
        self.tape = Tape.build(self.market, from_ns, to_ns)
        self.clock = MarketClock(self.tape.start_ns, speed)
        self.exchange = Exchange(
            zip(self.tape.instruments, self.tape.books, self.tape.trades, strict=True),
            self.market.tariff,
            Account(ACCOUNT_ID, cash_rub * NANO, opened_ns=self.tape.start_ns),
            fills=fills,
            queue=queue,
        )
        for listing in self.exchange.listings:
            listing.margin_confirmation = margin_confirmation
        self._hub = MarketHub(self.exchange, conflate_ms, self._schedule, self.clock.now_ns)
        self._order_hub = OrderHub(self.exchange)
        self.exchange.on_order = self._order_hub.on_order
        self.exchange.on_account = self._order_hub.on_account
        self.exchange.schedule = self._schedule
        self.exchange.latency = Latency(entry_ns=entry_latency_ms * MILLISECOND_NS)
        self.replayer = Replayer(self.tape, self.clock, self.exchange, self._hub)
        self.calendar = Schedule.of(
            zip(self.tape.instruments, self.tape.books, self.tape.trades, strict=True), calendar
        )
        self._plan_sessions()
        self._endpoint_path = endpoint_path
        self._host, self._port = host, port
        self._cash_nano = cash_rub * NANO
        self.faults = Faults(plan)
        self.exchange.faults = self.faults
        self._limits = RateLimits(enforced=enforce_limits, speed=speed)
        self._empty_stream_s = empty_stream_s
        self.tokens = Tokens()
        self._token, self._read_only = self.tokens.issue(), self.tokens.issue("read_only")
        self._guard = Guard(self.tokens, self._limits, self.faults, self._names_of)
        self._control = Control(self.faults, wire_faults=wire_faults)
        self._transport = Transport(self._handlers, self.faults, host=host, wire_faults=wire_faults)
        self._player: asyncio.Task[None] | None = None
        self._endpoint: Endpoint | None = None

    @property
    def endpoint(self) -> Endpoint:
        """How to reach it; only while it is started."""
        if self._endpoint is None:
            raise BrokerError("the paper exchange is not started; call start() first")
        return self._endpoint

    async def start(self) -> Endpoint:
        """Binds the port, writes the endpoint file and serves. BrokerError names a port that is taken.

        After ``stop`` it may be started again: the market has gone on meanwhile, orders and positions remain.
        """
        folder = self._endpoint_path.parent
        certificate = ensure_certificate(folder)
        self._unary = UnaryServices(self.exchange, self.clock, self.calendar, self._limits.tariff)
        port = await self._transport.start(certificate, self._port)
        self._player = asyncio.create_task(self.replayer.run())
        self._endpoint = Endpoint(
            target=f"{self._host}:{port}", ca_path=str(certificate.cert_path.resolve()),
            token=self._token.value,
            account_id=ACCOUNT_ID, speed=self.clock.speed, market_start_ns=self.tape.start_ns,
            market_end_ns=self.tape.end_ns, tariff=self.market.tariff, watermark=self.market.watermark,
            pid=os.getpid(), read_only_token=self._read_only.value,
        )  # fmt: skip
        self._endpoint.write(self._endpoint_path)
        return self._endpoint

    async def run_until(self, stop: asyncio.Event) -> None:
        """Serves until ``stop`` is set; a failure of the exchange itself ends it with that error."""
        if self._player is None:
            raise BrokerError("the paper exchange is not started; call start() first")
        waiting = asyncio.create_task(stop.wait())
        working = (self._player, self._transport.watching)
        await asyncio.wait({waiting, *working}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        for task in working:
            if task.done():
                task.result()

    async def stop(self) -> None:
        """Ends every call, removes the endpoint file and leaves the statistics beside it. May be called
        twice.
        """
        if self._player is None:
            return
        if self._endpoint_path.is_file() and Endpoint.read(self._endpoint_path) == self._endpoint:
            self._endpoint_path.unlink()
        self._unary.abandon()
        for outbox in self._outboxes():
            outbox.finish()
        await self._transport.stop(STOP_GRACE_S)
        self._player.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._player
        self._player = None
        temporary = self._endpoint_path.with_name(STATS_FILE + ".tmp")
        temporary.write_text(json.dumps(self.stats(), indent=2) + "\n", "utf-8")
        temporary.replace(self._endpoint_path.with_name(STATS_FILE))

    # ------------------------------------------------------------------ for those who hold it in hand

    async def play_until(self, market_ns: int) -> None:
        """Moves a clock of speed 0 and returns when everything up to ``market_ns`` has happened."""
        self.clock.start()
        self.clock.advance_to(market_ns)
        self.replayer.wake()
        await self.replayer.caught_up()

    def cut_streams(self) -> None:
        """Breaks every open stream off with UNAVAILABLE, as the broker does now and then."""
        for outbox in self._outboxes():
            outbox.cut("the exchange restarts its streams")

    def lose_reply(self, key: str, times: int = 1) -> None:
        """The next calls of "Service/Method" are carried out, but answered with 70002: outcome unknown."""
        self.faults.add(Fault("lost_reply_70002", method=METHODS[key].key, count=times))

    def stats(self) -> dict[str, Any]:
        """What happened so far; whole numbers, money in nano-roubles, JSON-able."""
        orders = self.exchange.orders
        marks = self.exchange.marks()
        equity = self.exchange.account.equity_nano(marks)
        return {
            "restarts": self._transport.restarts,
            "faults_struck": self.faults.struck(),
            "events_played": self.replayer.played,
            "events_total": len(self.tape),
            "market_reached_ns": self.replayer.reached_ns,
            "worst_lag_market_ms": self.replayer.worst_lag_ns // MILLISECOND_NS,
            "books_sent": self._hub.books_sent,
            "books_conflated": self._hub.conflated(),
            "trades_sent": self._hub.trades_sent,
            "candles_sent": self._hub.candles_sent,
            "orders": len(orders),
            "fills": sum(len(order.executions) for order in orders),
            "fees_nano": self.exchange.account.fees_nano,
            "cash_nano": self.exchange.account.cash_nano,
            "equity_nano": equity,
            "result_nano": equity - self._cash_nano,
            "positions_lots": {t: h.lots for t, h in self.exchange.account.holdings.items() if h.lots},
        }

    # ------------------------------------------------------------------ inside

    def _schedule(self, due_ns: int, action: Callable[[int], None]) -> None:
        # A clock that stands still would never bring the moment: then nothing takes time.
        self.replayer.schedule(due_ns if self.clock.running else self.clock.now_ns(), action)

    def _plan_sessions(self) -> None:
        """Lets every instrument begin in its phase of the session and change it when the time comes."""
        for listing in self.exchange.listings:
            kind = listing.instrument.kind
            listing.phase = self.calendar.phase(kind, self.tape.start_ns)
            for change in self.calendar.changes(kind, self.tape.start_ns, self.tape.end_ns):
                self.replayer.schedule(change.at_ns, partial(self._enter, listing, change.phase))

    def _enter(self, listing: Listing, phase: Phase, now_ns: int) -> None:
        self.exchange.enter(listing, phase, now_ns)
        self._hub.on_phase(listing, now_ns)

    def _outboxes(self) -> list[Outbox]:
        return self._hub.outboxes() + self._order_hub.outboxes()

    def _handlers(self) -> list[grpc.GenericRpcHandler]:
        market = MarketStreams(
            self.exchange, self._hub, self.replayer, self.clock, self._limits, self._empty_stream_s
        )
        orders = OrderStreams(self.exchange, self._order_hub, self.clock)
        streams = market.behaviours() | orders.behaviours()
        behaviours = {key: self._guard.unary(key, b) for key, b in self._unary.behaviours().items()}
        behaviours |= {key: self._guard.stream(key, b) for key, b in streams.items()}
        return [*rpc_handlers(behaviours), self._control.handler(self._guard), self._guard.unknown()]

    def _names_of(self, request: Any) -> tuple[str, ...]:
        """Ticker, FIGI and uid of the instrument that a request names, empty where it names none."""
        given = getattr(request, "instrument_id", "") or getattr(request, "figi", "")
        found = find_listing(self.exchange.listings, given) if isinstance(given, str) else None
        return found[1].names if found else ()

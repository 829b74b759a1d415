"""The paper exchange: the Invest API over TLS on loopback, served from a recording."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from market.contract.methods import MAX_MESSAGE_BYTES, METHODS, rpc_handlers
from market.errors import BrokerError, ConfigError
from market.paper.account import Account
from market.paper.calls import Guard
from market.paper.clock import MarketClock
from market.paper.endpoint import Endpoint
from market.paper.exchange import Exchange
from market.paper.replayer import Replayer
from market.paper.streaming import StreamServices
from market.paper.streams import Hub
from market.paper.tape import PaperMarket, Tape
from market.paper.tls import ensure_certificate
from market.paper.unary import UnaryServices
from market.recording import Recording
from market.types import MILLISECOND_NS, NANO

LOOPBACK = ("localhost", "127.0.0.1")
BIND_TO = "127.0.0.1"
ACCOUNT_ID = "2000000001"
STATS_FILE = "paper-stats.json"
STOP_GRACE_S = 0.5

_SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Clients that ping every second on an idle connection are welcome; the library's default kicks them out.
    ("grpc.http2.min_ping_interval_without_data_ms", 500),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    # Without this a second exchange on the same port would start and quietly take half of the calls.
    ("grpc.so_reuseport", 0),
)


class PaperServer:
    """One paper exchange on one recording, for one account.

    ``recording``: a Recording (``tickers`` choose from it) or a PaperMarket in memory. ``speed`` is market
    seconds per wall second; 0 makes the clock move only by ``play_until``. ``from_ns``/``to_ns`` (market
    time, [from, to)) choose the span. ``entry_latency_ms``: market time between a request's arrival and its
    effect on the exchange. ``conflate_ms``: at most one book per subscription in so many market milliseconds,
    0 = every book.
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
    ) -> None:
        if host not in LOOPBACK:
            raise ConfigError(
                f"host {host!r}: the paper exchange serves the loopback only; use {' or '.join(LOOPBACK)}"
            )
        if speed < 0:
            raise ConfigError(f"speed {speed} is negative; market time runs forwards only")
        if isinstance(recording, PaperMarket):
            self.market = recording
        else:
            self.market = PaperMarket.read(recording, tickers)
        self.tape = Tape.build(self.market, from_ns, to_ns)
        self.clock = MarketClock(self.tape.start_ns, speed)
        self.exchange = Exchange(
            zip(self.tape.instruments, self.tape.books, self.tape.trades, strict=True),
            self.market.tariff,
            Account(ACCOUNT_ID, cash_rub * NANO),
        )
        self._hub = Hub(self.exchange, self.clock, conflate_ms)
        self.exchange.on_order = self._hub.on_order
        self.replayer = Replayer(self.tape, self.clock, self.exchange, self._hub)
        self._hub.replayer = self.replayer
        self._endpoint_path = endpoint_path
        self._host, self._port = host, port
        self._entry_latency_ns = entry_latency_ms * MILLISECOND_NS
        self._cash_nano = cash_rub * NANO
        self._guard = Guard(secrets.token_urlsafe(32), enforce_limits=enforce_limits)
        self._server: Any = None
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
        self._unary = UnaryServices(
            self.exchange,
            self.replayer,
            self.clock,
            self._entry_latency_ns,
            (self.tape.start_ns, self.tape.end_ns),
        )
        self._server = grpc.aio.server(options=_SERVER_OPTIONS)
        self._server.add_generic_rpc_handlers(self._handlers())
        credentials = grpc.ssl_server_credentials([(certificate.key_pem, certificate.cert_pem)])
        port = self._bind(credentials)
        await self._server.start()
        self._player = asyncio.create_task(self.replayer.run())
        self._endpoint = Endpoint(
            target=f"{self._host}:{port}", ca_path=str(certificate.cert_path.resolve()),
            token=self._guard.token,
            account_id=ACCOUNT_ID, speed=self.clock.speed, market_start_ns=self.tape.start_ns,
            market_end_ns=self.tape.end_ns, tariff=self.market.tariff, watermark=self.market.watermark,
            pid=os.getpid(),
        )  # fmt: skip
        self._endpoint.write(self._endpoint_path)
        return self._endpoint

    async def run_until(self, stop: asyncio.Event) -> None:
        """Serves until ``stop`` is set; a failure of the exchange itself ends it with that error."""
        if self._player is None:
            raise BrokerError("the paper exchange is not started; call start() first")
        waiting = asyncio.create_task(stop.wait())
        await asyncio.wait({waiting, self._player}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._player.done():
            self._player.result()

    async def stop(self) -> None:
        """Ends every call, removes the endpoint file and leaves the statistics beside it. May be called
        twice.
        """
        if self._server is None:
            return
        if self._endpoint_path.is_file() and Endpoint.read(self._endpoint_path) == self._endpoint:
            self._endpoint_path.unlink()
        self._unary.abandon()
        self._hub.finish_all()
        await self._server.stop(STOP_GRACE_S)
        self._server = None
        if self._player is not None:
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
        self._hub.cut_all()

    def lose_reply(self, key: str, times: int = 1) -> None:
        """The next calls of "Service/Method" are carried out, but answered with 70002: outcome unknown."""
        self._guard.lost_replies[METHODS[key].key] += times

    def stats(self) -> dict[str, Any]:
        """What happened so far; whole numbers, money in nano-roubles, JSON-able."""
        orders = self.exchange.orders
        marks = self.exchange.marks()
        equity = self.exchange.account.equity_nano(marks)
        return {
            "events_played": self.replayer.played,
            "events_total": len(self.tape),
            "market_reached_ns": self.replayer.reached_ns,
            "worst_lag_market_ms": self.replayer.worst_lag_ns // MILLISECOND_NS,
            "books_sent": self._hub.books_sent,
            "books_conflated": self._hub.conflated(),
            "trades_sent": self._hub.trades_sent,
            "orders": len(orders),
            "fills": sum(len(order.executions) for order in orders),
            "fees_nano": self.exchange.account.fees_nano,
            "cash_nano": self.exchange.account.cash_nano,
            "equity_nano": equity,
            "result_nano": equity - self._cash_nano,
            "positions_lots": {t: h.lots for t, h in self.exchange.account.holdings.items() if h.lots},
        }

    # ------------------------------------------------------------------ inside

    def _handlers(self) -> list[grpc.GenericRpcHandler]:
        streams = StreamServices(self.exchange, self._hub, self.replayer, self.clock)
        behaviours = {key: self._guard.unary(key, b) for key, b in self._unary.behaviours().items()}
        behaviours |= {key: self._guard.stream(b) for key, b in streams.behaviours().items()}
        return [*rpc_handlers(behaviours), self._guard.unknown()]

    def _bind(self, credentials: grpc.ServerCredentials) -> int:
        # The certificate and the promise are for IPv4's loopback; "localhost" may also mean ::1.
        try:
            # Asked by hand first: the library would print its own complaint before ours.
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((BIND_TO, self._port))
            return self._server.add_secure_port(f"{BIND_TO}:{self._port}", credentials)
        except (OSError, OverflowError, RuntimeError) as error:
            raise BrokerError(
                f"port {self._port} on {self._host} cannot be used ({error}): something may listen there "
                "already; choose another with --port, or --port 0 for any free one"
            ) from error

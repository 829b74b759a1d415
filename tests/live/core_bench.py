"""A small bench to put the engine through its paces: one or two instruments, a patient broker, hand-made
books.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from live.core import commands as cmd
from live.core import events as ev
from live.core.config import EngineConfig, ModelParams, MonitoringConfig, RiskConfig, SessionConfig
from live.core.engine import Engine
from market.types import NANO, SECOND_NS, Instrument

KEY = "12345678-1234-5678-1234-567812345678"
MINUTE_NS = 60 * SECOND_NS
START_NS = 1_768_460_400 * SECOND_NS  # Thursday 2026-01-15 10:00:00 in Moscow
HORIZON_NS = 10 * SECOND_NS
MID = 30_000


def instrument(ticker: str = "AAA", tick_value_nano: int = NANO // 10) -> Instrument:
    return Instrument(
        f"uid-{ticker}", ticker, "TQBR", f"FIGI{ticker}", "share", 10, NANO // 100, tick_value_nano
    )


def config(**changes: Any) -> EngineConfig:
    """Session always open, no heartbeat unless asked for; sections by keyword."""
    base = EngineConfig(
        session=SessionConfig(enabled=False), monitoring=MonitoringConfig(heartbeat_enabled=False),
        risk=RiskConfig(atr_min_bars=1),
    )  # fmt: skip
    return replace(base, **changes)


def model(tickers: tuple[str, ...] = ("AAA", "BBB"), **changes: Any) -> ModelParams:
    base = ModelParams(
        manifest_sha256="m1", horizon_ns=HORIZON_NS, valid_until_ns=START_NS + 10**18,
        fee_ppm=dict.fromkeys(tickers, 50), threshold_millibps=dict.fromkeys(tickers, 0),
    )  # fmt: skip
    return replace(base, **changes)


@dataclass
class Bench:
    """An engine with its commands collected. ``tell`` hands over one event ``after_ns`` later."""

    engine: Engine
    now_ns: int = START_NS
    log: list[cmd.Command] = field(default_factory=list)
    trades: int = 0

    @classmethod
    def make(
        cls,
        settings: EngineConfig | None = None,
        params: ModelParams | None = None,
        tickers: tuple[str, ...] = ("AAA", "BBB"),
    ) -> Bench:
        instruments = {t: instrument(t) for t in tickers}
        return cls(Engine(settings or config(), instruments, params or model(tickers), KEY))

    @classmethod
    def ready(cls, settings: EngineConfig | None = None, params: ModelParams | None = None) -> Bench:
        """Reconciled, connected, with enough bars to trade."""
        bench = cls.make(settings, params)
        bench.tell(ev.Reconciled, {}, after_ns=0)
        bench.tell(ev.Connection, True)
        bench.warm()
        return bench

    def warm(self) -> None:
        """Books over more than five minutes whose one-minute bars range over four ticks."""
        for step in range(44):
            for ticker in self.engine.instruments:
                self.book(ticker, bid=MID - 1 + (4 if step % 2 else 0), after_ns=0)
            self.now_ns += 8 * SECOND_NS
        for ticker in self.engine.instruments:
            self.book(ticker)

    def tell(
        self, kind: Any, *values: Any, after_ns: int = SECOND_NS // 10, **named: Any
    ) -> list[cmd.Command]:
        self.now_ns += after_ns
        commands = self.engine.on(kind(self.now_ns, *values, **named))
        self.log += commands
        return commands

    def book(
        self, ticker: str = "AAA", *, bid: int = MID - 1, spread: int = 2, lots: int = 100,
        after_ns: int = SECOND_NS // 10, **changes: Any,
    ) -> list[cmd.Command]:  # fmt: skip
        self.now_ns += after_ns
        book = ev.Book(
            self.now_ns, ticker, self.now_ns, (bid, bid - 1, bid - 2), (lots, lots, lots),
            (bid + spread, bid + spread + 1, bid + spread + 2), (lots, lots, lots),
        )  # fmt: skip
        commands = self.engine.on(replace(book, **changes))
        self.log += commands
        return commands

    def score(self, move: int = 50_000, ticker: str = "AAA", **named: Any) -> list[cmd.Command]:
        """A score with an expected move in thousandths of a bp; by default far above any cost."""
        p = (100_000, 200_000, 700_000) if move > 0 else (700_000, 200_000, 100_000)
        return self.tell(ev.Scores, ticker, f"{KEY[:8]}-{ticker}-{len(self.log)}", p, move, **named)

    def orders(self) -> list[cmd.PlaceOrder]:
        return [c for c in self.log if isinstance(c, cmd.PlaceOrder)]

    def update(
        self, order: cmd.PlaceOrder, status: str, executed: int = 0, fills: Any = (), reason: str = ""
    ) -> Any:
        return self.tell(ev.OrderUpdate, order.client_order_id, "x-1", status, executed, tuple(fills), reason)

    def fill(
        self, order: cmd.PlaceOrder, price: int | None = None, lots: int | None = None, fee: int = 0
    ) -> Any:
        """Fill ``order`` (by default whole, at its price or the touch); the rest of a partial fill stays
        open.
        """
        lots = order.lots if lots is None else lots
        self.trades += 1
        at = price if price is not None else (order.price_ticks or MID + order.side)
        status = "FILLED" if lots == order.lots else "PARTIAL"
        return self.update(order, status, lots, [ev.FillInfo(f"t{self.trades}", at, lots, fee)])

    def enter(
        self, move: int = 50_000, ticker: str = "AAA", price: int | None = None, fee: int = 0
    ) -> list[cmd.PlaceOrder]:
        """A signal whose orders all fill."""
        orders = [c for c in self.score(move, ticker) if isinstance(c, cmd.PlaceOrder)]
        for order in orders:
            self.fill(order, price, fee=fee)
        return orders

    def lots(self, ticker: str = "AAA") -> int:
        return self.engine.positions[ticker].lots


def of(commands: list[cmd.Command], kind: type) -> list[Any]:
    return [c for c in commands if isinstance(c, kind)]


def audits(commands: list[cmd.Command]) -> list[str]:
    return [c.event for c in commands if isinstance(c, cmd.Audit)]


def refusals(commands: list[cmd.Command]) -> list[str]:
    return [c.reason for c in commands if isinstance(c, cmd.Refuse)]

"""An engine, the simulated exchange behind it, and a market that is the same every time.

``World`` hands over events in the order of their time, as every driver does. ``trouble`` of ``fixed_session``
breaks things on purpose, at fixed moments.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from core_bench import KEY, SECOND_NS, config, instrument, model, of

from live.core import commands as cmd
from live.core import events as ev
from live.core.config import (
    TIMER_NS,
    EngineConfig,
    ExecutionConfig,
    FallbackConfig,
    ModelParams,
    MonitoringConfig,
    RiskConfig,
    SessionConfig,
)
from live.core.engine import Engine
from live.simbroker import SimBroker
from market.latency import Latency
from market.types import MILLISECOND_NS, NANO, Instrument

EVENING_NS = 1_768_490_760 * SECOND_NS  # Thursday 2026-01-15 18:26:00 in Moscow
MORNING_NS = EVENING_NS + 56_040 * SECOND_NS  # 10:00:00 on Friday
BOOK_NS = SECOND_NS // 2
FEE_PPM = 50
LATENCY = Latency.of_ms(20, response=20, jitter=15, seed=3)
FUTURE = Instrument("uid-FUT", "FUT", "SPBFUT", "FIGIFUT", "future", 1, 10 * NANO, 13 * NANO + 7)
INSTRUMENTS = {"AAA": instrument("AAA"), "FUT": FUTURE}
CONFIG = config(
    session=SessionConfig(enabled=True, utc_offset_s=3 * 3600),
    monitoring=MonitoringConfig(),
    execution=ExecutionConfig(exchange_stop=True),
    risk=RiskConfig(atr_min_bars=1, loss_cooldown_ns=20 * SECOND_NS, max_consecutive_losses=6),
    fallback=FallbackConfig(imbalance_threshold_e6=20_000, volatility_threshold_millibps=10, min_books=5),
)  # fmt: skip


class Dice:
    """Whole numbers that look random and are the same on every machine and every Python (an LCG)."""

    def __init__(self, seed: int) -> None:
        self._state = seed

    def below(self, n: int) -> int:
        self._state = (self._state * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407) % (1 << 64)
        return (self._state >> 33) % n


def market(from_ns: int, seconds: int, seed: int = 1) -> Iterator[ev.Book | ev.Trade]:
    """Two instruments, a book each every half second, a print now and then; the price walks."""
    dice, mids = Dice(seed), {"AAA": 30_000, "FUT": 9_000}
    for step in range(seconds * SECOND_NS // BOOK_NS):
        now_ns = from_ns + step * BOOK_NS
        for ticker in mids:
            if dice.below(3) == 0:
                mids[ticker] += dice.below(7) - 3
            mid = mids[ticker]
            sizes = tuple(tuple(20 + dice.below(180) for _ in range(5)) for _ in range(2))
            bids = tuple(mid - 1 - level for level in range(5))
            asks = tuple(mid + 1 + level for level in range(5))
            if dice.below(4) == 0:
                side = 1 if dice.below(2) else -1
                price = asks[0] if side > 0 else bids[0]
                yield ev.Trade(now_ns, ticker, now_ns, price, 1 + dice.below(30), side)
            yield ev.Book(now_ns, ticker, now_ns - 3 * MILLISECOND_NS, bids, sizes[0], asks, sizes[1])


@dataclass
class World:
    """``told``: every event as the engine saw it; ``log``: every command."""

    settings: EngineConfig = CONFIG
    params: ModelParams = field(default_factory=lambda: model(("AAA", "FUT")))
    session_key: str = KEY
    now_ns: int = EVENING_NS
    log: list[cmd.Command] = field(default_factory=list)
    told: int = 0
    lose_every: int = 0
    """Every so many orders the answer to one is lost: a time-out instead."""
    _placed: int = 0

    def __post_init__(self) -> None:
        self.engine = Engine(self.settings, INSTRUMENTS, self.params, self.session_key)
        self.broker = SimBroker(INSTRUMENTS, dict.fromkeys(INSTRUMENTS, FEE_PPM), LATENCY)
        self._timer_ns = self.now_ns
        self._lost: set[str] = set()
        self._dice = Dice(11)
        self._n = 0

    # ---- time

    def until(self, now_ns: int) -> None:
        """Timers and the broker's news up to ``now_ns``, in order."""
        while True:
            news_ns = self.broker.next_ns()
            due_ns = self._timer_ns if news_ns is None else min(news_ns, self._timer_ns)
            if due_ns > now_ns:
                break
            for update in self.broker.poll(due_ns):
                self._news(update)
            if due_ns == self._timer_ns:
                self._timer_ns += TIMER_NS
                self.tell(ev.Timer(due_ns))
        self.now_ns = now_ns

    def sleep_until(self, now_ns: int) -> None:
        """A night: one timer at its end is enough."""
        self._timer_ns = now_ns
        self.until(now_ns)

    def _news(self, update: ev.OrderUpdate) -> None:
        if update.client_order_id in self._lost:
            self._lost.discard(update.client_order_id)
            update = replace(update, status="UNKNOWN", exchange_order_id="", lots_executed=0, fills=(),
                             reason="DEADLINE_EXCEEDED")  # fmt: skip
        self.tell(update)

    # ---- the market

    def see(self, event: ev.Book | ev.Trade, *, score: bool = True) -> None:
        """The exchange has it, then we have it, then the model answers."""
        self.until(event.now_ns)
        if isinstance(event, ev.Trade):
            self.broker.on_trade(event.ticker, event.price_ticks, event.lots, event.side, event.now_ns)
            self.tell(event)
            return
        self.broker.on_book(
            event.ticker, event.bid_px, event.bid_qty, event.ask_px, event.ask_qty, event.now_ns
        )
        self.tell(event)
        self._n += 1
        if score:
            move = (self._dice.below(21) - 10) * (1_300 if self._n // 60 % 2 else 60)
            p = (150_000, 250_000, 600_000) if move > 0 else (600_000, 250_000, 150_000)
            self.tell(ev.Scores(event.now_ns, event.ticker, f"t-{event.ticker}-{self._n}", p, move))

    def tell(self, event: ev.Event) -> list[cmd.Command]:
        """Hand one event to the engine and carry out what it asks for."""
        self.told += 1
        commands = self.engine.on(event)
        self.log += commands
        reconcile = False
        for command in commands:
            if isinstance(command, cmd.PlaceOrder):
                self._placed += 1
                if self.lose_every and self._placed % self.lose_every == 0:
                    self._lost.add(command.client_order_id)
            if isinstance(command, cmd.PlaceOrder | cmd.CancelOrder | cmd.QueryOrder):
                self.broker.send(command, event.now_ns)
            reconcile = reconcile or isinstance(command, cmd.RequestReconcile)
        if reconcile:
            self.reconcile()
        return commands

    def reconcile(self) -> None:
        self.tell(self.broker.reconciled(self.engine.now_ns))

    @property
    def orders(self) -> list[cmd.PlaceOrder]:
        return of(self.log, cmd.PlaceOrder)


def trouble(world: World, step: int, now_ns: int) -> None:
    """What goes wrong, and when: every kind of event that is not the market."""
    match step:
        case 700:
            world.tell(ev.Connection(now_ns, False, "primary", "RST_STREAM"))
        case 720:
            world.tell(ev.Connection(now_ns, True, "backup"))
        case 1_100:
            world.tell(ev.TradingStatus(now_ns, "FUT", False, "auction"))
        case 1_160:
            world.tell(ev.TradingStatus(now_ns, "FUT", True))
        case 1_400:
            world.tell(ev.Override(now_ns, True, "lunch"))
        case 1_440:
            world.tell(ev.Override(now_ns, False))
        case 1_800:
            world.tell(ev.VolatilityIndex(now_ns, 4_100))
        case 1_840:
            world.tell(ev.Resume(now_ns, ("VOLATILITY",), "calm again"))
        case 2_200:
            world.tell(ev.Drift(now_ns, "psi", 400_000, True))
        case 2_260:
            params = replace(world.params, horizon_ns=5 * SECOND_NS).to_dict()
            world.tell(ev.ModelSwapped(now_ns, "m2", params))
        case 2_600:
            world.tell(ev.ActiveInstruments(now_ns, ("AAA",), "rotation"))
        case 2_700:
            world.tell(ev.ActiveInstruments(now_ns, ("AAA", "FUT"), "rotation"))


def play(world: World, from_ns: int, seconds: int, seed: int) -> None:
    """``seconds`` of the market, with everything that goes wrong in them."""
    for step, event in enumerate(market(from_ns, seconds, seed)):
        world.until(event.now_ns)
        trouble(world, step, event.now_ns)
        if isinstance(event, ev.Book) and step % 499 == 498:  # a crossed one first
            crossed = replace(event, bid_px=event.ask_px, ask_px=event.bid_px)
            world.tell(crossed)
        if isinstance(event, ev.Book) and 3_000 <= step < 3_200:
            world.see(event, score=False)
            failed = ev.InferenceFailed(event.now_ns, event.ticker, f"f-{step}", "the GPU fell off the bus")
            world.tell(failed)
        else:
            world.see(event)


def fixed_session() -> World:
    """A quarter of an hour before the window closes, the night, and four minutes of the next morning."""
    world = World(lose_every=17)
    world.tell(ev.Connection(EVENING_NS, True))
    world.reconcile()
    play(world, EVENING_NS, 15 * 60, seed=1)
    world.sleep_until(MORNING_NS - SECOND_NS)
    play(world, MORNING_NS, 4 * 60, seed=2)
    world.tell(ev.StopRequested(world.engine.now_ns, "the end", True))
    world.until(world.engine.now_ns + 30 * SECOND_NS)
    return world

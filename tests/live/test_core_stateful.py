"""Machines that do anything at any moment, each against a model of its own: orders, holds, accounting,
throttling, rollover.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from fractions import Fraction

from core_bench import KEY, MID, MINUTE_NS, SECOND_NS, START_NS, Bench, config, instrument, model, of
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from live.core import commands as cmd
from live.core import events as ev
from live.core.config import ExecutionConfig, LatencyConfig, RiskConfig
from live.core.engine import Engine
from live.core.positions import Position
from live.core.refusals import Throttle
from live.core.risk import SlidingCount
from market.types import NANO, Instrument

DAY_NS = 24 * 60 * MINUTE_NS
MOSCOW_NS = 3 * 3600 * SECOND_NS


def run(machine: type[RuleBasedStateMachine], examples: int = 25) -> None:
    """The machine for a few seconds."""
    few = settings(max_examples=examples, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(machine, settings=few)  # type: ignore[no-untyped-call]


def restarted(bench: Bench, n: int) -> None:
    """Another process goes on from the checkpoint, through JSON as on disk."""
    snapshot = json.loads(json.dumps(bench.engine.snapshot()))
    old = bench.engine
    key = f"{n:08x}{KEY[8:]}"
    bench.engine = Engine(old.config, old.instruments, old.model, key)
    bench.engine.restore(snapshot, bench.now_ns)


# ---- orders


@dataclass
class TrueOrder:
    """An order as the exchange has it. ``said``: every message that it sent about it, oldest first."""

    order: cmd.PlaceOrder
    status: str = "NEW"
    deals: list[ev.FillInfo] = field(default_factory=list)
    said: list[tuple[str, int, tuple[ev.FillInfo, ...]]] = field(default_factory=list)

    @property
    def executed(self) -> int:
        return sum(deal.lots for deal in self.deals)

    def say(self, *news: ev.FillInfo) -> None:
        self.said.append((self.status, self.executed, news))


class OrdersAtATruthfulExchange(RuleBasedStateMachine):
    """Messages come late, twice, out of order or never, requests time out, the process dies and starts again.
    The exchange never lies: so no order may ever be found in an impossible state, every deal is booked once,
    and when all has been said, our lots are the exchange's.
    """

    @initialize()
    def begin(self) -> None:
        self.bench = Bench.ready(config(execution=ExecutionConfig(exchange_stop=True)))
        self.exchange: dict[str, TrueOrder] = {}
        self.deals = self.starts = 0
        self.listen(self.bench.log)

    def listen(self, commands: list[cmd.Command]) -> None:
        """The exchange takes orders and cancels; our queries are answered when it pleases."""
        for command in commands:
            if isinstance(command, cmd.PlaceOrder):
                true = self.exchange[command.client_order_id] = TrueOrder(command)
                true.say()
            elif isinstance(command, cmd.CancelOrder):
                true = self.exchange[command.client_order_id]
                if true.status in ("NEW", "PARTIAL") and self.deals % 3:  # else the fill wins the race
                    true.status = "CANCELLED"
                    true.say()

    def open(self) -> list[TrueOrder]:
        return [true for true in self.exchange.values() if true.status in ("NEW", "PARTIAL")]

    def deliver(self, true: TrueOrder, n: int) -> None:
        status, executed, news = true.said[n % len(true.said)]
        self.listen(self.bench.update(true.order, status, executed, news))

    @rule(up=st.booleans(), ticker=st.sampled_from(("AAA", "BBB")))
    def a_signal_comes(self, up: bool, ticker: str) -> None:
        self.listen(self.bench.book(ticker))
        self.listen(self.bench.score(50_000 if up else -50_000, ticker))

    @precondition(lambda self: self.open())
    @rule(n=st.integers(0, 99), lots=st.integers(1, 40), off=st.integers(-3, 3))
    def the_exchange_fills(self, n: int, lots: int, off: int) -> None:
        true = self.open()[n % len(self.open())]
        self.deals += 1
        lots = min(lots, true.order.lots - true.executed)
        deal = ev.FillInfo(f"d{self.deals}", MID + off, lots, 10**6)
        true.deals.append(deal)
        true.status = "FILLED" if true.executed == true.order.lots else "PARTIAL"
        true.say(deal)

    @precondition(lambda self: self.open())
    @rule(n=st.integers(0, 99))
    def the_exchange_cancels_or_rejects(self, n: int) -> None:
        true = self.open()[n % len(self.open())]
        true.status = "CANCELLED" if true.executed or n % 2 else "REJECTED"
        true.say()

    @precondition(lambda self: self.exchange)
    @rule(n=st.integers(0, 99), m=st.integers(0, 99))
    def any_message_arrives_new_or_old_or_again(self, n: int, m: int) -> None:
        orders = list(self.exchange.values())
        self.deliver(orders[n % len(orders)], m)

    @precondition(lambda self: self.exchange)
    @rule(n=st.integers(0, 99))
    def a_request_times_out(self, n: int) -> None:
        orders = list(self.exchange.values())
        self.listen(self.bench.update(orders[n % len(orders)].order, "UNKNOWN", reason="DEADLINE_EXCEEDED"))

    @rule(seconds=st.integers(0, 20))
    def time_passes(self, seconds: int) -> None:
        self.listen(self.bench.tell(ev.Timer, after_ns=seconds * SECOND_NS))

    @rule()
    def the_process_is_killed_and_started_again(self) -> None:
        self.starts += 1
        restarted(self.bench, self.starts)
        self.listen(self.bench.tell(ev.Timer))
        self.reconcile()

    def reconcile(self) -> None:
        open_orders = tuple(
            ev.OpenOrder(t.order.client_order_id, "x", t.order.ticker, t.order.side, t.order.lots, t.executed)
            for t in self.open()
        )
        self.listen(self.bench.tell(ev.Reconciled, self.true_lots(), open_orders, after_ns=30 * SECOND_NS))

    def true_lots(self) -> dict[str, int]:
        lots = dict.fromkeys(("AAA", "BBB"), 0)
        for true in self.exchange.values():
            lots[true.order.ticker] += true.order.side * true.executed
        return lots

    @invariant()
    def no_order_is_in_an_impossible_state(self) -> None:
        assert not [h for h in self.bench.engine.holds if h.name == "ORDER_STATE"]

    @invariant()
    def every_deal_is_booked_at_most_once_and_makes_the_position(self) -> None:
        booked = of(self.bench.log, cmd.FillBooked)
        assert len({fill.trade_id for fill in booked}) == len(booked)
        for ticker in ("AAA", "BBB"):
            assert self.bench.lots(ticker) == sum(f.side * f.lots for f in booked if f.ticker == ticker)

    @invariant()
    def at_most_one_order_can_close_a_position(self) -> None:
        for ticker in ("AAA", "BBB"):
            working = self.bench.engine.orders.working(ticker)
            assert sum(1 for order in working if order.role != "ENTRY") <= 1

    def teardown(self) -> None:
        """Nothing more happens at the exchange, and everything is said at last."""
        for true in self.open():
            true.status = "CANCELLED"
            true.say()
        self.bench.tell(ev.StopRequested, "the end", False)
        for true in list(self.exchange.values()):
            everything = tuple(true.deals)
            self.bench.update(true.order, true.status, true.executed, everything)
        assert {t: self.bench.lots(t) for t in ("AAA", "BBB")} == self.true_lots()
        known = [self.bench.engine.orders.get(key) for key in self.exchange]
        assert all(order is None or order.settled for order in known)


# ---- holds


BY_HAND = {"VOLATILITY", "LATENCY", "POSITION_MISMATCH", "REJECT_STREAK", "ORDER_STATE", "LEDGER_MISMATCH"}
KEPT = BY_HAND | {"DAILY_LOSS", "LOSS_COOLDOWN", "CRITICAL_DRIFT", "ORDER_UNKNOWN"}
"""By the specification: what a restart must not clear, and what a person may lift. Not read from the code."""


class HoldsOneSet(RuleBasedStateMachine):
    """Every cause raises its hold, only its own rule lifts it, a restart keeps what its rule keeps; and an
    order leaves exactly when nothing forbids it.
    """

    @initialize()
    def begin(self) -> None:
        latency = LatencyConfig({"ml": 100}, violation_limit=2)
        self.bench = Bench.ready(config(latency=latency))
        self.wanted: set[tuple[str, str]] = set()
        self.starts = 0

    def put(self, name: str, present: bool, scope: str = "*") -> None:
        (self.wanted.add if present else self.wanted.discard)((name, scope))

    @rule(active=st.booleans())
    def the_flag_file_comes_or_goes(self, active: bool) -> None:
        self.bench.tell(ev.Override, active, "lunch")
        self.put("MANUAL_OVERRIDE", active)

    @rule(index=st.integers(3_000, 5_000))
    def the_volatility_index_is_read(self, index: int) -> None:
        self.bench.tell(ev.VolatilityIndex, index)
        if index > 4_000:
            self.put("VOLATILITY", True)

    @rule(critical=st.booleans())
    def drift_is_found(self, critical: bool) -> None:
        self.bench.tell(ev.Drift, "psi", 300_000, critical)
        if critical:
            self.put("CRITICAL_DRIFT", True)

    @rule(hours=st.integers(-1, 50))
    def the_model_is_swapped(self, hours: int) -> None:
        until_ns = self.bench.now_ns + hours * 3600 * SECOND_NS
        self.bench.tell(ev.ModelSwapped, "m2", model(valid_until_ns=until_ns).to_dict())
        self.put("CRITICAL_DRIFT", False)
        if hours > 0:
            self.put("MODEL_EXPIRED", False)
        # An expired one is noticed by the clock, at the next event.
        self.bench.tell(ev.Timer, after_ns=0)
        if hours <= 0:
            self.put("MODEL_EXPIRED", True)

    @rule(ticker=st.sampled_from(("AAA", "BBB")), tradable=st.booleans())
    def the_exchange_opens_or_closes(self, ticker: str, tradable: bool) -> None:
        self.bench.tell(ev.TradingStatus, ticker, tradable)
        self.put("TRADING_STATUS", not tradable, ticker)

    @rule(slow=st.integers(1, 3))
    def a_stage_is_too_slow(self, slow: int) -> None:
        for _ in range(slow):
            self.bench.tell(ev.StageLatency, "ml", 5_000)
        if slow > 1:
            self.put("LATENCY", True)
        self.bench.tell(ev.StageLatency, "ml", 5)

    @rule(differences=st.integers(0, 2))
    def the_day_is_compared(self, differences: int) -> None:
        self.bench.tell(ev.DayCompared, "2026-01-15", 5, differences, "deal 7")
        self.put("LEDGER_MISMATCH", bool(differences))

    @rule(active=st.booleans(), ticker=st.sampled_from(("AAA", "BBB")))
    def the_driver_distrusts_a_book_or_trusts_it_again(self, active: bool, ticker: str) -> None:
        self.bench.tell(ev.Quarantine, ticker, active, "mute")
        if active:
            self.put("BOOK_QUARANTINE", True, ticker)
        elif ("BOOK_QUARANTINE", ticker) in self.wanted:
            assert self.bench.engine.holds.get("BOOK_QUARANTINE", ticker)  # a book has to pass first
            self.bench.book(ticker)
            self.put("BOOK_QUARANTINE", False, ticker)

    @rule(names=st.sets(st.sampled_from(sorted(KEPT | {"MANUAL_OVERRIDE", "TRADING_STATUS"})), max_size=3))
    def a_person_resumes(self, names: set[str]) -> None:
        self.bench.tell(ev.Resume, tuple(sorted(names)), "seen")
        for name in (names or BY_HAND) & BY_HAND:
            self.wanted = {(n, scope) for n, scope in self.wanted if n != name}

    @rule()
    def the_process_is_killed_and_started_again(self) -> None:
        self.starts += 1
        restarted(self.bench, self.starts)
        self.wanted = {(name, scope) for name, scope in self.wanted if name in KEPT}
        expired = self.bench.engine.model.valid_until_ns <= self.bench.now_ns
        assert not of(self.bench.tell(ev.Timer, after_ns=0), cmd.PlaceOrder)
        self.bench.tell(ev.Reconciled, {}, after_ns=0)
        self.put("MODEL_EXPIRED", expired)
        for ticker in ("AAA", "BBB"):
            self.bench.book(ticker)

    @invariant()
    def the_holds_are_exactly_those_that_have_a_cause(self) -> None:
        assert {(h.name, h.scope) for h in self.bench.engine.holds} == self.wanted

    @rule(ticker=st.sampled_from(("AAA", "BBB")))
    def an_order_leaves_exactly_when_nothing_forbids_it(self, ticker: str) -> None:
        if ("BOOK_QUARANTINE", ticker) not in self.wanted:
            self.bench.book(ticker)
        entries = [o for o in of(self.bench.score(ticker=ticker), cmd.PlaceOrder) if not o.reduce_only]
        forbidden = any(scope in ("*", ticker) for _, scope in self.wanted)
        assert bool(entries) is not forbidden
        for order in entries:  # nothing came of it: the next one starts afresh
            self.bench.update(order, "CANCELLED")


# ---- accounting


class AccountingToTheNanoRouble(RuleBasedStateMachine):
    """Deals of any side and size in a share and a future: exact average cost beside the whole numbers."""

    SHARE = instrument("AAA")
    FUTURE = Instrument("u", "FUT", "SPBFUT", "F", "future", 1, 10 * NANO, 13 * NANO + 7)

    @initialize(share=st.booleans())
    def begin(self, share: bool) -> None:
        self.instrument = self.SHARE if share else self.FUTURE
        self.position = Position()
        self.cash = self.fees = self.closes = self.n = 0
        self.lots, self.average, self.realised = 0, Fraction(0), Fraction(0)

    @rule(
        side=st.sampled_from((1, -1)),
        price=st.integers(1, 200_000),
        lots=st.integers(1, 60),
        fee=st.integers(0, 10**10),
    )
    def a_deal(self, side: int, price: int, lots: int, fee: int) -> None:
        self.n += 1
        self.position.book(self.instrument, side, price, lots, fee, START_NS + self.n, f"t{self.n}")
        value = Fraction(self.instrument.notional_nano(price, 1))
        closing = min(lots, abs(self.lots)) if self.lots * side < 0 else 0
        if closing:
            self.closes += 1
            self.realised += -side * closing * (value - self.average)
        opening = lots - closing
        held = abs(self.lots) - closing
        if opening:
            self.average = (self.average * held + value * opening) / (held + opening)
        self.lots += side * lots
        self.cash -= side * self.instrument.notional_nano(price, lots) + fee
        self.fees += fee

    @rule()
    def a_restart(self) -> None:
        self.position = Position.from_dict(json.loads(json.dumps(self.position.to_dict())))

    @rule(mark=st.integers(1, 200_000))
    def its_worth_is_what_the_cash_says_whatever_the_mark(self, mark: int) -> None:
        position = self.position
        worth = position.realised_nano - position.fees_nano + position.unrealised_nano(self.instrument, mark)
        assert worth == self.cash + self.instrument.notional_nano(mark, position.lots)

    @invariant()
    def rounding_costs_less_than_a_nano_a_close(self) -> None:
        assert (self.position.lots, self.position.fees_nano) == (self.lots, self.fees)
        assert abs(self.position.realised_nano - self.realised) <= self.closes
        assert (self.position.trip is None) is (self.lots == 0)
        if self.lots == 0:
            assert self.position.cost_nano == 0


# ---- throttling


class ThrottlingAndRates(RuleBasedStateMachine):
    """Sliding counts against a plain list; a throttle tells nothing twice within its interval, and everything
    is counted.
    """

    WINDOW_NS = 60 * SECOND_NS

    @initialize()
    def begin(self) -> None:
        self.now_ns = START_NS
        self.count = SlidingCount(self.WINDOW_NS)
        self.stamps: list[int] = []
        self.throttle = Throttle(self.WINDOW_NS)
        self.asked = dict.fromkeys("AB", 0)
        self.told = dict.fromkeys("AB", 0)
        self.last_told_ns: dict[str, int] = {}

    @rule(ns=st.sampled_from((0, 1, SECOND_NS, 30 * SECOND_NS, WINDOW_NS - 1, WINDOW_NS)))
    def time_passes(self, ns: int) -> None:
        self.now_ns += ns

    @rule()
    def it_happens(self) -> None:
        self.count.add(self.now_ns)
        self.stamps.append(self.now_ns)

    @rule(subject=st.sampled_from("AB"))
    def it_would_be_told(self, subject: str) -> None:
        self.asked[subject] += 1
        since = self.throttle.count(self.now_ns, subject, "why")
        if since:
            last_ns = self.last_told_ns.get(subject)
            assert last_ns is None or self.now_ns - last_ns >= self.WINDOW_NS
            self.last_told_ns[subject] = self.now_ns
            self.told[subject] += since
            assert self.told[subject] == self.asked[subject]  # what was kept back is told with it

    @rule()
    def a_restart(self) -> None:
        fresh = SlidingCount(self.WINDOW_NS)
        fresh.restore(json.loads(json.dumps(self.count.to_list())))
        self.count = fresh

    @invariant()
    def the_count_is_that_of_the_window(self) -> None:
        wanted = sum(1 for stamp in self.stamps if stamp > self.now_ns - self.WINDOW_NS)
        assert self.count.count(self.now_ns) == wanted


# ---- rollover


class MidnightRollover(RuleBasedStateMachine):
    """Days pass, trades win and lose, drift turns critical, the process restarts: the day's figures are those
    of the exchange's day, and only midnight lifts the daily stop, only a reload the drift's.
    """

    LIMIT_NANO = 500 * NANO

    @initialize()
    def begin(self) -> None:
        risk = RiskConfig(
            atr_min_bars=1, max_daily_loss_nano=self.LIMIT_NANO, max_consecutive_losses=1_000,
            max_position_lots=5, max_orders_per_minute=10_000,
        )  # fmt: skip
        self.bench = Bench.ready(config(risk=risk))
        self.day = self.day_of(self.bench.now_ns)
        self.net = self.trips = self.starts = 0
        self.stopped = self.drift = False

    @staticmethod
    def day_of(now_ns: int) -> int:
        return (now_ns + MOSCOW_NS) // DAY_NS

    def roll(self) -> None:
        if self.day_of(self.bench.now_ns) != self.day:
            self.day, self.net, self.trips, self.stopped = self.day_of(self.bench.now_ns), 0, 0, False

    @rule(hours=st.sampled_from((0, 1, 5, 13, 24, 50)))
    def time_passes(self, hours: int) -> None:
        self.bench.tell(ev.Timer, after_ns=hours * 3600 * SECOND_NS)
        self.roll()
        self.bench.tell(ev.Timer, after_ns=0)

    @rule(ticks=st.integers(-200, 200))
    def a_round_trip(self, ticks: int) -> None:
        bench = self.bench
        if bench.engine.holds.blocking("AAA", reduces=False) is not None:
            return
        bench.warm()
        self.roll()
        entries = [o for o in of(bench.score(), cmd.PlaceOrder) if not o.reduce_only]
        for order in entries:
            bench.fill(order, MID + 1, fee=10**6)
        lots = bench.lots()
        exits = [o for o in of(bench.score(-50_000), cmd.PlaceOrder) if o.reduce_only]
        for order in exits:
            bench.fill(order, MID + 1 + ticks, fee=10**6)
        if not entries:
            return
        assert bench.lots() == 0 and len(exits) == 1
        self.trips += 1
        self.net += instrument("AAA").notional_nano(ticks, lots) - 10**6 * (len(entries) + 1)
        self.stopped = self.stopped or -self.net >= self.LIMIT_NANO

    @rule()
    def drift_turns_critical(self) -> None:
        self.bench.tell(ev.Drift, "psi", 1, True)
        self.drift = True

    @rule()
    def the_model_is_reloaded(self) -> None:
        self.bench.tell(ev.ModelSwapped, "m2", model().to_dict())
        self.drift = False

    @rule()
    def a_restart(self) -> None:
        self.starts += 1
        restarted(self.bench, self.starts)
        self.bench.tell(ev.Reconciled, {}, after_ns=0)

    @invariant()
    def the_days_figures_are_the_exchange_days(self) -> None:
        risk, holds = self.bench.engine.risk, self.bench.engine.holds
        assert (risk.day_realised_nano, risk.day_trips) == (self.net, self.trips)
        assert (holds.get("DAILY_LOSS") is not None) is self.stopped
        assert (holds.get("CRITICAL_DRIFT") is not None) is self.drift


def test_late_duplicate_and_out_of_order_states_partial_fills_and_races_lose_and_double_nothing() -> None:
    run(OrdersAtATruthfulExchange)


def test_holds_are_one_set_lifted_by_their_own_rule_and_kept_by_a_restart() -> None:
    run(HoldsOneSet)


def test_accounting_is_exact_average_cost_to_the_nano_rouble_for_shares_and_futures() -> None:
    run(AccountingToTheNanoRouble)


def test_rates_are_those_of_their_window_and_what_is_not_told_is_counted() -> None:
    run(ThrottlingAndRates)


def test_at_midnight_the_days_figures_and_stop_go_and_nothing_else() -> None:
    run(MidnightRollover, examples=12)

"""The checkpoint: JSON-able, restores risk, positions, orders, holds, bars; no restart clears a stop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from core_bench import KEY, SECOND_NS, START_NS, Bench, audits, config, instrument, model, of

from live.core import commands as cmd
from live.core import events as ev
from live.core.config import EngineConfig, ModelParams, RiskConfig, SessionConfig
from live.core.engine import Engine
from live.core.errors import BadSnapshot
from market.errors import ConfigError

NEW_KEY = "87654321-1234-5678-1234-567812345678"


def restarted(bench: Bench, settings: EngineConfig | None = None, params: ModelParams | None = None) -> Bench:
    """A new process that goes on from the checkpoint, as JSON brought it back."""
    snapshot = json.loads(json.dumps(bench.engine.snapshot()))
    instruments = {t: instrument(t) for t in ("AAA", "BBB")}
    engine = Engine(settings or bench.engine.config, instruments, params or bench.engine.model, NEW_KEY)
    engine.restore(snapshot, bench.now_ns)
    return Bench(engine, bench.now_ns)


def test_the_daily_loss_stop_survives_a_restart_but_not_midnight() -> None:
    bench = Bench.ready(config(risk=RiskConfig(atr_min_bars=1, max_daily_loss_nano=1)))
    bench.enter()
    bench.book(bid=29_900)
    bench.fill(bench.orders()[-1], 29_900)
    again = restarted(bench)
    again.tell(ev.Reconciled, {})
    assert again.engine.holds.get("DAILY_LOSS") is not None
    assert again.engine.risk.day_realised_nano == bench.engine.risk.day_realised_nano < 0
    again.now_ns = START_NS + 14 * 3600 * SECOND_NS
    again.tell(ev.Timer, after_ns=0)
    assert again.engine.holds.get("DAILY_LOSS") is None


def test_critical_drift_survives_a_restart_with_the_same_model_and_lifts_with_another() -> None:
    bench = Bench.ready()
    bench.tell(ev.Drift, "psi", 1, True)
    same = restarted(bench)
    same.tell(ev.Timer)
    assert same.engine.holds.get("CRITICAL_DRIFT") is not None
    other = restarted(bench, params=model(manifest_sha256="m2"))
    assert "CRITICAL_DRIFT_LIFTED" in audits(other.tell(ev.Timer))


def test_a_restart_asks_about_every_working_order_and_sends_nothing_before_reconciliation() -> None:
    bench = Bench.ready()
    placed = of(bench.score(), cmd.PlaceOrder)
    again = restarted(bench)
    commands = again.tell(ev.Connection, True)
    assert {q.client_order_id for q in of(commands, cmd.QueryOrder)} == {o.client_order_id for o in placed}
    assert not of(again.score(), cmd.PlaceOrder)
    for order in placed:
        again.update(order, "CANCELLED")
    again.tell(ev.Reconciled, {})
    assert not list(again.engine.holds)
    again.book()
    assert of(again.score(), cmd.PlaceOrder)


def test_a_restored_position_keeps_its_stop_and_its_horizon() -> None:
    bench = Bench.ready()
    bench.enter()
    again = restarted(bench)
    again.tell(ev.Reconciled, {"AAA": bench.lots()})
    assert again.lots() == bench.lots()
    (order,) = of(again.book(bid=29_950), cmd.PlaceOrder)
    assert (order.reason, order.lots) == ("STOP", bench.lots())


def test_an_order_written_to_disk_after_the_checkpoint_is_taken_up_and_booked_once() -> None:
    bench = Bench.ready()
    snapshot_first = restarted(bench)
    order = of(bench.score(), cmd.PlaceOrder)[0]
    again = snapshot_first
    again.now_ns = bench.now_ns
    known: dict[str, Any] = {
        "client_order_id": order.client_order_id, "trace_id": order.trace_id, "ticker": "AAA", "side": 1,
        "lots": order.lots, "order_type": "market", "price_ticks": None, "role": "ENTRY",
        "reason": "SIGNAL ensemble",
    }  # fmt: skip
    again.tell(ev.KnownOrder, **known, placed_ns=bench.now_ns)
    again.tell(ev.KnownOrder, **known, placed_ns=bench.now_ns)
    fill = ev.FillInfo("t1", 30_001, order.lots, 0)
    again.update(order, "FILLED", order.lots, [fill])
    again.update(order, "FILLED", order.lots, [fill])
    assert again.lots() == order.lots
    again.tell(ev.Reconciled, {"AAA": order.lots}, after_ns=10 * SECOND_NS)
    assert again.orders()[-1].reason == "UNPLANNED"  # its plan is lost, so it is closed


def test_an_order_that_the_checkpoint_already_counted_is_not_booked_again() -> None:
    bench = Bench.ready()
    order = bench.enter()[0]
    for _ in range(5):
        bench.tell(ev.Timer)
    again = restarted(bench)
    again.engine.orders._by_id.pop(order.client_order_id)  # as if its memory had been pruned
    again.tell(
        ev.KnownOrder,
        order.client_order_id,
        "t",
        "AAA",
        1,
        order.lots,
        "market",
        None,
        "ENTRY",
        "x",
        START_NS,
    )
    again.update(order, "FILLED", order.lots, [ev.FillInfo("t1", 30_001, order.lots, 0)])
    assert again.lots() == bench.lots()


def test_a_checkpoint_that_does_not_fit_is_refused_by_name() -> None:
    bench = Bench.ready()
    bench.enter()
    snapshot = bench.engine.snapshot()
    instruments = {"BBB": instrument("BBB")}
    with pytest.raises(BadSnapshot, match="AAA"):
        Engine(config(), instruments, model(), NEW_KEY).restore(snapshot)
    with pytest.raises(BadSnapshot, match="session key"):
        Bench.make().engine.restore(snapshot)
    with pytest.raises(BadSnapshot, match="ahead of the clock"):
        Engine(config(), {t: instrument(t) for t in ("AAA", "BBB")}, model(), NEW_KEY).restore(
            snapshot, START_NS
        )
    with pytest.raises(BadSnapshot, match="format"):
        Engine(config(), instruments, model(), NEW_KEY).restore({**snapshot, "format": 99})
    with pytest.raises(BadSnapshot, match="first event"):
        bench.engine.restore(snapshot)
    assert KEY != NEW_KEY


def test_a_restored_engine_decides_like_the_one_that_went_on() -> None:
    """Same bars, same risk state: after the same news both engines make the same plan."""
    bench = Bench.ready()
    again = restarted(bench)
    again.tell(ev.Reconciled, {}, after_ns=0)
    plans = []
    for each in (bench, again):
        each.now_ns = bench.now_ns if each is bench else again.now_ns
        each.book(after_ns=SECOND_NS)
        plans.append(
            [(o.side, o.lots, o.order_type, o.price_ticks) for o in of(each.score(), cmd.PlaceOrder)]
        )
    assert plans[0] == plans[1] != []


def test_the_configuration_survives_json_and_refuses_what_is_impossible() -> None:
    settings = config(session=SessionConfig(allowed_weekdays=(4, 1, 1)), fee_ppm={"AAA": 7})
    assert EngineConfig.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert ModelParams.from_dict(json.loads(json.dumps(model().to_dict()))) == model()
    for wrong in ({"risk": {"nonsense": 1}}, {"nonsense": {}}, {"risk": {"max_position_lots": 0}}):
        with pytest.raises(ConfigError):
            EngineConfig.from_dict(wrong)
    with pytest.raises(ConfigError):
        RiskConfig(capital_base_nano=1.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        SessionConfig(start_s=70_000, end_s=60_000)


FREE_KEYS = {"AAA", "BBB", "positions", "holdings", "marks", "last_fill_ns", "foreign_lots", "refusals"}
"""Names of instruments and reasons: any set of them is a whole checkpoint."""


def busy_snapshot() -> dict[str, Any]:
    """An open position, a working order, a hold, bars: every part of a checkpoint has something in it."""
    bench = Bench.ready()
    bench.enter()
    bench.score(ticker="BBB")
    bench.tell(ev.Drift, "psi AAA/score", 900_000, True)
    snapshot: dict[str, Any] = json.loads(json.dumps(bench.engine.snapshot()))
    assert snapshot["orders"] and snapshot["holds"] and snapshot["portfolio"]["holdings"]
    return snapshot


def keys_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every key of every object in ``value`` lies."""
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(name, str):
            yield (*path, name)
        if isinstance(inner, dict | list):
            yield from keys_of(inner, (*path, name))


def test_a_checkpoint_from_another_version_is_refused_by_name_or_taken_whole() -> None:
    """Each key once missing and once under another name: never a traceback, never half a state."""
    busy = busy_snapshot()
    refused = 0
    for path in keys_of(busy):
        *above, last = path
        for renamed in (False, True):
            snapshot = json.loads(json.dumps(busy))
            holder = snapshot
            for step in above:
                holder = holder[step]
            value = holder.pop(last)
            if renamed:
                holder[f"{last}_2"] = value
            engine = Engine(config(), {t: instrument(t) for t in ("AAA", "BBB")}, model(), NEW_KEY)
            try:
                engine.restore(snapshot)
            except BadSnapshot as error:
                refused += 1
                assert "version" in str(error) or "AAA_2, not traded" in str(error), path
            else:
                assert last in FREE_KEYS or above[-1] in FREE_KEYS, path
                engine.on(ev.Timer(engine.now_ns + 1))
    assert refused > 100

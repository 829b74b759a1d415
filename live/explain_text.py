"""The story of an order as a page of text: first what was done, then why, then what proves it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from market.types import NANO, SECOND_NS

MAX_FEATURES = 8
LEVELS = 5


def render(story: Mapping[str, Any]) -> str:
    """The lines of `live-runner explain`."""
    lines: list[str] = []
    for part in (_order, _signal, _plan, _money, _market, _inputs, _origin, _trail):
        lines += part(story)
    return "\n".join(lines)


def _order(story: Mapping[str, Any]) -> list[str]:
    order = story["order"]
    side = "buy" if order["side"] > 0 else "sell"
    price = "market" if order["price_ticks"] is None else f"{order['price_ticks']} ticks"
    lines = [
        f"order       {order['client_order_id']} (broker {order['exchange_order_id'] or 'gave no id'})",
        f"            {side} {order['lots']} {order['ticker']}, {order['order_type']} at {price}, "
        f"{order['reason']}",
        f"            {order['status']}, {order['lots_executed']} of {order['lots']} lots"
        + (f"; {order['note']}" if order["note"] else ""),
        f"            {_time(order['created_ns'])}, last change {_time(order['updated_ns'])} market time",
    ]
    for other in story["orders_of_the_same_signal"]:
        lines.append(
            f"            with it: {other['client_order_id'][:13]} {other['order_type']} "
            f"{'buy' if other['side'] > 0 else 'sell'} {other['lots']}, {other['status']} ({other['reason']})"
        )
    return lines


def _signal(story: Mapping[str, Any]) -> list[str]:
    signal, moment = story["signal"], story["moment"]
    if signal is None:
        return [f"signal      none: {story['order']['reason']}, after a {moment.get('caused_by', '?')} event"]
    return [
        f"signal      {signal['trace_id']}, {'up' if signal['side'] > 0 else 'down'} by {signal['source']}: "
        f"p(down, flat, up) {signal['p_down_e6'] / 1e6:.3f} {signal['p_flat_e6'] / 1e6:.3f} "
        f"{signal['p_up_e6'] / 1e6:.3f}",
        f"            expects {signal['expected_move_millibps'] / 1000:+.2f} bps, costs "
        f"{signal['cost_millibps'] / 1000:.2f}, edge {signal['edge_millibps'] / 1000:+.2f} bps",
        *[
            f"            {name}: weight {vote['weight']}, up minus down {vote['up_minus_down']:+.3f}"
            for name, vote in moment.get("votes", {}).items()
        ],
    ]


def _plan(story: Mapping[str, Any]) -> list[str]:
    plan = story["plan"]
    if plan is None:
        return []
    return [
        f"plan        {plan['lots']} lots at {plan['entry_ticks']} ticks, stop {plan['stop_ticks']}; the "
        f"volume is set by {plan['bound_by']}"
    ]


def _money(story: Mapping[str, Any]) -> list[str]:
    lines = [
        f"fill        {fill['lots']} at {fill['price_ticks']} ticks, fee {fill['fee_nano'] / NANO:.2f} RUB, "
        f"{_time(fill['now_ns'])} (deal {fill['trade_id']})"
        for fill in story["fills"]
    ]
    costs = story["costs"]
    if costs is not None:
        parts = [f"fees {costs['fee_nano'] / NANO:.2f} RUB"]
        if "over_mid_nano" in costs:
            parts.append(f"{costs['over_mid_nano'] / NANO:+.2f} RUB against the mid")
        if "slippage_nano" in costs:
            parts.append(f"{costs['slippage_nano'] / NANO:+.2f} RUB against the plan")
        lines.append(f"costs       {', '.join(parts)}")
    after = story["moment"].get("mid_after") or {}
    if after and costs is not None:
        side, paid = story["order"]["side"], costs["average_ticks"]
        moved = ", ".join(f"{k} {side * (mid - paid):+.1f}" for k, mid in after.items())
        lines.append(f"after       mid against the price paid, ticks in our favour: {moved}")
    for trip in story["round_trips"]:
        lines.append(
            f"round trip  gross {trip['gross_nano'] / NANO:+.2f}, fees {trip['fees_nano'] / NANO:.2f}, net "
            f"{trip['net_nano'] / NANO:+.2f} RUB; left by {trip['exit_reason']}"
        )
    return lines


def _market(story: Mapping[str, Any]) -> list[str]:
    book = story["moment"].get("book")
    if not book:
        return []
    lines = [f"book        of {_time(book['now_ns'])}, best first (lots @ ticks)"]
    for n in range(min(LEVELS, max(len(book["bids"]), len(book["asks"])))):
        bid = "{1} @ {0}".format(*book["bids"][n]) if n < len(book["bids"]) else ""
        ask = "{1} @ {0}".format(*book["asks"][n]) if n < len(book["asks"]) else ""
        lines.append(f"            {bid:>18}  |  {ask}")
    positions = story["moment"].get("positions")
    if positions is not None:
        held = ", ".join(f"{t} {n:+d}" for t, n in positions.items()) or "flat"
        holds = ", ".join(h["name"] for h in story["moment"]["holds"]) or "none"
        lines.append(f"            positions {held}; holds {holds}")
    return lines


def _inputs(story: Mapping[str, Any]) -> list[str]:
    features = story["moment"].get("features")
    if not features:
        return []
    unusual = story["moment"]["unusual_inputs"]
    lines = [f"features    {len(features)}, computed again from the journal; furthest from the training:"]
    lines += [
        f"            {f['name']} = {f['value']:.6g} ({f['z']:+.1f} scales)" for f in unusual[:MAX_FEATURES]
    ]
    return lines


def _origin(story: Mapping[str, Any]) -> list[str]:
    model, session = story["model"], story["session"]
    mark = f"  [{session['watermark']}]" if session.get("watermark") == "SIMULATED" else ""
    lines = [
        f"model       {model['alias']} version {model['version']}, bundle {model['manifest_sha256']}{mark}",
    ]
    if model.get("run_id"):
        lines.append(f"run         {model['run_id']}")
    if model.get("data_hash"):
        lines.append(f"data        {model['data_hash']}")
        lines.append(f"training    code {model['code_hash']}, features {model['feature_schema_hash']}")
    lines.append(f"runner      code {story['code_commit'] or 'unknown'}")
    lines.append(
        f"session     {session.get('session_id', '?')}, {session.get('mode', '?')}, account "
        f"{session.get('account', '?')}"
    )
    return lines


def _trail(story: Mapping[str, Any]) -> list[str]:
    lines = [
        f"audit {line['seq']:>6}  {line['wall']} {line['tag']} {line['event']}" for line in story["audit"]
    ]
    return lines + [f"missing     {text}" for text in story["missing"]]


def _time(ns: int | None) -> str:
    if not ns:
        return "-"
    return f"{datetime.fromtimestamp(ns / SECOND_NS, UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC"

"""The backtest as one HTML page: what the model's trading on the held-out block left, net of everything.

What the model is and how good its forecasts are stands on its card (``models.card``), not here. The order is
what a person should know first: is there an edge, and how sure is that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from models import page
from models.page_plots import Axes, Line, chart

EDGE, INCONCLUSIVE, NO_EDGE = "edge", "inconclusive", "no edge"


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything on the page. Money in roubles, times in nanoseconds UTC.

    ``summary``: ``evaluate.trade_summary``. ``equity``: (time, net profit so far) after each trade.
    ``instruments``, ``fill_models``, ``assumptions``, ``sensitivity``, ``rivals``: rows of tables, all with
    the same keys.
    """

    watermark: str
    title: str
    period: tuple[int, int]
    summary: dict[str, Any]
    gross_rub: float
    fees_rub: float
    net_rub: float
    equity: Sequence[tuple[int, float]]
    fee_bps: float
    horizon_s: float
    latency_ms: float
    instruments: list[dict[str, Any]] = field(default_factory=list)
    fill_models: list[dict[str, Any]] = field(default_factory=list)
    assumptions: list[dict[str, Any]] = field(default_factory=list)
    sensitivity: list[dict[str, Any]] = field(default_factory=list)
    rivals: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verdict(summary: dict[str, Any]) -> str:
    """``edge`` when the whole interval of net bps per trade is above zero, ``no edge`` when none of it is or
    nothing was traded, else ``inconclusive``."""
    if not summary.get("trades"):
        return NO_EDGE
    low, high = summary["net_bps_ci"]
    return EDGE if low > 0 else NO_EDGE if high <= 0 else INCONCLUSIVE


def render(data: ReportData) -> str:
    """The page as text."""
    return "\n".join(part for part in _parts(data) if part) + "\n"


def write(data: ReportData, path: Path) -> None:
    """The page to ``path`` by way of a temporary name."""
    page.write(_parts(data), path)


def _parts(data: ReportData) -> Iterator[str]:
    yield from page.head(data.title, data.watermark)
    start, end = (page.utc(ns) for ns in data.period)
    yield page.text(
        f"Block score, {start} to {end} UTC, which no learner, weight or threshold has seen. Net of "
        f"{data.fee_bps:g} bp a side and the spread; {data.latency_ms:g} ms from decision to exchange; "
        f"horizon {data.horizon_s:g} s.",
        "soft",
    )
    yield page.verdict(verdict(data.summary))
    yield page.text(sentence(data.summary))
    yield page.facts(_facts(data))
    if data.equity:
        yield page.section("Profit net of fees", _equity(data))
    for title, rows in (
        ("By instrument", data.instruments),
        ("Three ways in which resting orders may fill", data.fill_models),
        ("What other assumptions would leave", data.assumptions),
        ("What other commissions would leave (the same trades)", data.sensitivity),
        ("Trivial rivals", data.rivals),
    ):
        yield page.section(title, page.table(rows))
    yield page.section("Read with care", page.bullets(data.notes))
    yield page.tail()


def fee_sensitivity(
    gross_bps: Any, net_bps: Any, fee_bps: float, fees_bps: Iterable[float]
) -> list[dict[str, Any]]:
    """The same round trips at other commissions: ``net + 2 * (fee paid - other fee)`` per trade."""
    net = np.asarray(net_bps, np.float64)
    rows = []
    for other in fees_bps:
        at = net + 2.0 * (fee_bps - other)
        rows.append(
            {
                "fee, bp a side": other,
                "net bp per trade": float(at.mean()) if len(at) else None,
                "net bp in all": float(at.sum()) if len(at) else 0.0,
                "winning trades": float((at > 0).mean()) if len(at) else None,
            }
        )
    return rows


def sentence(summary: dict[str, Any]) -> str:
    """The verdict in one sentence; ``summary`` as ``evaluate.trade_summary``."""
    if not summary.get("trades"):
        return (
            "No trade: on the blocks before this one no threshold had a lower bound above zero after "
            "spread and commission. Not to trade is then the right decision, and what the runner would do."
        )
    low, high = summary["net_bps_ci"]
    text = (
        f"{summary['trades']} round trips, {summary['net_bps_per_trade']:+.2f} bp each after spread and "
        f"commission, 95 % interval [{low:+.2f}, {high:+.2f}]."
    )
    return (
        text
        + {
            EDGE: " The whole interval is above zero.",
            INCONCLUSIVE: " The interval holds zero: more data is needed before this may be called an edge.",
            NO_EDGE: " The interval lies at or below zero.",
        }[verdict(summary)]
    )


def trade_facts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """What the trades have to beat, beside what they did; nothing where there was no trade."""
    if not summary.get("trades"):
        return []
    low, high = summary["precision_ci"]
    need = summary["break_even_precision"]
    factor = summary["profit_factor"]
    return [
        ("Right direction", f"{summary['precision']:.1%}, 95 % interval [{low:.1%}, {high:.1%}]"),
        (
            "... needed to break even",
            "-" if need is None else f"{need:.1%}" if need <= 1 else "impossible (over 100 %)",
        ),
        ("Cost of a round trip", f"{summary['cost_bps_per_trade']:.2f} bp"),
        ("Profit factor", "-" if factor is None else f"{factor:.2f}"),
        ("Largest drawdown", f"{summary['max_drawdown_bps']:.1f} bp"),
    ]


def _facts(data: ReportData) -> list[tuple[str, str]]:
    share = (
        f"{data.fees_rub / data.gross_rub:.0%} of gross" if data.gross_rub > 0 else "gross is not positive"
    )
    return [
        ("Net result", f"{data.net_rub:+,.2f} RUB"),
        ("Gross result (before commission)", f"{data.gross_rub:+,.2f} RUB"),
        ("Commission paid", f"{data.fees_rub:,.2f} RUB ({share})"),
        *trade_facts(data.summary),
    ]


def _equity(data: ReportData) -> str:
    start = data.period[0]
    # The curve has points of the warm-up before the block, in which nothing is traded.
    points = [(0.0, 0.0), *(((ns - start) / 6e10, value) for ns, value in data.equity if ns > start)]
    return chart(
        "After each round trip.", [Line("", points, step=True)],
        Axes("minutes of market time", "RUB, net", zero=True), watermark=data.watermark, broad=True,
    )  # fmt: skip

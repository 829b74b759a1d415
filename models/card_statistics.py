"""The card's section "Was it luck?": deflated Sharpe ratio, overfitting, the spread over validation paths.

It shows what the calibration left, and says of the rest that it was not measured: silence would read as a
pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from models import page
from models.page_plots import Axes, Line, chart
from models.significance import (
    DSR_LIMIT,
    PBO_LIMIT,
    detectable_bps,
    luck_table,
    power_table,
)

Found = Mapping[str, Any]
USUAL_SD_BPS = 8.0
"""Scatter of a trade's result where this version has no trades to tell (``docs/statistics.md``)."""


def statistics(found: Found, edge: Found, watermark: str) -> Iterator[str]:
    """``found``: ``trials``; ``instruments`` (rows with ``deflated_sharpe``); ``why`` the best trial was
    believed or not; and, where the line measured them, ``dsr`` (``significance.Deflated.to_dict``), ``pbo``
    (``Overfitting.to_dict``), ``cpcv`` (``sharpe_distribution``, with the ``sharpes`` of the paths) and
    ``walk_forward`` (``folds`` and how many were ``positive``). What could not be measured is
    ``{"missing": why}``. ``edge``: ``evaluate.trade_summary`` of the trades that are judged."""
    yield page.text(
        f"{found['trials']} policies were tried on block `threshold`. The best of many without any skill "
        "looks good, too: these figures ask how much of it that explains. The usual "
        f"bar is a deflated Sharpe ratio (the probability that skill is left) of at least {DSR_LIMIT:g} and "
        f"a probability of overfitting of at most {PBO_LIMIT:g}."
    )
    if found.get("why"):
        yield page.text(f"The search: {found['why']}.")
    yield page.facts(_facts(found))
    yield page.table(
        [
            {
                "instrument": row["ticker"], "deflated Sharpe": row["deflated_sharpe"],
                "t of the slope": row["slope_t"], "lower bound, bp an hour": row["lower_bps_per_hour"],
                "bins of time": row["bins"],
            }
            for row in found["instruments"]
        ]
    )  # fmt: skip
    sharpes: Sequence[float] = (found.get("cpcv") or {}).get("sharpes") or ()
    if len(sharpes) > 1:
        ordered = sorted(sharpes)
        share = [((k + 1) / len(ordered)) for k in range(len(ordered))]
        yield chart(
            "Sharpe ratio by validation path.",
            [Line("", list(zip(ordered, share, strict=True)), weights=[1.0] * len(ordered), step=True)],
            Axes("Sharpe ratio of a path, per period", "share of paths below", y_range=(0, 1),
                 percent_y=True), watermark=watermark,
            note="Paths of combinatorial purged cross-validation share their data: the spread shows how much "
            "hangs on what was trained on, it is no interval.",
        )  # fmt: skip

    yield from _needed(edge)
    yield from _luck(int(found["trials"]))


def _needed(edge: Found) -> Iterator[str]:
    """How many trades it takes to see an edge, by the scatter of this version's own."""
    trades, sd_bps = int(edge.get("trades") or 0), edge.get("net_bps_sd")
    whose = "This version's trades scatter" if sd_bps else "Trades usually scatter"
    said = (
        f"{whose} by {sd_bps or USUAL_SD_BPS:.1f} bp. A one-sided test at 5 % finds a true edge four times "
    )
    said += "out of five after so many independent trades"
    if trades and sd_bps:
        seen = detectable_bps(trades, sd_bps)
        said += f"; the {trades:,} of this version can show one of {seen:.1f} bp a trade or more"
    yield "<h3>How many trades a claim needs</h3>"
    yield page.text(f"{said}.")
    yield page.table(
        [
            {"edge, bp a trade": f"{row['edge_bps']:g}", "trades needed": f"{row['trades']:,.0f}"}
            for row in power_table(sd_bps=sd_bps or USUAL_SD_BPS)
        ]
    )


def _luck(trials: int) -> Iterator[str]:
    """What the best of so many strategies without skill shows."""
    asked = sorted({10, 100, 500, *([trials] if trials > 1 else [])})
    yield "<h3>What luck alone shows</h3>"
    yield page.text("The best of so many strategies without any skill, sixty days of each:", "soft")
    yield page.table(
        [
            {"strategies tried": f"{row['trials']:g}", "Sharpe ratio a year": f"{row['annual_sharpe']:.1f}"}
            for row in luck_table(asked)
        ]
    )


def _facts(found: Found) -> Iterator[tuple[str, str]]:
    yield "Deflated Sharpe ratio", _of(found.get("dsr"), _dsr)
    yield "Probability of overfitting (PBO)", _of(found.get("pbo"), _pbo)
    yield "Sharpe over validation paths (CPCV)", _of(found.get("cpcv"), _cpcv)
    yield "Walk-forward by session", _of(found.get("walk_forward"), _walk)


def _of(value: Any, said: Any) -> str:
    if value is None:
        return "not measured"
    if "missing" in value:
        return f"not measured: {value['missing']}"
    return str(said(value))


def _dsr(d: Found) -> str:
    text = f"{d['probability']:.3f}"
    if d.get("trials") is not None:
        text += (
            f" (Sharpe {d['sharpe']:.3f} a period over {d['periods']} periods; luck alone would show "
            f"{d['benchmark']:.3f} as the best of {d['trials']:.3g})"
        )
    return text


def _walk(d: Found) -> str:
    return f"net above zero in {d['positive']} of {len(d['folds'])} folds"


def _pbo(d: Found) -> str:
    return f"{d['pbo']:.2f} of {d['splits']:,} half-splits of {d['periods']} periods, {d['trials']} trials"


def _cpcv(d: Found) -> str:
    return (
        f"median {d['median']:.3f}, 5 % {d['low5']:.3f}, 95 % {d['high95']:.3f}, worst {d['worst']:.3f}; "
        f"below zero on {d['below_zero']:.0%} of {d['paths']} paths"
    )

"""Stage ``plots``: five pictures for ``dvc plots show`` and ``dvc plots diff``.

Pictures and not data, because DVC's page draws data with scripts from a content network: offline it stays
blank. The same inputs give the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from flows.curves import curve_svg, grid_svg
from flows.stages.common import BACKTEST, CARD, FEATURES, LABELS, Say, read_json, run, whole
from flows.stages.exported import blended, load_logp
from models.dataset import load

PLOTS = Path("artifacts/plots")
CLASSES = ("down", "flat", "up")
NANO = 1e9


def main(say: Say) -> None:
    card, backtest = read_json(CARD / "card.json"), read_json(BACKTEST / "backtest.json")
    mark = " [SIMULATED]" if card["watermark"] == "SIMULATED" else ""
    pictures = {
        "calibration": calibration(card, mark),
        "equity": equity(backtest, mark),
        "confusion": confusion(mark),
        "risk_coverage": risk_coverage(card, mark),
        "latency": latency(backtest, mark),
    }
    with whole(PLOTS) as folder:
        for name, svg in pictures.items():
            (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    say(f"{len(pictures)} pictures in {PLOTS}")


def calibration(card: dict[str, Any], mark: str) -> str:
    """Observed share over forecast probability, a line for each class and the diagonal."""
    lines = {
        name: [(bin_["forecast"], bin_["observed"]) for bin_ in card["reliability"][name]] for name in CLASSES
    }
    title = f"calibration: observed share over forecast{mark}"
    return curve_svg({**lines, "perfect": [(0.0, 0.0), (1.0, 1.0)]}, title=title, x_label="forecast")


def equity(backtest: dict[str, Any], mark: str) -> str:
    """Result so far net of fees on block *score*, for each fill model."""
    results = {backtest["fill_model"]: backtest, **backtest["other_fill_models"]}
    lines = {
        name: [(at / NANO, value / NANO) for at, value in result["equity"]]
        for name, result in results.items()
    }
    return curve_svg(lines, title=f"equity net of fees, RUB, by fill model{mark}")


def confusion(mark: str) -> str:
    """What happened against what was most likely, on block *score*; shares of each row."""
    dataset, stored = load(FEATURES, LABELS), load_logp()
    counts = np.zeros((3, 3))
    for ticker, series in dataset.series.items():
        mixed = blended(stored[ticker])
        rows = dataset.rows(ticker, "score") & np.isfinite(mixed).all(axis=1)
        np.add.at(counts, (series.y[rows].astype(int), mixed[rows].argmax(axis=1)), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    titles = [f"was {name}" for name in CLASSES], [f"said {name}" for name in CLASSES]
    return grid_svg(*titles, shares.tolist(), title=f"confusion on block score, share of each row{mark}")


def risk_coverage(card: dict[str, Any], mark: str) -> str:
    """Share of wrong forecasts among the most confident ones."""
    points = [(float(x), float(y)) for x, y in card["coverage"]["wrong"]]
    title = f"risk over coverage: wrong among the most confident{mark}"
    return curve_svg({"wrong": points}, title=title, x_label="coverage")


def latency(backtest: dict[str, Any], mark: str) -> str:
    """Net result of the block if every order arrived later by so many milliseconds."""
    later = {0: backtest["net_nano"]}
    for name, found in backtest["variants"].items():
        if name.endswith(" ms later"):
            later[int(name.split()[0])] = found["net_nano"]
    points = [(float(ms), value / NANO) for ms, value in sorted(later.items())]
    return curve_svg({"net RUB": points}, title=f"net result over added latency{mark}", x_label="ms later")


if __name__ == "__main__":
    run("plots", main)

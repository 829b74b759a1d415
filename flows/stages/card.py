"""Stage ``card``: everything that a person should know about this version, as one page and as JSON.

It comes after the bundle, because it names the manifest's hash. Like every output of the line it depends on
inputs alone; ``flows.card_cli`` adds what depends on the machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from features.schema import NAMES
from flows.stages.common import (
    BACKTEST,
    BUNDLE,
    CALIBRATION,
    CARD,
    EXPORTED,
    FEATURES,
    LABELS,
    METRICS,
    RECORDING,
    Say,
    read_json,
    run,
    whole,
    write_json,
)
from flows.stages.exported import blended, load_logp
from market.recording import Recording
from models import card_figures as figures
from models import evaluate
from models.bundle import Bundle
from models.card import DATA, FILE, write
from models.card_figures import Scored
from models.dataset import Dataset, load
from models.labels import VOID

BLOCK = "score"
FEES_BPS = (0.0, 0.5, 1.0, 2.5, 4.0, 5.0)
SHORTEST_BLOCK_S = 60.0
MANIFEST = (
    "horizon_ns", "latency_ns", "tariff", "fee_ppm", "instruments", "data_hash", "code_hash",
    "feature_schema_hash", "params", "seeds", "versions", "valid_until_ns",
)  # fmt: skip
"""What the page shows of the manifest."""


def main(say: Say) -> None:
    recording = Recording.open(RECORDING)
    dataset = load(FEATURES, LABELS)
    bundle = Bundle.load(BUNDLE, None)
    card = evaluate.rounded(card_of(recording, dataset, bundle, say))
    with whole(CARD) as folder:
        write_json(folder / DATA, card)
        write(card, folder / FILE)
    ours = card["scores"][0]
    say(
        f"{card['watermark']} version {bundle.sha256[:12]}: {card['edge']['verdict']}; MCC "
        f"{ours['mcc']:.3f}, log-loss skill {ours['skill']:+.1%} on block {BLOCK}"
    )


def card_of(recording: Recording, dataset: Dataset, bundle: Bundle, say: Say) -> dict[str, Any]:
    """The card's one JSON value."""
    manifest = bundle.manifest
    calibration = read_json(CALIBRATION / "calibration.json")
    backtest = read_json(BACKTEST / "backtest.json")
    traded = read_json(METRICS / "backtest.json")
    fee_bps = {ticker: ppm / 100.0 for ticker, ppm in manifest["fee_ppm"].items()}
    held = _Held(dataset, seed=int(manifest["seeds"]["seed"]), horizon_ns=manifest["horizon_ns"])
    say(f"scoring {len(held.y):,} rows of block {BLOCK}")
    rows = held.scored(held.ensemble)
    X, y = dataset.pooled(BLOCK)
    trips = [{**trip, "fee_bps": fee_bps[trip["ticker"]]} for trip in backtest["trips"]]
    return {
        "watermark": bundle.watermark,
        "manifest_sha256": bundle.sha256,
        "manifest": {key: manifest[key] for key in MANIFEST},
        "data": _data(recording, fee_bps),
        "purge_s": read_json(METRICS / "labels.json")["purge_ns"] / 1e9,
        "splits": _splits(dataset),
        "block_s": held.block_s,
        "climatology_log_loss": traded["calibration"]["climatology_log_loss"],
        "scores": held.scores(read_json(CALIBRATION / "ensemble.json")["members"]),
        "by_instrument": held.by_instrument(),
        "reliability": figures.reliability(rows),
        "coverage": figures.coverage(rows.logp, rows.y, held.of("long_bps"), held.of("short_bps")),
        "mean_fee_bps": float(np.mean(list(fee_bps.values()))),
        "economics": _economics(dataset, fee_bps, calibration),
        "edge": traded["edge"],
        "fees": figures.at_fees(trips, FEES_BPS),
        "variants": [{"name": name, **row} for name, row in sorted(traded["variants"].items())],
        "conformal": _conformal(calibration),
        "statistics": _statistics(calibration, read_json(METRICS / "cross_validate.json")),
        "importance": figures.importance(
            (EXPORTED / "gbdt.txt").read_text(encoding="utf-8"), NAMES, X, y, seed=held.seed
        ),
        "quantisation": read_json(EXPORTED / "parity.json"),
    }


class _Held:
    """The held-out rows of all instruments, one after another, and what each forecast says about them."""

    def __init__(self, dataset: Dataset, *, seed: int, horizon_ns: int) -> None:
        self.seed = seed
        self.block_s = max(SHORTEST_BLOCK_S, 3.0 * horizon_ns / 1e9)
        stored = load_logp()
        mixed = {ticker: blended(stored[ticker]) for ticker in dataset.series}
        self.rows = {
            ticker: dataset.rows(ticker, BLOCK) & np.isfinite(mixed[ticker]).all(axis=1)
            for ticker in dataset.series
        }
        self.dataset, self.members = dataset, stored
        self.ensemble = {ticker: mixed[ticker][rows] for ticker, rows in self.rows.items()}
        self.y = self.of("y")
        self.prior = evaluate.shares(
            np.concatenate([s.y[dataset.rows(t, "fit") & (s.y != VOID)] for t, s in dataset.series.items()])
        )

    def of(self, name: str) -> Any:
        """A column of the data set on the held-out rows of all instruments."""
        return np.concatenate([getattr(self.dataset.series[t], name)[rows] for t, rows in self.rows.items()])

    def scored(self, logp: dict[str, Any]) -> Scored:
        # The same minute of two instruments is drawn together: they move together.
        block = figures.blocks_of(self.of("recv_ns"), self.block_s)
        return Scored(np.concatenate([logp[t] for t in self.rows]), self.y, block)

    def scores(self, weights: dict[str, float]) -> list[dict[str, Any]]:
        out = [{"name": "ensemble", "weight": None, **self._judged(self.scored(self.ensemble))}]
        for name, weight in weights.items():
            logp = {t: self.members[t][name][rows] for t, rows in self.rows.items()}
            out.append({"name": name, "weight": weight, **self._judged(self.scored(logp))})
        constant = np.broadcast_to(np.log(self.prior), (len(self.y), 3))
        climate = Scored(constant, self.y, self.scored(self.ensemble).block)
        out.append({"name": "climatology", "weight": None, **self._judged(climate)})
        return out

    def by_instrument(self) -> list[dict[str, Any]]:
        out = []
        for ticker, rows in self.rows.items():
            series = self.dataset.series[ticker]
            block = figures.blocks_of(series.recv_ns[rows], self.block_s)
            if len(block):
                one = Scored(self.ensemble[ticker], series.y[rows], block)
                out.append({"name": ticker, **self._judged(one)})
        return out

    def _judged(self, rows: Scored) -> dict[str, Any]:
        return figures.scores(rows, self.prior, seed=self.seed)


def _data(recording: Recording, fee_bps: dict[str, float]) -> dict[str, Any]:
    info, ingested = recording.info, read_json(METRICS / "ingest.json")
    rows, ends = [], []
    for ticker, days in sorted(info.days.items()):
        books = [ingested["books"][f"{ticker}/{day}"] for day in days]
        levels = {ingested["verdicts"][f"{ticker}/{day}"]["level"] for day in days}
        for day in (days[0], days[-1]):
            recv_ns = recording.read(ticker, day).books.recv_ns
            ends += [int(recv_ns[0]), int(recv_ns[-1])] if len(recv_ns) else []
        rows.append(
            {
                "ticker": ticker, "days": len(days), "fee_bps": fee_bps[ticker],
                "books": sum(b["books"] for b in books), "trades": sum(b["trades"] for b in books),
                "dropped": sum(b["books_dropped"] for b in books), "gaps": sum(b["gaps"] for b in books),
                "verdict": ", ".join(sorted(levels)),
            }
        )  # fmt: skip
    every = {day for each in info.days.values() for day in each}
    return {
        "source": info.source, "from_ns": min(ends), "to_ns": max(ends), "days": len(every),
        "instruments": rows,
    }  # fmt: skip


def _splits(dataset: Dataset) -> list[dict[str, Any]]:
    rows = []
    for name in dataset.blocks.names:
        (y,) = dataset.pooled(name, ("y",))
        share = np.bincount(y, minlength=3)[:3] / max(1, len(y))
        from_ns, to_ns = dataset.blocks.span(name)
        rows.append(
            {
                "block": name, "from_ns": from_ns, "to_ns": to_ns, "rows": len(y),
                "down": share[0], "flat": share[1], "up": share[2],
            }
        )  # fmt: skip
    return rows


def _economics(
    dataset: Dataset, fee_bps: dict[str, float], calibration: dict[str, Any]
) -> list[dict[str, Any]]:
    rows = []
    for ticker, s in dataset.series.items():
        held = dataset.rows(ticker, BLOCK)
        found = figures.economics(s.move_bps[held], s.spread[held], s.mid2[held], fee_bps[ticker])
        rows.append({"ticker": ticker, **found, "decided": calibration["instruments"][ticker]["verdict"]})
    return rows


def _conformal(calibration: dict[str, Any]) -> list[dict[str, Any]]:
    """What abstention does on block threshold, whose rows its quantiles were not fitted on."""
    rows = []
    for ticker, blocks in calibration["abstention"].items():
        found = blocks["threshold"]
        kept = {key: found[key] for key in ("rows", "acted", "downs_bought", "ups_sold")}
        rows.append({"ticker": ticker, "alpha": calibration["alpha"], **kept})
    return rows


def _statistics(calibration: dict[str, Any], validated: dict[str, Any]) -> dict[str, Any]:
    kept = ("deflated_sharpe", "slope_t", "lower_bps_per_hour", "bins")
    rows = [
        {"ticker": ticker, **{key: row.get(key) for key in kept}}
        for ticker, row in calibration["instruments"].items()
    ]
    return {
        "trials": calibration["trials"], "instruments": rows, **calibration["statistics"],
        "cpcv": validated["cpcv"], "walk_forward": validated["walk_forward"],
    }  # fmt: skip


if __name__ == "__main__":
    run("card", main)

"""The benchmark as a page for people and a file for programs: our figures beside the published ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from market.importers.fi2010 import HORIZONS
from models import fi2010_published as published
from models import page
from models.fi2010_learners import OURS, TRIVIAL
from models.fi2010_run import BIASED, ENSEMBLE, TREE_SUSPECT
from models.page_plots import Axes, Line, chart

Result = Mapping[str, Any]
PAGE, DATA = "fi2010.html", "fi2010.json"
BANNER = "FI-2010, a benchmark of 2010: skill on its labels, and nothing about trading."
READ = (
    "The labels compare means of future mids with the present one; on a random walk such labels are partly "
    "known from the past. The row `momentum only` is what that alone scores: read every figure as its "
    "distance from it.",
    "A high score is no profit: no spread, commission or delay is in it, and nobody can trade at the"
    " label's price.",
    "Published figures are others' own; `as re-run` is one re-evaluation of all of them (LOBCAST, five "
    "seeds). Ours is one seed. Rows without a whole window after a change of stock are left out, for all.",
)


def write(result: Result, folder: Path) -> tuple[Path, Path]:
    """``fi2010.html`` and ``fi2010.json``; returns both."""
    page.write(parts(result), folder / PAGE)
    data = folder / DATA
    draft = data.with_name(f".{DATA}.draft")
    draft.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    draft.replace(data)
    return folder / PAGE, data


def parts(result: Result) -> Iterator[str]:
    yield from page.head("FI-2010 benchmark", "BENCHMARK", BANNER)
    yield page.text(f"{result['claim']}; macro-F1 in percent. {_how(result)}", "soft")
    if not result["real"]:
        yield page.text(
            f"These are not the rows of the real benchmark ({published.TRAIN_ROWS:,} and "
            f"{published.TEST_ROWS:,}): {result['rows']['train']:,} and {result['rows']['test']:,} were "
            "read, so nothing here may be compared with the published tables.",
            "no-edge",
        )
    yield page.section("Verdict", page.bullets(verdicts(result)))
    yield page.section("Beside the published tables, setup 2", page.table(_beside(result), strong=ENSEMBLE))
    yield page.section("Macro-F1 by horizon", _chart(result))
    for h in result["horizons"]:
        yield page.section(f"Next {h['k']} events", *_horizon(h))
    yield page.section("Setup 1: nine anchored folds, k = 10", *_anchored(result))
    yield page.section("Audit", page.bullets(_audit(result)))
    yield page.section("Read with care", page.bullets(READ))
    yield page.section("Identity", page.facts(_identity(result)))
    yield page.tail()


def lines(result: Result) -> list[str]:
    """For a terminal."""
    out = ["", result["claim"] + ", percent", f"{'':38}" + "".join(f"{k:>8}" for k in HORIZONS)]
    for row in _beside(result):
        name, *values = row.values()
        out.append(f"{name[:38]:38}" + "".join(f"{v or '-':>8}" for v in values))
    return [*out, "", *verdicts(result)]


def _how(result: Result) -> str:
    told = (
        f"Measured {result['date']} in {result['seconds'] / 60:.1f} minutes of at most "
        f"{result['budget_minutes']:g} ({result['cpu_seconds'] / 60:.1f} of processor time, "
        f"{result['threads']} threads), seed {result['seed']}; validation: "
        + ("the last fifth of the training rows." if result["validation"] == "tail"
           else "the last fifth of each stretch of one stock.")
    )  # fmt: skip
    return told + (f" {len(result['cut'])} steps were cut short." if result["cut"] else "")


def ours(result: Result) -> dict[str, list[float | None]]:
    """Macro-F1 in percent by forecast, one figure a horizon; None where it was left out."""
    seen = {row["name"] for h in result["horizons"] for row in h["forecasts"]}
    names = [name for name in (*TRIVIAL, *OURS, ENSEMBLE, BIASED) if name in seen]
    found = [{row["name"]: row["macro_f1"] for row in h["forecasts"]} for h in result["horizons"]]
    return {name: [None if h.get(name) is None else 100 * h[name] for h in found] for name in names}


def verdicts(result: Result) -> list[str]:
    """Which of the levels our ensemble reaches, horizon by horizon, and whether it beats momentum."""
    scored = ours(result)
    best = scored.get(ENSEMBLE)
    if best is None:
        return ["No ensemble: none of its members was trained in time."]
    out = []
    if not result["real"]:
        out.append("Not the benchmark's own rows: no level can be reached with them.")
    for name, bar in published.LEVELS.items() if result["real"] else ():
        pairs = [
            (k, a, b) for k, a, b in zip(HORIZONS, best, bar, strict=True) if a is not None and b is not None
        ]
        reached = [str(k) for k, a, b in pairs if a > b]
        text = "at every horizon" if len(reached) == len(pairs) else f"at k = {', '.join(reached)}"
        out.append(f"{name}: {'exceeded ' + text if reached else 'not reached at any horizon'}.")
    past = scored.get("momentum only", [None] * len(HORIZONS))
    gains = [a - b for a, b in zip(best, past, strict=True) if a is not None and b is not None]
    if gains:
        out.append(f"Over momentum alone: {', '.join(f'{g:+.1f}' for g in gains)} points by horizon.")
    return out


def _beside(result: Result) -> list[dict[str, Any]]:
    rows = [("majority class, published", list(published.MAJORITY))]
    rows += list(ours(result).items())
    rows += [(f"{name}, as re-run", list(row)) for name, row in published.LOBCAST.items()]
    rows += [(f"{name}, as claimed", list(row)) for name, row in published.CLAIMED.items()]
    return [
        {"macro-F1, %": name, **{f"k={k}": None if v is None else f"{v:.1f}"
                                 for k, v in zip(HORIZONS, values, strict=True)}}
        for name, values in rows
    ]  # fmt: skip


def _chart(result: Result) -> str:
    scored = ours(result)
    wanted = {
        "ours": scored.get(ENSEMBLE), "BiN-CTABL re-run": published.LOBCAST["BiN-CTABL"],
        "DeepLOB re-run": published.LOBCAST["DeepLOB"], "momentum only": scored.get("momentum only"),
    }  # fmt: skip
    drawn = [
        Line(name, [(float(k), float(v)) for k, v in zip(HORIZONS, row, strict=True) if v is not None],
             weights=[1.0] * sum(v is not None for v in row))
        for name, row in wanted.items() if row is not None
    ]  # fmt: skip
    return chart("Macro-F1, percent.", drawn, Axes("events ahead", "macro-F1, %"), broad=True)


def _horizon(h: Mapping[str, Any]) -> Iterator[str]:
    down, flat, up = h["shares_test"]
    r = h["rows"]
    yield page.text(
        f"{r['train']:,} rows to learn, {r['choose']:,} to weigh, {r['test']:,} to score "
        f"({r['left_out']:,} left out); down {down:.0%}, flat {flat:.0%}, up {up:.0%}.",
        "soft",
    )
    yield page.table([_forecast(row) for row in h["forecasts"]], strong=ENSEMBLE)
    weights = {m: w for m, w in h["stack"]["weights"].items() if w > 0}
    if weights:
        said = ", ".join(f"{m} {w:.2f}" for m, w in weights.items())
        bias = ", ".join(f"{b:+.1f}" for b in h["stack"]["bias"])
        yield page.text(
            f"Weights: {said}; temperature {h['stack']['temperature']:.2f}. `{BIASED}` adds ({bias}) to the "
            "log of down, flat, up, chosen on validation rows for macro-F1.",
            "soft",
        )
    best = next((row for row in h["forecasts"] if row["name"] == ENSEMBLE), None)
    if best is not None:
        names = ("down", "flat", "up")
        yield "<h3>The ensemble's confusion</h3>"
        yield page.table(
            [
                {
                    "what happened": name,
                    **{f"said {said}": int(n) for said, n in zip(names, row, strict=True)},
                }
                for name, row in zip(names, best["confusion"], strict=True)
            ]
        )  # fmt: skip


def _forecast(row: Mapping[str, Any]) -> dict[str, Any]:
    def figure(key: str) -> page.Figure:
        low, high = row[f"{key}_ci"]
        return page.Figure(f"{row[key]:.3f}", page.interval(low, high) if low is not None else "")

    return {
        "forecast": row["name"], "macro-F1": figure("macro_f1"), "MCC": figure("mcc"),
        **{f"F1 {name}": _three(value) for name, value in row["f1"].items()},
        "accuracy": _three(row["accuracy"]), "log-loss": _three(row["log_loss"]),
        "calibration error": _three(row["ece"]),
    }  # fmt: skip


def _three(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _anchored(result: Result) -> Iterator[str]:
    folds = result["anchored"]
    if not folds:
        yield page.text(
            "Not run: its eighteen files were not there, it was not asked for, or the time was used up.",
            "soft",
        )
        return
    f1, agreement = (float(np.mean([row[key] for row in folds])) for key in ("macro_f1", "kappa"))
    mine = f"{folds[0]['learner']}, ours ({len(folds)} folds)"
    rows: list[dict[str, Any]] = [
        {"model": mine, "macro-F1, %": f"{100 * f1:.1f}", "kappa": f"{agreement:.2f}"}
    ]
    rows += [
        {"model": name, "macro-F1, %": f"{value:.1f}", "kappa": None if k is None else f"{k:.2f}"}
        for name, (value, k) in published.ANCHORED.items()
    ]  # fmt: skip
    yield page.table(rows, strong=mine)
    yield page.table([{k.replace("_", " "): v for k, v in row.items() if k != "learner"} for row in folds])


def _audit(result: Result) -> Iterator[str]:
    if result["cut"]:
        yield f"Cut short, for the time was used up: {', '.join(result['cut'])}."
    yield (
        f"Label code 1 means {'up' if result['one_is_up'] else 'down'}: its correlation with the next row's "
        f"move is {result['label_correlation']:+.3f}."
    )
    a = result["audit"]
    if a["macro_f1"] is None:
        yield "The hand-made columns were not audited: the time was used up."
    else:
        yield (
            f"A tree of depth {a['depth']} on the 104 hand-made columns scores {100 * a['macro_f1']:.1f} at "
            f"k = {a['k']}: "
            + (f"over {100 * TREE_SUSPECT:.0f}, so some of them look ahead." if a["suspect"]
               else "no sign that one of them looks ahead.")
        )  # fmt: skip


def _identity(result: Result) -> list[tuple[str, str]]:
    files = [(name, digest) for name, digest in result["files"].items()]
    return [("Versions", ", ".join(f"{k} {v}" for k, v in result["versions"].items())), *files]

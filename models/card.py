"""The model card: one page about one version, made from one JSON value (``card.json``) and nothing else.

The value depends on the line's inputs alone, so that the same inputs give the same page. What depends on the
machine that looks (a step's latency, the gate's answer) is measured when the card is published or printed and
handed to ``parts`` as ``here``. The page about the version's trading is ``models.report``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from models import page
from models.card_statistics import statistics
from models.page_plots import Axes, Line, bars, chart
from models.report import sentence, trade_facts

Card = Mapping[str, Any]

FILE, DATA = "model_card.html", "card.json"
MODES = {
    "TEXT": "LightGBM text, as trained",
    "INT8": "int8 weights, float input and output (dynamic range)",
    "INT8_FULL": "full integer: int8 weights and activations",
    "FLOAT16": "float16 weights, float input and output",
}
IMPORTANT = 20
SCORES = (
    ("log_loss", "log-loss", "{:.4f}"), ("mcc", "MCC", "{:.3f}"),
    ("macro_f1", "macro-F1", "{:.3f}"), ("skill", "log-loss skill", "{:+.2%}"),
    ("brier_skill", "Brier skill", "{:+.2%}"), ("ece", "calibration error", "{:.4f}"),
)  # fmt: skip


def write(card: Card, path: Path, here: Mapping[str, Any] | None = None) -> None:
    page.write(parts(card, here), path)


def parts(card: Card, here: Mapping[str, Any] | None = None) -> Iterator[str]:
    """The page. ``here``: ``{"latency": rows, "gate": GateResult.to_dict()}`` as measured on this machine."""
    here = here or {}
    yield from page.head(f"Model card: {', '.join(_tickers(card))}", card["watermark"])
    yield _purpose(card)
    yield page.verdict(card["edge"]["verdict"])
    yield page.text(sentence(card["edge"]))
    yield page.facts(trade_facts(card["edge"]))
    yield page.section("May it trade?", *_gate(here))
    yield page.section("Data", *_data(card))
    yield page.section("Split", *_splits(card))
    yield page.section("Forecast, on rows that nothing was fitted on", *_scores(card))
    yield page.section("Calibration and abstention", *_curves(card))
    yield page.section("What trading costs, and what is left", *_costs(card))
    yield page.section("Was it luck?", *statistics(card["statistics"], card["edge"], card["watermark"]))
    yield page.section("Features", *_importance(card))
    yield page.section("Exported files against trained models", *_quantisation(card))
    yield page.section("Latency of one step", *_latency(here))
    yield page.section("Read with care", page.bullets(_limits(card)))
    yield page.section("Identity", *_identity(card))
    yield page.tail()


def _tickers(card: Card) -> list[str]:
    return [i["ticker"] for i in card["manifest"]["instruments"]]


def _purpose(card: Card) -> str:
    m = card["manifest"]
    return page.text(
        f"Version {card['manifest_sha256'][:12]}. Forecasts whether a taker's trade over "
        f"{m['horizon_ns'] / 1e9:g} s earns its costs upward, downward or not at all, "
        f"{m['latency_ns'] / 1e6:g} ms after the decision, from the order book and trades of one instrument. "
        f"For live-runner on these instruments at these costs, and refused by it after "
        f"{page.utc(m['valid_until_ns'])} UTC of market time.",
        "soft",
    )


def _gate(here: Mapping[str, Any]) -> Iterator[str]:
    gate = here.get("gate")
    if not gate:
        yield page.text(
            "The promotion gate answers for a machine, since latency is one of its checks: `scalper gate` "
            "prints its answer, `scalper card` and `scalper publish` put it here.",
            "soft",
        )
        return
    yield page.verdict("passes" if gate["passed"] else "refused")
    yield page.text(
        f"The gate for alias {gate['alias']}, with the latency of the machine that made this page."
    )
    rows = [
        {
            "check": c["name"].replace("_", " "), "value": c["value"], "limit": c["limit"],
            "passed": c["passed"], "reason": c["reason"],
        }
        for c in gate["checks"]
    ]  # fmt: skip
    yield page.table(rows)
    yield page.bullets(gate["notes"])


def _data(card: Card) -> Iterator[str]:
    d = card["data"]
    yield page.facts(
        [
            ("Watermark", card["watermark"]),
            ("Source", d["source"]),
            ("Span", f"{page.utc(d['from_ns'])} to {page.utc(d['to_ns'])} UTC, {d['days']} day(s)"),
            ("Tariff", card["manifest"]["tariff"]),
            ("Data hash", card["manifest"]["data_hash"]),
        ]
    )
    yield page.table(
        [
            {
                "instrument": row["ticker"], "days": row["days"], "books": row["books"],
                "trades": row["trades"], "books dropped": row["dropped"], "gaps": row["gaps"],
                "fee, bp a side": row["fee_bps"], "looks like": row["verdict"],
            }
            for row in d["instruments"]
        ]
    )  # fmt: skip


def _splits(card: Card) -> Iterator[str]:
    yield page.text(
        "By time, in this order; rows whose label reaches into the next block are left out of the earlier "
        f"one ({card['purge_s']:g} s). `fit` teaches the members, `calibrate` the weights, temperature and "
        "slopes, `threshold` the policy; `score` is what this page and the gate look at; `live` is touched "
        "by nothing."
    )
    yield page.table(
        [
            {
                "block": row["block"], "from, UTC": page.utc(row["from_ns"]),
                "to, UTC": page.utc(row["to_ns"]), "labelled rows": row["rows"], "down": _share(row["down"]),
                "flat": _share(row["flat"]), "up": _share(row["up"]),
            }
            for row in card["splits"]
        ]
    )  # fmt: skip


def _scores(card: Card) -> Iterator[str]:
    first = card["scores"][0]
    drawn = (
        f"95 % intervals draw {first['blocks']} blocks of {card['block_s']:g} s, since neighbouring rows "
        "share their label"
        if first["mcc_ci"][0] is not None
        else f"no intervals: {first['blocks']} blocks of {card['block_s']:g} s are too few"
    )
    yield page.text(
        f"The exported files on block score, {first['rows']:,} rows; {drawn}. Skill is against the class "
        f"shares of block fit (climatology, log-loss {card['climatology_log_loss']:.4f}): 0 is no better, "
        "below 0 is worse."
    )
    yield page.table([_score_row(row) for row in card["scores"]], strong="ensemble")
    if len(card["by_instrument"]) > 1:
        yield "<h3>The ensemble by instrument</h3>"
        yield page.table([_score_row(row) for row in card["by_instrument"]])


def _score_row(row: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {"forecast": row["name"]}
    if "weight" in row:
        out["weight"] = row["weight"]
    for key, title, form in SCORES:
        low, high = row[f"{key}_ci"]
        bounds = page.interval(low, high, form) if low is not None else ""
        out[title] = page.Figure(form.format(row[key]), bounds)
    return out


def _curves(card: Card) -> Iterator[str]:
    mark = card["watermark"]
    lines = [
        Line(
            name,
            [(p["forecast"], p["observed"]) for p in points],
            weights=[float(p["rows"]) for p in points],
        )
        for name, points in card["reliability"].items()
    ]
    calibrated = chart(
        "Reliability of each class.", lines,
        Axes("forecast probability", "share that happened", (0, 1), (0, 1), diagonal=True), watermark=mark,
        note="The straight line is perfect; a dot's area is its number of rows.",
    )  # fmt: skip
    c = card["coverage"]
    wrong = chart(
        "Risk and coverage.", [Line("", c["wrong"])],
        Axes("share of rows answered, surest first", "wrong class", log_x=True, percent_x=True,
             percent_y=True), watermark=mark,
        note=f"Area under it {_plain(c['aurc'])}, {_plain(c['excess'])} over a perfect order of the same "
        "mistakes.",
    )  # fmt: skip
    # Without commission: what the forecast is worth before the tariff takes its part.
    fee = card["mean_fee_bps"]
    money = chart(
        "What acting on the surest would earn.",
        [
            Line("after all costs", c["net_bps"]),
            Line("without commission", [(x, y + 2 * fee) for x, y in c["net_bps"]]),
        ],
        Axes("share of rows acted on, surest first", "bp a round trip", log_x=True, percent_x=True,
             zero=True), watermark=mark,
        note="A taker's round trip over the horizon from every row, overlapping ones included: the shape of "
        "the forecast's value, not a result of trading.",
    )  # fmt: skip
    yield f"<div class='grid'>{calibrated}{wrong}{money}</div>"
    if card["conformal"]:
        yield "<h3>Conformal abstention, on block threshold</h3>"
        yield page.text(
            "A side is taken only where the other is implausible at alpha "
            f"{card['conformal'][0]['alpha']:g}: of the moves down at most this share should be bought, and "
            "the reverse.",
            "soft",
        )
        yield page.table(
            [
                {
                    "instrument": row["ticker"], "rows": row["rows"], "acted on": _share(row["acted"]),
                    "moves down that were bought": _share(row["downs_bought"]),
                    "moves up that were sold": _share(row["ups_sold"]),
                }
                for row in card["conformal"]
            ]
        )  # fmt: skip


def _costs(card: Card) -> Iterator[str]:
    yield page.table(
        [
            {
                "instrument": row["ticker"], "cost of a round trip, bp": row["cost_bps"],
                "usual move over the horizon, bp": row["move_bps"],
                "right calls to break even": _need(row["break_even"]),
                "what the calibration decided": row["decided"],
            }
            for row in card["economics"]
        ]
    )  # fmt: skip
    if card["fees"]:
        bounds = [
            page.interval(low, high, "{:+.2f}") for low, high in (r["net_bps_ci"] for r in card["fees"])
        ]
        yield "<h3>The same round trips at other commissions</h3>"
        yield page.table(
            [
                {
                    "fee, bp a side": row["fee_bps"], "net bp a trade": row["net_bps"],
                    "95 % interval": bound, "won": _share(row["won"]),
                }
                for row, bound in zip(card["fees"], bounds, strict=True)
            ]
        )  # fmt: skip
    if card["variants"]:
        yield "<h3>Other assumptions, traded again</h3>"
        yield page.table(
            [
                {
                    "assumption": row["name"], "round trips": row["trips"], "won": row["wins"],
                    "fees, RUB": row["fees_nano"] / 1e9, "net, RUB": row["net_nano"] / 1e9,
                }
                for row in card["variants"]
            ]
        )  # fmt: skip


def _importance(card: Card) -> Iterator[str]:
    rows = card["importance"]
    used = [row for row in rows if row["gain_share"] > 0]
    if not used:
        yield page.text("The trees have no split: there is nothing to rank.")
        return
    top = used[:IMPORTANT]
    risen = sorted(used, key=lambda row: -row["log_loss_rise_e3"])[:IMPORTANT]
    yield page.text(
        f"Of the GBDT member: {len(used)} of {len(rows)} features have a split. Correlated features share "
        "their importance, so a small one may still be missed when its twins go, too."
    )
    gain = bars("Share of the split gain", [(r["feature"], 100 * r["gain_share"]) for r in top], unit=" %",
                note=f"(the first {len(top)}).")  # fmt: skip
    shuffled = bars("Log-loss lost when shuffled", [(r["feature"], r["log_loss_rise_e3"]) for r in risen],
                    note="(thousandths of a nat, on block score; paler: shuffling helped).")  # fmt: skip
    yield f"<div class='grid'>{gain}{shuffled}</div>"


def _quantisation(card: Card) -> Iterator[str]:
    members = card["quantisation"]["members"]
    yield page.table(
        [
            {
                "member": name, "planned": entry["planned"], "shipped": entry["mode"],
                "same class": _share(entry["agreement"]), "largest gap of p": entry["max_abs_dp"],
                "mean gap of p": entry.get("mean_abs_dp"),
                "accuracy lost, points": entry["accuracy_lost_points"],
                "macro-F1 lost, points": entry.get("macro_f1_lost_points"), "KiB": entry["kib"],
                "float32 KiB": entry.get("float32_kib"), "passed": entry["passed"],
            }
            for name, entry in sorted(members.items())
        ]
    )  # fmt: skip
    profit = card["quantisation"].get("profit")
    if profit and profit.get("rows"):
        yield page.text(
            f"Net of costs the surest rows earn {profit['lost_bps']:+.3f} bp a trade less with the exported "
            f"files than with the trained ones ({'within' if profit['passed'] else 'OVER'} the limit)."
        )
    forms = [
        {
            "member": name, "form": form, "same class": _share(found["agreement"]),
            "largest gap of p": found["max_abs_dp"], "accuracy lost, points": found["accuracy_lost_points"],
            "KiB": found["kib"], "passed": found["passed"],
            "shipped": "shipped" if form == entry["mode"] else "",
        }
        for name, entry in sorted(members.items())
        for form, found in entry.get("forms", {}).items()
    ]  # fmt: skip
    if forms:
        yield "<h3>Every form that was measured</h3>"
        yield page.table(forms)
    named = {entry["mode"] for entry in members.values()} | {row["form"] for row in forms}
    lines = [f"{mode}: {MODES.get(mode, 'see the parity report')}" for mode in sorted(named)]
    lines += [f"{name}: {e['fallback']}" for name, e in sorted(members.items()) if e.get("fallback")]
    yield page.bullets(lines)


def _latency(here: Mapping[str, Any]) -> Iterator[str]:
    rows: Sequence[Mapping[str, Any]] = here.get("latency") or ()
    if not rows:
        yield page.text(
            "Not in this copy: a time belongs to a machine, and this page to the inputs alone. "
            "`scalper card` measures it where it runs.",
            "soft",
        )
        return
    yield page.text("Microseconds a book on the machine that made this page, best of several rounds.")
    yield page.table(rows, strong="ensemble")


def _limits(card: Card) -> Iterator[str]:
    days = card["data"]["days"]
    yield f"{days} recorded day(s): nothing is said about other days, and nothing here forecasts a profit."
    if card["watermark"] == page.SIMULATED:
        yield "Simulated: the runner refuses this version in production mode."
    yield "Costs are a taker's: the touch, the tariff, the latency. The market does not react to the orders."
    yield "A label of the last seconds before a gap, a break or the end of the data is void, not flat."
    dropped = [row["name"] for row in card["scores"] if row.get("weight") == 0]
    if dropped:
        yield f"No weight: {', '.join(dropped)} (no better than climatology where weights are fitted)."


def _identity(card: Card) -> Iterator[str]:
    m = card["manifest"]
    yield page.facts(
        [
            ("Manifest", card["manifest_sha256"]),
            ("Code", m["code_hash"]),
            ("Feature schema", m["feature_schema_hash"]),
            ("Seeds", ", ".join(f"{k} {v}" for k, v in sorted(m["seeds"].items()))),
            ("Versions", ", ".join(f"{k} {v}" for k, v in sorted(m["versions"].items()))),
            ("Hyper-parameters", "; ".join(_flat(m["params"]))),
        ]
    )


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in sorted(params.items()):
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key} = {value}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _need(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}" if value <= 1 else "impossible"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"

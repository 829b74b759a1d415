"""The study as a file for machines (JSON), one for people (HTML, self-contained) and one for the docs
(Markdown)."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models.evaluate import rounded
from models.science.run import BAR, PUBLISHED

HEADER = (
    "rival", "MCC", "95 %", "macro-F1", "ECE", "log-loss skill", "called", "trades", "net bp/trade", "95 %",
    "precision", "break-even",
)  # fmt: skip
HONEST = (
    "Skill is not profit. Net is a taker's: entry and exit at the touch, no latency, both commissions; it "
    "flatters every rival alike. One day, or ten minutes, of one instrument says nothing about other days."
)
PROTOCOL = (
    "every book frame is a row; label at h = 1, 5, 10 s by the last book at or before t + h: up or down if "
    "the mid moved at least half a tick, else flat; void where a gap over 10 s lies inside; RTS: train "
    "10:03-15:00 Moscow (UTC+4), test 15:06-17:00; others: first 60 % of the time against the rest; the last "
    "15 % of the training rows are for choosing; a label window that crosses the end of its span "
    "is left out; the test span is scored once"
)

STYLE = """
:root{--ink:#1f2328;--paper:#fff;--soft:#57606a;--rule:#d0d7de;--row:#f6f8fa;--good:#116329;--bad:#a40e26}
@media(prefers-color-scheme:dark){:root{--ink:#c9d1d9;--paper:#0d1117;--soft:#8b949e;--rule:#30363d;--row:#161b22;
--good:#56d364;--bad:#ff7b72}}
body{font:15px/1.5 system-ui,sans-serif;margin:0;color:var(--ink);background:var(--paper)}
main{max-width:74rem;margin:0 auto;padding:1rem}.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.6rem 0 1.4rem}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}
th:first-child,td:first-child{text-align:left}tr.ours{background:var(--row);font-weight:600}
h2{margin-top:2.4rem;border-top:1px solid var(--rule);padding-top:1rem}
p,li{max-width:60rem}.soft{color:var(--soft)}
.mark{background:#57606a;color:#fff;padding:.4rem 1rem}
"""


def write_json(result: dict[str, Any], path: Path) -> None:
    write_text(json.dumps(rounded(result), indent=1) + "\n", path)


def write_html(result: dict[str, Any], path: Path) -> None:
    write_text("\n".join(_page(result)) + "\n", path)


def markdown(result: dict[str, Any]) -> str:
    """Tables and verdicts as Markdown, as docs/science.md shows them."""
    lines = [f"Measured {result['date']} by `{result['command']}` in {result['seconds'] / 60:.1f} minutes."]
    for study in result["datasets"]:
        lines += ["", f"### {study['title']}", "", _about(study), ""]
        for h in study["horizons"]:
            lines += [f"**{h['horizon_s']} s** ({_shares(h)})", ""]
            lines += ["| " + " | ".join(HEADER) + " |", "|---|" + "---:|" * (len(HEADER) - 1)]
            lines += ["| " + " | ".join(cells(row)) + " |" for row in h["rivals"]]
            lines += ["", _by_parts(h), ""]
        lines += ["Verdict", "", *(f"- {said}" for said in study["verdict"])]
    return "\n".join(lines) + "\n"


def lines(study: dict[str, Any]) -> Iterator[str]:
    """The tables of one recording for a terminal."""
    yield ""
    yield study["title"]
    yield _about(study)
    for h in study["horizons"]:
        yield f"  {h['horizon_s']} s ({_shares(h)})"
        rows = [HEADER, *(cells(row) for row in h["rivals"])]
        widths = [max(len(row[k]) for row in rows) for k in range(len(HEADER))]
        for row in rows:
            first, *rest = (
                cell.rjust(w) if k else cell.ljust(w)
                for k, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            yield "    " + "  ".join([first, *rest])
        yield f"    {_by_parts(h)}"
    for said in study["verdict"]:
        yield f"  {said}"


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """One rival as the texts of ``HEADER``; a dash where there is nothing to say."""
    return (
        row["name"], _number(row["mcc"], "{:.3f}"), _interval(row.get("mcc_ci"), "{:.3f}"),
        _number(row.get("macro_f1"), "{:.3f}"), _number(row.get("ece"), "{:.3f}"),
        _number(row.get("log_loss_skill"), "{:+.1%}"), _number(row.get("called"), "{:.0%}"),
        _number(row.get("trades"), "{:,.0f}"), _number(row.get("net_bps"), "{:+.2f}"),
        _interval(row.get("net_bps_ci"), "{:+.2f}"), _number(row.get("precision"), "{:.1%}"),
        _break_even(row.get("break_even_precision")),
    )  # fmt: skip


def _about(study: dict[str, Any]) -> str:
    spans = study["spans_ns"]
    return (
        f"{study['books']:,} books and {study['trades']:,} trades over {study['hours']:.2f} h; "
        f"train {_clock(spans['train'][0])}-{_clock(spans['train'][1])} (choosing from "
        f"{_clock(spans['choose_from'])}), test {_clock(spans['test'][0])}-{_clock(spans['test'][1])} UTC; "
        f"tariff {study['tariff']}, {study['fee_bps_a_side']:g} bp a side"
    )


def _shares(h: dict[str, Any]) -> str:
    down, flat, up = h["shares_test"]
    return (
        f"{h['rows']['fit']:,} rows to fit, {h['rows']['choose']:,} to choose, {h['rows']['test']:,} to "
        f"test; down {down:.0%}, flat {flat:.0%}, up {up:.0%}"
    )


def _by_parts(h: dict[str, Any]) -> str:
    said = ", ".join(f"{_clock(p['from_ns'])}-{_clock(p['to_ns'])} {p['mcc']:.3f}" for p in h["parts"])
    return f"ensemble's MCC by thirds of the test span (UTC): {said}"


def _page(result: dict[str, Any]) -> Iterator[str]:
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield "<title>Forecasting skill on real recordings</title>"
    yield '<meta name="viewport" content="width=device-width,initial-scale=1">'
    yield f"<style>{STYLE}</style></head><body>"
    yield "<div class=mark>REAL recordings of third parties: internal use</div><main>"
    yield "<h1>Forecasting skill on real recordings</h1>"
    yield f"<p>{html.escape(HONEST)}</p><p class=soft>Protocol: {html.escape(PROTOCOL)}. Measured "
    yield f"{result['date']} by <code>{html.escape(result['command'])}</code> in "
    yield f"{result['seconds'] / 60:.1f} minutes, seed {result['seed']}.</p>"
    yield "<h2>The bar on RTS (MCC at 1 / 5 / 10 s)</h2><ul>"
    for name, figures in PUBLISHED.items():
        yield f"<li>{html.escape(name)}: {' / '.join(f'{f:.3f}' for f in figures)}</li>"
    yield f"<li><b>asked for: {' / '.join(f'{f:.2f}' for f in BAR.values())}</b></li></ul>"
    for study in result["datasets"]:
        yield f"<h2>{html.escape(study['title'])}</h2><p class=soft>{html.escape(_about(study))}</p><ul>"
        yield from (f"<li>{html.escape(said)}</li>" for said in study["verdict"])
        yield "</ul>"
        for h in study["horizons"]:
            yield f"<h3>{h['horizon_s']} s</h3><p class=soft>{html.escape(_shares(h))}</p>"
            yield "<div class=wide><table><tr>"
            yield "".join(f"<th>{html.escape(cell)}</th>" for cell in HEADER) + "</tr>"
            for row in h["rivals"]:
                kind = " class=ours" if row["name"] == "ensemble" else ""
                yield (
                    f"<tr{kind}>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells(row)) + "</tr>"
                )
            yield f"</table></div><p class=soft>{html.escape(_by_parts(h))}</p>"
    yield "</main></body></html>"


def _clock(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%H:%M:%S")


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def _interval(values: tuple[float, float] | list[float] | None, form: str) -> str:
    return (
        "–" if values is None or values[0] is None else f"{form.format(values[0])}..{form.format(values[1])}"
    )


def _break_even(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}" if value <= 1 else "impossible"


def write_text(text: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)

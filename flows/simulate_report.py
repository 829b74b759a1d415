"""``scalper simulate --report``: the stylised facts as a table for the terminal and as one HTML page.

A column is one market: a preset over several seeds, or an instrument of a recording over its days. The page
opens anywhere: no script, no other file.
"""

from __future__ import annotations

import base64
import html
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flows.simulate_plots import Path as MidPath
from flows.simulate_plots import facts_png, lead_lag_png, path_of
from market.recording import Recording
from market.simulator import LEAD_LAG_SPECS, SimSpec, simulate_market
from market.simulator_factor import Common
from market.simulator_presets import TICK_CLASS
from market.simulator_session import Session
from market.stylised import LeadLag, Measures, lead_lag, measure
from market.stylised_table import Fact, facts

Say = Callable[[str], None]
DAY_S = 8 * 3600
PASSED = {True: "ok", False: "FAILS", None: ""}


@dataclass(frozen=True, slots=True)
class Column:
    """One market of the table."""

    name: str
    about: str
    watermark: str
    measured: list[Measures]
    facts: list[Fact]
    path: MidPath


@dataclass(frozen=True, slots=True)
class Linked:
    """What was planted between two instruments, and what is seen."""

    common: Common
    lag_s: float
    names: tuple[str, str]
    result: LeadLag


def of_presets(
    presets: Sequence[str], *, seeds: int, hours: float | None, dt_s: float, seed: int,
    session: Session | None, say: Say,
) -> list[Column]:  # fmt: skip
    """Simulate every preset with seeds ``seed``, ``seed + 1``...; ``say`` hears of each of them."""
    columns = []
    for preset in presets:
        spec = SimSpec("SIM", preset, session=session)
        simulate_market([spec], hours=0.01, dt_s=dt_s)  # compiles, so that the first seed's time is not that
        measured: list[Measures] = []
        seconds, path = [], None
        for k in range(seeds):
            start = time.process_time()
            days, _ = simulate_market([spec], hours=hours, dt_s=dt_s, seed=seed + k)
            took = time.process_time() - start
            day = days[0]
            measured.append(measure(day))
            seconds.append(took * DAY_S / (len(day.books) * dt_s))
            path = path or path_of(day)
            say(
                f"{preset}, seed {seed + k} ({k + 1} of {seeds}): {len(day.books):,} books, "
                f"{len(day.trades):,} trades, {took:.1f} s"
            )
        assert path is not None
        table = facts(measured, tick_class=TICK_CLASS.get(preset), speed_s=min(seconds))
        span = f"{measured[0].seconds / 3600:.2g} h of trading, a book every {dt_s:g} s"
        about = f"{seeds} {'seed' if seeds == 1 else 'seeds'} of {span}"
        columns.append(Column(preset, about, "SIMULATED", measured, table, path))
    return columns


def of_recording(recording: Recording, say: Say) -> list[Column]:
    """One column for each instrument, its days as what is averaged."""
    columns = []
    for instrument in recording.info.instruments:
        measured, path = [], None
        for day in recording.info.days[instrument.ticker]:
            market = recording.read(instrument.ticker, day)
            measured.append(measure(market))
            path = path or path_of(market)
            say(f"{instrument.ticker} {day}: {len(market.books):,} books, {len(market.trades):,} trades")
        if path is not None:
            about = f"{len(measured)} recorded {'day' if len(measured) == 1 else 'days'}"
            columns.append(
                Column(instrument.ticker, about, recording.info.watermark, measured, facts(measured), path)
            )
    return columns


def of_linked(common: Common, lag_s: float, *, hours: float | None, seed: int, say: Say) -> Linked:
    """Two shares with one fair value, the second one ``lag_s`` behind; always at 0.25 s."""
    first, second = LEAD_LAG_SPECS[0], replace(LEAD_LAG_SPECS[1], lag_s=lag_s)
    days, _ = simulate_market([first, second], hours=hours, seed=seed, common=common)
    result = lead_lag(days[0], days[1], max_lag_s=max(5.0, 2 * lag_s))
    linked = Linked(common, lag_s, (first.ticker, second.ticker), result)
    say(lead_lag_line(linked))
    return linked


def lead_lag_line(linked: Linked) -> str:
    first, second = linked.names
    return (
        f"{first} leads {second}: planted {linked.lag_s:g} s, rho {linked.common.rho:g}; returns correlate "
        f"most ({linked.result.peak:.3f} at 0.25 s steps) at {linked.result.peak_lag_s:g} s; "
        f"{linked.result.same_time_10s:.2f} over the same 10 s"
    )


def text(columns: Sequence[Column]) -> list[str]:
    """The table for a terminal: mean, range over seeds or days, verdict. Gates are those of each column."""
    names = [fact.name for column in columns[:1] for fact in column.facts]
    width = max(map(len, names))
    lines = [" " * width + "".join(f"  {column.name:^28.28}" for column in columns)]
    for k, name in enumerate(names):
        cells = "".join(f"  {_cell(column.facts[k]):28}" for column in columns)
        gates = " | ".join(dict.fromkeys(column.facts[k].gate for column in columns))
        lines.append(f"{name:{width}}{cells}  {gates}".rstrip())
    failing = sum(fact.passed is False for column in columns for fact in column.facts)
    judged = sum(fact.passed is not None for column in columns for fact in column.facts)
    lines.append(f"{judged - failing} of {judged} gates passed; gates are for the mean over seeds or days")
    return lines


def write_html(columns: Sequence[Column], linked: Linked | None, path: Path) -> None:
    """The page to ``path`` by way of a temporary name."""
    simulated = linked is not None or any(column.watermark == "SIMULATED" for column in columns)
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        f"<title>Stylised facts</title><style>{_STYLE}</style></head><body>",
        "<p class='mark'>SIMULATED: no profit on such a market is evidence of an edge</p>"
        if simulated
        else "",
        "<main><h1>Stylised facts</h1>",
        "<p>Mean over seeds or days; below it their range. A gate is applied to the mean, and a fact that "
        "fails is shown as it is. All is measured from snapshots and trades, as a feed brings them.</p>",
        _table(columns),
    ]
    for column in columns:
        picture = facts_png(column.measured, column.path, column.watermark)
        title = f"{column.name}: {column.about}"
        if column.watermark == "SIMULATED":
            title += " (SIMULATED)"
        parts.append(_figure(title, picture))
    if linked is not None:
        picture = lead_lag_png(linked.result, linked.names, linked.lag_s, "SIMULATED")
        parts.append(_figure("Lead and lag (SIMULATED)", picture))
        parts.append(f"<p>{html.escape(lead_lag_line(linked))}</p>")
    parts.append("</main></body></html>\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text("\n".join(part for part in parts if part), encoding="utf-8")
    draft.replace(path)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def _cell(fact: Fact) -> str:
    spread = f"[{_number(fact.low)}..{_number(fact.high)}]" if fact.low != fact.high else ""
    return f"{_number(fact.value):>6} {spread:15} {PASSED[fact.passed]}"


def _table(columns: Sequence[Column]) -> str:
    head = "".join(
        f"<th>{html.escape(c.name)}<small>{html.escape(c.about)}</small></th><th>gate</th>" for c in columns
    )
    rows = []
    for k, first in enumerate(columns[0].facts):
        cells = ""
        for column in columns:
            fact = column.facts[k]
            spread = f"{_number(fact.low)} .. {_number(fact.high)}" if fact.low != fact.high else ""
            verdict = f"{PASSED[fact.passed]}: " if fact.passed is not None else ""
            kind = {True: "ok", False: "fails", None: ""}[fact.passed]
            cells += f"<td class='{kind}'>{_number(fact.value)}<small>{spread}</small></td>"
            cells += f"<td class='gate {kind}'>{html.escape(verdict + fact.gate)}</td>"
        rows.append(f"<tr><th>{html.escape(first.name)}</th>{cells}<td>{html.escape(first.anchor)}</td></tr>")
    return (
        f"<div class='wide'><table><tr><th>fact</th>{head}<th>anchor</th></tr>{''.join(rows)}</table></div>"
    )


def _figure(title: str, png: bytes) -> str:
    data = base64.b64encode(png).decode()
    return f"<h2>{html.escape(title)}</h2><img alt='{html.escape(title)}' src='data:image/png;base64,{data}'>"


_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:0;color:#1b1f24;background:#fff}
main{max-width:76rem;margin:0 auto;padding:1rem}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem}
th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid #d8dee4;vertical-align:top}
tr>:first-child,tr>:last-child{text-align:left;font-weight:normal}
td.gate{text-align:left;color:#57606a}
small{display:block;color:#57606a;font-weight:normal}
.ok.gate{color:#116329}.fails,.fails.gate{color:#a40e26;font-weight:bold}
img{max-width:100%}
.mark{position:sticky;top:0;z-index:2;margin:0;background:#a40e26;color:#fff;padding:.4rem 1rem;
font-weight:bold}
"""

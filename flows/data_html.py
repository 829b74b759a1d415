"""The pictures of a recording as PNG files, and one HTML page with all of them that opens anywhere.

The page needs no script, network or other file. Pictures are in it twice, for light and for dark screens.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from flows.data_page import Look, clock_lines, duration, money, number, page, percent
from flows.data_plots import DARK, LIGHT, VIEWS, View, png
from flows.data_source import Source
from market.errors import RecordingError
from market.inspect import DayInspection
from market.verdict import Verdict

PAGE = "index.html"
MAX_DAYS = 40
"""A page holds so many instrument-days (about 0.5 MB each); more are refused before anything is drawn."""

Progress = Callable[[str], None]


def write(
    source: Source, days: Iterable[tuple[DayInspection, Verdict]], out: Path, *, progress: Progress
) -> Path:
    """``out/<ticker>/<day>/<view>.png`` and ``out/index.html``; returns the page.

    Files of the same names are replaced, others in ``out`` stay. RecordingError when there are too many days
    for one page or ``out`` cannot be written.
    """
    sections: list[str] = []
    titles: list[tuple[str, Verdict]] = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for day, verdict in days:
            if len(titles) == MAX_DAYS:
                raise RecordingError(
                    f"{source.name} holds more than {MAX_DAYS} instrument-days, too many for one page: "
                    "choose with --ticker or --day"
                )
            titles.append((f"{day.instrument.ticker} {day.day}", verdict))
            sections.append(_section(source, day, verdict, out))
            progress(f"{day.instrument.ticker} {day.day}: {verdict.level}, {len(VIEWS)} pictures")
        target, draft = out / PAGE, out / f".{PAGE}.tmp"
        draft.write_text("\n".join([*_head(source, titles), *sections, "</main></body></html>\n"]), "utf-8")
        draft.replace(target)
    except OSError as error:
        raise RecordingError(f"{out} cannot be written: {error.strerror or error}") from error
    return target


def _section(source: Source, day: DayInspection, verdict: Verdict, out: Path) -> str:
    folder = out / day.instrument.ticker / day.day
    folder.mkdir(parents=True, exist_ok=True)
    parts = [
        f'<section id="{_anchor(day)}"><h2>{html.escape(day.instrument.ticker)} {day.day}'
        f" <small>{html.escape(day.instrument.name or day.instrument.kind)}</small></h2>",
        f'<p class="verdict {verdict.level}">{verdict.level}</p>',
    ]
    if verdict.reasons:
        parts.append("<ul>")
        parts += [
            f'<li class="{r.level}"><b>{r.name}</b>: {html.escape(r.text)}</li>' for r in verdict.reasons
        ]
        parts.append("</ul>")
    for view in VIEWS:
        light = png(view, day, LIGHT, source.watermark)
        (folder / f"{view.name}.png").write_bytes(light)
        parts.append(_figure(view, day, light, png(view, day, DARK, source.watermark)))
    text = page(day, verdict, source.watermark, Look(bars=True))
    parts.append(f"<details><summary>the same in words</summary><pre>{html.escape(text)}</pre></details>")
    parts.append("</section>")
    return "\n".join(parts)


def _figure(view: View, day: DayInspection, light: bytes, dark: bytes) -> str:
    said = html.escape(CAPTIONS[view.name](day))
    return (
        "<figure><picture>"
        f'<source media="(prefers-color-scheme: dark)" srcset="{_inline(dark)}">'
        f'<img alt="{html.escape(view.title)}: {said}" src="{_inline(light)}"></picture>'
        f"<figcaption>{said}</figcaption></figure>"
    )


def _inline(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def _anchor(day: DayInspection) -> str:
    return html.escape(f"{day.instrument.ticker}-{day.day}")


def _head(source: Source, titles: list[tuple[str, Verdict]]) -> Iterator[str]:
    name = html.escape(source.title)
    yield (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f"<title>{name}</title><style>{_STYLE}</style></head><body>"
    )
    if source.watermark == "SIMULATED":
        yield '<div class="mark">SIMULATED: this market was made by a program.</div>'
    else:
        yield '<div class="mark real">REAL recording: data of third parties, not to be published.</div>'
    hashed = f", data hash <code>{source.data_hash[:12]}</code>" if source.data_hash else ""
    yield (
        f"<main><h1>{name}</h1><p>source {html.escape(source.source)}, tariff {html.escape(source.tariff)}"
        f"{hashed}. {html.escape(source.remark)}</p>"
    )
    if len(titles) > 1:
        yield "<ul>"
        for title, verdict in titles:
            anchor = html.escape(title.replace(" ", "-"))
            yield f'<li><a href="#{anchor}">{html.escape(title)}</a> '
            yield f'<b class="{verdict.level}">{verdict.level}</b></li>'
        yield "</ul>"


def _of_price(day: DayInspection) -> str:
    gaps = day.silences.count
    shaded = "; silences shaded, grey where a known break explains them" if gaps else ""
    return f"Best bid to best ask in each of the day's bins, and the middle{shaded}."


def _of_spread(day: DayInspection) -> str:
    if day.spread is None:
        return "No row has both a bid and an ask."
    t, b = day.spread.ticks, day.spread.bps
    return (
        f"Weighted by time. Median {number(t.p50)} ticks ({number(b.p50)} bp); a round trip of market orders "
        f"costs that before commission."
    )


def _of_depth(day: DayInspection) -> str:
    if not day.depth:
        return "No book was recorded."
    first, last = day.depth[0], day.depth[-1]
    return (
        f"Mean lots over the time. The best level holds {number(first.bid_lots)} bid and "
        f"{number(first.ask_lots)} asked; level {last.level} lies {number(last.bid_away_ticks)} and "
        f"{number(last.ask_away_ticks)} ticks from it. "
        "A share beside a bar: how much of the time the level was filled."
    )


def _of_trades(day: DayInspection) -> str:
    t = day.trades
    if t is None:
        return "No trade was recorded."
    return (
        f"{t.count:,} trades, {t.lots_total:,} lots, {money(t.turnover_nano, day.instrument.currency)}, "
        "against the last book received before each. In a sound recording the tallest bars stand at 0."
    )


def _of_rate(day: DayInspection) -> str:
    if day.books is None:
        return "No book was recorded."
    apart = f"{duration(day.books.median_ns)}, {duration(day.books.p99_ns)} at 99 %"
    return f"The median interval between books is {apart}."


def _of_gaps(day: DayInspection) -> str:
    s = day.silences
    if not s.count:
        return f"None. {percent(s.long_share)} of the intervals are over three times the median."
    silences = "1 silence" if s.count == 1 else f"{s.count:,} silences"
    return (
        f"{silences}, {duration(s.total_ns)} together, {s.unexplained:,} outside the known breaks; "
        f"{s.trades:,} trades printed meanwhile."
    )


def _of_clock(day: DayInspection) -> str:
    said = [
        f"{what}: {'; '.join(line for line in clock_lines(clock))}"
        for what, clock in (("Books", day.book_clock), ("Trades", day.trade_clock))
        if clock is not None
    ]
    return ". ".join(said) + "." if said else "Nothing was recorded."


CAPTIONS: dict[str, Callable[[DayInspection], str]] = {
    "price": _of_price, "spread": _of_spread, "depth": _of_depth, "trades": _of_trades, "rate": _of_rate,
    "gaps": _of_gaps, "clock": _of_clock,
}  # fmt: skip

_STYLE = """
:root{color-scheme:light dark;--ink:#24292f;--paper:#fff;--soft:#57606a;--rule:#d0d7de;--ok:#116329;
--suspicious:#7d4e00;--implausible:#a40e26}
@media (prefers-color-scheme:dark){:root{--ink:#c9d1d9;--paper:#0d1117;--soft:#8b949e;--rule:#30363d;
--ok:#56d364;--suspicious:#e3b341;--implausible:#ff7b72}}
body{font:15px/1.5 system-ui,sans-serif;margin:0;color:var(--ink);background:var(--paper)}
main{max-width:64rem;margin:0 auto;padding:1rem}
h1{font-size:1.5rem}h2{font-size:1.25rem;margin-top:2.5rem;border-top:1px solid var(--rule);padding-top:1rem}
small{color:var(--soft);font-weight:normal}a{color:inherit}
figure{margin:1.2rem 0}img{max-width:100%}figcaption{color:var(--soft);font-size:.92rem}
.verdict{font-size:1.3rem;font-weight:bold;margin:.3rem 0}
.ok{color:var(--ok)}.suspicious{color:var(--suspicious)}.implausible{color:var(--implausible)}
pre{overflow-x:auto;font:13px/1.35 ui-monospace,monospace}summary{cursor:pointer}
.mark{position:sticky;top:0;z-index:2;background:#a40e26;color:#fff;padding:.4rem 1rem;font-weight:bold}
.mark.real{background:#57606a;font-weight:normal}
"""

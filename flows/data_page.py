"""A recorded day as a page of text: aligned, with units, and with small bars where a terminal shows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from textwrap import wrap
from typing import TYPE_CHECKING

from market.inspect import OFFSET_LIMIT, DayInspection, Histogram, Location, Rate, Skew, moscow
from market.types import MILLISECOND_NS, NANO, SECOND_NS
from market.verdict import MIN_TRADES, Verdict

if TYPE_CHECKING:
    from flows.data_source import Source

LABEL = 12
WIDTH = 100
BAR = 28
SPARKS = "▁▂▃▄▅▆▇█"
EIGHTHS = "▏▎▍▌▋▊▉█"
SPARK_WIDTH = 60
MAX_ROWS = 10
MAX_GAPS = 6

MINUTE_NS, HOUR_NS = 60 * SECOND_NS, 3_600 * SECOND_NS


@dataclass(frozen=True, slots=True)
class Look:
    """What the output can show. ``bars``: Unicode blocks; ``colour``: ANSI sequences."""

    bars: bool = False
    colour: bool = False

    def bold(self, text: str) -> str:
        return f"\033[1m{text}\033[0m" if self.colour else text

    def dim(self, text: str) -> str:
        return f"\033[2m{text}\033[0m" if self.colour else text

    def level(self, level: str, text: str | None = None) -> str:
        """``text`` in the colour of a verdict."""
        code = {"ok": 32, "suspicious": 33, "implausible": 31}[level]
        return f"\033[1;{code}m{text or level}\033[0m" if self.colour else text or level

    def bar(self, share: float, width: int = BAR) -> str:
        """``share`` 0..1 of the width, in eighths of a character; any share above 0 shows."""
        if not self.bars or share <= 0:
            return ""
        eighths = max(1, round(min(share, 1.0) * width * 8))
        whole, rest = divmod(eighths, 8)
        return "█" * whole + (EIGHTHS[rest - 1] if rest else "")

    def left_bar(self, share: float, width: int) -> str:
        """The same, growing to the left, in halves: the block elements have no finer ones on that side."""
        if not self.bars:
            return ""
        halves = max(1, round(min(share, 1.0) * width * 2)) if share > 0 else 0
        return ("▐" * (halves % 2) + "█" * (halves // 2)).rjust(width)

    def spark(self, values: Sequence[float], width: int = SPARK_WIDTH) -> str:
        """Bin means as a line of blocks from 0 to the largest; a blank where nothing happened at all."""
        if not self.bars or not values:
            return ""
        means = squeezed(values, width)
        top = max(means)
        return "".join(SPARKS[min(7, int(v / top * 8))] if v > 0 else " " for v in means)


def page(day: DayInspection, verdict: Verdict, watermark: str, look: Look) -> str:
    """Everything about one day, ending in a newline."""
    lines = [_title(day, watermark, look), *_verdict(verdict, look), ""]
    for block in (_span, _gaps, _states, _spread, _depth, _mid, _trades, _clock):
        lines += block(day, look)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def overview(source: Source, days: Sequence[tuple[DayInspection, Verdict]], look: Look) -> str:
    """Where it comes from, and one line for each day."""
    hashed = f", data hash {source.data_hash[:12]}" if source.data_hash else ""
    mark = (
        look.level("implausible", source.watermark) if source.watermark == "SIMULATED" else source.watermark
    )
    lines = [f"{source.name}: {mark}, source {source.source}, tariff {source.tariff}{hashed}"]
    if source.remark:
        lines.append(look.level("suspicious", source.remark))
    if len(days) == 1:
        return lines[0] + "\n" + "".join(f"{line}\n" for line in lines[1:])
    lines.append("")
    wide = max([len("ticker"), *(len(day.instrument.ticker) for day, _ in days)])
    head = (
        f"{'ticker':<{wide}}  {'day':<10}  {'books':>9}  {'trades':>9}  {'span':>11}  {'spread':>8}  verdict"
    )
    lines.append(look.dim(head))
    for day, verdict in days:
        spread = f"{number(day.spread.bps.p50)} bp" if day.spread else "-"
        said = look.level(verdict.level)
        why = ", ".join(reason.name for reason in verdict.reasons)
        lines.append(
            f"{day.instrument.ticker:<{wide}}  {day.day}  {day.report.books:>9,}  {day.report.trades:>9,}  "
            f"{duration(day.span_ns):>11}  {spread:>8}  {said}{': ' + why if why else ''}"
        )
    return "\n".join(line.rstrip() for line in lines) + "\n"


def duration(ns: float) -> str:
    """``120 ms``, ``1.73 s``, ``1 min 43 s``, ``7 h 00 min``; a sign where it is negative."""
    if ns < 0:
        return "-" + duration(-ns)
    if ns < 1_000:
        return f"{ns:.0f} ns"
    for unit, size in (("us", 1_000), ("ms", MILLISECOND_NS), ("s", SECOND_NS)):
        if ns < 999.5 * size or (unit == "s" and ns < 60 * SECOND_NS):
            value = ns / size
            if unit == "s" and value >= 59.95:
                break
            return f"{value:.0f} {unit}" if value >= 99.5 else f"{value:.3g} {unit}"
    seconds = round(ns / SECOND_NS)
    if seconds < 3_600:
        return f"{seconds // 60} min {seconds % 60:02} s"
    minutes = round(ns / MINUTE_NS)
    return f"{minutes // 60} h {minutes % 60:02} min"


def percent(share: float) -> str:
    """``57.0 %``; what is not 0 never reads as 0, what is not all never as 100."""
    if 0 < share < 0.0005:
        return "<0.1 %"
    if 0.9995 <= share < 1:
        return ">99.9 %"
    return f"{share:.1%}".replace("%", " %") if 0 < share < 1 else f"{share * 100:.0f} %"


def number(value: float) -> str:
    """``1,234``, ``36.0``, ``0.71``: three digits that matter, thousands apart."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def money(nano: int, currency: str) -> str:
    """``39.0 bn RUB``."""
    amount = nano / NANO
    for size, word in ((1e12, " tn"), (1e9, " bn"), (1e6, " m")):
        if abs(amount) >= size:
            return f"{amount / size:.3g}{word} {currency.upper()}"
    return f"{amount:,.0f} {currency.upper()}"


def clock_time(ns: int) -> str:
    return moscow(ns).strftime("%H:%M:%S")


def squeezed(values: Sequence[float], width: int) -> list[float]:
    """Means of at most ``width`` groups of neighbours."""
    width = min(width, len(values))
    ends = [round(i * len(values) / width) for i in range(width + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(ends)]


def _row(label: str, text: str, look: Look) -> str:
    return look.bold(label.ljust(LABEL)) + text if label else " " * LABEL + text


def _title(day: DayInspection, watermark: str, look: Look) -> str:
    what = f"{day.instrument.kind} {day.instrument.class_code}"
    named = f", {day.instrument.name}" if day.instrument.name else ""
    weekday = date.fromisoformat(day.day).strftime("%a")
    title = f"{day.instrument.ticker}  {weekday} {day.day}"
    mark = look.level("implausible", watermark) if watermark == "SIMULATED" else watermark
    return f"{look.bold(title)}  {what}{named}  {mark}"


def _verdict(verdict: Verdict, look: Look) -> Iterator[str]:
    yield _row("verdict", look.level(verdict.level), look)
    for reason in verdict.reasons:
        first, *rest = wrap(f"{reason.name}: {reason.text}", WIDTH - LABEL, subsequent_indent="  ")
        yield _row("", first.replace(reason.name, look.level(reason.level, reason.name), 1), look)
        yield from (_row("", line, look) for line in rest)


def _span(day: DayInspection, look: Look) -> Iterator[str]:
    if day.books is None and day.trade_rate is None:
        yield _row("span", "nothing was recorded", look)
        return
    yield _row(
        "span",
        f"{clock_time(day.first_ns)} - {clock_time(day.last_ns)} Moscow time, {duration(day.span_ns)}",
        look,
    )
    for label, rate, none in (
        ("books", day.books, "no books recorded"),
        ("trades", day.trade_rate, "no trades recorded"),
    ):
        yield from _rate(label, rate, none, look)


def _rate(label: str, rate: Rate | None, none: str, look: Look) -> Iterator[str]:
    if rate is None:
        yield _row(label, none, look)
        return
    often = f"{number(rate.mean_per_s)} a second, {rate.busiest:,} in the busiest"
    if rate.count > 1:
        middle = f"interval {duration(rate.median_ns)} median" if rate.median_ns else "most come together"
        often += f"; {middle}, {duration(rate.p99_ns)} at 99 %"
    yield _row(label, f"{rate.count:>9,}  {often}", look)
    if look.bars:
        yield _row("", f"{look.spark(rate.per_s)}  up to {number(max(rate.per_s))}/s", look)


def _gaps(day: DayInspection, look: Look) -> Iterator[str]:
    if day.books is None:
        return
    s = day.silences
    if not s.count:
        text = "none of more than 10 s"
    else:
        text = f"{s.count:,} of more than 10 s, {duration(s.total_ns)} together"
        known = s.count - s.unexplained
        text += f"; {known:,} of them in known breaks" if known else ""
        text += f"; {s.trades:,} trades printed meanwhile" if s.trades else ""
    yield _row("gaps", text, look)
    for gap in sorted(s.listed, key=lambda gap: -gap.length_ns)[:MAX_GAPS]:
        note = f"  {gap.cause}" if gap.cause else ""
        note += f"  {gap.trades:,} trades meanwhile" if gap.trades else ""
        yield _row("", f"{clock_time(gap.from_ns)}  {duration(gap.length_ns):>11}{note}", look)
    if s.count > MAX_GAPS:
        yield _row("", look.dim(f"the {MAX_GAPS} longest are shown"), look)
    yield _row("", f"{percent(s.long_share)} of the intervals are over 3 times the median", look)


def _states(day: DayInspection, look: Look) -> Iterator[str]:
    s, r = day.states, day.report
    if s is None:
        return
    yield _row(
        "state",
        f"crossed {percent(s.crossed)}, locked {percent(s.locked)}, one-sided {percent(s.one_sided)}, "
        f"marked incomplete {percent(s.incomplete)} of the time",
        look,
    )
    dropped = [
        f"{count:,} {what}"
        for count, what in (
            (r.crossed, "crossed"), (r.unsorted, "unsorted"),
            (r.negative, "with an impossible price or size"), (r.backward_time, "backward in time"),
        )
        if count
    ]  # fmt: skip
    text = f"rows unfit for use: {r.books_dropped:,}" + (f" ({', '.join(dropped)})" if dropped else "")
    if r.trades_dropped:
        text += f"; trades unfit: {r.trades_dropped:,}"
    yield _row("", f"{text}; repeats of the row before: {r.duplicated:,}", look)


def _spread(day: DayInspection, look: Look) -> Iterator[str]:
    if day.spread is None:
        yield _row(
            "spread", "no book with both sides" if day.books is not None else "no books recorded", look
        )
        return
    t, b = day.spread.ticks, day.spread.bps
    yield _row(
        "spread",
        f"median {_ticks(t.p50)} = {number(b.p50)} bp, mean {number(t.mean)} = {number(b.mean)} bp, "
        f"99 % of the time at most {number(t.p99)}, widest {number(t.high)}",
        look,
    )
    rows = [(name, share) for name, share in _bins(day.spread.ticks_histogram) if share]
    wide = max(len(name) for name, _ in rows)
    top = max(share for _, share in rows)
    for name, share in rows:
        yield _row("", f"{name:>{wide}}  {percent(share):>7}  {look.bar(share / top)}", look)


def _bins(histogram: Histogram) -> Iterator[tuple[str, float]]:
    """At most ``MAX_ROWS`` named bins of whole ticks, neighbours taken together, and what lies beyond."""
    shares, width = list(histogram.shares), int(histogram.width)
    group = -(-len(shares) // MAX_ROWS)
    low = int(histogram.start)
    for i in range(0, len(shares), group):
        a, b = low + i * width, low + min(i + group, len(shares)) * width - 1
        yield (_ticks(a) if a == b else f"{a:,}-{b:,} ticks"), sum(shares[i : i + group])
    if histogram.beyond:
        yield "more", histogram.beyond


def _ticks(value: float) -> str:
    return f"{number(value)} tick" + ("" if value == 1 else "s")


def _depth(day: DayInspection, look: Look) -> Iterator[str]:
    if not day.depth:
        return
    yield _row(
        "depth",
        "mean lots over time by level, bids left and asks right; then ticks from the best price",
        look,
    )
    top = max(max(level.bid_lots, level.ask_lots) for level in day.depth) or 1.0
    shown = [level for level in day.depth if level.level <= MAX_ROWS or level is day.depth[-1]]
    half = BAR // 2
    for level in shown:
        bars = (
            f"{look.left_bar(level.bid_lots / top, half)} {level.level:>2} "
            f"{look.bar(level.ask_lots / top, half):<{half}}"
            if look.bars
            else f" {level.level:>2} "
        )
        away = f"{number(level.bid_away_ticks):>5} {number(level.ask_away_ticks):>5}"
        filled = min(level.bid_filled, level.ask_filled)
        note = f"   filled {percent(filled)}" if filled < 0.999 else ""
        text = f"{number(level.bid_lots):>9} {bars} {number(level.ask_lots):<7}  {away}{note}"
        yield _row("", text, look)


def _mid(day: DayInspection, look: Look) -> Iterator[str]:
    if day.mid is None:
        return
    m = day.mid
    yield _row(
        "mid",
        f"{m.moves:,} moves, {percent(m.reverting)} take back the one before (autocorrelation "
        f"{m.autocorrelation:+.2f}), largest {_ticks(m.largest_ticks)}",
        look,
    )


def _trades(day: DayInspection, look: Look) -> Iterator[str]:
    t = day.trades
    if t is None:
        return
    sided = t.buys + t.sells
    bought = f"{percent(t.buys / sided)} bought" if sided else "no side recorded"
    yield _row(
        "volume",
        f"{t.lots_total:,} lots, {money(t.turnover_nano, day.instrument.currency)}, {bought}; "
        f"size {number(t.lots.p50)} median, {number(t.lots.p99)} at 99 %, {number(t.lots.high)} the largest",
        look,
    )
    if not t.judged.judged:
        yield _row("", "none can be compared with a book", look)
        return
    yield from _places(t.judged, look)
    left = t.count - t.judged.judged
    if left:
        yield _row("", look.dim(f"{left:,} without a fresh two-sided book or a side are left out"), look)
    for taker, side, at in (("buys", "ask", t.judged_buys), ("sells", "bid", t.judged_sells)):
        if at.judged >= MIN_TRADES and at.mode_ticks:
            share = at.share(at.offsets[at.mode_ticks + OFFSET_LIMIT])
            where = "beyond" if at.mode_ticks > 0 else "inside"
            text = (
                f"{percent(share)} of the {taker} print {_ticks(abs(at.mode_ticks))} {where} the best {side}"
            )
            yield _row("", text, look)


def _places(at: Location, look: Look) -> Iterator[str]:
    label = "printed"
    for name, count in (
        ("at the touch", at.at), ("through it", at.through), ("inside", at.inside), ("wrong side", at.wrong),
    ):  # fmt: skip
        share = at.share(count)
        yield _row(label, f"{name:<12}  {percent(share):>7}  {look.bar(share)}", look)
        label = ""


def _clock(day: DayInspection, look: Look) -> Iterator[str]:
    label = "clock"
    for what, clock in (("books", day.book_clock), ("trades", day.trade_clock)):
        if clock is not None:
            first, *rest = clock_lines(clock)
            yield _row(label, f"{what:<6}  {first}", look)
            yield from (_row("", f"{'':<6}  {line}", look) for line in rest)
            label = ""


def clock_lines(clock: Skew) -> list[str]:
    """Receive time minus exchange time in words, one or two lines."""
    if clock.delay_ns is None:
        return ["the source has no exchange time"]
    d = clock.delay_ns
    side = "after" if d.p50 >= 0 else "BEFORE"
    first = f"arrive {duration(abs(d.p50))} {side} the exchange's time"
    first += f" (1 % to 99 %: {duration(d.p1)} to {duration(d.p99)} after)"
    if clock.negative and d.p50 >= 0:
        first += f", {percent(clock.negative_share)} before it"
    rest = []
    if clock.resolution_ns >= MILLISECOND_NS:
        rest.append(f"stamps in whole {'seconds' if clock.resolution_ns == SECOND_NS else 'ms'}")
    if clock.drift_ns_per_hour is not None:
        rest.append(f"the clocks drift by {clock.drift_ns_per_hour / MILLISECOND_NS:+,.1f} ms an hour")
    return [first, "; ".join(rest)] if rest else [first]

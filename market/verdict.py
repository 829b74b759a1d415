"""Can this recording be what it claims to be? Named rules over an inspection; each says what to look at.

``implausible``: no market looks like this, so nothing may be learned from it. ``suspicious``: possible, but a
person should know the reason first. The bounds are set so that the sound recordings at hand pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from market.inspect import DayInspection, Location, Skew
from market.types import MILLISECOND_NS, SECOND_NS

Level = Literal["ok", "suspicious", "implausible"]

MIN_TRADES = 200
"""Fewer trades of one side than this condemn nothing."""
MODE_SHARE = 0.25
MODE_TIMES = 2
"""A side is not the touch when at least MODE_SHARE of its takers pay one and the same other price, and
MODE_TIMES as many as pay the shown one."""
FAR_SHARE = 0.20
WRONG_SHARE = 0.30
AT_OR_THROUGH = 0.50
UNSOUND_SHARE = 0.001
UNSOUND_IMPOSSIBLE = 0.05
CROSSED_SHARE, CROSSED_NS = 0.001, 2 * SECOND_NS
"""Of the known time, and in one run: more than this is no flicker."""
ONE_SIDED_SHARE = 0.02
INCOMPLETE_SHARE = 0.10
GAP_SHARE = 0.05
GAP_TRADES = 10
SPREAD_BPS = 100.0
NEGATIVE_SHARE = 0.02
NEGATIVE_NS = 50 * MILLISECOND_NS
"""Exchange and local clocks that are both kept by NTP differ by less."""
DRIFT_NS_PER_HOUR = 100 * MILLISECOND_NS
ZONE_NS = 600 * SECOND_NS
OUTSIDE_SHARE = 0.01
OVERLAP_SHARE, OVERLAP_TRADES = 0.5, 50
HOUR_NS = 3_600 * SECOND_NS
FLICKER_SHARE, FLICKER_MOVES = 0.9, 200
FROZEN_BOOKS, FROZEN_PRICES = 1_000, 5
TOUCH_TO_LEVELS, DENSE_TICKS, DENSE_FILLED = 6.0, 1.5, 0.9
"""A spread of so many distances between the levels behind it, where those stand shoulder to shoulder: in a
thin book they do not."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One rule that spoke. ``name`` never changes (scripts may ask for it), ``text`` is for people."""

    name: str
    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gravest level among the reasons, and all of them, the gravest first."""

    level: Level
    reasons: tuple[Reason, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge(day: DayInspection) -> Verdict:
    """All rules over one day."""
    found = [reason for rule in RULES for reason in rule(day)]
    found.sort(key=lambda reason: -_LEVELS.index(reason.level))
    return Verdict(found[0].level if found else "ok", tuple(found))


_LEVELS: tuple[Level, ...] = ("ok", "suspicious", "implausible")


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def _nothing(day: DayInspection) -> Iterator[Reason]:
    if day.books is None and day.trades is None:
        yield Reason("nothing_usable", "implausible", "not one sound book and not one sound trade")


def _unsound(day: DayInspection) -> Iterator[Reason]:
    r = day.report
    for what, dropped, rows in (
        ("books", r.books_dropped, r.books),
        ("trades", r.trades_dropped, r.trades),
    ):
        if dropped > UNSOUND_SHARE * rows:
            level: Level = "implausible" if dropped > UNSOUND_IMPOSSIBLE * rows else "suspicious"
            yield Reason(
                "unsound_rows",
                level,
                f"{dropped:,} of {rows:,} {what} ({_percent(dropped / rows, 1)}) are impossible",
            )


def _states(day: DayInspection) -> Iterator[Reason]:
    s = day.states
    if s is None:
        return
    crossed = s.crossed + s.locked
    if crossed > CROSSED_SHARE or s.crossed_longest_ns > CROSSED_NS:
        yield Reason(
            "crossed_time", "suspicious",
            f"crossed or locked for {_percent(crossed, 2)} of the time, at most "
            f"{s.crossed_longest_ns / SECOND_NS:,.1f} s in a row",
        )  # fmt: skip
    if s.one_sided > ONE_SIDED_SHARE:
        yield Reason("one_sided", "suspicious", f"a side is empty for {_percent(s.one_sided, 1)} of the time")
    if s.incomplete > INCOMPLETE_SHARE:
        yield Reason(
            "incomplete",
            "suspicious",
            f"marked incomplete by its source for {_percent(s.incomplete)} of the time",
        )


def _touch(day: DayInspection) -> Iterator[Reason]:
    """A book side that is not the touch: its takers keep printing a constant distance away from it."""
    if day.trades is None:
        return
    buys, sells = day.trades.judged_buys, day.trades.judged_sells
    if _reversed(buys) and _reversed(sells):
        yield Reason(
            "sides_reversed", "implausible",
            f"{_percent(buys.share(buys.opposite))} of the buys print at the best bid and "
            f"{_percent(sells.share(sells.opposite))} of the sells at the best ask: "
            "the trades' sides are reversed",
        )  # fmt: skip
        return
    for taker, side, worse, better, at in (
        ("buys", "ask", "above", "below", buys),
        ("sells", "bid", "below", "above", sells),
    ):
        mode = at.mode_ticks
        if not _constant_distance(at):
            continue
        ticks = f"{abs(mode)} tick{'s' if abs(mode) > 1 else ''}"
        yield Reason(
            f"{side}_not_touch", "implausible",
            f"{_percent(_share_at(at, mode))} of the {at.judged:,} {taker} print exactly {ticks} "
            f"{better if mode < 0 else worse} the shown best {side}, only {_percent(at.share(at.at))} at it: "
            f"the {side}s are not the best ones",
        )  # fmt: skip


def _share_at(at: Location, offset_ticks: int) -> float:
    return at.share(at.offsets[len(at.offsets) // 2 + offset_ticks])


def _constant_distance(at: Location) -> bool:
    mode = at.mode_ticks
    limit = len(at.offsets) // 2  # the end bins hold many distances, so they are no constant one
    return (
        at.judged >= MIN_TRADES
        and 0 < abs(mode) < limit
        and _share_at(at, mode) >= MODE_SHARE
        and _share_at(at, mode) >= MODE_TIMES * at.share(at.at)
    )


def _reversed(at: Location) -> bool:
    return at.judged >= MIN_TRADES and at.opposite > at.judged / 2 and at.opposite > MODE_TIMES * at.at


def _elsewhere(day: DayInspection) -> Iterator[Reason]:
    t = day.trades
    if t is None or day.spread is None:
        return
    if t.shift_h:
        yield Reason(
            "trades_shifted", "implausible",
            f"the trades fit the book when they are moved by {t.shift_h:+d} h: one of the two is in another "
            "time zone",
        )  # fmt: skip
        return
    at = t.judged
    if at.judged < MIN_TRADES:
        return
    if at.share(at.far) > FAR_SHARE:
        yield Reason(
            "trades_elsewhere", "implausible",
            f"{_percent(at.share(at.far))} of the trades print far outside the book: another "
            "instrument, tick size or clock",
        )  # fmt: skip
    elif any(_constant_distance(side) or _reversed(side) for side in (t.judged_buys, t.judged_sells)):
        return  # said already, and more exactly
    elif at.share(at.wrong) > WRONG_SHARE or at.share(at.at + at.through) < AT_OR_THROUGH:
        yield Reason(
            "trades_off_touch", "suspicious",
            f"{_percent(at.share(at.at + at.through))} of the trades print at the touch or through it, "
            f"{_percent(at.share(at.inside))} inside the spread, {_percent(at.share(at.wrong))} on "
            "the wrong side",
        )  # fmt: skip


def _shape(day: DayInspection) -> Iterator[Reason]:
    """Without trades the touch can only be judged by the book's own shape."""
    if day.spread is None or (day.trades is not None and day.trades.judged.judged >= MIN_TRADES):
        return
    if len(day.depth) < 3:
        return
    behind = day.depth[2]
    steps = [away / 2 for away in (behind.bid_away_ticks, behind.ask_away_ticks) if away]
    full = min(behind.bid_filled, behind.ask_filled) >= DENSE_FILLED
    if full and steps and max(steps) <= DENSE_TICKS and day.spread.ticks.p50 >= TOUCH_TO_LEVELS * max(steps):
        yield Reason(
            "levels_missing", "suspicious",
            f"the spread is {day.spread.ticks.p50:g} ticks while the levels behind it lie {max(steps):.1f} "
            "apart, and no trades are there to tell whether the best levels are missing",
        )  # fmt: skip


def _spread(day: DayInspection) -> Iterator[Reason]:
    if day.spread is not None and day.spread.bps.p50 > SPREAD_BPS:
        yield Reason(
            "wide_spread", "suspicious", f"the spread is {day.spread.bps.p50:,.0f} bp half of the time"
        )


def _silences(day: DayInspection) -> Iterator[Reason]:
    s = day.silences
    if s.trades >= GAP_TRADES:
        yield Reason(
            "silent_while_trading", "suspicious",
            f"{s.trades:,} trades printed while the book stood still for more than 10 s: books are missing",
        )  # fmt: skip
    share = s.unexplained_ns / day.span_ns if day.span_ns else 0.0
    if share > GAP_SHARE:
        yield Reason(
            "gaps", "suspicious",
            f"{s.unexplained:,} silences of more than 10 s outside the known breaks, "
            f"{_percent(share)} of the span: a thin market, or a recorder that misses much",
        )  # fmt: skip


def _clocks(day: DayInspection) -> Iterator[Reason]:
    """One sentence for both tables where they say the same: they passed the same clock."""
    clocks = [("books", day.book_clock), ("trades", day.trade_clock)]
    told = {what: clock for what, clock in clocks if clock is not None and clock.delay_ns is not None}
    for name, level, rule in _CLOCK_RULES:
        found = {what: text for what, clock in told.items() if (text := rule(clock))}
        if found:
            yield Reason(name, level, f"{' and '.join(found)} {next(iter(found.values()))}")


def _in_another_zone(clock: Skew) -> str:
    middle_ns = _middle_ns(clock)
    if abs(middle_ns) <= ZONE_NS:
        return ""
    return f"arrive {middle_ns / HOUR_NS:+,.2f} h after the exchange's time: one of the two is not UTC"


def _behind(clock: Skew) -> str:
    assert clock.delay_ns is not None
    if clock.negative_share <= NEGATIVE_SHARE or -clock.delay_ns.p1 <= NEGATIVE_NS or _in_another_zone(clock):
        return ""
    return (
        f"arrive before they happened in {_percent(clock.negative_share)} of the rows, 1 % of them by "
        f"{-clock.delay_ns.p1 / MILLISECOND_NS:,.0f} ms or more: the recorder's clock is behind"
    )


def _drifts(clock: Skew) -> str:
    drift = clock.drift_ns_per_hour
    if drift is None or abs(drift) <= DRIFT_NS_PER_HOUR:
        return ""
    moved_ns = abs(drift) * (clock.time_ns[-1] - clock.time_ns[0]) / HOUR_NS
    if moved_ns <= 3 * clock.drift_error_ns:  # no line that the delays keep to
        return ""
    return f"tell of two clocks that drift apart by {drift / MILLISECOND_NS:+,.0f} ms an hour"


def _middle_ns(clock: Skew) -> float:
    assert clock.delay_ns is not None
    return clock.delay_ns.p50


_CLOCK_RULES: tuple[tuple[str, Level, Callable[[Skew], str]], ...] = (
    ("clock_zone", "implausible", _in_another_zone),
    ("clock_behind", "suspicious", _behind),
    ("clock_drift", "suspicious", _drifts),
)


def _overlap(day: DayInspection) -> Iterator[Reason]:
    b, t = day.books, day.trade_rate
    if b is None or t is None or t.count < OVERLAP_TRADES or day.trades is None or day.trades.shift_h:
        return
    both_ns = min(b.last_ns, t.last_ns) - max(b.first_ns, t.first_ns)
    longer_ns = max(b.last_ns - b.first_ns, t.last_ns - t.first_ns)
    if longer_ns and both_ns < OVERLAP_SHARE * longer_ns:
        yield Reason(
            "little_overlap", "suspicious",
            f"books and trades have only {_percent(max(0, both_ns) / longer_ns)} of their time in common",
        )  # fmt: skip


def _outside(day: DayInspection) -> Iterator[Reason]:
    rows = sum(rate.count for rate in (day.books, day.trade_rate) if rate is not None)
    if day.outside_day > OUTSIDE_SHARE * rows:
        yield Reason(
            "wrong_day", "suspicious",
            f"{day.outside_day:,} of {rows:,} rows are not of {day.day}, Moscow time",
        )  # fmt: skip


def _still(day: DayInspection) -> Iterator[Reason]:
    """A price that does not move as prices do."""
    if day.mid is not None and day.mid.moves >= FLICKER_MOVES and day.mid.reverting > FLICKER_SHARE:
        yield Reason(
            "mid_flickers", "suspicious",
            f"{_percent(day.mid.reverting)} of the price moves take back the one before: two feeds are mixed",
        )  # fmt: skip
    if (
        day.spread is None
        or day.trades is None
        or day.spread.ticks.count < FROZEN_BOOKS
        or day.mid is not None
    ):
        return
    if day.trades.high_ticks - day.trades.low_ticks >= FROZEN_PRICES:
        yield Reason(
            "book_frozen", "implausible",
            f"the best prices hardly move while trades print over "
            f"{day.trades.high_ticks - day.trades.low_ticks:,} ticks",
        )  # fmt: skip


RULES: tuple[Callable[[DayInspection], Iterator[Reason]], ...] = (
    _nothing, _unsound, _touch, _elsewhere, _still, _clocks, _states, _silences, _spread, _shape, _overlap,
    _outside,
)  # fmt: skip

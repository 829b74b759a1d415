"""TradingSchedules: the recorded days as they were, every other day as the usual calendar has it."""

from __future__ import annotations

from datetime import date, time, timedelta

from market.contract import invest_pb2 as pb
from market.contract.convert import timestamp, to_ns
from market.paper import schedule
from market.paper.behaviours import Behaviours
from market.paper.clock import MarketClock
from market.paper.refusals import Refusal
from market.paper.schedule import Phase, Schedule, Span, moscow_day
from market.venues import VENUES, Venue

MAX_DAYS = 14
DEFAULT_DAYS = 7

_TYPES = {
    Phase.OPENING: "opening_auction",
    Phase.TRADING: "regular_trading_session",
    Phase.BREAK: "clearing",
}


class ScheduleCalls:
    """``today`` is the market clock's."""

    def __init__(self, calendar: Schedule, clock: MarketClock) -> None:
        self._calendar = calendar
        self._clock = clock

    def behaviours(self) -> Behaviours:
        return {"InstrumentsService/TradingSchedules": self.trading_schedules}

    async def trading_schedules(self, request: pb.TradingSchedulesRequest) -> pb.TradingSchedulesResponse:
        """Raises Refusal 30003 for a period that begins before today or backwards, 30002 for a long one,
        50001 for an exchange that is not here.
        """
        today = moscow_day(self._clock.now_ns())
        first = moscow_day(to_ns(getattr(request, "from"))) if request.HasField("from") else today
        last = moscow_day(to_ns(request.to)) if request.HasField("to") else None
        last = first + timedelta(days=DEFAULT_DAYS - 1) if last is None else last
        if first < today or last < first:
            raise Refusal("30003", f"{first} to {last}, today is {today}")
        if (last - first).days >= MAX_DAYS:
            raise Refusal("30002", f"{first} to {last}")
        wanted = {kind: venue for kind, venue in VENUES.items() if request.exchange in ("", venue.name)}
        if not wanted:
            raise Refusal("50001", request.exchange)
        days = [first + timedelta(days=k) for k in range((last - first).days + 1)]
        return pb.TradingSchedulesResponse(
            exchanges=[
                pb.TradingSchedule(exchange=venue.name, days=[self._day(kind, venue, day) for day in days])
                for kind, venue in wanted.items()
            ]
        )

    def _day(self, kind: str, venue: Venue, day: date) -> pb.TradingDay:
        answer = pb.TradingDay(
            date=timestamp(_midnight_utc_ns(day)), is_trading_day=self._calendar.is_trading_day(kind, day)
        )
        spans = self._calendar.spans(kind, day)
        if spans:
            _recorded(answer, spans)
        elif answer.is_trading_day:
            _usual(answer, venue, day)
        return answer


def _midnight_utc_ns(day: date) -> int:
    """The API dates a day by 00:00 UTC."""
    return (day - date(1970, 1, 1)).days * 86_400 * schedule.SECOND_NS


def _recorded(answer: pb.TradingDay, spans: list[Span]) -> None:
    trading = [span for span in spans if span.phase is Phase.TRADING]
    answer.start_time.CopyFrom(timestamp(trading[0].start_ns))
    answer.end_time.CopyFrom(timestamp(trading[-1].end_ns))
    for span in spans:
        start, end = timestamp(span.start_ns), timestamp(span.end_ns)
        if span.phase is Phase.OPENING:
            answer.opening_auction_start_time.CopyFrom(start)
            answer.opening_auction_end_time.CopyFrom(end)
        elif span.phase is Phase.BREAK and not answer.HasField("clearing_start_time"):
            answer.clearing_start_time.CopyFrom(start)
            answer.clearing_end_time.CopyFrom(end)
        _interval(answer, _TYPES[span.phase], span.start_ns, span.end_ns)


def _usual(answer: pb.TradingDay, venue: Venue, day: date) -> None:
    def at(wall: time) -> int:
        return schedule.to_ns(day, wall)

    for field, wall in (
        ("start_time", venue.main[0]),
        ("end_time", venue.main[1]),
        ("opening_auction_start_time", venue.opening_auction[0]),
        ("opening_auction_end_time", venue.opening_auction[1]),
        ("evening_start_time", venue.evening[0]),
        ("evening_end_time", venue.evening[1]),
    ):
        getattr(answer, field).CopyFrom(timestamp(at(wall)))
    for pair, names in (
        (venue.clearing, ("clearing_start_time", "clearing_end_time")),
        (venue.closing_auction, ("closing_auction_start_time", "closing_auction_end_time")),
        (venue.evening_auction, ("evening_opening_auction_start_time",)),
    ):
        for name, wall in zip(names, pair or (), strict=False):
            getattr(answer, name).CopyFrom(timestamp(at(wall)))
    for kind, pair in (
        ("opening_auction", venue.opening_auction),
        ("regular_trading_session", venue.main),
        ("clearing", venue.clearing),
        ("closing_auction", venue.closing_auction),
        ("opening_auction_evening", venue.evening_auction),
        ("regular_trading_session_evening", venue.evening),
    ):
        if pair:
            _interval(answer, kind, at(pair[0]), at(pair[1]))


def _interval(answer: pb.TradingDay, kind: str, start_ns: int, end_ns: int) -> None:
    entry = answer.intervals.add(type=kind)
    entry.interval.start_ts.CopyFrom(timestamp(start_ns))
    entry.interval.end_ts.CopyFrom(timestamp(end_ns))

"""Running a recorded session again: the same events through the same code must give the same orders.

Market data and everything that came from outside are read from the journal; features, scores and decisions
are made anew. The first difference from what happened is reported with the place where it happened.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from live.core import commands as cmd
from live.core import events as ev
from live.core.engine import Engine
from live.journal import ORDER_COMMANDS, JournalReader, OrderCommand, encode, order_list_hash
from live.pipeline import ScoreModel, SignalPipeline
from market.errors import ScalperError
from models.bundle import Bundle
from models.inference import Ensemble

Answer = ev.Scores | ev.InferenceFailed
Watch = Callable[[ev.Event, list[cmd.Command], Engine, SignalPipeline], None]


class ReplayError(ScalperError):
    """A session cannot be replayed: another bundle, or a journal that does not fit."""


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What the replay found. ``equal``: the same orders, cancels and queries in the same sequence."""

    session_id: str
    events: int
    orders: int
    order_list_hash: str
    journal_order_list_hash: str
    first_difference: str | None
    score_differences: int
    first_score_difference: str | None
    failures_not_repeated: int
    """Inference failures of the live session that did not happen again (they came from the machine)."""
    torn: bool
    truncated: bool

    @property
    def equal(self) -> bool:
        return self.first_difference is None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "equal": self.equal}


def run(
    session_dir: Path,
    bundle: Bundle | None,
    *,
    other_bundles: Mapping[str, Bundle] | None = None,
    make_model: Callable[[str, tuple[str, ...]], ScoreModel] | None = None,
    watch: Watch | None = None,
) -> ReplayResult:
    """Replay the session journalled in ``session_dir``. ``watch`` sees every event and what it led to.

    ``bundle`` must be the one the session started with; ``other_bundles`` (by manifest hash) are those it
    swapped to. ``make_model`` (manifest hash, tickers) -> model replaces both where the models are not
    bundles.
    """
    reader = JournalReader(session_dir)
    if make_model is None:
        make_model = _from_bundles(bundle, other_bundles or {})
    return _Replay(reader, make_model, watch).run()


def _from_bundles(
    bundle: Bundle | None, others: Mapping[str, Bundle]
) -> Callable[[str, tuple[str, ...]], ScoreModel]:
    known = {**others, **({bundle.sha256: bundle} if bundle else {})}

    def make(sha256: str, tickers: tuple[str, ...]) -> ScoreModel:
        if sha256 not in known:
            have = ", ".join(s[:12] for s in known) or "none"
            raise ReplayError(f"the session used bundle {sha256[:12]}, which was not given; given: {have}")
        return Ensemble(known[sha256], tickers)

    return make


class JournalBroker:
    """The broker of a recorded session: it answers what it answered then, and notices when it is asked for
    anything else.

    ``send`` what is asked now, ``meet`` what the journal says was asked, and ``expect_nothing_left`` before
    the next event. ``difference``: the first one, None so far.
    """

    def __init__(self) -> None:
        self._asked: deque[OrderCommand] = deque()
        self.orders: list[cmd.PlaceOrder] = []
        self.journal_orders: list[cmd.PlaceOrder] = []
        self.difference: str | None = None

    def send(self, command: OrderCommand) -> None:
        self._asked.append(command)
        if isinstance(command, cmd.PlaceOrder):
            self.orders.append(command)

    def meet(self, journalled: OrderCommand, now_ns: int) -> None:
        if isinstance(journalled, cmd.PlaceOrder):
            self.journal_orders.append(journalled)
        computed = self._asked.popleft() if self._asked else None
        if computed != journalled and self.difference is None:
            told = encode(computed) if computed is not None else "nothing"
            self.difference = (
                f"at {now_ns}: the session asked for {encode(journalled)}, the replay for {told}"
            )

    def expect_nothing_left(self, now_ns: int) -> None:
        if self._asked and self.difference is None:
            self.difference = (
                f"at {now_ns}: the replay asked for {encode(self._asked[0])}, the session for nothing"
            )
        self._asked.clear()


class _Replay:
    def __init__(
        self,
        reader: JournalReader,
        make_model: Callable[[str, tuple[str, ...]], ScoreModel],
        watch: Watch | None = None,
    ) -> None:
        header = reader.header
        self._reader, self._watch = reader, watch
        self._make_model = make_model
        self._tickers = tuple(header.instruments)
        self._engine = Engine(header.config, header.instruments, header.model, header.session_key)
        if header.restored is not None:
            self._engine.restore(header.restored)
        model = make_model(header.manifest_sha256, self._tickers)
        self._pipeline = SignalPipeline(self._tickers, model, header.session_key)
        if header.pipeline is not None:
            self._pipeline.restore(header.pipeline)
        self._computed: dict[
            str, Answer
        ] = {}  # ticker -> answer to its last book, not yet met in the journal
        self._broker = JournalBroker()
        self._events = 0
        self._score_differences = 0
        self._score_difference: str | None = None
        self._not_repeated = 0

    def run(self) -> ReplayResult:
        last_ns = 0
        for record in self._reader:
            if isinstance(record, ORDER_COMMANDS):
                self._broker.meet(record, last_ns)  # type: ignore[arg-type]
                continue
            self._broker.expect_nothing_left(last_ns)
            last_ns = record.now_ns  # type: ignore[union-attr]
            self._take(record)  # type: ignore[arg-type]
        # After a crash the commands of the last event may be missing from the journal: that is no difference.
        if not (self._reader.torn or self._reader.truncated):
            self._broker.expect_nothing_left(last_ns)
        return ReplayResult(
            self._reader.header.session_id,
            self._events,
            len(self._broker.orders),
            order_list_hash(self._broker.orders),
            order_list_hash(self._broker.journal_orders),
            self._broker.difference,
            self._score_differences,
            self._score_difference,
            self._not_repeated,
            self._reader.torn,
            self._reader.truncated,
        )

    def _take(self, event: ev.Event) -> None:
        """Hand one journalled event to the pipeline and the engine, scores recomputed."""
        self._events += 1
        if isinstance(event, ev.Scores | ev.InferenceFailed):
            self._to_engine(self._recomputed(event))
            return
        self._to_engine(event)
        match event:
            case ev.Book():
                self._unmet(event)
                answer = self._pipeline.on_book(event)
                if answer is not None:
                    self._computed[event.ticker] = answer
            case ev.Trade():
                self._pipeline.on_trade(event)
            case ev.PipelineMode():
                self._pipeline.set_mode(event.members, event.min_interval_ns)
            case ev.ActiveInstruments():
                self._pipeline.rotate(self._engine.rotated_out)
            case ev.PipelineReset():
                self._pipeline.reset(event.ticker)
            case ev.ModelSwapped():
                self._pipeline.swap(self._make_model(event.manifest_sha256, self._tickers))

    def _to_engine(self, event: ev.Event) -> None:
        commands = self._engine.on(event)
        for command in commands:
            if isinstance(command, ORDER_COMMANDS):
                self._broker.send(command)  # type: ignore[arg-type]
        if self._watch is not None:
            self._watch(event, commands, self._engine, self._pipeline)

    # ---- scores

    def _recomputed(self, live: Answer) -> Answer:
        computed = self._computed.pop(live.ticker, None)
        if isinstance(live, ev.InferenceFailed) and not isinstance(computed, ev.InferenceFailed):
            self._not_repeated += 1
            return live
        if computed is None:
            self._score_differs(live, "nothing")
            return live
        computed = replace(computed, now_ns=live.now_ns)
        if computed != live:
            self._score_differs(live, repr(computed))
        return computed

    def _unmet(self, book: ev.Book) -> None:
        """A score that replay computed for the book before must have been met by now."""
        computed = self._computed.pop(book.ticker, None)
        if computed is not None:
            self._score_differs(computed, "the live session has none", live_first=False)

    def _score_differs(self, answer: Answer, other: str, *, live_first: bool = True) -> None:
        self._score_differences += 1
        if self._score_difference is None:
            whose = "live" if live_first else "replay"
            self._score_difference = f"{answer.ticker} at {answer.now_ns}: {whose} {answer!r}, {other}"

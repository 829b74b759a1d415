"""``RecordingWriter``: a recording made event by event, safe against ``kill -9`` at any moment.

Events go to bounded buffers, from there to a log of whole frames (``market.recording.log``) every
``WRITE_INTERVAL_S`` and to the disk itself at most once in ``SYNC_INTERVAL_S``, whether or not anything comes
after them; a thread of its own does both. At Moscow's midnight and at ``close`` the log becomes Parquet
(``market.recording.finish``).
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from market.days import moscow_day
from market.errors import RecordingError
from market.fees import tariff as known_tariff
from market.recording.finish import finish
from market.recording.info import INFO_FILE, RecordingInfo, check_ticker, check_watermark, read_info
from market.recording.log import (
    LOG_FORMAT,
    RECORDING,
    UNFINISHED,
    FolderLock,
    Kind,
    LogFile,
    sync_folder,
    text_frame,
)
from market.recording.recording import Recording, recover_folder
from market.recording.unfinished import Unfinished, log_files, recorded_to_ns, utc
from market.types import BOOK_CONSISTENT, Instrument
from market.writer_buffer import Buffer

WRITE_INTERVAL_S = 0.5
"""Half of what a kill may cost, so that a busy machine has the other half."""
SYNC_INTERVAL_S = 1.0
MAX_INSTRUMENTS = 1000

_log = logging.getLogger(__name__)


class RecordingWriter:
    """Makes the recording ``path``, or goes on with it. One thread appends; ``flush`` may come from anywhere.

    A recording that a killed recorder left there is recovered first (``recovered`` says what was found);
    ``before_ns`` is the latest event that earlier recorders wrote (whole seconds, 0: none). The day of a row
    is Moscow's at its receive time, so a clock that went back costs order, never rows. An error of the disk
    is raised by the next call and by every one after it, ``close`` included: what had been written until then
    stays and is readable.

    RecordingError: another recorder is at work there; the recording there is of another source, watermark or
    tariff; the folder holds something else.
    """

    def __init__(
        self, path: Path, *, source: str, watermark: str, tariff: str, provenance: dict[str, Any]
    ) -> None:
        self.path = Path(path)
        known_tariff(tariff)
        check_watermark(watermark)
        self.counts = {"books": 0, "trades": 0, "own": 0}
        self.log_bytes = 0
        self.last_ns = 0
        self.recovered = ""
        self.before_ns = 0
        self._instruments: dict[str, tuple[int, Instrument]] = {}
        self._buffers: dict[str, Buffer] = {}
        self._texts: list[bytes] = []
        self._facts: dict[str, Any] = {}
        self._buffer_lock, self._file_lock = threading.Lock(), threading.RLock()
        self._failure: RecordingError | None = None
        self._closed = threading.Event()
        self._day_ends_ns = 0
        self._sealed: list[Path] = []
        self._finishing: threading.Thread | None = None
        self._lock: FolderLock | None = None
        self._log: LogFile | None = None
        self._made_folder = not self.path.exists()
        started = datetime.now(UTC)
        try:
            self._take_folder(started)
            self._known = self._check_known(source, watermark, tariff)
            self.before_ns = recorded_to_ns(self._known) if self._known else 0
            self._head = self._make_head(source, watermark, tariff, provenance, started)
            self._log = self._new_log()
        except OSError as error:
            self._give_up()
            raise RecordingError(
                f"a recording cannot be made at {self.path}: {error.strerror or error}; check the free space "
                "and permissions there"
            ) from error
        except BaseException:
            self._give_up()
            raise
        self._thread = threading.Thread(target=self._keep_writing, name="recording", daemon=True)
        self._thread.start()

    # ---- opening ----

    def _take_folder(self, started: datetime) -> None:
        path = self.path
        ours = (path / UNFINISHED).is_dir() or (path / INFO_FILE).is_file()
        if path.exists() and not ours and (not path.is_dir() or any(path.iterdir())):
            raise RecordingError(
                f"{path} exists and is not a recording, so nothing is recorded there; give another path"
            )
        if (path / UNFINISHED).is_dir():
            self.recovered = recover_folder(path)
        self._lock = FolderLock(path, RECORDING, started.isoformat(timespec="seconds"))
        finish(path)  # another recorder may have come and gone since

    def _check_known(self, source: str, watermark: str, tariff: str) -> RecordingInfo | None:
        if not (self.path / INFO_FILE).exists():
            return None
        info = read_info(self.path)
        for name, wanted in (("source", source), ("watermark", watermark), ("tariff", tariff)):
            if (found := getattr(info, name)) != wanted:
                raise RecordingError(
                    f"the recording {self.path} has the {name} {found!r}, this one would have {wanted!r}; "
                    "record into another folder"
                )
        return info

    def _make_head(
        self, source: str, watermark: str, tariff: str, provenance: dict[str, Any], started: datetime
    ) -> dict[str, Any]:
        before = self._known.provenance if self._known else provenance
        changed = {name: value for name, value in provenance.items() if before.get(name) != value}
        return {
            "format": LOG_FORMAT,
            "session": f"{started:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
            "source": source,
            "watermark": watermark,
            "tariff": tariff,
            "provenance": provenance,
            "facts": {"started": started.strftime("%Y-%m-%dT%H:%M:%SZ"), **changed},
        }

    def _new_log(self) -> LogFile:
        """A log that can be read without the earlier ones."""
        number = max((int(log.stem) for log in log_files(self.path)), default=0) + 1
        head = text_frame(Kind.HEAD, {**self._head, "facts": self._head["facts"] | self._facts})
        declared = [text_frame(Kind.INSTRUMENT, i.to_dict(), n) for n, i in self._instruments.values()]
        log = LogFile(self.path / UNFINISHED / f"{number:06d}.log")
        try:
            log.append(b"".join([head, *declared]))
            log.sync()
            sync_folder(log.path.parent)
        except OSError:
            log.path.unlink()
            log.close()
            raise
        return log

    def _give_up(self) -> None:
        """The constructor failed: leave nothing behind that was not there."""
        if self._lock is not None:
            self._lock.release(remove=True)
        self._remove_empty_folder()

    def _remove_empty_folder(self) -> None:
        if self._made_folder and self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()

    # ---- appending ----

    def book(
        self,
        instrument: Instrument,
        exch_ns: int,
        recv_ns: int,
        bid_px: Sequence[int],
        bid_qty: Sequence[int],
        ask_px: Sequence[int],
        ask_qty: Sequence[int],
        flags: int = BOOK_CONSISTENT,
    ) -> None:
        """A snapshot: levels best first, ticks and lots; those beyond ``DEPTH`` are left out."""
        self._make_room(instrument, recv_ns, Kind.BOOKS)
        with self._buffer_lock:
            self._buffer(instrument).book(exch_ns, recv_ns, bid_px, bid_qty, ask_px, ask_qty, flags)
        self._counted("books", recv_ns)

    def trade(self, instrument: Instrument, exch_ns: int, recv_ns: int, px: int, qty: int, side: int) -> None:
        """An anonymous trade: ticks, lots, the aggressor's side (BUY, SELL, 0 unknown)."""
        self._make_room(instrument, recv_ns, Kind.TRADES)
        with self._buffer_lock:
            self._buffer(instrument).trade(exch_ns, recv_ns, px, qty, side)
        self._counted("trades", recv_ns)

    def own(
        self,
        instrument: Instrument,
        event_ns: int,
        kind: str,
        client_order_id: str,
        side: int,
        px: int = 0,
        qty: int = 0,
        fee_nano: int = 0,
    ) -> None:
        """Something happened to an order of ours; ``kind`` is one of ``OWN_KINDS``."""
        self._make_room(instrument, event_ns, Kind.OWN)
        with self._buffer_lock:
            self._buffer(instrument).own(event_ns, kind, client_order_id, side, px, qty, fee_nano)
        self._counted("own", event_ns)

    def note(self, **facts: Any) -> None:
        """Facts about this run for ``provenance["sessions"]``; a later one of the same name replaces it."""
        self._check()
        frame = text_frame(Kind.NOTE, facts)
        with self._buffer_lock:
            self._facts |= facts
            self._texts.append(frame)

    def _make_room(self, instrument: Instrument, ns: int, kind: Kind) -> None:
        """Everything that may take a while or fail, before a row is taken."""
        self._check()
        known = self._instruments.get(instrument.ticker)
        if known is None or known[1] is not instrument:
            self._declare(instrument)
        if ns >= self._day_ends_ns:
            self._roll(ns)
        buffer = self._buffers.get(instrument.ticker)
        if buffer is not None and buffer.full(kind):
            self._flush(sync=False)
            self._check()

    def _declare(self, instrument: Instrument) -> None:
        """A new instrument may come at any time, but not another one under a known ticker."""
        ticker = instrument.ticker
        check_ticker(ticker)
        earlier = {i.ticker: i for i in self._known.instruments} if self._known else {}
        earlier |= {name: known for name, (_, known) in self._instruments.items()}
        for name in ("uid", "lot", "tick_nano"):
            was, now = getattr(earlier.get(ticker, instrument), name), getattr(instrument, name)
            if was != now:
                raise RecordingError(
                    f"{ticker} has the {name} {was} in the recording {self.path} and {now} here; "
                    "record into another folder"
                )
        if ticker in self._instruments:
            return
        number = len(self._instruments)
        if number >= MAX_INSTRUMENTS:
            raise RecordingError(f"a recorder takes at most {MAX_INSTRUMENTS} instruments")
        frame = text_frame(Kind.INSTRUMENT, instrument.to_dict(), number)
        with self._buffer_lock:
            self._instruments[ticker] = (number, instrument)
            self._texts.append(frame)

    def _buffer(self, instrument: Instrument) -> Buffer:
        buffer = self._buffers.get(instrument.ticker)
        if buffer is None:
            buffer = self._buffers[instrument.ticker] = Buffer(instrument.ticker)
        return buffer

    def _counted(self, what: str, ns: int) -> None:
        self.counts[what] += 1
        self.last_ns = max(self.last_ns, ns)

    @property
    def failure(self) -> RecordingError | None:
        """What the disk said, as soon as it is known."""
        return self._failure

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closed.is_set():
            raise RecordingError(f"the recording {self.path} is closed; open another writer to go on with it")

    # ---- to the disk ----

    def flush(self) -> None:
        """Returns when everything that was appended is safe, even from a loss of power."""
        self._check()
        self._flush(sync=True)
        self._check()

    def _flush(self, *, sync: bool) -> None:
        """Hands the buffers over; a failure is kept for the next call."""
        with self._file_lock:
            with self._buffer_lock:
                buffers, self._buffers = self._buffers, {}
                texts, self._texts = self._texts, []
            if self._log is None or self._failure is not None:
                return
            for ticker, buffer in buffers.items():
                texts += buffer.frames(self._instruments[ticker][0])
            before = self._log.bytes
            try:
                self._log.append(b"".join(texts))
                if sync:
                    self._log.sync()
            except OSError as error:
                self._fail(error)
            self.log_bytes += self._log.bytes - before

    def _fail(self, error: OSError) -> None:
        self._failure = RecordingError(
            f"the recording {self.path} cannot be written any more: {error.strerror or error}; what came "
            f"until {utc(self.last_ns) or 'then'} is kept, but for the last second; make room there and "
            "start again"
        )
        try:
            if self._log is not None:
                self._log.cut()
        except OSError as cut:
            _log.warning("%s: half a frame stays at the end and will be skipped: %s", self.path, cut)

    def _keep_writing(self) -> None:
        synced = time.monotonic()
        try:
            while not self._closed.wait(WRITE_INTERVAL_S) and self._failure is None:
                due = time.monotonic() - synced >= SYNC_INTERVAL_S
                self._flush(sync=due)
                if due:
                    synced = time.monotonic()
        except BaseException as error:
            # A defect here must not let the recording go on in memory only.
            self._failure = RecordingError(f"the recording {self.path} failed: {error!r}")
            raise

    # ---- midnight ----

    def _roll(self, ns: int) -> None:
        """A new day: its rows go to a new log, and the old one becomes tables in the background."""
        first = not self._day_ends_ns
        self._day_ends_ns = moscow_day(ns).to_ns
        if first:
            return
        with self._file_lock:
            self._flush(sync=True)
            self._check()
            try:
                old, self._log = self._log, self._new_log()
            except OSError as error:
                self._fail(error)
                self._check()
                return
            if old is not None:
                old.close()
                self._sealed.append(old.path)
        if self._finishing is None or not self._finishing.is_alive():
            sealed, self._sealed = self._sealed, []
            self._finishing = threading.Thread(
                target=self._finish_days, args=(sealed,), name="recording-day", daemon=True
            )
            self._finishing.start()

    def _finish_days(self, logs: list[Path]) -> None:
        try:
            finish(self.path, logs, last=False)
        except (OSError, RecordingError) as error:
            # The log keeps the day; closing tries again.
            _log.warning("a finished day of %s stays in its log for now: %s", self.path, error)

    # ---- the end ----

    def close(self) -> Recording:
        """Writes what is left, turns the log into tables and opens the result. May be called twice.

        RecordingError: nothing had come (then nothing is left either), or the disk fails (then everything
        stays in the log, and the recording can be opened as it is).
        """
        if self._lock is None:
            return Recording.open(self.path)
        done = False
        try:
            self._end_log()
            if self._finishing is not None:
                self._finishing.join()
            taken = self._finish()
            done = True
        finally:
            self._lock.release(remove=done)
            self._lock = None
        if self._failure is not None:
            raise self._failure
        if taken is None and not (self.path / INFO_FILE).exists():
            self._remove_empty_folder()
            raise RecordingError(f"nothing was recorded at {self.path}: no book, trade or own event came")
        return Recording.open(self.path)

    def abandon(self) -> None:
        """Ends without the tables, at once: what was written stays in the log for whoever opens it next."""
        if self._lock is None:
            return
        self._end_log()
        if self._finishing is not None:
            self._finishing.join()
        self._lock.release(remove=False)
        self._lock = None

    def _end_log(self) -> None:
        self._closed.set()
        self._thread.join()
        if self._failure is None:
            self._texts.append(text_frame(Kind.END, {}))
            self._flush(sync=True)
        if self._log is not None:
            self._log.close()

    def _finish(self) -> Unfinished | None:
        try:
            return finish(self.path)
        except OSError as error:
            if self._failure is not None:
                raise self._failure from error
            raise RecordingError(
                f"the tables of {self.path} cannot be written: {error.strerror or error}; everything is kept "
                f"in its log: make room and run `live-runner record --recover {self.path}`"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.close()
            return
        try:
            self.close()
        except RecordingError as error:
            if error is not self._failure:
                _log.warning("%s", error)  # the error that is on its way matters more


def recover(path: Path) -> Recording:
    """Finishes the recording of a recorder that was killed, and opens it; ``remark`` says what was found.

    RecordingError: a recorder is at work there, or the disk is full (then it can be read as it is).
    """
    path = Path(path)
    remark = ""
    if (path / UNFINISHED).is_dir():
        try:
            remark = recover_folder(path)
        except OSError as error:
            raise RecordingError(
                f"{path} cannot be finished: {error.strerror or error}; make room there and try again"
            ) from error
    recording = Recording.open(path)
    recording.remark = remark
    return recording

"""The writer makes the very recording that would have been written at once, whatever interrupts it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import DAY, FUTURE, SHARE, T0, assert_same, feed, killed, market, only_log, whole, writer

from market.days import moscow_day
from market.errors import RecordingError
from market.recording import Recording
from market.recording.log import RECORDING, RECOVERING, UNFINISHED, FolderLock
from market.types import DEPTH, SECOND_NS
from market.writer import recover
from market.writer_buffer import BUFFER_ROWS

HERE = Path(__file__).parent
DAY_NS = 86_400 * SECOND_NS


def files(path: Path) -> dict[str, bytes]:
    """Every file under ``path``."""
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def tables(path: Path) -> dict[str, bytes]:
    return {name: content for name, content in files(path).items() if name.endswith(".parquet")}


def test_event_by_event_gives_the_bytes_of_all_at_once(tmp_path: Path) -> None:
    days = [market(1, own=7), market(2, instrument=FUTURE, books=2 * BUFFER_ROWS + 3)]
    with writer(tmp_path / "r") as work:
        for day in days:
            feed(work, day)
        assert work.counts == {"books": 50 + 2 * BUFFER_ROWS + 3, "trades": 60, "own": 7}
    at_once = whole(tmp_path / "w", *days)
    assert tables(tmp_path / "r") == tables(at_once.path)
    info = Recording.open(tmp_path / "r").info
    assert set(files(tmp_path / "r")) == set(at_once.files()), "nothing of the work is left"
    assert (info.instruments, info.days, info.own) == (
        at_once.info.instruments, at_once.info.days, at_once.info.own,
    )  # fmt: skip
    (session,) = info.provenance["sessions"]
    assert info.provenance["seed"] == 1
    assert (session["books"], session["trades"], session["own"], session["end"]) == (1077, 60, 7, "closed")
    assert session["from"] == "2026-01-15T07:00:00Z"


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_any_interruptions_give_the_same_recording(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Flushed, closed and gone on with, killed and gone on with, at any places."""
    folder = tmp_path_factory.mktemp("writer")
    path = folder / "r"
    day = market(3, books=40, trades=0)
    pieces = data.draw(st.lists(st.integers(1, 15), min_size=1, max_size=5).map(lambda n: np.cumsum(n)))
    parts = [day.books.rows(slice(a, b)) for a, b in zip([0, *pieces], [*pieces, 40], strict=True)]
    parts = [part for part in parts if len(part)]
    for number, part in enumerate(parts):
        work = writer(path)
        feed(work, replace(day, books=part))
        how = data.draw(st.sampled_from(["close", "kill"])) if number + 1 < len(parts) else "close"
        if how == "kill":
            copy = killed(work, folder / f"killed-{number}")
            work.close()
            path = copy
        else:
            work.close()
    assert_same(Recording.open(path).read("AAAA", DAY), day)
    sessions = Recording.open(path).info.provenance["sessions"]
    assert sum(session["books"] for session in sessions) == 40


def test_a_killed_recording_is_recovered_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    day = market(1)
    with writer(tmp_path / "r") as work:
        feed(work, day)
        copy = killed(work, tmp_path / "killed")
    with only_log(copy).open("ab") as log:
        log.write(b"SCLP\x40\x00\x00\x00half a frame")
    found = Recording.open(copy)
    assert (
        "was recovered: 80 rows up to 2026-01-15T07:00:04Z, 20 bytes of an unfinished write" in found.remark
    )
    assert found.remark in caplog.text
    assert_same(found.read("AAAA", DAY), day)
    (session,) = found.info.provenance["sessions"]
    assert (session["end"], session["dropped_bytes"]) == ("interrupted", 20)
    assert not (copy / UNFINISHED).exists()
    assert Recording.open(copy).remark == ""
    assert found.data_hash() == Recording.open(copy).data_hash()


def test_a_log_cut_anywhere_gives_a_prefix(tmp_path: Path) -> None:
    day = market(1, books=60, trades=0)
    with writer(tmp_path / "r") as work:
        for start in range(0, 60, 5):
            feed(work, replace(day, books=day.books.rows(slice(start, start + 5))))
            work.flush()
        copy = killed(work, tmp_path / "killed")
    content = only_log(copy).read_bytes()
    kept = set()
    for size in np.random.default_rng(0).integers(1, len(content), 40).tolist():
        only_log(copy).write_bytes(content[:size])
        log = only_log(copy)
        before = files(copy)
        lock = FolderLock(copy, RECORDING, "now")  # as if a recorder were there: nothing may be changed
        try:
            rows = Recording.open(copy).read("AAAA", DAY).books
            kept.add(len(rows))
            np.testing.assert_array_equal(rows.ask_qty, day.books.ask_qty[: len(rows)])
        except RecordingError as error:
            assert "nothing was recorded" in str(error)
            kept.add(0)
        lock.release(remove=False)
        assert {**files(copy), f"{UNFINISHED}/lock": b""} == {**before, f"{UNFINISHED}/lock": b""}
        assert log.exists()
    assert kept <= set(range(0, 61, 5))
    assert len(kept) > 5


def test_damage_inside_costs_its_frame_and_the_log_is_kept(tmp_path: Path) -> None:
    day = market(1, books=30, trades=0)
    with writer(tmp_path / "r") as work:
        ends = []
        for start in range(0, 30, 10):
            feed(work, replace(day, books=day.books.rows(slice(start, start + 10))))
            work.flush()
            ends.append(work.log_bytes)
        copy = killed(work, tmp_path / "killed")
    content = bytearray(only_log(copy).read_bytes())
    content[(ends[0] + ends[1]) // 2] ^= 0xFF
    only_log(copy).write_bytes(content)
    found = Recording.open(copy)
    assert "damaged parts were kept" in found.remark
    kept = found.read("AAAA", DAY).books
    np.testing.assert_array_equal(kept.recv_ns, np.r_[day.books.recv_ns[:10], day.books.recv_ns[20:]])
    (damaged,) = copy.glob("damaged-*.log")
    assert damaged.read_bytes() == content


_FINISH_STEP_BY_STEP = """
import os, shutil, signal, sys
from pathlib import Path
from market.recording.finish import finish
source, folder = Path(sys.argv[1]), Path(sys.argv[2])
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}
finish(Path(shutil.copytree(source, folder / "whole")))  # so that the children find everything imported
for step in range(1, 1000):
    copy = folder / f"{step:03d}"
    shutil.copytree(source, copy)
    pid = os.fork()
    if pid == 0:
        left = step
        def hook(event, args):
            global left
            writes = event in CHANGES or (event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR))
            if writes and str(copy) in str(args[0]):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        finish(copy)
        os._exit(0)
    if os.waitpid(pid, 0)[1] == 0:
        break
"""


def test_a_kill_at_any_step_of_finishing_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """A child is killed before its first, second, ... change to the file system."""
    first, second = market(1, own=3), market(2, own=3, start_ns=T0 + 3600 * SECOND_NS)
    with writer(tmp_path / "r") as work:
        feed(work, first)
    with writer(tmp_path / "r") as work:
        feed(work, second)
        copy = killed(work, tmp_path / "killed")
    (tmp_path / "steps").mkdir()
    subprocess.run(
        [sys.executable, "-c", _FINISH_STEP_BY_STEP, str(copy), str(tmp_path / "steps")],
        check=True, cwd=HERE.parents[1],
    )  # fmt: skip
    steps = sorted((tmp_path / "steps").glob("[0-9]*"))
    assert len(steps) > 15
    with writer(tmp_path / "whole") as work:
        feed(work, first)
        feed(work, second)
    wanted = tables(tmp_path / "whole")
    for step in steps:
        recording = Recording.open(step)
        assert tables(step) == wanted, step.name
        assert [s["books"] for s in recording.info.provenance["sessions"]] == [50, 50]
        assert set(files(step)) == set(recording.files())


_RECORD_UNTIL_KILLED = """
import os, sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from recorded import SHARE, writer
path, first, now_ns = Path(sys.argv[1]), int(sys.argv[3]), int(sys.argv[4])
work = writer(path)
started = time.monotonic_ns()
for number in range(first, 1 << 30):
    at = now_ns + time.monotonic_ns() - started
    work.book(SHARE, number, at, (number + 1,), (5,), (number + 2,), (7,))
    work.trade(SHARE, number, at, number + 1, 3, 1)
    os.write(1, b"%d %d\\n" % (number, at))
    time.sleep(0.002)
"""


def test_a_killed_process_loses_at_most_the_last_second(tmp_path: Path) -> None:
    """A real process, SIGKILL at random moments, the same folder again and again."""
    path, first, now_ns = tmp_path / "r", 0, T0
    rng, kept_something = np.random.default_rng(int(time.time())), 0
    for attempt in range(12):
        if attempt >= 4 and kept_something:
            break  # a slow machine may need more to keep anything at all
        arguments = [str(path), str(HERE), str(first), str(now_ns)]
        child = subprocess.Popen(
            [sys.executable, "-c", _RECORD_UNTIL_KILLED, *arguments],
            stdout=subprocess.PIPE, cwd=HERE.parents[1],
        )  # fmt: skip
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(float(rng.uniform(0.0, 1.6)) * (1 + attempt / 4))
        child.kill()
        said = child.stdout.read().splitlines()
        child.wait()
        last, last_ns = map(int, said[-1].split()) if said else (first, now_ns)
        try:
            day = Recording.open(path).read("AAAA", DAY)
        except RecordingError as error:
            assert "nothing was recorded" in str(error)
            assert last_ns - T0 <= SECOND_NS
            continue
        kept = day.books.exch_ns
        assert (np.diff(kept) > 0).all(), "nothing twice, nothing out of order"
        assert len(day.books) - len(day.trades) in (0, 1)
        # What an earlier run lost was judged then; this one began at now_ns.
        assert last_ns - max(now_ns, int(day.books.recv_ns[-1])) <= SECOND_NS
        since = kept[kept >= first]
        np.testing.assert_array_equal(since, np.arange(first, first + len(since)), "no hole in a run")
        first, now_ns = last + 1, last_ns + 1
        kept_something += 1
    assert kept_something, "no run lived long enough"
    sessions = Recording.open(path).info.provenance["sessions"]
    assert {session["end"] for session in sessions} == {"interrupted"}


_WITH_A_FULL_DISK = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from recorded import feed, market, writer
from market.errors import RecordingError
from market.recording import Recording
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
path = Path(sys.argv[1])
work = writer(path)
try:
    for k in range(100):
        feed(work, market(k, start_ns=market(0).books.recv_ns[0] + k * 10**10))
        work.flush()
except RecordingError as error:
    print(k, error)
    first = error
try:
    work.close()
except RecordingError as again:
    print(again is first)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 40_000))
found = Recording.open(path)
print(len(found.read("AAAA", "2026-01-15").books), found.remark)
try:
    found.data_hash()
except RecordingError as error:
    print(error)
"""


def test_a_full_disk_is_one_clear_error_and_what_was_written_stays(tmp_path: Path) -> None:
    """The file size limit of a child process stands in for the full disk: the write call itself fails."""
    done = subprocess.run(
        [sys.executable, "-c", _WITH_A_FULL_DISK, str(tmp_path / "r"), str(HERE)],
        capture_output=True, text=True, check=True, cwd=HERE.parents[1],
    )  # fmt: skip
    failed, same, read, unhashed = done.stdout.splitlines()
    number, _, error = failed.partition(" ")
    assert "cannot be written any more" in error
    assert "what came until 2026-01-15T07:0" in error
    assert "make room there" in error
    assert same == "True"
    assert read.startswith(f"{int(number) * 50} ")
    assert "was interrupted and cannot be finished here" in read
    assert "not final" in unhashed
    # Room again: the next opening finishes it.
    found = Recording.open(tmp_path / "r")
    assert "was recovered" in found.remark
    assert len(found.read("AAAA", DAY).books) == int(number) * 50


def test_one_recorder_at_a_time(tmp_path: Path) -> None:
    day = market(1)
    with writer(tmp_path / "r") as work:
        feed(work, day)
        work.flush()
        with pytest.raises(
            RecordingError, match=rf"in use: process {os.getpid()}, since .* is recording; stop"
        ):
            writer(tmp_path / "r")
        with pytest.raises(RecordingError, match="in use"):
            recover(tmp_path / "r")
        with pytest.raises(RecordingError, match="is being recorded"):
            whole(tmp_path / "r", day)
        before = files(tmp_path / "r")
        seen = Recording.open(tmp_path / "r")
        assert_same(seen.read("AAAA", DAY), day)
        assert "is still being recorded" in seen.remark
        with pytest.raises(RecordingError, match="not final"):
            seen.data_hash()
        assert files(tmp_path / "r") == before
    with pytest.raises(RecordingError, match="finished by its recorder meanwhile"):
        seen.read("AAAA", DAY)
    with writer(tmp_path / "r") as work:  # the lock is gone with its owner
        work.trade(SHARE, 1, T0, 1, 1, 1)


def test_midnight_finishes_the_day_while_recording_goes_on(tmp_path: Path) -> None:
    evening = market(1, start_ns=T0 + 13 * 3600 * SECOND_NS)
    morning = market(2, start_ns=T0 + DAY_NS)
    with writer(tmp_path / "r") as work:
        feed(work, evening)
        work.note(phase="evening")
        feed(work, morning)
        deadline = time.monotonic() + 60
        while not (tmp_path / "r" / "recording.json").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        seen = Recording.open(tmp_path / "r")
        assert (tmp_path / "r" / "AAAA" / evening.day / "book.parquet").exists()
        assert not (tmp_path / "r" / "AAAA" / morning.day).exists()
        work.flush()
        seen = Recording.open(tmp_path / "r")
        assert seen.info.days == {"AAAA": (evening.day, morning.day)}
        assert_same(seen.read("AAAA", evening.day), evening)
        assert_same(seen.read("AAAA", morning.day), morning)
    assert tables(tmp_path / "r") == tables(whole(tmp_path / "w", evening, morning).path)
    (session,) = Recording.open(tmp_path / "r").info.provenance["sessions"]
    assert (session["books"], session["trades"], session["end"]) == (100, 60, "closed")
    assert session["phase"] == "evening"


def test_a_clock_that_went_back_costs_order_not_rows(tmp_path: Path) -> None:
    stamps = [T0 + DAY_NS, T0 + DAY_NS + 5, T0, T0 + DAY_NS + 3, T0 + 2]
    with writer(tmp_path / "r") as work:
        for number, at in enumerate(stamps):
            work.trade(SHARE, number, at, 1, 1, 1)
    recording = Recording.open(tmp_path / "r")
    assert recording.read("AAAA", DAY).trades.exch_ns.tolist() == [2, 4]
    assert recording.read("AAAA", "2026-01-16").trades.exch_ns.tolist() == [0, 1, 3]


def test_instruments_may_come_later_but_not_change(tmp_path: Path) -> None:
    with writer(tmp_path / "r") as work:
        feed(work, market(1))
        work.flush()
        feed(work, market(2, instrument=FUTURE))
        with pytest.raises(RecordingError, match=r"AAAA has the lot 10 in the recording .* and 1 here"):
            work.trade(replace(SHARE, lot=1), 1, T0, 1, 1, 1)
    with writer(tmp_path / "r") as work:
        with pytest.raises(RecordingError, match=r"RTS-3\.26 has the tick_nano"):
            work.trade(replace(FUTURE, tick_nano=1), 1, T0, 1, 1, 1)
        with pytest.raises(RecordingError, match="cannot be a folder name"):
            work.trade(replace(SHARE, ticker="../x"), 1, T0, 1, 1, 1)
        work.trade(replace(FUTURE, tick_value_nano=7 * 10**9), 1, T0 + DAY_NS, 1, 1, 1)
    info = Recording.open(tmp_path / "r").info
    assert info.instrument("RTS-3.26") == FUTURE
    assert info.provenance["sessions"][1]["tick_value_nano"] == {"RTS-3.26": 7 * 10**9}


def test_going_on_needs_the_same_kind_of_recording(tmp_path: Path) -> None:
    whole(tmp_path / "r", market(1))
    for changes, words in (
        ({"watermark": "REAL"}, "watermark 'SIMULATED', this one would have 'REAL'"),
        ({"source": "other"}, "source 'test'"),
        ({"tariff": "trader"}, "tariff 'simulated'"),
    ):
        with pytest.raises(RecordingError, match=words):
            writer(tmp_path / "r", **changes)
    with writer(tmp_path / "r", provenance={"seed": 2}) as work:
        feed(work, market(1, start_ns=T0 + DAY_NS))
    recording = Recording.open(tmp_path / "r")
    assert recording.info.provenance["seed"] == 1
    assert recording.info.provenance["sessions"][0]["seed"] == 2
    assert_same(recording.read("AAAA", DAY), market(1))


def test_what_no_column_holds_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    deep = tuple(range(1, 51))
    with writer(tmp_path / "r") as work:
        with pytest.raises(RecordingError, match="book of AAAA does not fit"):
            work.book(SHARE, 1, T0, (1 << 40,), (1,), deep[:3], deep[:3])
        with pytest.raises(RecordingError, match="not as many sizes"):
            work.book(SHARE, 1, T0, (1, 2), (1,), (), ())
        with pytest.raises(RecordingError, match="trade of AAAA does not fit"):
            work.trade(SHARE, 1, T0, 1, 1 << 31, 1)
        with pytest.raises(RecordingError, match=r"one of placed, .*, not 'lost'"):
            work.own(SHARE, T0, "lost", "id", 1)
        with pytest.raises(RecordingError, match="must be JSON"):
            work.note(bad=object())
        work.book(SHARE, 1, T0, deep, deep, (9,), (9,))
    day = Recording.open(tmp_path / "r").read("AAAA", DAY)
    assert (len(day.books), len(day.trades), day.own) == (1, 0, None)
    assert day.books.bid_px[0].tolist() == list(range(1, DEPTH + 1))
    assert day.books.ask_qty[0].tolist() == [9] + [0] * (DEPTH - 1)


def test_without_an_event_there_is_no_recording(tmp_path: Path) -> None:
    work = writer(tmp_path / "r")
    with pytest.raises(RecordingError, match="no book, trade or own event came"):
        work.close()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letters").write_text("letters")
    with pytest.raises(RecordingError, match="is not a recording"):
        writer(tmp_path / "other")
    assert files(tmp_path / "other") == {"letters": b"letters"}


def test_a_closed_writer_takes_nothing_more(tmp_path: Path) -> None:
    work = writer(tmp_path / "r")
    feed(work, market(1))
    first = work.close()
    assert work.close().data_hash() == first.data_hash()
    with pytest.raises(RecordingError, match="is closed"):
        work.trade(SHARE, 1, T0, 1, 1, 1)


def test_memory_is_bounded_and_silence_still_written(tmp_path: Path) -> None:
    """Full buffers go to the log at once; what came last goes there although nothing follows."""
    with writer(tmp_path / "r") as work:
        day = market(1, books=BUFFER_ROWS + 1, trades=0)
        feed(work, day)
        assert work.log_bytes > BUFFER_ROWS * 4 * DEPTH
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if len(Recording.open(tmp_path / "r").read("AAAA", DAY).books) == BUFFER_ROWS + 1:
                break
            time.sleep(0.05)
        else:
            pytest.fail("the last book was never written")


def test_own_events_come_back_and_are_plain_parquet(tmp_path: Path) -> None:
    with writer(tmp_path / "r") as work:
        work.book(SHARE, T0, T0, (9,), (1,), (11,), (1,))
        work.own(SHARE, T0 + 1, "placed", "id-1", 1, 11, 2)
        work.own(SHARE, T0 + 2, "fill", "id-1", 1, 11, 2, fee_nano=10**12)
    recording = Recording.open(tmp_path / "r")
    assert recording.info.schema_version == 2
    own = recording.read("AAAA", DAY).own
    assert own is not None
    assert own.client_order_id.tolist() == ["id-1", "id-1"]
    assert own.fee_nano.tolist() == [0, 10**12]
    part = recording.slice("AAAA", DAY, T0 + 2, T0 + 3)
    assert part.own is not None
    assert part.own.event_ns.tolist() == [T0 + 2]
    rows = pq.read_table(tmp_path / "r" / "AAAA" / DAY / "own.parquet").to_pylist()
    assert rows[1] == {
        "event_ns": T0 + 2, "kind": "fill", "client_order_id": "id-1", "side": 1, "px": 11, "qty": 2,
        "fee_nano": 10**12,
    }  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(ns=st.integers(0, 2**62))
def test_every_moment_lies_in_one_day_of_moscow(ns: int) -> None:
    day = moscow_day(ns)
    assert ns in day
    assert moscow_day(day.to_ns - 1) == day != moscow_day(day.to_ns)
    assert day.to_ns - day.from_ns in [h * 3600 * SECOND_NS for h in (23, 24, 25)]


def test_moscow_was_four_hours_ahead_in_2013() -> None:
    midnight = 1_386_619_200 * SECOND_NS  # 2013-12-09 20:00 UTC
    assert moscow_day(midnight).from_ns == midnight
    assert moscow_day(midnight).name == "2013-12-10"
    assert moscow_day(T0).from_ns == T0 - 10 * 3600 * SECOND_NS


def test_a_recorder_killed_before_the_first_event_leaves_nothing_to_read(tmp_path: Path) -> None:
    work = writer(tmp_path / "r")
    copy = killed(work, tmp_path / "killed")
    with pytest.raises(RecordingError, match="no book, trade or own event came"):
        work.close()
    with pytest.raises(RecordingError, match="nothing was recorded"):
        Recording.open(copy)
    with writer(copy) as work:
        feed(work, market(1))
    assert_same(Recording.open(copy).read("AAAA", DAY), market(1))


def test_an_abandoned_recording_is_whole_all_the_same(tmp_path: Path) -> None:
    work = writer(tmp_path / "r")
    feed(work, market(1))
    work.abandon()
    work.abandon()
    assert (tmp_path / "r" / UNFINISHED).exists()
    recording = recover(tmp_path / "r")
    assert recording.remark == "", "it was closed in good order"
    assert_same(recording.read("AAAA", DAY), market(1))


def test_whoever_only_looks_does_not_keep_a_recorder_out(tmp_path: Path) -> None:
    """A reader may be recovering the folder just when the recorder starts: it is waited for."""
    with writer(tmp_path / "r") as work:
        feed(work, market(1))
        copy = killed(work, tmp_path / "killed")
    reader = FolderLock(copy, RECOVERING, "now")
    later = threading.Timer(0.3, reader.release, kwargs={"remove": False})
    later.start()
    with writer(copy) as work:
        assert "was recovered" in work.recovered
        feed(work, market(2, start_ns=T0 + 60 * SECOND_NS))
    later.join()
    assert len(Recording.open(copy).read("AAAA", DAY).books) == 100

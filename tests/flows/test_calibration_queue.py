"""The runner's requests: each once, none forgotten, whatever is killed when."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from flows import calibration_queue as queue


def _ask(folder: Path, *lines: str) -> None:
    path = folder / queue.QUEUE
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(lines)


def _line(**fields: object) -> str:
    return json.dumps(fields) + "\n"


def test_the_same_request_twice_is_one(tmp_path: Path) -> None:
    _ask(
        tmp_path, _line(ticker="SBER", reason="drift", at_ns=1), _line(ticker="SBER", reason="drift", at_ns=2)
    )
    _ask(tmp_path, _line(ticker="GAZP", reason="drift", at_ns=3))
    found = queue.pending(tmp_path)
    assert [request.fields["ticker"] for request in found] == ["SBER", "GAZP"]
    assert found[0].row()["asked"] == "2 times"
    queue.acknowledge(tmp_path, found, "done")
    assert queue.pending(tmp_path) == []
    _ask(tmp_path, _line(ticker="SBER", reason="drift", at_ns=9))
    assert len(queue.pending(tmp_path)) == 1, "a later trigger is a new request"


def test_a_key_of_the_runners_own_decides(tmp_path: Path) -> None:
    _ask(tmp_path, _line(key="a", ticker="X"), _line(key="b", ticker="X"))
    assert [request.key for request in queue.pending(tmp_path)] == ["a", "b"]


def test_a_line_that_is_being_written_waits_and_a_broken_one_is_shown(tmp_path: Path) -> None:
    _ask(tmp_path, "{not json}\n", _line(ticker="SBER"), '{"ticker": "LK')
    broken, sound = queue.pending(tmp_path)
    assert not broken.readable and broken.row() == {"unreadable": "{not json}"}
    queue.acknowledge(tmp_path, [broken, sound], "seen")
    assert queue.pending(tmp_path) == []
    _ask(tmp_path, 'OH"}\n')
    assert [request.fields for request in queue.pending(tmp_path)] == [{"ticker": "LKOH"}]


def test_an_acknowledgement_cut_off_by_a_crash_acknowledges_nothing(tmp_path: Path) -> None:
    _ask(tmp_path, _line(ticker="SBER"), _line(ticker="GAZP"))
    queue.acknowledge(tmp_path, queue.pending(tmp_path), "done")
    acks = tmp_path / queue.ACKS
    whole = acks.read_text()
    acks.write_text(whole[: len(whole) - 20])
    assert [request.fields["ticker"] for request in queue.pending(tmp_path)] == ["GAZP"]
    # The next acknowledgement must not grow onto the torn line.
    queue.acknowledge(tmp_path, queue.pending(tmp_path), "done")
    assert queue.pending(tmp_path) == []


def test_nothing_here_ever_writes_to_the_runners_file(tmp_path: Path) -> None:
    _ask(tmp_path, _line(ticker="SBER"))
    before = (tmp_path / queue.QUEUE).read_bytes()
    queue.acknowledge(tmp_path, queue.pending(tmp_path), "done")
    assert (tmp_path / queue.QUEUE).read_bytes() == before


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from("abc"), st.integers(0, 3)),
        st.tuples(st.just("take"), st.integers(0, 3), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_every_request_is_pending_or_acknowledged(tmp_path_factory, steps: list) -> None:
    folder = tmp_path_factory.mktemp("queue")
    asked: list[str] = []
    for number, (what, value, _) in enumerate(steps):
        if what == "ask":
            asked.append(_line(ticker=value, reason="r", at_ns=number))
            _ask(folder, asked[-1])
        else:
            queue.acknowledge(folder, queue.pending(folder)[:value], "done")
    waiting = [digest for request in queue.pending(folder) for digest in request.lines]
    acks = folder / queue.ACKS
    done = [json.loads(text)["line"] for text in acks.read_text().splitlines()] if acks.is_file() else []
    assert len(waiting) + len(done) == len(asked) and len({*waiting, *done}) == len(asked)
    assert len(queue.pending(folder)) <= 3, "one request for each instrument and reason"

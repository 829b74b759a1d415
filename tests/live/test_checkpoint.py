"""The checkpoint: old or new after a crash, never half; damage is an error, not a fresh start."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from core_bench import KEY, Bench, config, instrument, model
from hypothesis import given, settings
from hypothesis import strategies as st

from live import checkpoint
from live.core.engine import MAX_AHEAD_NS, Engine
from live.core.errors import BadSnapshot
from live.takeover import MAX_WAIT_NS, WAY_OUT, read_checkpoint, restore, wait_ns
from market.types import SECOND_NS

BODY = {"account": "paper:1", "session_id": "s", "engine": {"now_ns": 5, "lots": [1, -2]}}


def test_there_and_back(tmp_path):
    path = tmp_path / "checkpoint.json"
    assert checkpoint.load(path) is None
    checkpoint.save(path, BODY)
    assert checkpoint.load(path) == BODY
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.json"]


@settings(max_examples=200)
@given(st.data())
def test_any_changed_byte_is_noticed(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("c") / "checkpoint.json"
    checkpoint.save(path, BODY)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 2))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))
    try:
        loaded = checkpoint.load(path)
    except checkpoint.CheckpointError as error:
        assert "resume" in str(error)
    else:
        assert loaded == BODY  # white space or an equal escape


@pytest.mark.parametrize("length", [0, 1, 20, 60])
def test_a_torn_file_is_an_error_with_the_way_out(tmp_path, length):
    path = tmp_path / "checkpoint.json"
    checkpoint.save(path, BODY)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(checkpoint.CheckpointError, match="halted until `live-runner resume`"):
        checkpoint.load(path)


def test_another_format_is_refused(tmp_path):
    path = tmp_path / "checkpoint.json"
    checkpoint.save(path, BODY)
    content = json.loads(path.read_text())
    content["format"] = 2
    path.write_text(json.dumps(content))
    with pytest.raises(checkpoint.CheckpointError, match="format 2"):
        checkpoint.load(path)


def test_a_damaged_one_is_kept_and_starts_halted(tmp_path):
    path = tmp_path / "checkpoint.json"
    path.write_text("{")
    told = []
    found = read_checkpoint(path, "paper:1", lambda *args, **fields: told.append(args))
    assert found.body is None
    assert "checkpoint.json.damaged-1" in found.halt
    assert (tmp_path / "checkpoint.json.damaged-1").read_text() == "{"
    assert told == [("SESSION", "CHECKPOINT_DAMAGED")]


@pytest.mark.parametrize("missing", ["account", "session_id", "engine", "now_ns"])
def test_a_whole_one_of_something_else_is_kept_and_starts_halted_too(tmp_path, missing):
    """Its checksum is right, and it is not what this program writes."""
    path = tmp_path / "checkpoint.json"
    engine = {k: v for k, v in BODY["engine"].items() if k != missing}
    checkpoint.save(path, {k: v for k, v in {**BODY, "engine": engine}.items() if k != missing})
    found = read_checkpoint(path, "paper:1", lambda *args, **fields: None)
    assert found.body is None and "damaged-1" in found.halt
    assert (tmp_path / "checkpoint.json.damaged-1").exists() and not path.exists()


def test_one_from_ahead_of_the_clock_is_refused_until_the_clock_is_right(tmp_path):
    """Restored, it would stop the market's time for as long: no order would time out, no window close."""
    body = Bench.ready().engine.snapshot()
    path, at_ns = tmp_path / "checkpoint.json", body["now_ns"]

    def fresh():
        return Engine(config(), {t: instrument(t) for t in ("AAA", "BBB")}, model(), KEY.replace("1", "2"))

    with pytest.raises(
        BadSnapshot, match=r"checkpoint\.json.*3630 s ahead.*the machine's clock.*halt.* first"
    ):
        restore(fresh(), path, body, at_ns - MAX_AHEAD_NS - 3600 * SECOND_NS)
    for now_ns in (at_ns - MAX_AHEAD_NS, at_ns, at_ns + 3600 * SECOND_NS, None):
        engine = fresh()
        restore(engine, path, body, now_ns)
        assert engine.now_ns == at_ns


@given(st.integers(-(10**15), 10**15))
def test_a_checkpoint_is_refused_waited_for_or_taken(ahead_ns):
    """By how far it is ahead of the clock; after the wait it is taken."""
    at_ns = 10**18
    excess_ns, waiting_ns = ahead_ns - MAX_AHEAD_NS, wait_ns({"now_ns": at_ns}, at_ns - ahead_ns)
    assert waiting_ns == (excess_ns if 0 < excess_ns <= MAX_WAIT_NS else 0)
    assert waiting_ns == 0 or wait_ns({"now_ns": at_ns}, at_ns - ahead_ns + waiting_ns) == 0


@pytest.mark.parametrize("changed", [{"format": 99}, {"more": 1}, {"now_ns": 1 << 62}, {"session_key": KEY}])
def test_every_refusal_ends_with_the_one_way_out(tmp_path, changed):
    """Halt first: without it the day's loss would be forgotten by a runner that trades."""
    body = {**Bench.ready().engine.snapshot(), "session_key": KEY.replace("1", "2"), **changed}
    engine = Engine(config(), {t: instrument(t) for t in ("AAA", "BBB")}, model(), KEY)
    with pytest.raises(BadSnapshot) as caught:
        restore(engine, tmp_path / "checkpoint.json", body, Bench.ready().now_ns)
    wrong, way_out = str(caught.value).split(". ", 1)
    assert way_out == WAY_OUT and WAY_OUT.index("halt") < WAY_OUT.index("move the file")
    assert "halt" not in wrong and "move" not in wrong


def test_another_accounts_checkpoint_is_not_restored(tmp_path):
    path = tmp_path / "checkpoint.json"
    checkpoint.save(path, BODY)
    assert read_checkpoint(path, "paper:1", lambda *a, **f: None).body == BODY["engine"]
    other = read_checkpoint(path, "production:2", lambda *a, **f: None)
    assert (other.body, other.halt) == (None, "")


def test_writers_at_the_same_time_leave_one_whole_checkpoint(tmp_path):
    """The periodic one and that of a copy: each whole, none in the way of the other."""
    path = tmp_path / "checkpoint.json"
    bodies = [{"n": n, "much": "x" * 50_000} for n in range(60)]
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(checkpoint.save, path, body) for body in bodies]:
            done.result()
    assert checkpoint.load(path) in bodies

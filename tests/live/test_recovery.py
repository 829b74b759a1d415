"""Copies for disaster recovery: whole, checked, pruned; a restored one replays to the state it holds."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import pytest
from test_replay import header, live_session, make

from live import checkpoint, cli, recovery
from live.recovery import Plan, RecoveryError, check, load, restore, snapshots, take
from live.recovery_proof import prove
from live.replay import run as replay

MASKS = ("*.db", "*.json", "*.jsonl")


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    folder = tmp_path / "runtime"
    (folder / "session" / "s1").mkdir(parents=True)
    (folder / "models" / "ab").mkdir(parents=True)
    (folder / "paper").mkdir()
    (folder / "status.json").write_text("{}")
    (folder / "audit.log").write_text("not wanted by the default masks")
    (folder / "session" / "s1" / "events.jsonl").write_text("[]\n")
    (folder / "models" / "ab" / "gbdt.txt").write_text("trees")
    (folder / "paper" / "endpoint.json").write_text('{"token": "t"}')
    (folder / "status.json.part").write_text("half")
    connection = sqlite3.connect(folder / "scalper.db")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE orders(id)")
    connection.execute("INSERT INTO orders VALUES(1)")
    connection.commit()
    connection.close()
    return folder


def plan(runtime: Path, **changes) -> Plan:
    fields = {"source": runtime, "target": runtime.parent / "backup", "patterns": MASKS, "max_snapshots": 3}
    return Plan(**{**fields, **changes})


def test_a_copy_holds_what_the_masks_name_and_the_models(runtime):
    made = take(plan(runtime))
    assert sorted(f.path for f in made.files) == [
        "models/ab/gbdt.txt", "scalper.db", "session/s1/events.jsonl", "status.json",
    ]  # fmt: skip
    check(load(made.path))


def test_a_database_is_copied_in_mid_transaction_without_the_half_of_it(runtime):
    writer = sqlite3.connect(runtime / "scalper.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("INSERT INTO orders VALUES(2)")
    made = take(plan(runtime))
    writer.execute("COMMIT")
    writer.close()
    copy = sqlite3.connect(made.path / "scalper.db")
    assert copy.execute("SELECT id FROM orders").fetchall() == [(1,)]
    copy.close()


def test_the_checkpoint_and_the_databases_come_before_the_journal_is_flushed(runtime):
    checkpoint.save(runtime / "checkpoint.json", {"x": 1})
    journal = runtime / "session" / "s1" / "events.jsonl"

    def between() -> None:
        part = next((runtime.parent / "backup").glob(".part-*"))
        assert (part / "checkpoint.json").exists() and (part / "scalper.db").exists()
        assert not (part / "session").exists()
        journal.write_text("[]\n[1]\n")

    made = take(plan(runtime), between=between)
    assert (made.path / "session" / "s1" / "events.jsonl").read_text() == "[]\n[1]\n"


def test_the_oldest_go_and_what_did_not_change_is_linked(runtime):
    made = [take(plan(runtime)) for _ in range(5)]
    assert snapshots(runtime.parent / "backup") == [one.path for one in made[-3:]]
    one, two = (m.path / "models" / "ab" / "gbdt.txt" for m in made[-2:])
    assert one.samefile(two)
    (runtime / "models" / "ab" / "gbdt.txt").write_text("TREES!")
    three = take(plan(runtime)).path / "models" / "ab" / "gbdt.txt"
    assert (two.read_text(), three.read_text()) == ("trees", "TREES!")


def test_what_a_killed_copy_left_is_no_copy_and_goes(runtime):
    left = runtime.parent / "backup" / ".part-20260101T000000.000Z"
    left.mkdir(parents=True)
    assert snapshots(left.parent) == []
    take(plan(runtime))
    assert not left.exists()


def test_the_target_inside_the_runtime_folder_is_not_copied_into_itself(runtime):
    inside = plan(runtime, target=runtime / "backup")
    take(inside)
    assert all(not f.path.startswith("backup") for f in take(inside).files)


def test_a_database_elsewhere_is_copied_too(runtime, tmp_path):
    other = tmp_path / "elsewhere" / "trades.db"
    other.parent.mkdir()
    (runtime / "scalper.db").rename(other)
    assert "trades.db" in [f.path for f in take(plan(runtime, database=other)).files]


def test_a_copy_that_was_altered_or_is_not_complete_is_named(runtime, tmp_path):
    made = take(plan(runtime))
    (made.path / "status.json").write_text("[]")
    with pytest.raises(RecoveryError, match=r"status\.json is not what was copied"):
        restore(load(made.path), tmp_path / "new")
    (made.path / "status.json").unlink()
    with pytest.raises(RecoveryError, match=r"lacks status\.json"):
        check(load(made.path))
    manifest = made.path / recovery.MANIFEST
    manifest.write_text(manifest.read_text().replace("status.json", "../../evil"))
    with pytest.raises(RecoveryError, match="cannot be trusted"):
        load(made.path)


def test_nothing_is_restored_over_something(runtime, tmp_path):
    made = take(plan(runtime))
    with pytest.raises(RecoveryError, match="is not empty"):
        restore(made, runtime)


def test_a_folder_that_cannot_be_written_is_one_clear_error(runtime, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecoveryError, match="replication_path"):
        take(plan(runtime, target=tmp_path / "file" / "backup"))


# ---- the proof


@pytest.fixture
def traded(tmp_path: Path) -> Path:
    """A runtime folder after a session: journal, checkpoint of its middle, database."""
    folder = tmp_path / "traded"
    session = folder / "session" / header().session_id
    live_session(session)
    seen: list[dict] = []
    states: list[dict] = []

    def watch(event, commands, engine, pipeline) -> None:
        if len(seen) == len(states) + 1:  # the pipeline of the event before is complete now
            states.append(pipeline.state())
        seen.append(engine.snapshot()) if len(seen) < 1500 else None

    replay(session, None, make_model=make, watch=watch)
    at = max(n for n in range(len(states)) if seen[n]["orders"])
    body = {"session_id": header().session_id, "account": "a", "engine": seen[at], "pipeline": states[at]}
    checkpoint.save(folder / "checkpoint.json", json.loads(json.dumps(body)))
    sqlite3.connect(folder / "scalper.db").close()
    return folder


def test_a_restored_copy_replays_to_the_state_of_its_checkpoint(traded, tmp_path):
    made = take(plan(traded))
    restore(made, tmp_path / "new")
    proof = prove(tmp_path / "new", make_model=make)
    assert proof.ok, proof.problem
    assert proof.engine_equal and proof.pipeline_equal and proof.replay_equal and proof.orders > 10


@pytest.mark.parametrize(
    ("alter", "problem"),
    [
        (lambda body: body["engine"]["risk"].update(day_realised_nano=12_345), "another state of orders"),
        (lambda body: body["engine"].update(now_ns=body["engine"]["now_ns"] + 1), "does not reach|another"),
        (lambda body: body["pipeline"].update(features={}), "another state of features"),
    ],
)
def test_a_checkpoint_that_the_journal_does_not_lead_to_is_found_out(traded, alter, problem):
    path = traded / "checkpoint.json"
    body = checkpoint.load(path)
    assert body is not None
    alter(body)
    checkpoint.save(path, body)
    proof = prove(traded, make_model=make)
    assert not proof.ok
    assert re.search(problem, proof.problem), proof.problem


def test_a_journal_that_is_too_short_for_the_checkpoint_is_found_out(traded):
    journal = traded / "session" / header().session_id / "events.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:200]))
    assert "does not reach the moment" in prove(traded, make_model=make).problem


def test_the_commands(runtime, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["snapshot"]) == 2
    assert "replication_path" in capsys.readouterr().err
    assert cli.main(["snapshot", "--to", "backup", "--json"]) == 0
    name = json.loads(capsys.readouterr().out)["name"]
    assert cli.main(["snapshot", "--to", "backup", "--list"]) == 0
    assert name in capsys.readouterr().out
    assert cli.main(["restore", "--from", "backup", "--into", "new"]) == 0
    assert "not verified" in capsys.readouterr().out
    assert (tmp_path / "new" / "scalper.db").exists()
    assert cli.main(["restore", "--from", "backup", "--verify", "--json"]) == 1
    assert "no checkpoint" in json.loads(capsys.readouterr().out)["proof"]["problem"]
    assert cli.main(["restore", "--from", "backup"]) == 2

"""`live-runner restore --verify`: a restored folder holds a state that its own journal leads to.

The databases are whole, the checkpoint fits its checksum, and the session of the checkpoint, replayed from
its journal with its bundle, passes through exactly the state that the checkpoint holds: the engine (orders,
positions, holds, risk counters) and the features and models.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from live import checkpoint, replay
from live.core import events as ev
from live.core.commands import Command
from live.core.engine import Engine
from live.journal import JournalReader
from live.pipeline import SignalPipeline
from live.recovery import DATABASE_SUFFIXES, RecoveryError
from market.errors import ScalperError
from models.bundle import Bundle


@dataclass(slots=True)
class Proof:
    """What was proven of a restored folder; ``problem`` is empty where everything holds."""

    databases: dict[str, str] = field(default_factory=dict)
    session_id: str = ""
    events: int = 0
    orders: int = 0
    engine_equal: bool | None = None
    pipeline_equal: bool | None = None
    replay_equal: bool | None = None
    problem: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok}


class _Seeker:
    """Compares the replayed state with the checkpoint wherever the clocks agree."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._engine, self._pipeline = _text(body["engine"]), body.get("pipeline")
        self._now_ns = int(body["engine"]["now_ns"])
        self.engine_equal = self.pipeline_equal = False
        self.passed = False
        self._ask_pipeline = False
        self._last: SignalPipeline | None = None

    def __call__(
        self, event: ev.Event, commands: list[Command], engine: Engine, pipeline: SignalPipeline
    ) -> None:
        self.finish(pipeline)
        self._last = pipeline
        if engine.now_ns == self._now_ns:
            self.passed = True
            if _text(engine.snapshot()) == self._engine:
                self.engine_equal = True
                # The pipeline takes the event after the engine: it is asked when the next event comes.
                self._ask_pipeline = self._pipeline is not None and not self.pipeline_equal

    def finish(self, pipeline: SignalPipeline | None = None) -> None:
        pipeline = pipeline or self._last
        if self._ask_pipeline and pipeline is not None:
            self._ask_pipeline = False
            self.pipeline_equal = self.pipeline_equal or _text(pipeline.state()) == _text(self._pipeline)


def prove(folder: Path, *, bundles: Path | None = None, make_model: Any = None) -> Proof:
    """Checks the restored runtime folder ``folder``. ``bundles``: where pulled bundles lie (default: in
    it). Never raises for a bad copy; ``problem`` says what is wrong.
    """
    proof = Proof()
    try:
        _databases(folder, proof)
        body = checkpoint.load(folder / "checkpoint.json")
        if body is None:
            raise RecoveryError("the copy holds no checkpoint: risk counters and positions are not in it")
        proof.session_id = str(body["session_id"])
        _replay(folder, body, proof, bundles or folder / "models", make_model)
    except (ScalperError, sqlite3.Error) as error:
        proof.problem = str(error)
    return proof


def _databases(folder: Path, proof: Proof) -> None:
    for path in sorted(p for p in folder.rglob("*") if p.suffix in DATABASE_SUFFIXES and p.is_file()):
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            verdict = str(connection.execute("PRAGMA integrity_check").fetchone()[0])
        finally:
            connection.close()
        proof.databases[path.relative_to(folder).as_posix()] = verdict
        if verdict != "ok":
            raise RecoveryError(f"the database {path.name} is damaged in this copy: {verdict}")


def _replay(folder: Path, body: dict[str, Any], proof: Proof, bundles: Path, make_model: Any) -> None:
    session = folder / "session" / proof.session_id
    reader = JournalReader(session)
    make: dict[str, Any] = (
        _models(reader, bundles) if make_model is None else {"bundle": None, "make_model": make_model}
    )
    seeker = _Seeker(body)
    found = replay.run(session, watch=seeker, **make)
    seeker.finish()
    proof.events, proof.orders, proof.replay_equal = found.events, found.orders, found.equal
    proof.engine_equal = seeker.engine_equal
    proof.pipeline_equal = seeker.pipeline_equal if body.get("pipeline") is not None else None
    if not found.equal:
        proof.problem = f"the replay decides otherwise: {found.first_difference}"
    elif not seeker.passed:
        proof.problem = (
            "the journal of the copy does not reach the moment of its checkpoint; take another copy"
        )
    elif not seeker.engine_equal:
        proof.problem = "the replay comes to another state of orders, positions or risk than the checkpoint"
    elif proof.pipeline_equal is False:
        proof.problem = "the replay comes to another state of features or models than the checkpoint"


def _models(reader: JournalReader, bundles: Path) -> dict[str, Any]:
    wanted = bundles / reader.header.manifest_sha256
    if not wanted.is_dir():
        raise RecoveryError(
            f"the session used bundle {reader.header.manifest_sha256[:12]}, which is not in {bundles}; name "
            "the folder of pulled bundles with --models"
        )
    others = {
        p.name: Bundle.load(p, None)
        for p in bundles.iterdir()
        if p.is_dir() and not p.name.startswith(".") and p != wanted
    }
    return {"bundle": Bundle.load(wanted, None), "other_bundles": others}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)

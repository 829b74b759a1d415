"""The flow around the gate on a real registry: tables, overrides, the incumbent, two at once, rollback,
the past."""

from __future__ import annotations

import json
import resource
import shutil
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import small_registry

from features.schema import schema_hash
from flows import incumbent, promotion, publishing
from flows.cli import main
from flows.registry_cli import REFUSED
from live.registry import pull
from market.errors import RegistryError
from models import promotions, registry
from models.bundle import Bundle
from models.gate import Check, GateResult
from models.inference import check_golden

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three versions: 1 trades and pays for it, 2 never trades, 3 claims too few trades."""
    folder = small_registry.make(tmp_path_factory.mktemp("promotion") / "w")
    assert publishing.publish(folder).version == 1
    small_registry.rebuild(folder, threshold_bps=1e4, rounds=20)
    assert publishing.publish(folder).version == 2
    small_registry.rebuild(folder, rounds=10, edge={**small_registry.GOOD["edge"], "trades": 3})
    assert publishing.publish(folder).version == 3
    return folder


@pytest.fixture
def folder(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same registry with no alias and no journal; MLflow makes its database slowly, so it is copied."""
    target = tmp_path / "w"
    shutil.copytree(published, target, ignore=shutil.ignore_patterns("mlflow.db*"))
    database = "runtime/mlflow/mlflow.db"
    with (
        closing(sqlite3.connect(published / database)) as a,
        closing(sqlite3.connect(target / database)) as b,
    ):
        a.backup(b)
    monkeypatch.chdir(target)
    yield target


def _journal(folder: Path) -> list[dict]:
    return promotions.read_journal(publishing.journal(folder))


def test_a_version_climbs_and_the_table_says_what_was_asked(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["promote", "1", "--to", "prod", "--climb", "--reason", "first"]) == 0
    said = capsys.readouterr().out
    for check in ("signature", "edge_lower95_bps", "calibration_error", "latency_p99_us"):
        assert check in said
    assert "alias prod -> version 1" in said
    assert publishing.aliases(folder) == dict.fromkeys(("challenger", "shadow", "canary", "prod"), 1)


def test_a_refusal_names_the_failed_check_and_moves_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["promote", "3", "--to", "canary", "--climb", "--reason", "try"]) == REFUSED
    said = capsys.readouterr().out
    assert "edge_trades" in said and "there are 3 trades out of sample, 20 are needed" in said
    assert publishing.aliases(folder) == {} and _journal(folder) == []


def test_an_override_moves_it_and_is_shown_for_ever(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["promote", "3", "--to", "canary", "--climb", "--reason", "try"]
    assert main([*argv, "--override", "the desk wants it for one hour"]) == 0
    promotion.promote(folder, "challenger", "calm again", which=1)
    assert "OVERRIDE: the desk wants it for one hour" in capsys.readouterr().out
    assert main(["promotions"]) == 0
    assert "OVERRIDE: the desk wants it for one hour" in capsys.readouterr().out
    (entry,) = [e for e in _journal(folder) if e["alias"] == "canary"]
    assert entry["override"] and not entry["gate"]["passed"]
    tags = registry.version(publishing.store(folder), 3).tags
    assert "the desk wants it" in tags["override.canary"]


def test_a_broken_signature_is_not_overridden(folder: Path) -> None:
    place = registry.local_path(publishing.store(folder), 1) / "ensemble.json"
    kept = place.read_text()
    place.write_text(kept.replace("8.0", "9.0"))
    try:
        with pytest.raises(Exception, match=r"ensemble\.json differs"):
            promotion.promote(folder, "challenger", "try", which=1, override="I want it")
    finally:
        place.write_text(kept)  # the files are shared with the other tests
    assert publishing.aliases(folder) == {}


def test_a_candidate_must_beat_the_one_that_holds_prod(folder: Path) -> None:
    promotion.promote(folder, "prod", "it trades", which=1, climb=True)
    # Doing nothing for twelve minutes ended better than a few bad trades: a better mean, and no proof.
    refused = promotion.promote(folder, "prod", "it does nothing, which is cheaper", which=2, climb=True)
    (check,) = [c for c in refused.verdict.result.checks if not c.passed]
    assert check.name == "beats_incumbent_rub" and check.value.startswith("+")
    assert not refused.moved and "version 1, which holds prod, at -" in refused.text()
    same = promotion.judge(folder, "prod", 1)
    assert same.passed and same.result.checks[-1].value == "the same bundle"
    said = promotion.promote(
        folder, "prod", "calm", which=2, climb=True, override="the desk has no nerves today"
    )
    assert said.moved
    held = dict.fromkeys(("challenger", "shadow", "canary", "prod"), 2)
    assert publishing.aliases(folder) == {**held, "previous": 1}


def test_a_steady_advantage_is_proof_and_a_lucky_minute_is_not() -> None:
    rng = np.random.default_rng(1)
    theirs = rng.normal(0, 10, 240)
    steady = incumbent.paired(theirs + rng.normal(2, 3, 240), theirs)
    assert steady.better and steady.low_rub > 1
    lucky = theirs.copy()
    lucky[17] += 500
    assert incumbent.paired(lucky, theirs).mean_rub > 2 and not incumbent.paired(lucky, theirs).better
    assert not incumbent.paired(theirs, theirs).better


def test_two_at_once_one_wins(folder: Path) -> None:
    verdicts = {which: promotion.judge(folder, "challenger", which).result for which in (1, 2)}
    store, journal = publishing.store(folder), publishing.journal(folder)

    def move(which: int) -> str:
        try:
            registry.promote(
                store, which, "challenger", verdicts[which], "race", journal=journal, expected=None
            )
            return "won"
        except RegistryError as error:
            assert "another promotion won" in str(error)
            return "lost"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(move, (1, 2))) == ["lost", "won"]
    assert len(_journal(folder)) == 1
    assert promotions.differences(_journal(folder), publishing.aliases(folder)) == []


def test_a_full_disk_registers_nothing_by_half(folder: Path) -> None:
    small_registry.rebuild(folder, rounds=5)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # what a full disk looks like to a writer
    try:
        with pytest.raises(RegistryError, match="does not do what was asked"):
            publishing.publish(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [found.number for found in registry.versions(publishing.store(folder))] == [3, 2, 1]
    assert publishing.publish(folder).version == 4


def test_a_box_rolls_back_without_any_server(folder: Path, tmp_path: Path) -> None:
    """What ``prod`` left stays on the box: it comes back from its own disk and is verified."""
    models, store, key = tmp_path / "models", publishing.store(folder), folder / "keys" / "signing.pub"
    promotion.promote(folder, "prod", "one", which=1, climb=True)
    first = pull(store, "scalper", "prod", models)
    passed = GateResult("prod", (Check("edge", 1.0, 0.0, True, ""),))
    registry.promote(store, 2, "prod", passed, "two", skip_ladder=True)
    second = pull(store, "scalper", "prod", models)
    assert main(["rollback", "--reason", "it loses"]) == 0
    back = pull(store, "scalper", "prod", models)
    assert (back.path, back.manifest_sha256, back.kept) == (first.path, first.manifest_sha256, True)
    assert promotions.differences(_journal(folder), publishing.aliases(folder)) == []
    # The registry gone altogether: the box is pointed at the folder.
    shutil.rmtree(folder / "runtime" / "mlflow")
    with pytest.raises(RegistryError):
        pull(store, "scalper", "prod", models)
    alone = pull(f"file://{first.path}", "scalper", "prod", models)
    assert alone.manifest_sha256 == first.manifest_sha256 != second.manifest_sha256
    check_golden(Bundle.load(alone.path, key, expect_schema=schema_hash()))


def test_rollback_and_what_was_live_at_a_moment(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    promotion.promote(folder, "prod", "one", which=1, climb=True)
    passed = GateResult("prod", (Check("edge", 1.0, 0.0, True, ""),))
    registry.promote(publishing.store(folder), 2, "prod", passed, "two", skip_ladder=True)
    assert main(["rollback", "--reason", "it loses"]) == 0
    assert "alias prod -> version 1; version 2 is now previous" in capsys.readouterr().out
    assert main(["promotions", "--verify"]) == 0
    assert "the registry's aliases are what the journal says" in capsys.readouterr().out
    entries = _journal(folder)
    # Times as they were, an hour apart, so that moments between them can be asked for.
    start = datetime(2026, 1, 15, tzinfo=UTC)
    dated = [{**e, "at": (start + timedelta(hours=i)).isoformat()} for i, e in enumerate(entries)]
    (first, second, back) = [i for i, e in enumerate(dated) if e["alias"] == "prod"]

    def live(hours: float) -> int | None:
        found = promotions.aliases_at(dated, start + timedelta(hours=hours)).get("prod")
        return found["version"] if found else None

    assert [live(first - 0.5), live(first), live(second - 0.1), live(second), live(back), live(99)] == [
        None, 1, 1, 2, 1, 1,
    ]  # fmt: skip
    assert main(["promotions", "--at", "2020-01-01"]) == 0
    assert "no alias named anything" in capsys.readouterr().out
    assert main(["promotions", "--at", "yesterday"]) == 2


def test_an_alias_moved_by_hand_is_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    promotion.promote(folder, "challenger", "honest", which=1)
    with registry._registry(publishing.store(folder)) as client:
        client.set_registered_model_alias(registry.MODEL, "challenger", "2")
    assert main(["promotions", "--verify"]) == 1
    assert (
        "alias challenger: the journal says version 1, the registry says version 2" in capsys.readouterr().out
    )


def test_lineage_and_all_metrics_are_with_the_version(published: Path) -> None:
    small_registry.rebuild(published, many={f"value{i:04}": float(i) for i in range(1500)})
    number = publishing.publish(published, flow_run="run-7").version
    found = registry.version(publishing.store(published), number)
    for tag in ("git.commit", "git.dirty", "dvc.lock", "data.hash", "schema.hash", "params.hash"):
        assert tag in found.tags
    assert found.tags["prefect.flow_run"] == "run-7"
    with closing(sqlite3.connect(published / "runtime/mlflow/mlflow.db")) as database:
        (count,) = database.execute(
            "SELECT COUNT(*) FROM latest_metrics WHERE key LIKE 'many.value%'"
        ).fetchone()
    assert count == 1500
    assert json.loads((published / "artifacts/bundle/manifest.json").read_text())["metrics"]["many"]

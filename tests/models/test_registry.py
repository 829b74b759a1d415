"""Publishing and promoting on a real MLflow store, read back the way the box reads it: SQL and REST."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import bundle_parts
import pytest

from market.errors import RegistryError
from models import promotions, registry
from models.bundle import MANIFEST, Bundle, BundleFault
from models.gate import Check, GateResult

pytestmark = pytest.mark.slow

ALIAS_SQL = """
SELECT v.version, v.status, COALESCE(v.storage_location, v.source),
       (SELECT t.value FROM model_version_tags t WHERE t.workspace = v.workspace AND t.name = v.name
        AND t.version = v.version AND t.key = 'manifest.sha256')
FROM registered_model_aliases a
JOIN model_versions v ON v.workspace = a.workspace AND v.name = a.name AND v.version = a.version
WHERE a.workspace = 'default' AND a.name = ? AND a.alias = ?
"""


def verdict(alias: str, *, passed: bool = True) -> GateResult:
    return GateResult(alias, (Check("edge", 1.0, 0.0, passed, "" if passed else "There is no edge."),))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Bundle, Path]]:
    made = []
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp(f"bundle{seed}")
        metrics = {"calibration": {"ece": 0.01 * seed}, "list": [1, 2], "1 bp + spread": 3.0 * seed}
        changes = {"seeds": {"all": seed}, "metrics": metrics}
        made.append(bundle_parts.bundle(folder, **changes))
    return made


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, two: list[tuple[Bundle, Path]]) -> str:
    """A registry with two versions, challenger and shadow on the first."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'runtime' / 'mlflow.db'}"
    assert (
        registry.publish(two[0][0].path, uri=uri, tags={"git.commit": "abc"}, public_key_path=two[0][1]) == 1
    )
    assert registry.publish(two[1][0].path, uri=uri) == 2
    return uri


@pytest.fixture
def fresh(store: str, tmp_path: Path) -> str:
    """The same store with no aliases and no journal: a copy of the database, for MLflow builds one slowly."""
    copy = tmp_path / "mlflow.db"
    with (
        contextlib.closing(sqlite3.connect(store.removeprefix("sqlite:///"))) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
    return f"sqlite:///{copy}"


def test_publishing_leaves_nothing_in_the_current_folder(
    fresh: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # MLflow likes to put a store of its own where it stands.
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    made, _ = bundle_parts.bundle(tmp_path_factory.mktemp("bundle3"), seeds={"all": 3})
    number = registry.publish(made.path, uri=fresh)
    registry.promote(fresh, number, "challenger", verdict("challenger"), "third")
    assert list(here.iterdir()) == []


def test_publishing_twice_is_one_version(store: str, two: list[tuple[Bundle, Path]]) -> None:
    assert registry.publish(two[0][0].path, uri=store, tags={"git.commit": "other"}) == 1
    newest, oldest = registry.versions(store)
    assert (newest.number, oldest.number) == (2, 1)
    assert oldest.manifest_sha256 == two[0][0].sha256
    assert oldest.tags["git.commit"] == "abc" and oldest.tags["watermark"] == "SIMULATED"
    assert oldest.tags["data.hash"] == "d" * 64


def test_a_metric_whose_name_mlflow_would_refuse_is_logged_under_a_near_one(store: str) -> None:
    import mlflow

    run = mlflow.MlflowClient(tracking_uri=store).search_runs(["1"], "metrics.`calibration.ece` > 0.015")[0]
    assert run.data.metrics["1 bp _ spread"] == 6.0


def test_the_registry_hands_back_a_bundle_that_verifies(store: str, two: list[tuple[Bundle, Path]]) -> None:
    for number, (made, public) in enumerate(two, 1):
        path = registry.local_path(store, number)
        assert Bundle.load(path, public).sha256 == made.sha256


def test_an_altered_bundle_is_not_published(
    fresh: str, two: list[tuple[Bundle, Path]], tmp_path: Path
) -> None:
    copy = tmp_path / "altered"
    copy.mkdir()
    for path in two[0][0].path.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "gbdt.txt").write_text("tree\n")
    with pytest.raises(BundleFault, match=r"gbdt\.txt"):
        registry.publish(copy, uri=fresh)
    other = two[1][1]
    with pytest.raises(BundleFault):
        registry.publish(two[0][0].path, uri=fresh, public_key_path=other)


def test_the_ladder_moves_aliases_and_keeps_previous(fresh: str) -> None:
    assert registry.aliases(fresh) == {}
    for number in (1, 2):
        for alias in ("challenger", "shadow", "canary", "prod"):
            entry = registry.promote(fresh, number, alias, verdict(alias), f"step {number}")
            assert entry["version"] == number and entry["gate"]["passed"]
    assert registry.aliases(fresh) == dict.fromkeys(("challenger", "shadow", "canary", "prod"), 2) | {
        "previous": 1
    }
    assert registry.version(fresh, "prod").number == 2 and "prod" in registry.version(fresh, 2).aliases
    journal = promotions.read_journal(registry.journal_path(fresh))
    assert [(e["alias"], e["version"], e["replaces"]) for e in journal][-1] == ("prod", 2, 1)

    again = registry.promote(fresh, "canary", "prod", verdict("prod"), "once more")
    assert again["number"] == journal[-1]["number"], "a move to where it is leaves no line"
    registry.rollback(fresh, "it loses")
    assert (registry.aliases(fresh)["prod"], registry.aliases(fresh)["previous"]) == (1, 2)
    last = promotions.read_journal(registry.journal_path(fresh))[-1]
    assert (last["kind"], last["reason"], last["replaces"]) == ("rollback", "it loses", 2)


@pytest.mark.parametrize(
    ("which", "alias", "result", "reason", "words"),
    [
        (1, "prod", verdict("prod", passed=False), "go", "There is no edge"),
        (1, "prod", verdict("shadow"), "go", "judged for 'shadow'"),
        (1, "prod", verdict("prod"), "go", "never 'canary'"),
        (1, "challenger", verdict("challenger"), " ", "reason"),
        (1, "boss", verdict("boss"), "go", "'boss' is unknown"),
        (9, "challenger", verdict("challenger"), "go", "no version 9"),
        ("prod", "challenger", verdict("challenger"), "go", "no version 'prod'"),
    ],
)
def test_moves_that_are_refused(
    fresh: str, which: int | str, alias: str, result: GateResult, reason: str, words: str
) -> None:
    with pytest.raises(RegistryError, match=words):
        registry.promote(fresh, which, alias, result, reason)
    assert registry.aliases(fresh) == {}
    assert promotions.read_journal(registry.journal_path(fresh)) == []


def test_a_first_set_up_may_skip_the_ladder(fresh: str) -> None:
    registry.promote(fresh, 1, "prod", verdict("prod"), "first", skip_ladder=True)
    assert registry.aliases(fresh) == {"prod": 1}
    with pytest.raises(RegistryError, match="'previous'"):
        registry.rollback(fresh, "there is none yet")


@pytest.mark.parametrize("tamper", ["word", "drop", "cut"])
def test_the_journal_notices_tampering(fresh: str, tamper: str) -> None:
    path = registry.journal_path(fresh)
    for alias in ("challenger", "shadow", "canary"):
        registry.promote(fresh, 1, alias, verdict(alias), "an honest reason")
    lines = path.read_bytes().splitlines(keepends=True)
    changed = {
        "word": [lines[0], lines[1].replace(b"honest", b"better"), lines[2]],
        "drop": [lines[0], lines[2]],
        "cut": [lines[0], lines[1][:-20]],
    }[tamper]
    path.write_bytes(b"".join(changed))
    with pytest.raises(RegistryError, match="line 2"):
        promotions.read_journal(path)
    with pytest.raises(RegistryError, match="line 2"):
        registry.promote(fresh, 1, "prod", verdict("prod"), "go on")
    assert "prod" not in registry.aliases(fresh)


def test_the_box_finds_the_files_with_plain_sql(fresh: str, two: list[tuple[Bundle, Path]]) -> None:
    registry.promote(fresh, 2, "challenger", verdict("challenger"), "sql")
    database = fresh.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        found = connection.execute(ALIAS_SQL, ("scalper", "challenger")).fetchall()
    [(number, status, location, sha256)] = found
    assert (number, status, sha256) == (2, "READY", two[1][0].sha256)
    folder = Path(urllib.request.url2pathname(urllib.parse.urlsplit(location).path))
    assert Bundle.load(folder, two[1][1]).sha256 == sha256


def test_a_registry_that_does_not_answer_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(RegistryError, match="does not do what was asked"):
            registry.aliases(f"http://127.0.0.1:{held.getsockname()[1]}")
    (tmp_path / "mlflow.db").write_text("this is not a database, it only looks like a file")
    with pytest.raises(RegistryError, match=r"mlflow\.db"):
        registry.aliases(f"sqlite:///{tmp_path / 'mlflow.db'}")


# --- through a server -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real ``mlflow server`` over its own SQLite file, started the lean way."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(Path(sys.executable).with_name("mlflow")), "server", "--workers", "1", "--host", "127.0.0.1",
        "--port", str(port), "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
        "--serve-artifacts", "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    quiet = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env=os.environ | quiet, start_new_session=True
        )
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
            return
        time.sleep(0.5)
    pytest.fail("the MLflow server did not become healthy")


def _get(url: str, **query: str) -> bytes:
    with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(query)}", timeout=30) as answer:
        return bytes(answer.read())


def test_the_box_pulls_through_rest(
    server: str, two: list[tuple[Bundle, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    journal = tmp_path / "promotions.jsonl"
    made, public = two[0]
    number = registry.publish(made.path, uri=server)
    registry.promote(server, number, "challenger", verdict("challenger"), "rest", journal=journal)
    api = f"{server}/api/2.0/mlflow"
    held = json.loads(_get(f"{api}/registered-models/alias", name="scalper", alias="challenger"))[
        "model_version"
    ]
    tags = {t["key"]: t["value"] for t in held["tags"]}
    assert held["version"] == str(number) and tags["manifest.sha256"] == made.sha256
    place = json.loads(
        _get(f"{api}/model-versions/get-download-uri", name="scalper", version=held["version"])
    )
    root = place["artifact_uri"].removeprefix("mlflow-artifacts:/")
    files = json.loads(_get(f"{server}/api/2.0/mlflow-artifacts/artifacts", path=root))["files"]
    target = tmp_path / "pulled"
    target.mkdir()
    for entry in files:
        (target / entry["path"]).write_bytes(
            _get(f"{server}/api/2.0/mlflow-artifacts/artifacts/{root}/{entry['path']}")
        )
    assert Bundle.load(target, public).sha256 == made.sha256
    by_name = _get(
        f"{server}/model-versions/get-artifact", name="scalper", version=held["version"], path=MANIFEST
    )
    assert by_name == (made.path / MANIFEST).read_bytes(), "the way that needs no listing"
    assert list(here.iterdir()) == []
    with pytest.raises(urllib.error.HTTPError) as caught:
        _get(f"{api}/registered-models/alias", name="scalper", alias="prod")
    assert caught.value.code in (400, 404)

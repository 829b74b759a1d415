"""The whole line on a tiny simulated market: once, again for nothing, elsewhere to the same bundle, and into
the registry."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_line

from flows import demo, line, plain_line, promotion, publishing, workspace
from flows.cli import main
from flows.registry_cli import REFUSED
from flows.signing import signed_bundle
from flows.stages import features, ingest
from market.errors import ScalperError
from market.recording import write_recording
from market.simulator import simulate_market
from models.bundle import generate_keys

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_every_stage_left_what_it_promises(built: Path) -> None:
    bundle = tiny_line.bundle(built)
    assert bundle.watermark == "SIMULATED"
    assert {i["ticker"] for i in bundle.manifest["instruments"]} == {"SIMA", "SIMF", "SIMP"}
    page = (built / "artifacts" / "backtest" / "report.html").read_text()
    assert (
        page.count("SIMULATED") > 10
        and 'src="http' not in page
        and "Right direction" not in page.split("<h2>")[0][:200]
    )
    for name in (
        "drift/reference.npz",
        "calibration/trials.csv",
        "exported/parity.json",
        "ensemble/quantization_plan.json",
    ):
        assert (built / "artifacts" / name).is_file()
    assert not [p for p in built.rglob("*.draft")], "a draft was left behind"


def test_the_second_run_does_nothing(built: Path) -> None:
    said: list[str] = []
    lock = (built / "dvc.lock").read_bytes()
    line.repro(built, on_line=said.append)
    assert not [text for text in said if text.startswith("Running stage")]
    assert said[-1] == "Data and pipelines are up to date."
    assert (built / "dvc.lock").read_bytes() == lock


def test_the_same_inputs_elsewhere_give_the_same_bundle(built: Path, tmp_path: Path) -> None:
    """Another folder, other keys, no DVC and so no cache, another seed of Python's hashes, and all stages in
    one process, where one could leave something for the next: only the signature may differ."""
    other = workspace.create(
        tmp_path / "a" / "deeper" / "two", overrides=tiny_line.PARAMS, share_keys=False, dvc=False
    )
    # The two stages behind the bundle are for people; nothing of them is in it.
    names = [stage.name for stage in plain_line.stages() if stage.name not in ("card", "plots")]
    done = subprocess.run(
        [sys.executable, "-m", "flows.stages", *names],
        cwd=other, capture_output=True, text=True, check=False,
        env=line.environment({"PYTHONPATH": str(workspace.PROJECT), "PYTHONHASHSEED": "77"}),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert tiny_line.bundle(other).sha256 == tiny_line.bundle(built).sha256
    ours, theirs = (f / "artifacts" / "bundle" / "manifest.sig" for f in (built, other))
    assert ours.read_bytes() != theirs.read_bytes()
    manifest = (built / "artifacts" / "bundle" / "manifest.json").read_text()
    assert str(tmp_path) not in manifest and str(Path.home()) not in manifest


def test_publishing_twice_is_one_version_and_a_new_key_signs_again(built: Path) -> None:
    first, second = publishing.publish(built), publishing.publish(built)
    assert first == second and first.version == 1
    (lock,) = (built / "runtime" / "mlflow").rglob("dvc.lock")  # for who wants all of it back
    assert lock.read_bytes() == (built / "dvc.lock").read_bytes()
    shown = {path.name for path in (built / "artifacts" / "plots").glob("*.svg")}
    assert len(shown) == 5 and {path.name for path in lock.parent.glob("*.svg")} == shown
    shutil.rmtree(built / "keys")
    generate_keys(built / "keys")
    assert signed_bundle(built / "artifacts" / "bundle", built / "keys").sha256 == first.manifest_sha256


def test_the_gate_refuses_and_moves_nothing(
    built: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from models import registry

    # Too little market for an edge: prod stays empty, shadow is allowed.
    monkeypatch.chdir(built)
    assert main(["promote", "--to", "prod", "--climb", "--reason", "test"]) == REFUSED
    said = capsys.readouterr().out
    assert "REFUSED" in said and "trades out of sample" in said and "[SIMULATED]" in said
    assert registry.aliases(publishing.store(built)) == {}
    assert main(["gate", "--to", "prod"]) == REFUSED
    assert "edge_trades" in capsys.readouterr().out


def test_an_altered_bundle_is_not_published(built: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(built / "artifacts" / "bundle", copy / "artifacts" / "bundle")
    shutil.copytree(built / "keys", copy / "keys")
    (copy / "artifacts" / "bundle" / "ensemble.json").write_text("{}")
    with pytest.raises(ScalperError, match=r"ensemble\.json differs"):
        publishing.publish(copy)


def test_a_clean_clone_pulls_the_same_version_without_training(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = publishing.publish(built)
    clone = tiny_line.make(tmp_path / "clone")
    shutil.copyfile(built / "dvc.lock", clone / "dvc.lock")
    # What CI can ask without any data: do lock, code and parameters agree?
    assert "are up to date" in tiny_line.dvc(clone, "repro", "--dry", "--allow-missing")
    for folder in (built, clone):
        tiny_line.dvc(folder, "remote", "add", "--force", "--default", "local", str(tmp_path / "remote"))
    tiny_line.dvc(built, "push")
    tiny_line.dvc(clone, "pull")
    said: list[str] = []
    line.repro(clone, on_line=said.append)
    assert not [text for text in said if text.startswith("Running stage")]
    shutil.copytree(built / "keys", clone / "keys", dirs_exist_ok=True)
    monkeypatch.setenv("SCALPER_REGISTRY", publishing.store(built))
    again = publishing.publish(clone)
    assert (again.version, again.manifest_sha256) == (published.version, published.manifest_sha256)
    assert "train_gbdt.json" in tiny_line.dvc(clone, "metrics", "show")
    page = Path(
        tiny_line.dvc(clone, "plots", "show", "--out", str(tmp_path / "plots")).strip().split("file://")[-1]
    )
    shown = page.read_text()
    for name in ("calibration", "equity", "confusion", "risk_coverage", "latency"):
        assert f"{name}.svg" in shown


def test_what_gc_removed_is_made_again_to_the_same_hash(built: Path, tmp_path: Path) -> None:
    folder = tiny_line.copy(built, tmp_path / "collected")
    made, given = tiny_line.bundle(folder).sha256, (folder / "params.yaml").read_text()
    assert "valid_days: 30" in given
    (folder / "params.yaml").write_text(given.replace("valid_days: 30", "valid_days: 31"))
    line.repro(folder, stages=["bundle"])
    assert tiny_line.bundle(folder).sha256 != made
    tiny_line.dvc(folder, "gc", "--workspace", "--force")
    (folder / "params.yaml").write_text(given)
    said: list[str] = []
    line.repro(folder, stages=["bundle"], on_line=said.append)
    assert [text for text in said if text.startswith("Running stage")] == ["Running stage 'bundle':"]
    assert tiny_line.bundle(folder).sha256 == made


def test_an_experiment_changes_one_parameter_and_leaves_the_rest(built: Path, tmp_path: Path) -> None:
    """`dvc params diff` and `dvc exp run` need git: a repository of the line's own files."""
    folder = tiny_line.copy(built, tmp_path / "repository")
    config = folder / ".dvc" / "config"
    config.write_text(config.read_text().replace("    no_scm = true\n", ""))
    tracked = ["params.yaml", "dvc.yaml", "dvc.lock", ".dvc/config", ".gitignore"]
    ignored = ("/data/", "/artifacts/", "/runtime/", "/keys/", *(f"/{name}" for name in workspace.LINKED))
    (folder / ".gitignore").write_text("\n".join(ignored) + "\n")
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for argv in (["init", "--quiet"], ["add", *tracked], ["commit", "--quiet", "--message", "the line"]):
        subprocess.run([*git, *argv], cwd=folder, check=True, capture_output=True)
    before = (folder / "artifacts" / "models" / "gbdt" / "model.txt").read_bytes()
    argv = [sys.executable, "-m", "dvc", "exp", "run", "--set-param", "gbdt.rounds=9", "train_gbdt"]
    done = subprocess.run(
        argv, cwd=folder, env=line.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Running stage '") == 1 and "train_gbdt" in done.stdout
    assert (folder / "artifacts" / "models" / "gbdt" / "model.txt").read_bytes() != before
    assert "gbdt.rounds" in tiny_line.dvc(folder, "params", "diff")


def test_the_demos_runner_trades_and_its_session_replays(built: Path) -> None:
    # The gate refused prod above, so this is the demo's other way: shadow. Half a minute of market.
    promotion.promote(built, "shadow", "test", climb=True)
    session = demo._trade(built, "shadow", 0.5, 10.0)
    assert session["mode"] == "shadow" and session["watermark"] == "SIMULATED" and session["failure"] is None
    assert session["books"] > 0
    assert not _running_in(built)
    folder = built / demo.RUNTIME / "session" / session["session_id"]
    argv = [sys.executable, "-m", "live.cli", "--config", str(demo.CONFIG), "replay", str(folder)]
    argv += ["--bundle", "artifacts/bundle"]
    done = subprocess.run(
        argv, cwd=built, env=line.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_recording_with_unsound_rows_goes_through_the_line_cleaned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days, _ = simulate_market(hours=0.1, seed=3)
    books = days[0].books
    books.bid_px[50, 0] = books.ask_px[50, 0] + 5
    books.recv_ns[80] -= 10**9
    write_recording(
        tmp_path / "rec", days, source="test", watermark="SIMULATED", tariff="trader", provenance={}
    )  # fmt: skip
    folder = workspace.create(tmp_path / "w", source=tmp_path / "rec", share_cache=False, share_keys=False)
    monkeypatch.chdir(folder)
    for stage in (ingest, features):
        stage.main(print)
    found = json.loads((folder / "artifacts" / "metrics" / "ingest.json").read_text())
    assert found["tariff"] == "trader"
    report = found["books"]["SIMP/2026-01-15"]
    assert (report["crossed"], report["backward_time"], report["books_dropped"]) == (1, 1, 2)
    with np.load(folder / "data" / "features" / "SIMP" / "2026-01-15.npz") as table:
        assert len(table["recv_ns"]) == len(books) - 2


def test_a_missing_recording_is_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    folder = workspace.create(tmp_path / "w", overrides={"data.source": "recorded", "data.path": "source"},
                              share_cache=False, share_keys=False)  # fmt: skip
    with pytest.raises(ScalperError, match=r"failed to reproduce 'ingest'.*source"):
        line.repro(folder, stages=["ingest"])
    assert not (folder / "data" / "recording").exists()


HOLD = """
import sys, time

def hold(event, given):
    if event == "os.rename" and str(given[1]).endswith("data/raw"):
        time.sleep(600)

sys.addaudithook(hold)
"""


def test_stopping_the_command_ends_every_stage_and_leaves_no_half_output(tmp_path: Path) -> None:
    folder = tiny_line.make(tmp_path / "stopped")
    # The stage takes a moment, so it must not get to its end before the signal gets to it.
    (tmp_path / "sitecustomize.py").write_text(HOLD)
    command = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "-C", str(folder), "repro"],
        cwd=workspace.PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert command.stdout is not None
    for text in command.stdout:
        if "simulating" in text:
            break
    command.send_signal(signal.SIGTERM)
    assert command.wait(timeout=60) == 128 + signal.SIGTERM
    command.stdout.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and _running_in(folder):
        time.sleep(0.1)
    assert not _running_in(folder)
    assert not (folder / "data" / "raw").exists()
    assert not [p for p in folder.glob("data/.*")]
    assert not (folder / "dvc.lock").exists() or "record" not in (folder / "dvc.lock").read_text()


def _running_in(folder: Path) -> list[str]:
    """Processes whose working directory is ``folder``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder and (process / "cmdline").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return found

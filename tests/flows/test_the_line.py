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

from flows import demo, line, promotion, publishing, workspace
from flows.cli import main
from flows.registry_cli import REFUSED
from flows.signing import signed_bundle
from market.errors import ScalperError
from market.recording import write_recording
from market.simulator import simulate_market
from models.bundle import Bundle, generate_keys

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

TINY = {
    "data.hours": 0.4,
    "gbdt": {"rounds": 8},
    "svm": {"features": 32, "epochs": 1},
    "lstm": {"hidden": 8, "epochs": 1, "streams": 8},
    "transformer": {"window": 8, "width": 8, "layers": 1, "heads": 2, "ff": 8, "epochs": 1,
                    "windows_per_epoch": 512},
    "calibrate.trials": 4,
}  # fmt: skip


def _workspace(folder: Path) -> Path:
    return workspace.create(folder, overrides=TINY, share_cache=False, share_keys=False)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace after its first ``dvc repro``."""
    folder = _workspace(tmp_path_factory.mktemp("line") / "one")
    line.repro(folder)
    return folder


def _sha(folder: Path) -> str:
    return Bundle.load(folder / "artifacts" / "bundle", folder / "keys" / "signing.pub").sha256


def test_every_stage_left_what_it_promises(built: Path) -> None:
    bundle = Bundle.load(built / "artifacts" / "bundle", built / "keys" / "signing.pub")
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
    # Another folder, other keys, an empty cache: only the signature may differ.
    other = _workspace(tmp_path / "a" / "deeper" / "two")
    line.repro(other)
    assert _sha(other) == _sha(built)
    ours, theirs = (f / "artifacts" / "bundle" / "manifest.sig" for f in (built, other))
    assert ours.read_bytes() != theirs.read_bytes()
    manifest = (built / "artifacts" / "bundle" / "manifest.json").read_text()
    assert str(tmp_path) not in manifest and str(Path.home()) not in manifest


def test_publishing_twice_is_one_version_and_a_new_key_signs_again(built: Path) -> None:
    first, second = publishing.publish(built), publishing.publish(built)
    assert first == second and first.version == 1
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


def test_the_retrain_flow_leaves_readable_artifacts(built: Path) -> None:
    script = (
        "import json, os, sys\n"
        "from prefect.testing.utilities import prefect_test_harness\n"
        "from flows.jobs.retrain import retrain\n"
        "from prefect.client.orchestration import get_client\n"
        "with prefect_test_harness(server_startup_timeout=240):\n"
        "    result = retrain(workdir=sys.argv[1], promote_to='')\n"
        "    with get_client(sync_client=True) as client:\n"
        "        found = client.read_artifacts()\n"
        "    print('RESULT', json.dumps([result, sorted(a.key for a in found)]))\n"
    )
    env = {
        **os.environ,
        "PYTHONPATH": str(workspace.PROJECT),
        "PREFECT_HOME": str(built / "runtime" / "prefect"),
    }
    done = subprocess.run(
        [sys.executable, "-c", script, str(built)],
        cwd=built,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result, keys = json.loads(done.stdout.split("RESULT ", 1)[1])
    assert result["manifest_sha256"] == _sha(built) and result["moved"] is False
    assert keys == ["backtest-equity", "gate-checks", "retrain-progress", "retrain-verdict"]


def _dvc(folder: Path, *argv: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *argv], cwd=folder, env=line.environment(), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"dvc {' '.join(argv)}: {done.stdout}{done.stderr}"
    return done.stdout


def test_a_clean_clone_pulls_the_same_version_without_training(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = publishing.publish(built)
    clone = _workspace(tmp_path / "clone")
    shutil.copyfile(built / "dvc.lock", clone / "dvc.lock")
    for folder in (built, clone):
        _dvc(folder, "remote", "add", "--force", "--default", "local", str(tmp_path / "remote"))
    _dvc(built, "push")
    _dvc(clone, "pull")
    said: list[str] = []
    line.repro(clone, on_line=said.append)
    assert not [text for text in said if text.startswith("Running stage")]
    shutil.copytree(built / "keys", clone / "keys", dirs_exist_ok=True)
    monkeypatch.setenv("SCALPER_REGISTRY", publishing.store(built))
    again = publishing.publish(clone)
    assert (again.version, again.manifest_sha256) == (published.version, published.manifest_sha256)
    assert "train_gbdt.json" in _dvc(clone, "metrics", "show")
    page = Path(_dvc(clone, "plots", "show", "--out", str(tmp_path / "plots")).strip().split("file://")[-1])
    shown = page.read_text()
    for name in ("calibration", "equity", "confusion", "risk_coverage", "latency"):
        assert f"{name}.svg" in shown


def test_an_experiment_changes_one_parameter_and_leaves_the_rest(built: Path, tmp_path: Path) -> None:
    """`dvc params diff` and `dvc exp run` need git, so the code is copied into a repository of its own."""
    folder = tmp_path / "repository"
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=workspace.PROJECT,
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in files:
        if name.startswith((*workspace.LINKED, ".dvc", "dvc.yaml", ".gitignore")):
            source = workspace.PROJECT / name
            if source.is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, folder / name)
    for name in ("params.yaml", "dvc.lock"):
        shutil.copyfile(built / name, folder / name)
    (folder / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {built / '.dvc' / 'cache'}\n")
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for argv in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "the line"]):
        subprocess.run([*git, *argv], cwd=folder, check=True, capture_output=True)
    _dvc(folder, "checkout")
    before = (folder / "artifacts" / "models" / "gbdt" / "model.txt").read_bytes()
    _dvc(folder, "exp", "run", "--set-param", "gbdt.rounds=9", "train_gbdt")
    assert (folder / "artifacts" / "models" / "gbdt" / "model.txt").read_bytes() != before
    assert "gbdt.rounds" in _dvc(folder, "params", "diff")


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


def test_a_killed_stage_leaves_no_half_output(tmp_path: Path) -> None:
    folder = _workspace(tmp_path / "killed")
    with line.started([sys.executable, "-m", "dvc", "repro"], cwd=folder, grace_s=5.0) as process:
        assert process.stdout is not None
        for text in process.stdout:
            if "simulating" in text:
                break
    assert not (folder / "data" / "raw").exists()
    assert not [p for p in folder.glob("data/.*")]
    assert not (folder / "dvc.lock").exists() or "record" not in (folder / "dvc.lock").read_text()


def test_a_recording_with_unsound_rows_goes_through_the_line_cleaned(tmp_path: Path) -> None:
    days, _ = simulate_market(hours=0.1, seed=3)
    books = days[0].books
    books.bid_px[50, 0] = books.ask_px[50, 0] + 5
    books.recv_ns[80] -= 10**9
    write_recording(
        tmp_path / "rec", days, source="test", watermark="SIMULATED", tariff="trader", provenance={}
    )  # fmt: skip
    folder = workspace.create(tmp_path / "w", source=tmp_path / "rec", share_cache=False, share_keys=False)
    line.repro(folder, stages=["features"])
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


def test_stopping_the_command_ends_every_stage(tmp_path: Path) -> None:
    folder = _workspace(tmp_path / "stopped")
    command = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "-C", str(folder), "repro"],
        cwd=workspace.PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
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

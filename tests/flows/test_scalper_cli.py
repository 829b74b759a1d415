"""``scalper``: help that teaches, one line for each expected failure, nothing heavy loaded to say so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli import main

ROOT = Path(__file__).resolve().parents[2]
VERBS = (
    "demo", "repro", "publish", "gate", "promote", "keygen", "simulate", "ingest", "data", "features",
    "leak-check", "paper", "workspace", "up", "down", "status", "doctor", "backup", "restore", "rollback",
    "promotions",
)  # fmt: skip


def _help(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main([*argv, "--help"])
    assert stopped.value.code == 0
    return capsys.readouterr().out


def test_help_names_every_verb_and_shows_a_days_work(capsys: pytest.CaptureFixture[str]) -> None:
    text = _help([], capsys)
    for verb in VERBS:
        assert re.search(rf"\n    {verb}\s", text)
    assert "scalper promote --to prod" in text and "exit status" in text


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_explains_itself_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = _help([verb], capsys)
    assert f"example:\n  scalper {verb}" in text


def test_help_loads_no_library() -> None:
    script = (
        "import sys\nfrom flows.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = ('numpy', 'prefect', 'mlflow', 'torch', 'dvc')\n"
        "print(*[m for m in heavy if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == ""


def test_simulate_then_look_then_validate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sim"
    assert main(["simulate", str(out), "--hours", "0.02"]) == 0
    assert main(["data", "info", str(out)]) == 0
    assert main(["data", "validate", str(out)]) == 0
    said = capsys.readouterr().out
    assert (
        "SIMULATED" in said
        and "SIMP 2026-01-15: 288 books" in said
        and "SIMP 2026-01-15: ok" in said
        and "none dropped" in said
    )
    assert main(["ingest", str(out), "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "recording.json").is_file()


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["data", "info", "nowhere"], "there is no recording at nowhere"),
        (["data", "validate", "nowhere"], "there is no recording at nowhere"),
        (["-C", "nowhere", "repro"], "-C nowhere: there is no such folder"),
        (["repro"], "has no dvc.yaml"),
        (["ingest", "qsh", "nowhere", "--out", "out"], "there is nothing at nowhere"),
        (["simulate", "out", "--hours", "0"], "simulated hours must be above 0"),
    ],
)
def test_an_expected_failure_is_one_line(
    argv: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert expected in said and said.startswith("scalper: ") and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_keygen_makes_one_pair_and_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keygen", "--dir", str(tmp_path / "keys")]) == 0
    before = (tmp_path / "keys" / "signing.key").read_bytes()
    assert (tmp_path / "keys" / "signing.key").stat().st_mode & 0o777 == 0o600
    assert main(["keygen", "--dir", str(tmp_path / "keys")]) == 2
    assert "is not overwritten" in capsys.readouterr().err
    assert (tmp_path / "keys" / "signing.key").read_bytes() == before


def test_features_list_ends_with_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    from features import schema

    assert main(["features", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == schema.F + 1 and lines[-1] == f"{schema.F} features, schema {schema.schema_hash()}"

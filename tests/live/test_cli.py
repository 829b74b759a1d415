"""The command line: quick, teaching, one line for an expected failure."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from live import cli
from live.watch import OverrideFlag, take_resume

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("numpy", "grpc", "lightgbm", "numba", "pyarrow", "cryptography", "asyncio", "yaml")


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_imports_nothing_heavy():
    script = (
        "import sys\nfrom live import cli\ntry:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
    )
    script += f"print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "live-runner --model prod" in done.stdout


COMMANDS = [
    "init-config",
    "health-check",
    "backtest",
    "replay",
    "status",
    "halt",
    "resume",
    "keygen",
    "encrypt",
    "dashboard",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    assert f"live-runner {command}" in capsys.readouterr().out


def test_an_expected_failure_is_one_line_and_code_2(capsys):
    assert cli.main(["--model", "prod"]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("live-runner: no registry database")
    assert cli.main(["--model", "prod", "--set", "paper.spede=3"]) == 2
    assert "did you mean paper.speed" in capsys.readouterr().err
    assert cli.main(["status"]) == 2
    assert cli.main([]) == 2


def test_halt_and_resume_write_what_the_runner_reads(workspace, capsys):
    flag = OverrideFlag(workspace / "runtime" / "manual_override.flag", 0)
    assert flag.poll(1) is None
    assert cli.main(["halt", "--reason", "news at 14:00"]) == 0
    event = flag.poll(2)
    assert (event.active, event.reason) == (True, "news at 14:00")
    assert flag.poll(3) is None
    assert cli.main(["resume", "--reason", "checked"]) == 0
    event = flag.poll(4)
    assert not event.active
    resume = take_resume(workspace / "runtime", 5)
    assert (resume.names, resume.reason) == ((), "checked")
    assert take_resume(workspace / "runtime", 6) is None
    assert cli.main(["halt", "--reason", "  "]) == 2


def test_a_flag_clears_itself_when_asked_to(workspace):
    path = workspace / "flag"
    path.write_text("old")
    os.utime(path, (1, 1))
    assert OverrideFlag(path, 0).poll(1).active
    assert OverrideFlag(path, 60).poll(1) is None
    assert not path.exists()


def test_config_keygen_encrypt_round(workspace, capsys, monkeypatch):
    assert cli.main(["init-config", "--env", "sandbox"]) == 0
    assert cli.main(["init-config", "--env", "sandbox"]) == 2
    assert cli.main(["keygen"]) == 0
    capsys.readouterr()
    done = subprocess.run(
        [sys.executable, "-m", "live.cli", "encrypt"], input="t.token\n",
        capture_output=True, text=True, cwd=workspace,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    hidden = done.stdout.strip()
    assert hidden.startswith("enc:")
    from live import config

    assert config.load(Path("live.yaml"), [f"broker.token={hidden}"]).broker.token == "t.token"


def test_health_check_names_each_failure_and_the_way_out(workspace, capsys):
    assert cli.main(["health-check"]) == 2
    out = capsys.readouterr().out
    assert "FAIL registry" in out
    assert "scalper publish" in out
    assert re.search(r"3 of \d+ checks failed: registry, bundle, broker", out)


def test_status_reads_the_status_file(workspace, capsys):
    from live import reporting

    status = {
        "session_id": "s1", "pid": os.getpid(), "wall_ns": 0, "market_ns": 0, "mode": "paper",
        "model": {"alias": "prod", "version": "3", "manifest_sha256": "ab" * 32}, "watermark": "SIMULATED",
        "connection": {"up": False, "channel": "primary", "reconnects": 2,
                       "last_error": "gone", "book_age_s": 3.0},
        "storage": {"degraded": ""}, "counts": {}, "positions": {"SIMP": {"lots": -2}}, "gross_nano": 0,
        "fees_nano": 0, "net_nano": 0, "latency": {},
        "holds": [{"name": "CONNECTION", "scope": "*", "severity": "NO_ORDERS", "reason": "gone",
                   "lifts_when": "up"}],
    }  # fmt: skip
    reporting.write_json(Path("runtime/status.json"), status)
    cli.main(["halt", "--reason", "lunch"])
    capsys.readouterr()
    assert cli.main(["status"]) == 0
    out = capsys.readouterr().out
    for word in ("NOT RUNNING", "[SIMULATED]", "SIMP -2 lots", "hold        CONNECTION", "HALTED", "lunch"):
        assert word in out
    assert cli.main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["halt_flag"] == "lunch"

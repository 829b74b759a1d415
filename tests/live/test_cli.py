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
    "audit",
    "completion",
    "config-schema",
    "explain",
    "report",
    "restore",
    "rotate-key",
    "snapshot",
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
    out = " ".join(capsys.readouterr().out.split())
    assert "FAIL registry" in out
    assert "scalper publish" in out
    assert re.search(r"4 of \d+ checks failed: signing key, registry, bundle, broker", out)


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


def test_the_completion_knows_every_command_and_its_options(workspace, capsys):
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    asked = """
        COMP_WORDS=(live-runner {0}); COMP_CWORD={1}; _live_runner; echo "${{COMPREPLY[@]}}"
    """
    for words, number, expected in (
        ("au", 1, ["audit"]),
        ("audit v", 2, ["verify"]),
        ("--config x.yaml restore --ver", 4, ["--verify"]),
        ("completion ''", 2, ["bash", "zsh", "fish"]),
    ):
        done = subprocess.run(
            ["bash", "-c", script + asked.format(words, number)], capture_output=True, text=True, check=True
        )
        assert set(expected) <= set(done.stdout.split()), (words, done.stdout)
    for shell in ("zsh", "fish"):
        assert cli.main(["completion", shell]) == 0
        assert "health-check" in capsys.readouterr().out


def test_the_schema_for_editors_agrees_with_the_loader(workspace, capsys):
    jsonschema = pytest.importorskip("jsonschema")
    import yaml

    from live.config import load
    from live.config_template import ENVIRONMENTS, render
    from market.errors import ConfigError

    assert cli.main(["init-config"]) == 0
    schema = json.loads((workspace / "live.schema.json").read_text())
    assert (
        (workspace / "live.yaml").read_text().startswith("# yaml-language-server: $schema=live.schema.json")
    )
    check = jsonschema.Draft202012Validator(schema)
    check.check_schema(schema)
    for environment in ENVIRONMENTS:
        assert not list(check.iter_errors(yaml.safe_load(render(environment))))
    bad = {"risk": {"capital_base": 0}}, {"rsik": {}}, {"system": {"mode": "real"}}, {"data": {"depth": "x"}}
    for content in bad:
        assert list(check.iter_errors(content)), content
        (workspace / "bad.yaml").write_text(yaml.safe_dump(content))
        with pytest.raises(ConfigError):
            load(workspace / "bad.yaml")

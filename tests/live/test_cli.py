"""The command line: quick, teaching, one line for an expected failure."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from live import cli
from live.cli_shell import words_of
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


COMMANDS = sorted(name for name in words_of(cli._parser()) if name)


def test_the_verbs_of_the_specification_are_all_there():
    assert set(COMMANDS) == {
        "init-config", "health-check", "backtest", "record", "replay", "dashboard", "halt", "resume",
        "keygen", "encrypt", "status", "audit", "explain", "report", "snapshot", "restore", "rotate-key",
        "completion", "config-schema",
    }  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert f"example:\n  live-runner {command}" in said and "--json" in said


JSON_HERE = {
    "init-config": {"path": "live.yaml", "schema": "live.schema.json", "env": "paper"},
    "config-schema": None,
    "completion bash": None,
    "keygen": {"key_path": "keys/fernet.key"},
    "rotate-key": {"key_path": "keys/fernet.key", "keys": 2, "renewed": 0},
    "halt --reason lunch": {"halted": True, "reason": "lunch", "flag": "runtime/manual_override.flag"},
    "resume --hold LATENCY": {"halt_removed": False, "asked_to_lift": ["LATENCY"]},
    "snapshot --to copies": None,
    "health-check": None,
    "audit verify": None,
}
JSON_ELSEWHERE = {
    "backtest": "test_backtest_cli", "record": "test_record", "replay": "test_operator_day",
    "status": "test_status_reads_the_status_file", "explain": "test_operator_day",
    "report": "test_operator_day", "restore": "test_operator_day", "encrypt": "test_config_keygen",
    "dashboard": "test_the_dashboard_says_where_it_is",
}  # fmt: skip


def test_json_is_json_and_nothing_else(workspace, capsys):
    (workspace / "runtime").mkdir()
    for words, expected in JSON_HERE.items():
        assert cli.main([*words.split(), "--json"]) in (0, 1, 2), words
        found = json.loads(capsys.readouterr().out)
        assert expected is None or found == expected, words
    assert {words.split()[0] for words in JSON_HERE} | set(JSON_ELSEWHERE) == set(COMMANDS)


def test_json_may_stand_before_the_command_too(workspace, capsys):
    assert cli.main(["--json", "halt", "--reason", "lunch"]) == 0
    assert json.loads(capsys.readouterr().out)["halted"]


def test_a_failure_with_json_is_still_one_line_on_stderr(workspace, capsys):
    assert cli.main(["status", "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1


def test_a_reader_that_has_seen_enough_is_not_an_error(workspace):
    words = f"{sys.executable} -m live.cli completion bash --json | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", words], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "{\n", "")


def test_the_dashboard_says_where_it_is(workspace):
    process = subprocess.Popen(
        [sys.executable, "-m", "live.cli", "dashboard", "--port", "0", "--json"], stdout=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["url"].startswith("http://127.0.0.1:")
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


def test_only_a_hold_that_a_person_may_lift_can_be_named(workspace, capsys):
    assert cli.main(["resume", "--hold", "DAILY_LOSS"]) == 2
    assert "a person may lift VOLATILITY, LATENCY" in capsys.readouterr().err


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
    hidden = []
    for words in (["encrypt"], ["encrypt", "--json"]):
        monkeypatch.setattr("sys.stdin", io.StringIO("t.token\n"))
        assert cli.main(words) == 0
        hidden.append(capsys.readouterr().out.strip())
    assert hidden[0].startswith("enc:") and json.loads(hidden[1])["value"].startswith("enc:")
    from live import config

    assert config.load(Path("live.yaml"), [f"broker.token={hidden[0]}"]).broker.token == "t.token"


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
    found = json.loads(capsys.readouterr().out)
    assert (found["halt_flag"], found["verdict"]) == ("lunch", "bad")
    assert cli.main(["status", "--check"]) == 1


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

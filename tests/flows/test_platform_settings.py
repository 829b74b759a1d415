"""The platform's settings, its compose file, and what its commands say where nothing runs."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
import yaml

from flows import deployments, platform, prefect_api, servers, workspace
from flows.cli import main
from market.errors import ConfigError, ScalperError


def test_a_taken_port_is_one_error_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind((platform.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["up", "--prefect-port", str(port)]) == 2
    said = capsys.readouterr().err
    assert f"port {port} for Prefect cannot be used" in said and "--prefect-port" in said
    assert list(tmp_path.iterdir()) == []


def test_the_registry_server_starts_lean_and_silent() -> None:
    settings = platform.server_settings()
    assert settings["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert settings["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_settings_of_another_form_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "server.env").write_text("# fine\nNAME value\n")
    with pytest.raises(ConfigError, match=r"server\.env line 2: 'NAME value' is not NAME=value"):
        platform.server_settings(tmp_path)


def test_the_compose_file_holds_together() -> None:
    """Docker itself is asked where it can be; here: what names what, and what is open to whom."""
    text = (workspace.PROJECT / "mlflow" / "compose.yaml").read_text()
    tree = yaml.safe_load(text)
    services = tree["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", [])) <= set(services), name
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in tree["volumes"], f"{name}: {volume} is declared nowhere"
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} is open to other machines"
        for file in service.get("env_file", []):
            assert (workspace.PROJECT / "mlflow" / file).is_file()
        image = service.get("image", "")
        assert "build" in service or image.partition(":")[2] not in ("", "latest"), f"{name} is not pinned"
    assert services["db"]["configs"][0]["source"] in tree["configs"]
    # Passwords come from the environment, each is needed, and the head of the file names it.
    asked = set(re.findall(r"\$\{(\w+)", text))
    assert asked == set(re.findall(r"\$\{(\w+):\?\}", text)) and all(text.count(n) > 1 for n in asked)
    assert all(name in text.partition("services:")[0] for name in asked)
    # The same servers as the lock's, which the tests run.
    lock = (workspace.PROJECT / "requirements" / "platform.lock").read_text()
    for name, pattern in (("mlflow", r"mlflow==([\d.]+)"), ("prefect", r"prefecthq/prefect:([\d.]+)-")):
        assert f"\n{name}=={re.findall(pattern, text)[0]}" in lock
    assert "--workers 1" in services["mlflow"]["command"]


def test_addresses_move_the_data_elsewhere_and_hide_their_passwords(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in platform.ADDRESSES:
        monkeypatch.delenv(name, raising=False)
    assert platform.registry_settings(workdir=tmp_path)["registry"] == "sqlite:///runtime/mlflow/mlflow.db"
    (tmp_path / ".env").write_text(
        "MLFLOW_BACKEND_STORE_URI=postgresql://me:secret@db/mlflow\nMLFLOW_ARTIFACTS_DESTINATION=s3://b/a\nOTHER=1\n"
    )
    command = platform.mlflow_command(tmp_path, 5000)
    assert "postgresql://me:secret@db/mlflow" in command and "s3://b/a" in command
    # Clients then go through the server: only it has the database's and the bucket's keys.
    assert platform.registry_settings(workdir=tmp_path)["registry"] == "http://127.0.0.1:5000"
    monkeypatch.setenv("SCALPER_REGISTRY", "http://registry:5000")
    assert platform.registry_settings(workdir=tmp_path)["registry"] == "http://registry:5000"
    assert platform.secrets_hidden("postgresql://me:secret@db/mlflow") == "postgresql://me@db/mlflow"
    assert "OTHER" not in platform.addresses(tmp_path)


def test_without_servers_each_command_says_how_to_start_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["down"]) == 0 and main(["status"]) == 0
    said = capsys.readouterr().out
    assert "was not running" in said and "scalper up starts it" in said
    with pytest.raises(ConfigError, match="start it with `scalper up`"):
        servers.running(tmp_path)


def test_a_server_that_is_down_is_one_sentence() -> None:
    with pytest.raises(ScalperError, match=r"does not answer .*: start it with `scalper up`"):
        prefect_api.start("http://127.0.0.1:9/api", "retrain")


def test_every_deployment_explains_itself() -> None:
    pytest.importorskip("prefect")
    from flows import serve

    for one, made in zip(deployments.ALL, serve.deployments(Path.cwd()), strict=True):
        assert made.description == one.text and made.entrypoint == one.entrypoint
        properties = made._parameter_openapi_schema.properties
        assert properties["workdir"]["description"]
        lacking = [name for name, field in properties.items() if not field.get("description")]
        assert not lacking, f"{one.name}: the form does not explain {lacking}"
        assert made.concurrency_limit == 1 and "scalper" in made.tags

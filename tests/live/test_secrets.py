"""Encrypted settings and their key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from live import cli, config
from live.audit import AuditLog
from live.reporting import write_json
from live.secrets import PREFIX, KeyManager, remember
from market.errors import ConfigError


def test_there_and_back(tmp_path):
    path = tmp_path / "keys" / "fernet.key"
    hidden = KeyManager.generate(path).encrypt("t.token")
    assert hidden.startswith(PREFIX)
    assert "t.token" not in hidden
    assert KeyManager.load(path).decrypt(hidden, "broker.token") == "t.token"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_key_is_not_replaced_by_accident(tmp_path):
    path = tmp_path / "fernet.key"
    KeyManager.generate(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="could not open"):
        KeyManager.generate(path)
    assert path.read_bytes() == before
    KeyManager.generate(path, force=True)
    assert path.read_bytes() != before


def test_a_key_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "fernet.key"
    KeyManager.generate(path)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        KeyManager.load(path)


def test_messages_name_the_setting_and_not_the_secret(tmp_path):
    keys = KeyManager.generate(tmp_path / "a.key")
    other = KeyManager.generate(tmp_path / "b.key")
    hidden = keys.encrypt("t.token")
    for value in (hidden[:-4] + "AAAA", "enc:", "enc:nonsense", hidden):
        with pytest.raises(ConfigError, match=r"broker\.token") as caught:
            other.decrypt(value, "broker.token")
        assert "t.token" not in str(caught.value)


def test_a_missing_or_foreign_key_file_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="live-runner keygen"):
        KeyManager.load(tmp_path / "none.key")
    path = tmp_path / "bad.key"
    path.write_text("hello")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="does not hold a Fernet key"):
        KeyManager.load(path)


# ---- another key


def test_a_new_key_opens_the_old_secrets_and_encrypts_the_new_ones(tmp_path):
    path = tmp_path / "fernet.key"
    hidden = KeyManager.generate(path).encrypt("t.token")
    old = path.read_bytes().strip()
    keys = KeyManager.rotate(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys.count == 2 and KeyManager.load(path).decrypt(hidden, "x") == "t.token"
    with pytest.raises(ConfigError):
        KeyManager([old], "the old key alone").decrypt(keys.encrypt("new"), "x")
    KeyManager.forget_old(path)
    with pytest.raises(ConfigError, match="cannot be decrypted"):
        KeyManager.load(path).decrypt(hidden, "x")


CONFIG = """\
# a comment with enc: in it stays
broker:
  token: "{0}"  # and this one
notifications: {{token: '{1}', chat_id: {2}}}
"""


def test_rotate_key_encrypts_the_file_anew_and_changes_nothing_else(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    keys = KeyManager.generate(Path("keys/fernet.key"))
    values = [keys.encrypt(word) for word in ("t.token", "123:bot", "-1001")]
    Path("live.yaml").write_text(CONFIG.format(*values))
    Path("live.yaml").chmod(0o640)
    before = config.load(Path("live.yaml"))
    assert cli.main(["rotate-key", "--forget-old"]) == 0
    assert "3 secrets of live.yaml" in capsys.readouterr().out
    text = Path("live.yaml").read_text()
    assert not any(value in text for value in values)
    assert text.splitlines()[0] == "# a comment with enc: in it stays" and "# and this one" in text
    assert Path("live.yaml").stat().st_mode & 0o777 == 0o640
    assert config.load(Path("live.yaml")) == before


def test_forgetting_the_old_key_without_the_file_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    KeyManager.generate(Path("keys/fernet.key"))
    assert cli.main(["rotate-key", "--forget-old"]) == 2
    assert "--config" in capsys.readouterr().err


# ---- never shown


def test_enc_is_opened_anywhere_in_the_file_and_never_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keys = KeyManager.generate(Path("keys/fernet.key"))
    hidden = [keys.encrypt(word) for word in ("chat-4711-secret", "account-secret", "10.9.8.7")]
    Path("live.yaml").write_text(
        f"notifications: {{allowed_chats: [{hidden[0]}]}}\nbroker: {{account_id: {hidden[1]}}}\n"
        f"connectivity: {{primary: {{target: {hidden[2]}}}}}\n"
    )
    loaded = config.load(Path("live.yaml"))
    assert loaded.notifications.allowed_chats == ("chat-4711-secret",)
    assert (loaded.broker.account_id, loaded.connectivity.primary.target) == ("account-secret", "10.9.8.7")
    shown = json.dumps(config.to_dict(loaded)) + repr(loaded)
    assert not any(word in shown for word in ("chat-4711", "account-secret", "10.9.8.7"))


def test_known_secrets_are_taken_out_of_whatever_is_written(tmp_path, capsys, monkeypatch):
    remember("t.very-secret-token")
    log = AuditLog(tmp_path / "audit.log", "s")
    log.write(1, "ORDER", "X", {"reason": "401 for t.very-secret-token"})
    log.close()
    write_json(tmp_path / "status.json", {"error": "t.very-secret-token is wrong"})
    monkeypatch.chdir(tmp_path)
    assert cli.main(["--model", "prod", "--set", "model.registry=t.very-secret-token"]) == 2
    told = (
        capsys.readouterr().err
        + (tmp_path / "audit.log").read_text()
        + (tmp_path / "status.json").read_text()
    )
    assert "very-secret" not in told and told.count("***") == 3


def test_what_init_config_left_open_is_named_and_no_hindrance_to_another_key(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init-config", "--env", "sandbox"]) == cli.main(["keygen"]) == 0
    assert cli.main(["health-check"]) == 2
    assert "broker.token is still what `live-runner init-config` wrote" in capsys.readouterr().err
    assert cli.main(["rotate-key", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"key_path": "keys/fernet.key", "keys": 2, "renewed": 0}

"""Encrypted settings and their key."""

from __future__ import annotations

import pytest

from live.secrets import PREFIX, KeyManager
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

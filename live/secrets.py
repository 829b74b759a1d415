"""Secrets at rest: values of the form ``enc:<Fernet token>`` and the key file that opens them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from cryptography.fernet import Fernet, InvalidToken

from market.errors import ConfigError

PREFIX = "enc:"


class KeyManager:
    """One Fernet key. The key file is readable by its owner only."""

    def __init__(self, key: bytes, origin: str) -> None:
        try:
            self._fernet = Fernet(key)
        except ValueError:
            raise ConfigError(
                f"{origin} does not hold a Fernet key (32 bytes in URL-safe base64); "
                "make one with `live-runner keygen`"
            ) from None
        self._origin = origin

    @classmethod
    def generate(cls, path: Path, *, force: bool = False) -> Self:
        """Writes a new key to ``path`` (mode 0600); refuses to replace one: its secrets would be lost."""
        if path.exists() and not force:
            raise ConfigError(
                f"{path} exists; a new key could not open what the old one encrypted (--force replaces it)"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        key = Fernet.generate_key()
        part = path.with_name(path.name + ".part")
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key + b"\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        return cls(key, str(path))

    @classmethod
    def load(cls, path: Path) -> Self:
        """The key in ``path``; ConfigError if it is missing or others can read it."""
        try:
            mode = path.stat().st_mode
            key = path.read_bytes().strip()
        except OSError as error:
            raise ConfigError(
                f"cannot read the Fernet key {path} ({error.strerror}); set security.key_path or run "
                "`live-runner keygen`"
            ) from None
        if mode & 0o077:
            raise ConfigError(f"others can read the key {path}; run `chmod 600 {path}`")
        return cls(key, str(path))

    def encrypt(self, text: str) -> str:
        """``enc:...`` for the configuration file."""
        return PREFIX + self._fernet.encrypt(text.encode()).decode("ascii")

    def decrypt(self, value: str, name: str) -> str:
        """The clear text of an ``enc:...`` value; ``name`` is the setting, for the message."""
        try:
            return self._fernet.decrypt(value.removeprefix(PREFIX).encode()).decode()
        except (InvalidToken, ValueError):
            raise ConfigError(
                f"{name} cannot be decrypted with {self._origin}: the value was altered or made with another "
                "key; "
                "encrypt it again with `live-runner encrypt`"
            ) from None

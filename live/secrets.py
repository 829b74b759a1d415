"""Secrets at rest: values of the form ``enc:<Fernet token>`` and the key file that opens them.

The key file holds one key a line, the newest first: what is encrypted uses the newest, what is opened may be
of any of them, so a key is exchanged without a moment in which the file cannot be read. In memory every
secret is known to ``redacted``, which takes it out of whatever is about to be written or shown.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Self

from market.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

PREFIX = "enc:"
PLACEHOLDER = PREFIX + "put-the-output-of-live-runner-encrypt-here"
"""What `init-config` writes where a secret belongs."""
HIDDEN = "***"
MIN_SECRET_CHARS = 6
"""Shorter values are not taken out of texts: they would take half of the words with them."""
_TOKEN = re.compile(r"enc:[A-Za-z0-9_\-]{20,}={0,2}")
_known: set[str] = set()


class Secret(str):
    """A decrypted value: text like any other for whoever needs it, ``***`` where it is only shown."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(HIDDEN)


def remember(value: str) -> Secret:
    """Makes ``value`` known, so that ``redacted`` takes it out of texts."""
    if len(value) >= MIN_SECRET_CHARS:
        _known.add(str(value))
    return Secret(value)


def redacted(text: str) -> str:
    """``text`` without any known secret."""
    for secret in tuple(_known):
        if secret in text:
            text = text.replace(secret, HIDDEN)
    return text


class KeyManager:
    """The keys of one file. It is readable by its owner only."""

    def __init__(self, keys: list[bytes], origin: str) -> None:
        from cryptography.fernet import Fernet, MultiFernet

        try:
            self._fernet: MultiFernet = MultiFernet([Fernet(key) for key in keys])
        except ValueError:
            raise ConfigError(
                f"{origin} does not hold a Fernet key (32 bytes in URL-safe base64); "
                "make one with `live-runner keygen`"
            ) from None
        self._keys, self._origin = keys, origin

    @classmethod
    def generate(cls, path: Path, *, force: bool = False) -> Self:
        """Writes a new key to ``path`` (mode 0600); refuses to replace one: its secrets would be lost."""
        if path.exists() and not force:
            raise ConfigError(
                f"{path} exists; a new key could not open what the old one encrypted (`live-runner "
                "rotate-key` exchanges it, --force replaces it)"
            )
        return cls._written(path, [_new_key()])

    @classmethod
    def load(cls, path: Path) -> Self:
        """The keys in ``path``; ConfigError if it is missing or others can read it."""
        try:
            mode = path.stat().st_mode
            keys = path.read_bytes().split()
        except OSError as error:
            raise ConfigError(
                f"cannot read the Fernet key {path} ({error.strerror}); set security.key_path or run "
                "`live-runner keygen`"
            ) from None
        if mode & 0o077:
            raise ConfigError(f"others can read the key {path}; run `chmod 600 {path}`")
        return cls(keys, str(path))

    @classmethod
    def rotate(cls, path: Path) -> Self:
        """Puts a new key in front of those in ``path``: it encrypts from now on, the old ones still open."""
        return cls._written(path, [_new_key(), *cls.load(path)._keys])

    @classmethod
    def forget_old(cls, path: Path) -> Self:
        """Keeps the newest key only; what an older one encrypted cannot be opened any more."""
        return cls._written(path, cls.load(path)._keys[:1])

    @classmethod
    def _written(cls, path: Path, keys: list[bytes]) -> Self:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_private(path, b"".join(key + b"\n" for key in keys))
        return cls(keys, str(path))

    @property
    def count(self) -> int:
        return len(self._keys)

    def encrypt(self, text: str) -> str:
        """``enc:...`` for the configuration file."""
        return PREFIX + self._fernet.encrypt(text.encode()).decode("ascii")

    def decrypt(self, value: str, name: str) -> Secret:
        """The clear text of an ``enc:...`` value; ``name`` is the setting, for the message."""
        from cryptography.fernet import InvalidToken

        if value == PLACEHOLDER:
            raise ConfigError(
                f"{name} is still what `live-runner init-config` wrote: put the output of "
                "`live-runner encrypt` there"
            )
        try:
            return remember(self._fernet.decrypt(value.removeprefix(PREFIX).encode()).decode())
        except (InvalidToken, ValueError):
            raise ConfigError(
                f"{name} cannot be decrypted with {self._origin}: the value was altered or made with another "
                "key; encrypt it again with `live-runner encrypt`"
            ) from None

    def renew(self, text: str, origin: str) -> tuple[str, int]:
        """``text`` (a configuration file) with every ``enc:`` value made anew with the newest key.

        Returns it and how many there were; nothing else changes, comments and order stay.
        """
        renewed = 0

        def again(match: re.Match[str]) -> str:
            nonlocal renewed
            if match.group() == PLACEHOLDER:
                return PLACEHOLDER
            renewed += 1
            line = text.count("\n", 0, match.start()) + 1
            return self.encrypt(self.decrypt(match.group(), f"{origin}, line {line}"))

        return _TOKEN.sub(again, text), renewed


def replace_file(path: Path, text: str) -> None:
    """Whole or not at all, with the rights that the file had."""
    mode = path.stat().st_mode & 0o777
    _write_private(path, text.encode(), mode)


def _new_key() -> bytes:
    from cryptography.fernet import Fernet

    return Fernet.generate_key()


def _write_private(path: Path, content: bytes, mode: int = 0o600) -> None:
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)

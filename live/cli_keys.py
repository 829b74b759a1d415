"""`live-runner keygen`, `encrypt` and `rotate-key`: the secrets of the configuration file."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from market.errors import ConfigError


def add(command: Any, load: Any) -> None:
    """Registers the verbs."""
    sub = command(
        "keygen", lambda args: _keygen(load(args, decrypt=False), args),
        "make the Fernet key of enc: values", "keygen",
    )  # fmt: skip
    sub.add_argument("--force", action="store_true", help="replace the key (what it encrypted is lost)")

    command(
        "encrypt", lambda args: _encrypt(load(args, decrypt=False), args),
        "encrypt a secret read from the keyboard or stdin", "encrypt < token.txt",
    )  # fmt: skip

    sub = command(
        "rotate-key", lambda args: _rotate(load(args, decrypt=False), args),
        "make a new Fernet key and encrypt the secrets of the file anew",
        "rotate-key --config live.yaml            the old key stays, for copies of the file\n"
        "  live-runner rotate-key --forget-old               and is forgotten",
    )  # fmt: skip
    sub.add_argument("--forget-old", action="store_true", help="keep the new key only")


def _keygen(config: Any, args: argparse.Namespace) -> int:
    from live.secrets import KeyManager

    path = Path(config.security.key_path)
    KeyManager.generate(path, force=args.force)
    if args.json:
        print(json.dumps({"key_path": str(path)}))
    else:
        print(
            f"wrote {path} (readable by you only); keep a copy elsewhere: what it encrypts cannot be read "
            "without it"
        )
    return 0


def _encrypt(config: Any, args: argparse.Namespace) -> int:
    import getpass

    from live.secrets import KeyManager

    keys = KeyManager.load(Path(config.security.key_path))
    text = getpass.getpass("secret: ") if sys.stdin.isatty() else sys.stdin.read()
    if not text.strip():
        raise ConfigError("nothing to encrypt: type the secret, or give it on stdin")
    hidden = keys.encrypt(text.strip())
    print(json.dumps({"value": hidden}) if args.json else hidden)
    return 0


def _rotate(config: Any, args: argparse.Namespace) -> int:
    from live.secrets import KeyManager, replace_file

    key_path = Path(config.security.key_path)
    file: Path | None = args.config or (Path("live.yaml") if Path("live.yaml").exists() else None)
    if args.forget_old and file is None:
        raise ConfigError(
            "name the file with --config: what the old key encrypted could not be opened any more"
        )
    keys = KeyManager.rotate(key_path)
    renewed = 0
    if file is not None:
        text, renewed = keys.renew(file.read_text(encoding="utf-8"), str(file))
        if renewed:
            replace_file(file, text)
    if args.forget_old:
        keys = KeyManager.forget_old(key_path)
    if args.json:
        print(json.dumps({"key_path": str(key_path), "keys": keys.count, "renewed": renewed}))
        return 0
    print(f"{key_path} holds {keys.count} key{'s' if keys.count > 1 else ''}, the newest encrypts")
    if file is not None:
        print(f"{renewed} secret{'' if renewed == 1 else 's'} of {file} encrypted with it")
    else:
        print("no configuration file was given: encrypt its secrets again, or name it with --config")
    return 0

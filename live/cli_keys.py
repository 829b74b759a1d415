"""`live-runner rotate-key`: another Fernet key, with the configuration file encrypted anew."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from market.errors import ConfigError


def add(command: Any, load: Any) -> None:
    """Registers the verb."""
    sub = command(
        "rotate-key", lambda args: _rotate(load(args, decrypt=False), args),
        "make a new Fernet key and encrypt the secrets of the file anew",
        "rotate-key --config live.yaml            the old key stays, for copies of the file\n"
        "  live-runner rotate-key --forget-old               and is forgotten",
    )  # fmt: skip
    sub.add_argument("--forget-old", action="store_true", help="keep the new key only")
    sub.add_argument("--json", action="store_true", help="for scripts")


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

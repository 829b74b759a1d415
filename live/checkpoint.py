"""The runner's state across restarts: one JSON file, written atomically, with a checksum over its content."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

from market.errors import ScalperError

FORMAT = 1
MAX_BYTES = 64_000_000


class CheckpointError(ScalperError):
    """The checkpoint exists but cannot be trusted."""


_WRITING = threading.Lock()


def save(path: Path, body: dict[str, Any]) -> None:
    """Replaces the checkpoint (temporary file, fsync, rename): a crash leaves the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = _canonical(body)
    document = f'{{"format":{FORMAT},"sha256":"{_digest(text)}","body":{text}}}\n'
    part = path.with_name(path.name + ".part")
    with _WRITING:  # a thread whose task was cancelled may still be at it
        with open(part, "w", encoding="utf-8") as file:
            file.write(document)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load(path: Path) -> dict[str, Any] | None:
    """The checkpoint, None where there is none. Raises CheckpointError for one that is damaged or of another
    format.
    """
    way_out = (
        f"Risk counters and holds of the last session are unknown. Restore {path.name} from a backup, or "
        "move it "
        "away; the runner then starts halted until `live-runner resume`"
    )
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(f"the checkpoint {path} is larger than {MAX_BYTES} bytes. {way_out}")
        document = json.loads(path.read_text(encoding="utf-8"))
        version, digest, body = document["format"], document["sha256"], document["body"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read ({error}). {way_out}") from None
    if version != FORMAT:
        raise CheckpointError(
            f"the checkpoint {path} has format {version}, this runner reads {FORMAT}. {way_out}"
        )
    if not isinstance(body, dict) or _digest(_canonical(body)) != digest:
        raise CheckpointError(f"the checkpoint {path} does not match its checksum. {way_out}")
    return body


def set_aside(path: Path) -> Path:
    """Moves a damaged checkpoint out of the way, keeping it for inspection; returns where it went."""
    for n in range(1, 1000):
        target = path.with_name(f"{path.name}.damaged-{n}")
        if not target.exists():
            path.replace(target)
            return target
    raise CheckpointError(
        f"a thousand damaged checkpoints lie beside {path}; look at the disk, then remove them"
    )


def _canonical(body: Any) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

"""One partition of the features, an instrument's day: computed, or kept as nothing that made it has changed.

Beside ``<day>.npz`` lies ``<day>.json``: the hash of what went in (the recorded day, its leader's, the code,
the libraries) and of what came out. A new day of a recording so costs one day, and a stage that was killed
goes on where it was.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from features import schema
from features.batch import compute
from market.recording import Recording

CODE = ("features", "market/recording", "market/stream.py", "market/types.py", "market/venues.py")
"""What decides about the bytes of a partition, besides the recorded days."""
LIBRARIES = ("numpy", "numba", "pyarrow")


@dataclass(frozen=True, slots=True)
class Part:
    """What a worker is told: paths (absolute) and names. ``maker``: hash of code and libraries."""

    recording: str
    before: str
    into: str
    ticker: str
    day: str
    leader: str | None
    maker: str


@dataclass(frozen=True, slots=True)
class Made:
    """What lies beside a partition: ``inputs`` and ``sha256`` are hashes, ``usable`` a share of its rows."""

    inputs: str
    sha256: str
    rows: int
    usable: float


def maker() -> str:
    """SHA-256 (hex) of the schema, the code and the libraries that compute features."""
    project = Path(__file__).resolve().parents[1]
    total = hashlib.sha256(schema.schema_hash().encode())
    for name in CODE:
        found = project / name
        for path in sorted(found.rglob("*.py")) if found.is_dir() else [found]:
            total.update(f"{path.relative_to(project).as_posix()}\0{_sha256(path)}\n".encode())
    for name in LIBRARIES:
        total.update(f"{name}=={importlib.metadata.version(name)}\n".encode())
    return total.hexdigest()


def parts(recording: Recording, leaders: dict[str, str], before: Path, into: Path) -> list[Part]:
    """Every instrument-day of ``recording``, in order. ``before``: where an earlier run's partitions lie."""
    days_of, made_by = recording.info.days, maker()

    def leader_of(ticker: str, day: str) -> str | None:
        leader = leaders.get(ticker)
        return leader if leader is not None and day in days_of[leader] else None

    return [
        Part(
            str(recording.path.resolve()), str(before.resolve()), str(into.resolve()), ticker, day,
            leader_of(ticker, day), made_by,
        )
        for ticker, days in sorted(days_of.items())
        for day in days
    ]  # fmt: skip


def build(part: Part) -> tuple[Made, bool]:
    """Put the partition into ``part.into``; also whether it was there already or taken over as it was."""
    recording = Recording.open(Path(part.recording))
    inputs = _inputs(recording, part)
    target = Path(part.into) / part.ticker / f"{part.day}.npz"
    for folder in (Path(part.into), Path(part.before)):
        found = folder / part.ticker / f"{part.day}.npz"
        made = _intact(found, inputs)
        if made is not None:
            if found != target:
                _take_over(found, target)
                _write(made, target)
            return made, True
    leader = recording.read(part.leader, part.day) if part.leader is not None else None
    table = compute(recording.read(part.ticker, part.day), leader)
    table.save(target)
    made = Made(inputs, _sha256(target), len(table), round(float(table.usable.mean()), 6))
    _write(made, target)
    return made, False


@contextmanager
def growing(final: Path) -> Iterator[Path]:
    """A folder that takes the place of ``final`` when the block ends without an error, and that otherwise
    stays beside it for the next run to go on with: each partition in it is whole or not there."""
    draft = final.with_name(f".{final.name}.draft")
    draft.mkdir(parents=True, exist_ok=True)
    yield draft
    if final.exists():
        shutil.rmtree(final)
    draft.rename(final)


def forget_others(folder: Path, kept: Sequence[Part]) -> None:
    """Remove what an earlier run left in ``folder`` for days or instruments that are gone."""
    wanted = {folder / p.ticker / f"{p.day}{suffix}" for p in kept for suffix in (".npz", ".json")}
    for path in [p for p in folder.rglob("*") if p.is_file() and p not in wanted]:
        path.unlink()
    for path in [p for p in folder.iterdir() if p.is_dir() and not any(p.iterdir())]:
        path.rmdir()


def _inputs(recording: Recording, part: Part) -> str:
    total = hashlib.sha256(part.maker.encode())
    for ticker in (part.ticker, part.leader):
        names = recording.info.files(ticker, part.day) if ticker is not None else ()
        for name in sorted(names):
            total.update(f"{ticker}\0{Path(name).name}\0{_sha256(recording.path / name)}\n".encode())
    return total.hexdigest()


def _intact(path: Path, inputs: str) -> Made | None:
    """What lies beside ``path`` if both are what they were and came of ``inputs``."""
    try:
        made = Made(**json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))
        return made if made.inputs == inputs and made.sha256 == _sha256(path) else None
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _take_over(found: Path, target: Path) -> None:
    """A second name for the same file; where the file system has none, a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(target.name + ".part")
    draft.unlink(missing_ok=True)
    try:
        os.link(found.resolve(), draft)
    except OSError:
        shutil.copyfile(found, draft)
    draft.replace(target)


def _write(made: Made, target: Path) -> None:
    path = target.with_suffix(".json")
    draft = path.with_name(path.name + ".part")
    draft.write_text(json.dumps(asdict(made), sort_keys=True) + "\n", encoding="utf-8")
    draft.replace(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

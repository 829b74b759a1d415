"""One partition of the features, an instrument's day: computed, or kept as what made it has not changed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from features import schema
from features.batch import compute
from flows import partitions
from market.recording import Recording

CODE = (
    "features", "flows/compute_features.py", "flows/partitions.py", "market/recording", "market/stream.py",
    "market/types.py", "market/venues.py",
)  # fmt: skip
"""What decides about the bytes of a partition and what is told of it, besides the recorded days."""
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
    """What is told of a partition; ``usable`` is a share of its rows."""

    rows: int
    usable: float


def maker() -> str:
    """SHA-256 (hex) of the schema, the code and the libraries that compute features."""
    return partitions.maker(CODE, LIBRARIES, schema.schema_hash())


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
    seen = [ticker for ticker in (part.ticker, part.leader) if ticker is not None]
    made_of = partitions.inputs(part.maker, recording, part.day, *seen)
    path = Path(part.ticker) / f"{part.day}.npz"
    target = Path(part.into) / path
    made = partitions.kept(target, made_of, [Path(part.before) / path], Made)
    if made is not None:
        return made, True
    leader = recording.read(part.leader, part.day) if part.leader is not None else None
    table = compute(recording.read(part.ticker, part.day), leader)
    table.save(target)
    made = Made(len(table), round(float(table.usable.mean()), 6))
    partitions.note(target, made_of, asdict(made))
    return made, False

"""Features of a recorded day: a compiled loop over the very step that the live stream calls."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from features.kernel import F32, I32, I64, new_state, run
from features.leader import quotes
from features.schema import DUPLICATE, F, schema_hash
from market.errors import RecordingError
from market.stream import merge
from market.types import Books, InstrumentDay

D = TypeVar("D", bound=np.generic)


@dataclass(slots=True)
class FeatureTable:
    """One row per book snapshot, in the order of the day.

    ``recv_ns`` int64 [n]; ``X`` float32 [n, F] (NaN = masked); ``status`` uint8 [n]; ``mid2`` int64 [n] = bid
    + ask in ticks, 0 if one-sided; ``spread`` int32 [n] in ticks, 0 if one-sided, not positive if crossed.
    """

    recv_ns: I64
    X: F32
    status: NDArray[np.uint8]
    mid2: I64
    spread: I32

    def __len__(self) -> int:
        return len(self.recv_ns)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Rows that may be fed to a model."""
        return (self.status & ~np.uint8(DUPLICATE)) == 0

    def save(self, path: Path) -> None:
        """Write ``path`` (.npz), byte-deterministic, through a temporary name of its own."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        try:
            with temporary.open("wb") as stream:
                np.savez(
                    stream,
                    schema=np.array(schema_hash()),
                    **{f.name: getattr(self, f.name) for f in fields(self)},
                )
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what ``save`` wrote; RecordingError when it is missing, of another schema, or holds anything
        that the schema does not name (a simulator's oracle, for one)."""
        if not path.is_file():
            raise RecordingError(f"no features at {path}: run the stage 'features' first")
        with np.load(path) as stored:
            if str(stored["schema"]) != schema_hash():
                raise RecordingError(
                    f"{path} was computed with feature schema {str(stored['schema'])[:12]}, this program has "
                    f"{schema_hash()[:12]}: run the stage 'features' again"
                )
            foreign = sorted(set(stored.files) - {"schema", *(f.name for f in fields(cls))})
            if foreign:
                raise RecordingError(f"{path} holds {', '.join(foreign)}, which is no part of the features")
            table = cls(**{f.name: stored[f.name] for f in fields(cls)})
        if table.X.shape != (len(table), F):
            raise RecordingError(
                f"{path} has a table of {list(table.X.shape)}; "
                f"{len(table)} rows of the schema's {F} features "
                "were expected: run the stage 'features' again"
            )
        return table


def compute(day: InstrumentDay, leader: InstrumentDay | None = None) -> FeatureTable:
    """Features of every snapshot of ``day``, from a fresh state: byte-equal to a ``FeatureStream``.

    ``leader``: the same day of the instrument that moves first; without it its columns are masked.
    """
    books, trades = day.books, day.trades
    n = len(books)
    kind, row = merge(books, trades)
    X = np.empty((n, F), np.float32)
    status = np.zeros(n, np.uint8)
    bid_px, bid_qty = _own(books.bid_px, np.int32), _own(books.bid_qty, np.int32)
    ask_px, ask_qty = _own(books.ask_px, np.int32), _own(books.ask_qty, np.int32)
    leader_ns, leader_mid2 = quotes(leader.books if leader is not None else Books.empty())
    fs, st = new_state(day.instrument.kind)
    run(
        fs, st, _own(kind, np.int8), _own(row, np.int64),
        _own(books.recv_ns, np.int64), bid_px, bid_qty, ask_px, ask_qty, _own(books.flags, np.uint8),
        _own(trades.recv_ns, np.int64), _own(trades.px, np.int32), _own(trades.qty, np.int32),
        _own(trades.side, np.int8), leader_ns, leader_mid2, X, status,
    )  # fmt: skip
    two_sided = (bid_qty[:, 0] > 0) & (ask_qty[:, 0] > 0)
    bid, ask = bid_px[:, 0].astype(np.int64), ask_px[:, 0].astype(np.int64)
    return FeatureTable(
        recv_ns=np.array(books.recv_ns, np.int64),
        X=X,
        status=status,
        mid2=np.where(two_sided, bid + ask, 0),
        spread=np.where(two_sided, ask - bid, 0).astype(np.int32),
    )


def _own(values: NDArray[D], dtype: type[D]) -> NDArray[D]:
    """Contiguous and writable, as the kernel was compiled for; a copy only where it is needed."""
    return np.require(values, dtype, ["C", "W"])

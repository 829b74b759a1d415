"""Features of one instrument, one event at a time: what the runner, the backtest and replay call."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from features.kernel import F_SIZE, I_SIZE, WRONG_SHAPE, new_state, step_book, step_leader, step_trade
from features.layout import F_KEPT, KEPT, LEADER_FROM, NONE
from features.schema import F, schema_hash
from market.errors import ScalperError
from market.types import DEPTH


class FeatureStream:
    """The kernel with the state of one instrument. Not for several threads.

    ``kind``: ``Instrument.kind``, whose venue's usual day the session columns tell; None masks them.
    """

    def __init__(self, kind: str | None = None) -> None:
        self._kind = kind
        self._fs, self._st = new_state(kind)
        # The kernel is compiled for writable contiguous int32 rows. A caller that has them is served without
        # a copy; at the first view, list or other type this stream turns to copying.
        self._copying = False
        self._step: Any = step_book
        self._book = np.zeros((4, DEPTH), np.int32)
        self._bid_px, self._bid_qty, self._ask_px, self._ask_qty = self._book

    def on_book(
        self,
        recv_ns: int,
        bid_px: ArrayLike,
        bid_qty: ArrayLike,
        ask_px: ArrayLike,
        ask_qty: ArrayLike,
        flags: int,
        out: NDArray[np.float32],
    ) -> int:
        """Take one snapshot (int32 [DEPTH] each, best first, absent = size 0) and write ``out`` float32 [F].

        Returns the status bits of ``features.schema``; 0 (or DUPLICATE alone) means a row fit for a model.
        Masked features are NaN; a rejected book leaves the whole row NaN.
        """
        if not self._copying:
            try:
                status: int = self._step(
                    self._fs, self._st, recv_ns, bid_px, bid_qty, ask_px, ask_qty, flags, out
                )  # fmt: skip
            except TypeError:
                self._copying = True
            else:
                if status == WRONG_SHAPE:
                    raise ValueError(
                        f"a book has {DEPTH} levels a side and a row {F} columns: one is shorter"
                    )
                return status
        self._bid_px[:] = bid_px
        self._bid_qty[:] = bid_qty
        self._ask_px[:] = ask_px
        self._ask_qty[:] = ask_qty
        return step_book(
            self._fs, self._st, recv_ns, self._bid_px, self._bid_qty, self._ask_px, self._ask_qty, flags, out
        )  # fmt: skip

    def on_trade(self, recv_ns: int, px: int, qty: int, side: int) -> None:
        """Take one trade: ticks, lots, aggressor (0 unknown). One that goes back in time is left out."""
        step_trade(self._fs, self._st, recv_ns, px, qty, side)

    def on_leader(self, recv_ns: int, mid2: int) -> None:
        """Take a quote of the leader: ``features.leader.quote`` of its book. Books later than it see it; one
        that goes back in time is left out."""
        step_leader(self._fs, self._st, recv_ns, mid2)

    def forget_leader(self) -> None:
        """Another leader comes, or none: what was known of the old one is no part of it."""
        self._fs[:F_KEPT] = 0.0
        self._st[LEADER_FROM:KEPT] = NONE

    def reset(self) -> None:
        """Forget everything, the clock too: the next book starts a new warm-up."""
        self._fs, self._st = new_state(self._kind)

    def state(self) -> dict[str, NDArray[np.float64] | NDArray[np.int64] | str]:
        """A copy of the state, to be given to ``restore`` of another stream."""
        return {"schema": schema_hash(), "fstate": self._fs.copy(), "istate": self._st.copy()}

    def restore(self, state: dict[str, NDArray[np.float64] | NDArray[np.int64] | str]) -> None:
        """Go on from ``state``: the rows that follow equal, to the bit, those of the stream it came from."""
        if state.get("schema") != schema_hash():
            raise ScalperError(
                f"feature state of schema {str(state.get('schema'))[:12]} does not fit this program's "
                f"{schema_hash()[:12]}: start the stream afresh, it warms up in two minutes"
            )
        fs = np.array(state["fstate"], np.float64)
        st = np.array(state["istate"], np.int64)
        if fs.shape != (F_SIZE,) or st.shape != (I_SIZE,):
            raise ScalperError(
                f"feature state has shapes {fs.shape} and {st.shape}: it was damaged, start afresh"
            )
        self._fs, self._st = fs, st

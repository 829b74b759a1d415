"""Where everything lies: the state of one instrument in two flat arrays, and the columns of a row.

Times and prices are whole numbers, flows and variances real ones. Column numbers come from ``schema``, so
that the order of the declaration is the order of the rows.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from features import schema
from market.types import DEPTH

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
I32 = NDArray[np.int32]

# Divisors are sizes and distances, positive by construction: no check for zero inside the step. Without
# Numba's runtime an array is a plain pointer: nothing counts references (a quarter of a step's time), and
# code that would allocate does not compile.
JIT: Final[dict[str, Any]] = {"error_model": "numpy", "_nrt": False}
jit = njit(**JIT)

N_COLUMNS: Final = schema.F
LEVELS: Final = schema.OFI_LEVELS
SLOPE_LEVELS: Final = 10
COST_LEVEL_SIZES: Final = 3.0
SPREAD_CAP_TICKS: Final = 8
RACE: Final = math.sqrt((1 - 0.5) / (1 + 0.5))
RACE_NORM: Final = 2 * math.atan(RACE)
GRID_NS: Final = 250_000_000
"""Mids are remembered on this grid: a return over w seconds spans w to w + 0.25 s, never less."""
PER_SECOND: Final = 4
DAY_S: Final = 86_400
MOSCOW_NS: Final = 3 * 3600 * 1_000_000_000
# Weight exp(-d/5) of a price d ticks from mid, by half ticks; beyond the table it is under 3e-6, taken as
# none.
ALIGN_WEIGHT: Final = np.array([math.exp(-h / 10) for h in range(128)])
LOG_OF_LOTS: Final = np.array([math.log(1.0 + lots) for lots in range(4096)])
"""log(1 + lots), the very values of ``math.log``: half of a step's logarithms are of small whole numbers."""
DEPTH_WEIGHT: Final = np.array([math.exp(-m / 2) for m in range(LEVELS)])
VOL_DECAY: Final = np.array([math.exp(-1 / w) for w in schema.VOL_WINDOWS_S])
RETURN_S: Final = np.array(schema.RETURN_WINDOWS_S, np.int64)

# Whole numbers in the state.
NONE: Final = -(1 << 62)
CLOCK, VALID_NS, WARM_FROM, HAS_PREV, MID2, SPREAD = 0, 1, 2, 3, 4, 5
SPREAD_NS, MID_NS, GRID, GRID_FILLED, LAST_TRADE = 6, 7, 8, 9, 10
RING: Final = 16
RING_SIZE: Final = 256
PREV: Final = RING + RING_SIZE
I_SIZE: Final = PREV + 4 * DEPTH

# Real numbers in the state: flows of 5 levels and one aligned flow per window, then trades, then the rest.
N_FLOW: Final = len(schema.FLOW_WINDOWS_S)
N_TRADE: Final = len(schema.TRADE_WINDOWS_S)
N_VOL: Final = len(schema.VOL_WINDOWS_S)
FLOW: Final = 0
FLOW_STRIDE: Final = LEVELS + 1
TRADE: Final = FLOW + N_FLOW * FLOW_STRIDE
INTENSITY: Final = TRADE + 2 * N_TRADE
MEAN_DEPTH: Final = INTENSITY + 2 * len(schema.INTENSITY_WINDOWS_S)
DEPTH_NOW: Final = MEAN_DEPTH + 1
VARIANCE: Final = DEPTH_NOW + 1
VARIANCE_WEIGHT: Final = VARIANCE + N_VOL
F_SIZE: Final = VARIANCE_WEIGHT + N_VOL

# _advance spells these windows out, as powers of one exponential.
assert (schema.FLOW_WINDOWS_S, schema.TRADE_WINDOWS_S) == ((1, 5, 20), (1, 5, 20, 60))
assert schema.INTENSITY_WINDOWS_S == (1, 10)

_column = schema.NAMES.index
C_OFI: Final = _column("ofi_l1_1s")
C_ALIGNED: Final = _column("aligned_flow_1s")
C_IMBALANCE: Final = _column("imbalance_l1")
C_IMBALANCE_5: Final = _column("imbalance_d5")
C_WEIGHTED_MID: Final = _column("weighted_mid_dev")
C_RACE: Final = _column("queue_race_up")
C_SLOPE: Final = _column("slope_bid")
C_COST: Final = _column("cost_diff")
C_TRADE: Final = _column("trade_flow_1s")
C_INTENSITY: Final = _column("intensity_buy_1s")
C_VOL: Final = _column("vol_10s")
C_VOL_RATIO: Final = _column("vol_ratio")
C_RETURN: Final = _column("return_1s")
C_LAST_TRADE: Final = _column("last_trade_dev")
C_SPREAD: Final = _column("spread_ticks")
C_SPREAD_BPS: Final = _column("spread_bps")
C_SINCE_SPREAD: Final = _column("since_spread_change")
C_SINCE_MID: Final = _column("since_mid_change")
C_DAY: Final = _column("day_sin")
